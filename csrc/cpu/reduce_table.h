// The functions that one ISA level offers to the Reduce driver. x is contiguous in the compute type.
#pragma once
#include <cstdint>

namespace pb {

struct ReduceKernels {
  // out[o, i] = reduction over the middle axis of x[outer, n, inner]; inner == 1 is the row case.
  using Fn = void (*)(void* out, const void* x, int64_t outer, int64_t n, int64_t inner);
  Fn fn[4];  // by Compute
};

}  // namespace pb
