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

template <class S> inline constexpr S kInf = std::numeric_limits<S>::infinity();
template <class S> inline constexpr S kNaN = std::numeric_limits<S>::quiet_NaN();
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
PB_FN float abs(float x) { return ::fabsf(x); }
PB_FN double abs(double x) { return ::fabs(x); }
PB_FN int64_t abs(int64_t x) { return x < 0 ? int64_t(0u - uint64_t(x)) : x; }
PB_FN uint64_t abs(uint64_t x) { return x; }
template <Scalar S> PB_FN S sign(S x) {
  if constexpr (std::is_unsigned_v<S>) return S(x > S(0));
  else return x > S(0) ? S(1) : x < S(0) ? S(-1) : x;  // keeps NaN and the sign of zero
}
template <std::floating_point S> PB_FN bool isnan(S x) { return x != x; }
template <std::floating_point S> PB_FN bool isinf(S x) { return abs(x) == kInf<S>; }
template <std::floating_point S> PB_FN bool isfinite(S x) { return abs(x) < kInf<S>; }

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

template <std::floating_point S> PB_FN S recip(S x) { return S(1) / x; }
#define PB_ONE_INSTRUCTION(name, f, d)          \
  PB_FN float name(float x) { return ::f(x); }  \
  PB_FN double name(double x) { return ::d(x); }
PB_ONE_INSTRUCTION(sqrt, sqrtf, sqrt)
PB_ONE_INSTRUCTION(floor, floorf, floor)
PB_ONE_INSTRUCTION(ceil, ceilf, ceil)
PB_ONE_INSTRUCTION(trunc, truncf, trunc)
PB_ONE_INSTRUCTION(round, rintf, rint)  // halves to even
#undef PB_ONE_INSTRUCTION

}  // namespace pb

#include "value/double_math.h"
#include "value/float_math.h"

namespace pb {

// A type that formulas accept. A missing primitive is one message here.
template <class V> concept Value = requires(V a, Mask<V> m) {
  V(0); V(0.5);
  a + a; a - a; a * a; a / a; -a;
  a < a; a <= a; a > a; a >= a; a == a; a != a;
  where(m, a, a); min(a, a); max(a, a); pow(a, a); fma(a, a, a);
  exp(a); expm1(a); log(a); log1p(a); log2(a); sqrt(a); rsqrt(a); recip(a); square(a);
  sin(a); cos(a); tan(a); sinh(a); cosh(a); asin(a); acos(a); atan(a); tanh(a); erf(a); erfc(a);
  sigmoid(a); softplus(a); ndtri(a); mills(a); abs(a); sign(a); floor(a); ceil(a); round(a); trunc(a);
  isnan(a); isinf(a); isfinite(a);
};

}  // namespace pb
