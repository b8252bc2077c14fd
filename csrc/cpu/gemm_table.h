// The functions that one ISA level offers to the matrix product.
#pragma once
#include "cpu/gemm_args.h"

namespace pb {

struct GemmKernels {
  void (*run[4])(const GemmArgs& args);  // by Compute
  // Both operands bfloat16, multiplied in pairs; null where the level cannot have the instruction, which the CPU has
  // to be asked for.
  void (*pairs)(const GemmArgs& args);
};

}  // namespace pb
