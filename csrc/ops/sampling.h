// Ops that read a uniform number in (0, 1) per element. The family draws it in the tile and draws it again in
// backward from the generator's counter, so nothing random is kept.
#pragma once
#include "families/op.h"

namespace pb {

struct Dropout : Map<1> {
  static constexpr std::string_view name = "_dropout", doc = "x / (1 - p) with probability 1 - p, else 0.";
  static constexpr bool random = true;
  static constexpr Arg args[] = {{"p", 0.5}};
  static constexpr unsigned uses[] = {0b10};
  template <Value V>
  PB_FN static V fwd(V x, V u, const ParamOf<V>& k) {
    return where(u < k[0], V(0), x / (V(1) - k[0]));
  }
  template <Value V>
  PB_FN static V pull(V g, V, V u, const ParamOf<V>& k) {
    return where(u < k[0], V(0), g / (V(1) - k[0]));
  }
};
PB_OP(Dropout)

#define PB_DRAW(Name, NAME, DOC, ARG0, DEF0, ARG1, DEF1, FWD)   \
  struct Name : Map<0> {                                        \
    static constexpr std::string_view name = NAME, doc = DOC;   \
    static constexpr bool random = true, no_derivative = true;  \
    static constexpr Arg args[] = {{ARG0, DEF0}, {ARG1, DEF1}}; \
    template <Value V>                                          \
    PB_FN static V fwd(V u, const ParamOf<V>& k) {              \
      return FWD;                                               \
    }                                                           \
  };                                                            \
  PB_OP(Name)
PB_DRAW(DrawUniform, "_uniform", "Uniform in (low, high).", "low", 0.0, "high", 1.0, k[0] + (k[1] - k[0]) * u)
PB_DRAW(DrawNormal, "_normal", "Normal by the inverse distribution function.", "mean", 0.0, "std", 1.0,
        k[0] + k[1] * ndtri(u))
PB_DRAW(DrawExponential, "_exponential", "Exponential of the given rate.", "rate", 1.0, "unused", 0.0, -log(u) / k[0])
PB_DRAW(DrawGumbel, "_gumbel", "Standard Gumbel times scale plus loc.", "loc", 0.0, "scale", 1.0,
        k[0] - k[1] * log(-log(u)))
#undef PB_DRAW

struct Bernoulli : Map<1> {
  static constexpr std::string_view name = "_bernoulli", doc = "1 with probability x, else 0.";
  static constexpr bool random = true, zero_derivative = true;
  static constexpr Domain domain{0, 1};
  template <Value V>
  PB_FN static V fwd(V x, V u) {
    return where(u < x, V(1), V(0));
  }
};
PB_OP(Bernoulli)

}  // namespace pb
