// Packed codes as tensors.
#pragma once
#include "cpu/code_table.h"
#include "tensor/tensor.h"

namespace pb {

const CodeKernels& code_kernels();

// The codes of a tensor of integers, in row-major order: uint32[code_words(size, bits)] (Note [Planes]).
Tensor pack_codes(const Tensor& codes, int64_t bits);
// The first n codes of such words: uint8[n].
Tensor unpack_codes(const Tensor& words, int64_t bits, int64_t n);

}  // namespace pb
