// Packed codes as tensors, and tables that code a derivative.
#pragma once
#include <memory>
#include <vector>

#include "cpu/code_table.h"
#include "families/map.h"
#include "families/map_saved.h"

namespace pb {

const CodeKernels& code_kernels();

// The codes of a tensor of integers, in row-major order: uint32[code_words(size, bits)] (Note [Planes]).
Tensor pack_codes(const Tensor& codes, int64_t bits);
// The first n codes of such words: uint8[n].
Tensor unpack_codes(const Tensor& words, int64_t bits, int64_t n);

// A table as backward needs it (Note [Codes of a derivative]): pieces of the line, their labels, the derivative of
// each label and, for a code of order 2, the second derivative. A random code has no pieces: the derivative is rounded
// to a level beside it, so that its mean is right.
//
// Note [What a code does at the ends]
// The outer pieces are half lines, so +-inf have the outer levels. NaN compares false with every boundary and has the
// level of the first piece: y is NaN and tells. A random code rounds a derivative beyond its levels to the last one.
class Code {
 public:
  Code(int64_t bits, std::vector<double> boundaries, std::vector<int64_t> labels, std::vector<double> levels,
       std::vector<double> second, bool random);
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  int bits() const { return table_.bits; }
  int order() const { return second_.empty() ? 1 : 2; }
  bool random() const { return random_; }
  const CodeTable& table() const { return table_; }
  const float* level(int order) const { return order == 1 ? levels_.data() : second_.data(); }
  const float* ascending() const { return ascending_.data(); }
  const uint8_t* ranks() const { return ranks_.data(); }

 private:
  CodeTable table_;
  std::vector<float> bounds_, levels_, second_, flips_, ascending_;
  std::vector<uint8_t> labels_, ranks_;
  bool random_;
};
using CodeRef = std::shared_ptr<const Code>;

// The code that a call keeps: what `s` asks for, or none where there is none (float64, an op without table, a higher
// order announced). The tables are the Python side's, reached through `code_lookup`.
CodeRef code_for(const MapOp& op, const double* params, DType dtype, const Saving& s);
using CodeLookup = CodeRef (*)(const MapOp& op, const double* params, const Saving& s);
extern CodeLookup code_lookup;
// A slot for words that were written with this code.
Saved saved_code(const Tensor& words, const CodeRef& code);

// y = op(x) into `out` (which may be x) and the words of x's codes, in one pass; y has the bits it has without codes.
// float32, bfloat16, float16, any layout of x; outside the graph.
Tensor coded_forward(const MapOp& op, const Tensor& out, const Tensor& x, const double* params, const Code& code,
                     Generator* rng = nullptr);
// g times the level of each code, of g's shape, outside the graph. order 2: the second derivative's level.
Tensor coded_pull(const Code& code, const Tensor& words, const Tensor& g, DType result, int order = 1);
void coded_pull_into(const Code& code, const Tensor& words, const Tensor& g, const Tensor& out, int order = 1);
// The same as one step of a graph: its own derivatives are by g and, with a code of order 2, by x. `x` has the place
// in the graph of the input that was coded; its data is not read.
Tensor coded_graph_pull(const CodeRef& code, const Tensor& words, const Tensor& g, const Tensor& x, DType result);

}  // namespace pb
