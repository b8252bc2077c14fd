// The functions that one ISA level offers to the Map driver. Plain data: host code and kernels both include it.
#pragma once
#include <cstdint>

namespace pb {

struct MapKernels {
  // out[i] = f(in[0][i], in[1][i], ...). Bit j of `scalars` (two-input ops only): in[j] points at one value.
  // `out` may be in[j] itself, never a shifted overlap.
  using Fn = void (*)(void* out, const void* const* in, const double* params, int64_t n, unsigned scalars);
  Fn fwd[4];      // by Compute; null where the op has no such kernel
  Fn pull[3][2];  // by input, then float or double; in = {g, inputs..., output}
  Fn pull_y[2];   // where both pulls exist; in = {g, output}
  Fn code[2];     // a small number that decides the derivative; in = {inputs...}
};

struct CastKernels {
  using Load = void (*)(void* tile, const void* src, int64_t stride, int64_t n);   // dtype -> compute
  using Store = void (*)(void* dst, int64_t stride, const void* tile, int64_t n);  // compute -> dtype
  Load load[4][13];
  Store store[4][13];
  // Uniform numbers in (0, 1) for elements first .. first + n - 1 of a stream, float or double.
  void (*uniform[2])(void* tile, uint64_t seed, uint64_t offset, uint64_t first, int64_t n);
  void (*bits)(uint32_t* out, uint64_t seed, uint64_t offset, uint64_t first, int64_t n);
};

}  // namespace pb
