// V = Tensor: the same names as value.h, each a recorded op. Formulas instantiated with Tensor build graph.
#pragma once
#include "tensor/tensor.h"
#include "value/value.h"

namespace pb {

template <>
struct MaskOf<Tensor> {
  using type = Tensor;
};
template <>
struct ScalarTypeOf<Tensor> {
  using type = double;
};

// clang-format off
#define PB_UNARY(f) Tensor f(const Tensor& x);
PB_UNARY(exp) PB_UNARY(expm1) PB_UNARY(log) PB_UNARY(log1p) PB_UNARY(log2) PB_UNARY(sqrt) PB_UNARY(rsqrt)
PB_UNARY(recip) PB_UNARY(sin) PB_UNARY(cos) PB_UNARY(tan) PB_UNARY(sinh) PB_UNARY(cosh) PB_UNARY(asin)
PB_UNARY(acos) PB_UNARY(atan) PB_UNARY(tanh) PB_UNARY(erf) PB_UNARY(erfc) PB_UNARY(sigmoid) PB_UNARY(softplus)
PB_UNARY(abs) PB_UNARY(sign) PB_UNARY(floor) PB_UNARY(ceil) PB_UNARY(round) PB_UNARY(trunc) PB_UNARY(ndtri)
PB_UNARY(isnan) PB_UNARY(isinf) PB_UNARY(isfinite) PB_UNARY(square) PB_UNARY(normal_cdf)
#undef PB_UNARY
// clang-format on
Tensor operator-(const Tensor& x);
// clang-format off
#define PB_BINARY(f) Tensor f(const Tensor& a, const Tensor& b);
PB_BINARY(operator+) PB_BINARY(operator-) PB_BINARY(operator*) PB_BINARY(operator/) PB_BINARY(operator<)
PB_BINARY(operator<=) PB_BINARY(operator>) PB_BINARY(operator>=) PB_BINARY(operator==) PB_BINARY(operator!=)
PB_BINARY(min) PB_BINARY(max) PB_BINARY(pow)
#undef PB_BINARY
// clang-format on
// No operator!, && or ||: `!t` and `a && b` ask whether a handle is empty. Formulas nest `where` instead.
Tensor where(const Tensor& mask, const Tensor& a, const Tensor& b);
inline Tensor fma(const Tensor& a, const Tensor& b, const Tensor& c) { return a * b + c; }

}  // namespace pb
