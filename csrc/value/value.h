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
template <class V> struct MaskOf { using type = bool; };
template <class V> struct ScalarTypeOf { using type = V; };
template <class V> using Mask = typename MaskOf<V>::type;
template <class V> using ScalarOf = typename ScalarTypeOf<V>::type;
template <class V> struct Dual;  // value/dual.h
template <class S> concept Scalar = std::is_arithmetic_v<S>;

PB_FN uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
PB_FN uint64_t bits_of(double x) { return __builtin_bit_cast(uint64_t, x); }
PB_FN float float_of(uint32_t b) { return __builtin_bit_cast(float, b); }
PB_FN double double_of(uint64_t b) { return __builtin_bit_cast(double, b); }

// ---- selection, order and signs, also for integers
template <Scalar S> PB_FN S where(bool m, S a, S b) { return m ? a : b; }
// NaN propagates.
template <Scalar S> PB_FN S min(S a, S b) { return (a < b) | (a != a) ? a : b; }
template <Scalar S> PB_FN S max(S a, S b) { return (a > b) | (a != a) ? a : b; }
template <Scalar S> PB_FN S square(S x) { return x * x; }
PB_FN float abs(float x) { return __builtin_fabsf(x); }
PB_FN double abs(double x) { return __builtin_fabs(x); }
PB_FN int64_t abs(int64_t x) { return x < 0 ? int64_t(0u - uint64_t(x)) : x; }
PB_FN uint64_t abs(uint64_t x) { return x; }
template <Scalar S> PB_FN S sign(S x) {
  if constexpr (std::is_unsigned_v<S>) return S(x > S(0));
  else return x > S(0) ? S(1) : x < S(0) ? S(-1) : x;  // keeps NaN and the sign of zero
}
template <std::floating_point S> PB_FN bool isnan(S x) { return x != x; }
template <std::floating_point S> PB_FN bool isinf(S x) { return abs(x) == std::numeric_limits<S>::infinity(); }
template <std::floating_point S> PB_FN bool isfinite(S x) { return abs(x) < std::numeric_limits<S>::infinity(); }

// a * b + c, in one rounding where the machine has the instruction.
PB_FN float fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__CUDA_ARCH__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
PB_FN double fma(double a, double b, double c) {
#if defined(__FMA__) || defined(__CUDA_ARCH__) || defined(__aarch64__)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

template <std::floating_point S> PB_FN S recip(S x) { return S(1) / x; }

#define PB_LIBM(name) \
  PB_FN float name(float x) { return __builtin_##name##f(x); } \
  PB_FN double name(double x) { return __builtin_##name(x); }
PB_LIBM(sqrt) PB_LIBM(floor) PB_LIBM(ceil) PB_LIBM(trunc)
PB_LIBM(exp) PB_LIBM(expm1) PB_LIBM(log) PB_LIBM(log1p) PB_LIBM(log2)
PB_LIBM(sin) PB_LIBM(cos) PB_LIBM(tan) PB_LIBM(sinh) PB_LIBM(cosh) PB_LIBM(asin) PB_LIBM(acos) PB_LIBM(atan)
PB_LIBM(tanh) PB_LIBM(erf) PB_LIBM(erfc)
#undef PB_LIBM
PB_FN float round(float x) { return __builtin_rintf(x); }
PB_FN double round(double x) { return __builtin_rint(x); }
PB_FN float pow(float a, float b) { return __builtin_powf(a, b); }
PB_FN double pow(double a, double b) { return __builtin_pow(a, b); }
template <std::floating_point S> PB_FN S rsqrt(S x) { return S(1) / sqrt(x); }
template <std::floating_point S> PB_FN S sigmoid(S x) {
  S e = exp(-abs(x));
  return (x < S(0) ? e : S(1)) / (S(1) + e);
}
template <std::floating_point S> PB_FN S softplus(S x) { return max(x, S(0)) + log1p(exp(-abs(x))); }

// The inverse of the normal distribution function on (0, 1): a start from A&S 26.2.23, then Halley steps.
PB_FN double ndtri(double p) {
  double q = p < 0.5 ? p : 1 - p;
  double t = sqrt(-2 * log(q));
  double x = -(t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))));
  for (int i = 0; i < 3; i++) {
    double e = (0.5 * erfc(-x * 0.70710678118654752440) - q) * 2.50662827463100050242 * exp(0.5 * x * x);
    x -= e / (1 + 0.5 * x * e);
  }
  x = q > 0 ? x : -std::numeric_limits<double>::infinity();
  return p < 0.5 ? x : -x;
}
PB_FN float ndtri(float p) { return float(ndtri(double(p))); }

// A type that formulas accept. A missing primitive is one message here.
template <class V> concept Value = requires(V a, Mask<V> m) {
  V(0); V(0.5);
  a + a; a - a; a * a; a / a; -a;
  a < a; a <= a; a > a; a >= a; a == a; a != a;
  where(m, a, a); min(a, a); max(a, a); pow(a, a); fma(a, a, a);
  exp(a); expm1(a); log(a); log1p(a); log2(a); sqrt(a); rsqrt(a); recip(a); square(a);
  sin(a); cos(a); tan(a); sinh(a); cosh(a); asin(a); acos(a); atan(a); tanh(a); erf(a); erfc(a);
  sigmoid(a); softplus(a); ndtri(a); abs(a); sign(a); floor(a); ceil(a); round(a); trunc(a);
  isnan(a); isinf(a); isfinite(a);
};

}  // namespace pb
