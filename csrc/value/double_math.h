// The primitives of V = double: the C library's, and a few that it lacks. Included by value.h only.
#pragma once

namespace pb {

// c0 + c1 x + c2 x^2 + ...
template <class S> PB_FN S polynomial(S, S c) { return c; }
template <class S, class... C> PB_FN S polynomial(S x, S c, C... higher) {
  return fma(polynomial(x, higher...), x, c);
}

#define PB_LIBM(f) \
  PB_FN double f(double x) { return ::f(x); }
PB_LIBM(exp) PB_LIBM(expm1) PB_LIBM(log) PB_LIBM(log1p) PB_LIBM(log2) PB_LIBM(sin) PB_LIBM(cos) PB_LIBM(tan)
PB_LIBM(sinh) PB_LIBM(cosh) PB_LIBM(tanh) PB_LIBM(asin) PB_LIBM(acos) PB_LIBM(atan) PB_LIBM(erf) PB_LIBM(erfc)
#undef PB_LIBM
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
  double far = (1.0 - u * (1.0 - 3.0 * u * (1.0 - 5.0 * u * (1.0 - 7.0 * u * (1.0 - 9.0 * u))))) / x;
  return z < 26.0 ? near : far;
}

// The inverse of the normal distribution function on (0, 1), to about 1e-7 for p > 1e-45, with w = -log(4 p (1 - p)):
// (p - 1/2) times a polynomial in w in the middle, a quotient in sqrt(w) in the tails.
template <std::floating_point S> PB_FN S ndtri_near(S p) {
  S half = p - S(0.5), w = -log(S(4) * p * (S(1) - p)), s = sqrt(w);
  S middle = half * polynomial(w - S(3), S(4.59207058), S(0.683434069), S(-0.0162314251), S(-0.00236530672),
                               S(0.00055296137), S(-3.58849793e-5), S(-5.33614639e-6), S(1.26279588e-6),
                               S(-1.23975354e-8), S(-1.53672026e-8));
  S tail = polynomial(s, S(-0.66139406), S(2.3901825), S(-2.15127945), S(0.658771753), S(0.343205094)) /
           polynomial(s, S(1), S(-1.21071696), S(0.472541302), S(0.242598623));
  return w < S(6) ? middle : half < S(0) ? -tail : tail;
}
template <std::floating_point S> PB_FN S ndtri_ends(S p, S x) {
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

}  // namespace pb
