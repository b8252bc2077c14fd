// Powers, exponentials, logarithms, trigonometric and rounding functions.
#pragma once
#include "families/op.h"

namespace pb {

// A function whose derivative is an expression in x (and in y = f(x) for PB_FROM_Y).
#define PB_FUNCTION(Name, NAME, DOC, LO, HI, FWD, PULL)       \
  struct Name : Map<1> {                                      \
    static constexpr std::string_view name = NAME, doc = DOC; \
    static constexpr Domain domain{LO, HI};                   \
    template <Value V>                                        \
    PB_FN static V fwd(V x) {                                 \
      return FWD;                                             \
    }                                                         \
    template <Value V>                                        \
    PB_FN static V pull(V g, V x) {                           \
      return PULL;                                            \
    }                                                         \
  };                                                          \
  PB_OP(Name)
#define PB_FROM_Y(Name, NAME, DOC, LO, HI, FWD, PULL)         \
  struct Name : Map<1> {                                      \
    static constexpr std::string_view name = NAME, doc = DOC; \
    static constexpr Domain domain{LO, HI};                   \
    template <Value V>                                        \
    PB_FN static V fwd(V x) {                                 \
      return FWD;                                             \
    }                                                         \
    template <Value V>                                        \
    PB_FN static V pull_y(V g, V y) {                         \
      return PULL;                                            \
    }                                                         \
  };                                                          \
  PB_OP(Name)
#define PB_STEP(Name, NAME, DOC, FWD)                              \
  struct Name : Map<1> {                                           \
    static constexpr std::string_view name = NAME, doc = DOC;      \
    static constexpr bool integers = true, zero_derivative = true; \
    template <class V>                                             \
    PB_FN static V fwd(V x) {                                      \
      if constexpr (std::is_integral_v<V>)                         \
        return x;                                                  \
      else                                                         \
        return FWD;                                                \
    }                                                              \
  };                                                               \
  PB_OP(Name)

struct Abs : Map<1> {
  static constexpr std::string_view name = "abs", doc = "Absolute value; derivative 0 at 0.";
  static constexpr bool integers = true;
  static constexpr int code_bits = 2;
  static double code_value(int c, const double*) { return c == 1 ? 1 : c == 2 ? -1 : c == 3 ? kNaN<double> : 0; }
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(0), V(1), where(x < V(0), V(2), where(x == x, V(0), V(3))));
  }
  template <class V>
  PB_FN static V fwd(V x) {
    return abs(x);
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    return g * sign(x);
  }
};
PB_OP(Abs)

struct Square : Map<1> {
  static constexpr std::string_view name = "square", doc = "x * x.";
  static constexpr bool integers = true;
  template <class V>
  PB_FN static V fwd(V x) {
    return x * x;
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    return g * (x + x);
  }
};
PB_OP(Square)

struct Sign : Map<1> {
  static constexpr std::string_view name = "sign", doc = "-1, 0 or 1; NaN stays NaN.";
  static constexpr bool integers = true, zero_derivative = true;
  template <class V>
  PB_FN static V fwd(V x) {
    return sign(x);
  }
};
PB_OP(Sign)

PB_FROM_Y(Sqrt, "sqrt", "Square root.", 0.1, 4, sqrt(x), g* V(0.5) / y)
PB_FROM_Y(Rsqrt, "rsqrt", "1 / sqrt(x).", 0.1, 4, rsqrt(x), g* V(-0.5) * y * y * y)
PB_FROM_Y(Reciprocal, "reciprocal", "1 / x.", 0.2, 4, recip(x), -(g * y * y))
PB_FROM_Y(Exp, "exp", "e to the power x.", -4, 4, exp(x), g* y)
PB_FROM_Y(Expm1, "expm1", "exp(x) - 1, exact near 0.", -4, 4, expm1(x), g*(y + V(1)))
PB_FUNCTION(Log, "log", "Natural logarithm.", 0.1, 4, log(x), g / x)
PB_FUNCTION(Log1p, "log1p", "log(1 + x), exact near 0.", -0.7, 4, log1p(x), g / (V(1) + x))
PB_FUNCTION(Log2, "log2", "Logarithm to base 2.", 0.1, 4, log2(x), g / (x * V(0.693147180559945309417)))
PB_FUNCTION(Log10, "log10", "Logarithm to base 10.", 0.1, 4, log(x) * V(0.434294481903251827651),
            g / (x * V(2.302585092994045684018)))
PB_FUNCTION(Sin, "sin", "Sine.", -6, 6, sin(x), g* cos(x))
PB_FUNCTION(Cos, "cos", "Cosine.", -6, 6, cos(x), -(g* sin(x)))
PB_FROM_Y(Tan, "tan", "Tangent.", -1.2, 1.2, tan(x), g*(V(1) + y * y))
PB_FUNCTION(Sinh, "sinh", "Hyperbolic sine.", -4, 4, sinh(x), g* cosh(x))
PB_FUNCTION(Cosh, "cosh", "Hyperbolic cosine.", -4, 4, cosh(x), g* sinh(x))
PB_FUNCTION(Asin, "asin", "Inverse sine.", -0.9, 0.9, asin(x), g / sqrt(V(1) - x * x))
PB_FUNCTION(Acos, "acos", "Inverse cosine.", -0.9, 0.9, acos(x), -g / sqrt(V(1) - x * x))
PB_FUNCTION(Atan, "atan", "Inverse tangent.", -4, 4, atan(x), g / (V(1) + x * x))
PB_FUNCTION(Erf, "erf", "Error function.", -3, 3, erf(x), g* V(1.128379167095512573896) * exp(-(x * x)))
PB_FUNCTION(Erfc, "erfc", "1 - erf(x), exact in the tail.", -3, 4, erfc(x),
            g* V(-1.128379167095512573896) * exp(-(x * x)))
PB_FUNCTION(NormalCdf, "_normal_cdf", "The normal distribution function, (1 + erf(x / sqrt(2))) / 2.", -6, 6,
            normal_cdf(x), g* V(0.398942280401432677940) * exp(V(-0.5) * x * x))

PB_STEP(Floor, "floor", "The largest integer not above x.", floor(x))
PB_STEP(Ceil, "ceil", "The smallest integer not below x.", ceil(x))
PB_STEP(Round, "round", "The nearest integer, halves to even.", round(x))
PB_STEP(Trunc, "trunc", "x without its fraction.", trunc(x))

struct Clip : Map<1> {
  static constexpr std::string_view name = "_clip", doc = "x limited to [min, max]; derivative 1 at the bounds.";
  static constexpr Arg args[] = {{"min", -1.0}, {"max", 1.0}};
  static constexpr int code_bits = 1;
  static double code_value(int c, const double* k) {  // one number inside, one outside; k[0] > k[1] has no inside
    if (c) return k[0] > 0 ? k[0] : k[1] < 0 ? k[1] : 0;
    return k[0] > -kInf<double> ? -kInf<double> : kInf<double>;
  }
  template <Value V>
  PB_FN static V code(V x, const ParamOf<V>& k) {
    return where(x < k[0], V(0), where(x > k[1], V(0), V(1)));
  }
  template <Value V>
  PB_FN static V fwd(V x, const ParamOf<V>& k) {
    return min(max(x, k[0]), k[1]);
  }
  template <Value V>
  PB_FN static V pull(V g, V x, const ParamOf<V>& k) {
    return where(x < k[0], V(0), where(x > k[1], V(0), g));
  }
};
PB_OP(Clip)

}  // namespace pb
