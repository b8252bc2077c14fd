#include "value/tensor_value.h"

#include "families/map.h"
#include "ops/activations.h"
#include "ops/arithmetic.h"
#include "ops/sampling.h"
#include "ops/transcendental.h"

namespace pb {

#define PB_UNARY(f, Op) \
  Tensor f(const Tensor& x) { return map_call_of<Op>(x); }
PB_UNARY(exp, Exp)
PB_UNARY(expm1, Expm1)
PB_UNARY(log, Log)
PB_UNARY(log1p, Log1p)
PB_UNARY(log2, Log2)
PB_UNARY(sqrt, Sqrt)
PB_UNARY(rsqrt, Rsqrt)
PB_UNARY(recip, Reciprocal)
PB_UNARY(sin, Sin)
PB_UNARY(cos, Cos)
PB_UNARY(tan, Tan)
PB_UNARY(sinh, Sinh)
PB_UNARY(cosh, Cosh)
PB_UNARY(asin, Asin)
PB_UNARY(acos, Acos)
PB_UNARY(atan, Atan)
PB_UNARY(tanh, Tanh)
PB_UNARY(erf, Erf)
PB_UNARY(erfc, Erfc)
PB_UNARY(sigmoid, Sigmoid)
PB_UNARY(abs, Abs)
PB_UNARY(sign, Sign)
PB_UNARY(floor, Floor)
PB_UNARY(ceil, Ceil)
PB_UNARY(round, Round)
PB_UNARY(trunc, Trunc)
PB_UNARY(isnan, Isnan)
PB_UNARY(isinf, Isinf)
PB_UNARY(isfinite, Isfinite)
PB_UNARY(square, Square)
PB_UNARY(normal_cdf, NormalCdf)
PB_UNARY(operator-, Negative)
#undef PB_UNARY

// The primitive has no threshold; the op's default one would replace log1p(exp(x)) by x, equal from 20 on in float32
// only, so the constants are given.
Tensor softplus(const Tensor& x) {
  const Tensor in[] = {x};
  const double params[] = {1.0, 40.0};
  return map_call(map_row<Softplus>(), in, params);
}

Tensor ndtri(const Tensor&) {
  fail<GraphError>("ndtri", "the inverse normal distribution function is not an op on tensors", "draw with pb.random");
}

#define PB_BINARY(f, Op) \
  Tensor f(const Tensor& a, const Tensor& b) { return map_call_of<Op>(a, b); }
PB_BINARY(operator+, Add)
PB_BINARY(operator-, Subtract)
PB_BINARY(operator*, Multiply)
PB_BINARY(operator/, Divide)
PB_BINARY(operator<, Less)
PB_BINARY(operator<=, LessEqual)
PB_BINARY(operator>, Greater)
PB_BINARY(operator>=, GreaterEqual)
PB_BINARY(operator==, Equal)
PB_BINARY(operator!=, NotEqual)
PB_BINARY(min, Minimum)
PB_BINARY(max, Maximum)
PB_BINARY(pow, Pow)
#undef PB_BINARY

Tensor where(const Tensor& mask, const Tensor& a, const Tensor& b) { return map_call_of<Where>(mask, a, b); }

}  // namespace pb
