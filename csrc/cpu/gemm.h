// The one matrix product: c[m, n] = a[m, k] b[k, n], raw memory, any strides (in elements), float or double.
#pragma once
#include "cpu/gemm_args.h"
#include "tensor/dtype.h"

namespace pb {

// The same bits for any number of threads; k is never split. Threads inside. compute is F32 or F64.
void gemm(Compute compute, const GemmArgs& args);

}  // namespace pb
