// The primitives of V = double: the C library's, and a few that it lacks. Included by value.h only.
#pragma once

namespace pb {

// clang-format off
#define PB_LIBM(f) \
  PB_FN double f(double x) { return ::f(x); }
PB_LIBM(exp) PB_LIBM(expm1) PB_LIBM(log) PB_LIBM(log1p) PB_LIBM(log2) PB_LIBM(sin) PB_LIBM(cos) PB_LIBM(tan)
PB_LIBM(sinh) PB_LIBM(cosh) PB_LIBM(tanh) PB_LIBM(asin) PB_LIBM(acos) PB_LIBM(atan) PB_LIBM(erf) PB_LIBM(erfc)
#undef PB_LIBM
// clang-format on
PB_FN double pow(double a, double b) { return ::pow(a, b); }
PB_FN double rsqrt(double x) { return 1.0 / sqrt(x); }

PB_FN double sigmoid(double x) {
  double e = exp(-abs(x));
  return (x < 0.0 ? e : 1.0) / (1.0 + e);
}
PB_FN double softplus(double x) { return max(x, 0.0) + log1p(exp(-abs(x))); }

PB_FN double normal_cdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }

}  // namespace pb
