// The functions that one ISA level offers to programs of tiles, besides the element-wise kernels of the registry.
// Plain data: host code and kernels both include it.
#pragma once
#include <cstdint>

namespace pb {

// Several operations in one kernel, each with its own rounding. The pattern is the formula in prefix form: + - * / are
// the operators, r is the square root, s the sign, a b c are tiles and A B C D values; `in` holds the tiles, then the
// values.
struct FusedKernel {
  using Fn = void (*)(void* out, const void* const* in, int64_t n);
  const char* pattern;
  int tiles, values;
  Fn fn[2];  // float or double
};
inline constexpr int kMaxFused = 7, kSumLanes = 32;  // operands of a fused kernel; partial sums

struct TileKernels {
  const FusedKernel* fused;  // the longest pattern first
  int count;
  // Adds element i of n to lane[i % kSumLanes].
  void (*sum[2])(double* lane, const void* x, int64_t n);
  void (*fill[2])(void* out, const void* value, int64_t n);
};

}  // namespace pb
