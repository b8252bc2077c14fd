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

// Mills' ratio for x >= 0: erfc(z) exp(z^2) sqrt(pi/2), z = x / sqrt(2), its asymptotic series from z = 26 on.
PB_FN double mills(double x) {
  double z = x * 0.70710678118654752440, s = z * z, low = ::fma(z, z, -s), u = 0.5 / s;
  double near = 1.25331413731550025121 * erfc(z) * exp(s) * (1.0 + low);
  double far = (1.0 - u * (1.0 - 3.0 * u * (1.0 - 5.0 * u * (1.0 - 7.0 * u * (1.0 - 9.0 * u * (1.0 - 11.0 * u)))))) / x;
  return z < 26.0 ? near : far;
}

}  // namespace pb
