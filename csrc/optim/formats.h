// In which form a state lies in memory. Rules see tiles of the compute type and nothing of this.
//
// Note [State formats]
// Exact is the compute type of the parameter (float32, or float64). BF16 rounds stochastically at every store; Int8
// keeps codes (uint8) and one float32 scale for each 256 elements (Note [The 8-bit map]), also stored stochastically:
// an average that moves by 1/1000 of the difference would else never leave a level. Exact stay: states that a rule
// calls exact, those of float64 parameters, and with Int8 tensors of fewer than 4,096 elements.
#pragma once
#include "optim/rounding.h"
#include "tensor/tensor.h"

namespace pb::optim {

enum class Format : uint8_t { Exact, BF16, Int8 };
inline constexpr int kFormats = 3;
inline constexpr int64_t kSmallest8 = 4096;

// How parameters of 16 bits are written: to nearest; stochastically; with the rest of the rounding kept beside them in
// their own type; or as the rounded form of a float32 copy. Without effect on wider parameters.
enum class Rounding : uint8_t { Nearest, Stochastic, Kahan, Master };
inline constexpr int kRoundings = 4;

inline DType compute_dtype(DType t) { return t == DType::F64 ? DType::F64 : DType::F32; }
inline bool is_half(DType t) { return t == DType::F16 || t == DType::BF16; }

struct Slot {
  Tensor data, scale;  // contiguous; scale only with codes
  explicit operator bool() const { return bool(data); }
};

Format format_of(const Slot& s);
Format format_for(Format asked, bool exact, const Tensor& p);
int64_t bytes_of(Format f, const Tensor& p);  // of one slot
int64_t blocks_of(int64_t n);                 // scales of n elements

Slot make_slot(const Tensor& p, Format f);             // zeros
Slot convert(const Slot& s, Format f, DType compute);  // rounds to nearest; s itself where it has the format
Tensor widen(const Slot& s, DType compute);            // the same without copying where it is exact
Tensor make_rest(const Tensor& p, Rounding r);         // what goes beside p at the start; undefined: nothing
Tensor convert_rest(const Tensor& p, const Tensor& rest, Rounding r);

}  // namespace pb::optim
