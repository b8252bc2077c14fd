// The functions that one ISA level offers to programs of tiles, besides the element-wise kernels of the registry.
// Plain data: host code and kernels both include it.
#pragma once
#include <cstdint>

namespace pb {

struct TileKernels {
  using MulAdd = void (*)(void* out, const void* a, const void* b, const void* c, int64_t n);
  // out = c + a b, c - a b or a b - c, each in two roundings; by float or double, form, whether b is one value, whether
  // c is.
  MulAdd mul_add[2][3][2][2];
  // Sum in float64 of n elements, in the order in which a rule's sums are added.
  double (*sum[2])(const void* x, int64_t n);
  void (*fill[2])(void* out, const void* value, int64_t n);
};

}  // namespace pb
