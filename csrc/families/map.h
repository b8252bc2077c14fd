// The Map family: shapes, dtypes, broadcasting, threads, tape and forward mode of every element-wise op.
//
// Note [Few kernels]
// Kernels exist for contiguous float32, float64, int64 and uint64 only. The driver stages everything else (16-bit
// floats, mixed dtypes, strided, broadcast, reversed) through tiles of 1,024 elements that stay in L1. Dimensions are
// coalesced first; a single value is loaded once. Mixed dtypes are promoted in the tile.
#pragma once
#include "cpu/map_table.h"
#include "families/map_saved.h"
#include "families/op.h"
#include "tape/node.h"
#include "tensor/tensor.h"
#include "value/tensor_value.h"

namespace pb {

// Which random numbers a call drew: enough to draw them again, so dropout keeps nothing for backward.
struct RandomState {
  uint64_t seed = 0, offset = 0;
};
struct Generator {
  uint64_t seed = 0, offset = 0;
  uint64_t roundings = 0;
  // A stream of its own for the rounding of what is kept for backward: it leaves the program's draws as they are.
  RandomState rounding() { return {seed ^ 0x9E3779B97F4A7C15u, roundings++ << 40}; }
  RandomState reserve(int64_t n) {  // room for n elements; a block of four 32-bit words per counter step
    RandomState s{seed, offset};
    offset += uint64_t(n + 3) / 4 * 2;  // float64 draws take two words per element
    return s;
  }
};
Generator& default_generator();

// One row of the registry. The binding, docs, tests and benches walk these rows.
struct MapOp {
  std::string_view name, doc, unit;
  int index = -1;  // in its unit; -1: an extension, whose kernels are for the CPU
  int inputs = 1, nargs = 0;
  Arg args[kMaxArgs];
  Domain domain;
  bool mask = false, integers = false, no_floats = false, zero_derivative = false, no_derivative = false,
       random = false, differentiable = true;
  unsigned promotes = 7;  // bit j: input j takes part in the dtype rule
  unsigned uses[kMaxInputs] = {};
  int passes[kMaxInputs] = {};
  using GraphPull = Tensor (*)(const Tensor& g, const Tensor* in, const Tensor& out, const double* params);
  GraphPull pull[kMaxInputs] = {};
  // What backward may keep besides the inputs that the pull reads (op.h, map_keep.cpp).
  bool internal = false;         // a step of another op's backward: not listed
  bool keeps_specially = false;  // one of the following, or a choice of the caller, plays a part
  bool activation = false;       // accepts saved=
  bool only_asked = false, exact_params = false, by_sign = false, rebuilds = false;
  bool (*from_output)(const double* params) = nullptr;
  GraphPull pull_y = nullptr;
  std::string_view inverse;
  int code_bits = 0, coded = 0;
  double (*code_value)(int code, const double* params) = nullptr;
  const MapKernels* kernels = nullptr;
};

const MapOp& find_map(std::string_view name);  // DTypeError-free: an unknown name is a programming error
template <class Op>
const MapOp& map_row() {
  static const MapOp& row = find_map(Op::name);
  return row;
}
const std::vector<const MapOp*>& map_ops();
void add_map(const MapOp& row);  // extensions register here

// y = op(in...). `params` holds nargs doubles (null: the defaults).
Tensor map_call(const MapOp& op, std::span<const Tensor> in, const double* params = nullptr, Generator* rng = nullptr,
                const Saving* saved = nullptr);
template <class Op, class... T>
Tensor map_call_of(const T&... in) {
  const Tensor list[] = {in...};
  return map_call(map_row<Op>(), list);
}
// target = op(target, rest...), in place; right under autodiff.
void map_call_into(const MapOp& op, const Tensor& target, std::span<const Tensor> in, const double* params = nullptr);

// A draw of `shape`: op has no inputs besides the uniform numbers.
Tensor map_draw(const MapOp& op, const Shape& shape, DType dtype, const double* params, Generator& rng,
                Device device = {});

// ---- raw helpers of the driver, outside the graph
void map_fill(const Tensor& t, const void* value, Compute c);  // value of type c
void map_read(const Tensor& t, void* value, Compute c);        // first element
void map_add_into(const Tensor& acc, const Tensor& x);         // acc += x, acc contiguous
bool all_finite(const Tensor& t);
Tensor cast(const Tensor& t, DType dtype);  // differentiable; the same tensor when equal
Tensor contiguous(const Tensor& t);         // differentiable; the same tensor when it is
DType result_dtype(std::span<const Tensor> in, const char* op, unsigned promotes = ~0u);
Tensor uniform_of(RandomState state, const Shape& shape, DType dtype, Device device = {});

const MapKernels* map_kernels_of(std::string_view unit, int index);
const CastKernels& cast_kernels();

}  // namespace pb
