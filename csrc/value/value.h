// What a formula may use. The primitives of V = float are branch-free, the same text on CPU and CUDA; other V (Dual,
// Tensor, Expr) offer the same names. Included before any formula, for argument-dependent lookup does not see `float`.
#pragma once
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__CUDACC__)
#define PB_FN __host__ __device__ __forceinline__
#else
#define PB_FN inline __attribute__((always_inline))
#endif

namespace pb {

// What a comparison of two V gives, and the scalar type in which constants of V are kept.
template <class V>
struct MaskOf {
  using type = bool;
};
template <class V>
struct ScalarTypeOf {
  using type = V;
};
template <class V>
using Mask = typename MaskOf<V>::type;
template <class V>
using ScalarOf = typename ScalarTypeOf<V>::type;
template <class V>
struct Dual;  // value/dual.h
template <class S>
concept Scalar = std::is_arithmetic_v<S>;

template <class S>
inline constexpr S kInf = std::numeric_limits<S>::infinity();
template <class S>
inline constexpr S kNaN = std::numeric_limits<S>::quiet_NaN();
PB_FN uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
PB_FN uint64_t bits_of(double x) { return __builtin_bit_cast(uint64_t, x); }
PB_FN float float_of(uint32_t b) { return __builtin_bit_cast(float, b); }
PB_FN double double_of(uint64_t b) { return __builtin_bit_cast(double, b); }

// ---- selection, order and signs, also for integers
template <Scalar S>
PB_FN S where(bool m, S a, S b) {
  return m ? a : b;
}
// NaN propagates. A constant stands on the right, where its own NaN test folds away.
template <Scalar S>
PB_FN S min(S a, S b) {
  return b != b ? b : b < a ? b : a;
}
template <Scalar S>
PB_FN S max(S a, S b) {
  return b != b ? b : b > a ? b : a;
}
template <Scalar S>
PB_FN S square(S x) {
  return x * x;
}
PB_FN float abs(float x) { return ::fabsf(x); }
PB_FN double abs(double x) { return ::fabs(x); }
PB_FN int64_t abs(int64_t x) { return x < 0 ? int64_t(0u - uint64_t(x)) : x; }
PB_FN uint64_t abs(uint64_t x) { return x; }
template <Scalar S>
PB_FN S sign(S x) {
  if constexpr (std::is_unsigned_v<S>)
    return S(x > S(0));
  else
    return x > S(0) ? S(1) : x < S(0) ? S(-1) : x;  // keeps NaN and the sign of zero
}
template <std::floating_point S>
PB_FN bool isnan(S x) {
  return x != x;
}
template <std::floating_point S>
PB_FN bool isinf(S x) {
  return abs(x) == kInf<S>;
}
template <std::floating_point S>
PB_FN bool isfinite(S x) {
  return abs(x) < kInf<S>;
}

// a * b + c, in one rounding where the machine has the instruction.
#if defined(__FMA__) || defined(__CUDA_ARCH__) || defined(__aarch64__)
#define PB_HAS_FMA 1
PB_FN float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
PB_FN double fma(double a, double b, double c) { return ::fma(a, b, c); }
#else
#define PB_HAS_FMA 0
PB_FN float fma(float a, float b, float c) { return a * b + c; }
PB_FN double fma(double a, double b, double c) { return a * b + c; }
#endif

template <std::floating_point S>
PB_FN S recip(S x) {
  return S(1) / x;
}
#define PB_ONE_INSTRUCTION(name, f, d)         \
  PB_FN float name(float x) { return ::f(x); } \
  PB_FN double name(double x) { return ::d(x); }
PB_ONE_INSTRUCTION(sqrt, sqrtf, sqrt)
PB_ONE_INSTRUCTION(floor, floorf, floor)
PB_ONE_INSTRUCTION(ceil, ceilf, ceil)
PB_ONE_INSTRUCTION(trunc, truncf, trunc)
PB_ONE_INSTRUCTION(round, rintf, rint)  // halves to even
#undef PB_ONE_INSTRUCTION

// c0 + c1 x + c2 x^2 + ...
template <class S>
PB_FN S polynomial(S, S c) {
  return c;
}
template <class S, class... C>
PB_FN S polynomial(S x, S c, C... higher) {
  return fma(polynomial(x, higher...), x, c);
}

}  // namespace pb

#include "value/double_math.h"
#include "value/float_math.h"

namespace pb {

template <class V>
PB_FN V times_normal_cdf(V x) {
  return max(x, V(-40)) * normal_cdf(x);
}

// The inverse of the normal distribution function on (0, 1), to about 1e-7 for p > 1e-45, with w = -log(4 p (1 - p)):
// (p - 1/2) times a polynomial in w in the middle, a quotient in sqrt(w) in the tails.
template <std::floating_point S>
PB_FN S ndtri_near(S p) {
  S half = p - S(0.5), w = -log(S(4) * p * (S(1) - p)), s = sqrt(w);
  S middle =
      half * polynomial(w - S(3), S(4.59207058), S(0.683434069), S(-0.0162314251), S(-0.00236530672), S(0.00055296137),
                        S(-3.58849793e-5), S(-5.33614639e-6), S(1.26279588e-6), S(-1.23975354e-8), S(-1.53672026e-8));
  S tail = polynomial(s, S(-0.66139406), S(2.3901825), S(-2.15127945), S(0.658771753), S(0.343205094)) /
           polynomial(s, S(1), S(-1.21071696), S(0.472541302), S(0.242598623));
  return w < S(6) ? middle : half < S(0) ? -tail : tail;
}
template <std::floating_point S>
PB_FN S ndtri_ends(S p, S x) {
  x = p == S(0) ? -kInf<S> : p == S(1) ? kInf<S> : x;
  return (p < S(0)) | (p > S(1)) ? kNaN<S> : x;
}
// Halley steps on the tail z = -|x|. Near 1/2 the residual comes from erf, which keeps its relative accuracy there.
PB_FN double ndtri(double p) {
  double half = p - 0.5, q = min(p, 1.0 - p), z = -abs(ndtri_near(p));
  for (int i = 0; i < 2; i++) {
    double t = z * -0.70710678118654752440;
    double off = q < 0.25 ? 0.5 * erfc(t) - q : abs(half) - 0.5 * erf(t);
    double e = off * 2.50662827463100050242 * exp(t * t);
    z -= e / (1.0 + 0.5 * z * e);
  }
  return ndtri_ends(p, half < 0.0 ? z : -z);
}
PB_FN float ndtri(float p) { return ndtri_ends(p, ndtri_near(p)); }

// A type that formulas accept. A missing primitive is one message here.
template <class V>
concept Value = requires(V a, Mask<V> m) {
  V(0);
  V(0.5);
  a + a;
  a - a;
  a * a;
  a / a;
  -a;
  a < a;
  a <= a;
  a > a;
  a >= a;
  a == a;
  a != a;
  where(m, a, a);
  min(a, a);
  max(a, a);
  pow(a, a);
  fma(a, a, a);
  exp(a);
  expm1(a);
  log(a);
  log1p(a);
  log2(a);
  sqrt(a);
  rsqrt(a);
  recip(a);
  square(a);
  sin(a);
  cos(a);
  tan(a);
  sinh(a);
  cosh(a);
  asin(a);
  acos(a);
  atan(a);
  tanh(a);
  erf(a);
  erfc(a);
  sigmoid(a);
  softplus(a);
  ndtri(a);
  normal_cdf(a);
  abs(a);
  sign(a);
  floor(a);
  ceil(a);
  round(a);
  trunc(a);
  isnan(a);
  isinf(a);
  isfinite(a);
};

}  // namespace pb
