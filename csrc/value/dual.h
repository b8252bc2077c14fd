// Dual numbers v + d * eps over any V: forward mode of a formula. One line per primitive; V may itself be a Dual or a
// Tensor.
#pragma once
#include "value/value.h"

namespace pb {

template <class V>
struct Dual {
  V v, d;
  Dual() = default;
  PB_FN Dual(const V& value, const V& derivative) : v(value), d(derivative) {}
  template <Scalar S>
  PB_FN explicit Dual(S constant) : v(constant), d(0) {}
};
template <class V>
struct MaskOf<Dual<V>> {
  using type = Mask<V>;
};
template <class V>
struct ScalarTypeOf<Dual<V>> {
  using type = ScalarOf<V>;
};

#define PB_D         \
  template <class V> \
  PB_FN
// f(a), and its derivative written with a = the argument, y = f(a.v).
#define PB_DUAL(f, ...)              \
  PB_D Dual<V> f(const Dual<V>& a) { \
    V y = f(a.v);                    \
    return {y, __VA_ARGS__};         \
  }

PB_D Dual<V> operator+(const Dual<V>& a, const Dual<V>& b) { return {a.v + b.v, a.d + b.d}; }
PB_D Dual<V> operator-(const Dual<V>& a, const Dual<V>& b) { return {a.v - b.v, a.d - b.d}; }
PB_D Dual<V> operator*(const Dual<V>& a, const Dual<V>& b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
PB_D Dual<V> operator/(const Dual<V>& a, const Dual<V>& b) {
  V y = a.v / b.v;
  return {y, (a.d - y * b.d) / b.v};
}
PB_D Dual<V> operator-(const Dual<V>& a) { return {-a.v, -a.d}; }
PB_D Dual<V> fma(const Dual<V>& a, const Dual<V>& b, const Dual<V>& c) { return a * b + c; }

PB_D Mask<V> operator<(const Dual<V>& a, const Dual<V>& b) { return a.v < b.v; }
PB_D Mask<V> operator<=(const Dual<V>& a, const Dual<V>& b) { return a.v <= b.v; }
PB_D Mask<V> operator>(const Dual<V>& a, const Dual<V>& b) { return a.v > b.v; }
PB_D Mask<V> operator>=(const Dual<V>& a, const Dual<V>& b) { return a.v >= b.v; }
PB_D Mask<V> operator==(const Dual<V>& a, const Dual<V>& b) { return a.v == b.v; }
PB_D Mask<V> operator!=(const Dual<V>& a, const Dual<V>& b) { return a.v != b.v; }
PB_D Mask<V> isnan(const Dual<V>& a) { return isnan(a.v); }
PB_D Mask<V> isinf(const Dual<V>& a) { return isinf(a.v); }
PB_D Mask<V> isfinite(const Dual<V>& a) { return isfinite(a.v); }

template <class V>
PB_FN Dual<V> where(const Mask<Dual<V>>& m, const Dual<V>& a, const Dual<V>& b) {
  return {where(m, a.v, b.v), where(m, a.d, b.d)};
}
// Ties share.
PB_D Dual<V> min(const Dual<V>& a, const Dual<V>& b) {
  return {min(a.v, b.v), where(a.v < b.v, a.d, where(a.v == b.v, V(0.5) * (a.d + b.d), b.d))};
}
PB_D Dual<V> max(const Dual<V>& a, const Dual<V>& b) {
  return {max(a.v, b.v), where(a.v > b.v, a.d, where(a.v == b.v, V(0.5) * (a.d + b.d), b.d))};
}
PB_DUAL(abs, a.d* sign(a.v))
PB_DUAL(sign, V(0))
PB_DUAL(floor, V(0))
PB_DUAL(ceil, V(0))
PB_DUAL(round, V(0))
PB_DUAL(trunc, V(0))

PB_DUAL(square, a.d*(a.v + a.v))
PB_DUAL(recip, -(a.d * y * y))
PB_DUAL(sqrt, a.d* V(0.5) / y)
PB_DUAL(rsqrt, a.d* V(-0.5) * y * y * y)
PB_DUAL(exp, a.d* y)
PB_DUAL(expm1, a.d*(y + V(1)))
PB_DUAL(log, a.d / a.v)
PB_DUAL(log1p, a.d / (V(1) + a.v))
PB_DUAL(log2, a.d / (a.v * V(0.693147180559945309417)))
PB_DUAL(sin, a.d* cos(a.v))
PB_DUAL(cos, -(a.d* sin(a.v)))
PB_DUAL(tan, a.d*(V(1) + y * y))
PB_DUAL(sinh, a.d* cosh(a.v))
PB_DUAL(cosh, a.d* sinh(a.v))
PB_DUAL(tanh, a.d*(V(1) - y * y))
PB_DUAL(asin, a.d / sqrt(V(1) - a.v * a.v))
PB_DUAL(acos, -a.d / sqrt(V(1) - a.v * a.v))
PB_DUAL(atan, a.d / (V(1) + a.v * a.v))
PB_DUAL(erf, a.d* V(1.128379167095512573896) * exp(-(a.v * a.v)))
PB_DUAL(erfc, a.d* V(-1.128379167095512573896) * exp(-(a.v * a.v)))
PB_DUAL(sigmoid, a.d * y * (V(1) - y))
PB_DUAL(softplus, a.d* sigmoid(a.v))
PB_DUAL(normal_cdf, a.d* V(0.398942280401432677940) * exp(V(-0.5) * a.v * a.v))
PB_DUAL(ndtri, a.d* V(2.506628274631000502416) * exp(V(0.5) * y * y))

// As the op `pow`: b's derivative is 0 where a <= 0.
PB_D Dual<V> pow(const Dual<V>& a, const Dual<V>& b) {
  V y = pow(a.v, b.v);
  V in_a = where(b.v == V(0), V(0), b.v * pow(a.v, b.v - V(1)));
  Mask<V> inside = a.v > V(0);
  V in_b = where(inside, y * log(where(inside, a.v, V(1))), V(0));
  return {y, a.d * in_a + b.d * in_b};
}

#undef PB_DUAL
#undef PB_D

}  // namespace pb
