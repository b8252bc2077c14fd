// Element-wise losses of an input and a target.
#pragma once
#include "families/op.h"

namespace pb {

struct SquaredError : Map<2> {
  static constexpr std::string_view name = "_squared_error", doc = "(a - b) squared.";
  template <Value V>
  PB_FN static V fwd(V a, V b) {
    return square(a - b);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    V d = V(2) * g * (a - b);
    if constexpr (I == 0)
      return d;
    else
      return -d;
  }
};
PB_OP(SquaredError)

struct AbsoluteError : Map<2> {
  static constexpr std::string_view name = "_absolute_error", doc = "|a - b|; derivative 0 where they are equal.";
  template <Value V>
  PB_FN static V fwd(V a, V b) {
    return abs(a - b);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    V d = g * sign(a - b);
    if constexpr (I == 0)
      return d;
    else
      return -d;
  }
};
PB_OP(AbsoluteError)

// Quadratic within delta of the target, linear beyond.
struct Huber : Map<2> {
  static constexpr std::string_view name = "_huber", doc = "d^2 / 2 for |d| <= delta, else delta * (|d| - delta / 2).";
  static constexpr Arg args[] = {{"delta", 1.0}};
  template <Value V>
  PB_FN static V fwd(V a, V b, const ParamOf<V>& k) {
    V d = abs(a - b);
    return where(d <= k[0], V(0.5) * d * d, k[0] * (d - V(0.5) * k[0]));
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b, const ParamOf<V>& k) {
    V e = a - b, d = g * where(abs(e) <= k[0], e, k[0] * sign(e));
    if constexpr (I == 0)
      return d;
    else
      return -d;
  }
};
PB_OP(Huber)

// Huber's loss divided by its width; beta = 0 is the absolute error.
struct SmoothL1 : Map<2> {
  static constexpr std::string_view name = "_smooth_l1", doc = "d^2 / (2 beta) for |d| < beta, else |d| - beta / 2.";
  static constexpr Arg args[] = {{"beta", 1.0}};
  template <Value V>
  PB_FN static V fwd(V a, V b, const ParamOf<V>& k) {
    V d = abs(a - b);
    return where(d < k[0], V(0.5) * d * d / k[0], d - V(0.5) * k[0]);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b, const ParamOf<V>& k) {
    V e = a - b, d = g * where(abs(e) < k[0], e / k[0], sign(e));
    if constexpr (I == 0)
      return d;
    else
      return -d;
  }
};
PB_OP(SmoothL1)

// max(x, 0) - x t + log(1 + exp(-|x|)): finite for every finite logit.
struct BceWithLogits : Map<2> {
  static constexpr std::string_view name = "_bce_with_logits",
                                    doc = "Binary cross entropy of logit a and target b in [0, 1].";
  template <Value V>
  PB_FN static V fwd(V x, V t) {
    return softplus(x) - x * t;
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V x, V t) {
    if constexpr (I == 0)
      return g * (sigmoid(x) - t);
    else
      return -(g * x);
  }
  static constexpr unsigned uses[] = {0b11, 0b01};
};
PB_OP(BceWithLogits)

// t (log t - log q), 0 where t is 0.
struct KlTerm : Map<2> {
  static constexpr std::string_view name = "_kl_div",
                                    doc = "b * (log(b) - a): a is a log-probability, b a probability.";
  static constexpr Domain domain{0.1, 2};
  template <Value V>
  PB_FN static V fwd(V a, V b) {
    V safe = where(b > V(0), b, V(1));
    return where(b > V(0), safe * (log(safe) - a), b * V(0) - b * a);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    if constexpr (I == 0)
      return -(g * b);
    else {
      V safe = where(b > V(0), b, V(1));
      return where(b > V(0), g * (log(safe) + V(1) - a), -(g * a));
    }
  }
  static constexpr unsigned uses[] = {0b10, 0b11};
};
PB_OP(KlTerm)

}  // namespace pb
