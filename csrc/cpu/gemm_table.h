// The functions that one ISA level offers to the matrix product.
#pragma once
#include "cpu/gemm_args.h"

namespace pb {

struct GemmKernels {
  void (*run[4])(const GemmArgs& args);  // by Compute
};

}  // namespace pb
