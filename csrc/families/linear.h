// The Linear family: products of matrices and what is made of them. Pullbacks are products again.
#pragma once
#include "cpu/gemm.h"
#include "tape/node.h"

namespace pb {

// (..., m, k) x (..., k, n) -> (..., m, n); leading axes broadcast, 1-d operands lose the axis that was lent to them.
// Integers are exact modulo 2^bits; 16-bit floats are summed in float32.
Tensor matmul(const Tensor& a, const Tensor& b);
// x (..., in), weight (out, in), bias (out,) or none -> (..., out). One node. `saved`: bits of the x that backward
// keeps, 4 or 8; 0 as pb.saving says.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, int saved = 0);
// Sums over axes_a of a against axes_b of b, in that order.
Tensor tensordot(const Tensor& a, const Tensor& b, const Dims& axes_a, const Dims& axes_b);
Tensor vecdot(const Tensor& a, const Tensor& b, int64_t axis);
Tensor outer(const Tensor& a, const Tensor& b);
Tensor einsum(std::string_view subscripts, std::span<const Tensor> operands);

}  // namespace pb
