// Rates by coordinate from accumulated squares: RMSprop, Adagrad, Adadelta.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

// v = alpha v + (1 - alpha) g^2. Centered subtracts the squared mean, clamped at 0; momentum accumulates the quotients.
// 20 bytes per float32 parameter, 8 more for each option.
template <bool Centered, bool Momentum>
struct RMSpropOf {
  static constexpr std::string_view doc = "p - lr g / (sqrt(mean of g^2) + eps).";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-2),
                                        {"alpha", 0.99, Range::Unit},
                                        {"eps", 1e-8, Range::NonNegative},
                                        {"momentum", 0.0, Range::NonNegative}};
  static constexpr int kMean = 1, kBuffer = 1 + Centered, kCount = 1 + Centered + Momentum;
  static constexpr unsigned exact = Centered ? 0b11 : 0;
  template <class S>
  struct Hyper {
    S lr, alpha, eps, momentum;
  };
  template <class S>
  struct Step {
    S lr, weight, eps, momentum;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t) {
    return {h.lr, S(1.0) - h.alpha, h.eps, h.momentum};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, kCount>& s, const Step<V>& k) {
    s[0] = toward(s[0], g * g, k.weight);
    V v = s[0];
    if constexpr (Centered) {
      s[kMean] = toward(s[kMean], g, k.weight);
      v = max(v - s[kMean] * s[kMean], V(0));
    }
    V u = g / (root(v) + k.eps);
    if constexpr (Momentum) u = s[kBuffer] = k.momentum * s[kBuffer] + u;
    return p - k.lr * u;
  }
};
struct RMSprop : RMSpropOf<false, false> {
  static constexpr std::string_view name = "rmsprop", slots[] = {"square_avg"};
};
struct RMSpropCentered : RMSpropOf<true, false> {
  static constexpr std::string_view name = "rmsprop_centered", slots[] = {"square_avg", "grad_avg"};
};
struct RMSpropMomentum : RMSpropOf<false, true> {
  static constexpr std::string_view name = "rmsprop_momentum", slots[] = {"square_avg", "momentum_buffer"};
};
struct RMSpropBoth : RMSpropOf<true, true> {
  static constexpr std::string_view name = "rmsprop_both", slots[] = {"square_avg", "grad_avg", "momentum_buffer"};
};
PB_OPTIMIZER(RMSprop)
PB_OPTIMIZER(RMSpropCentered)
PB_OPTIMIZER(RMSpropMomentum)
PB_OPTIMIZER(RMSpropBoth)

// Reads p g v, writes p v: 20 bytes per float32 parameter.
struct Adagrad {
  static constexpr std::string_view name = "adagrad", doc = "p - lr g / (sqrt(sum of g^2) + eps).";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-2),
                                        {"lr_decay", 0.0, Range::NonNegative},
                                        {"initial_accumulator_value", 0.0, Range::NonNegative},
                                        {"eps", 1e-10, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"sum"};
  template <class S>
  struct Hyper {
    S lr, lr_decay, start, eps;
  };
  template <class S>
  struct Step {
    S rate, start, eps;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    return {h.lr / (S(1.0) + S(double(t - 1)) * h.lr_decay), t == 1 ? h.start : S(0.0), h.eps};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& s, const Step<V>& k) {
    s[0] = s[0] + (g * g + k.start);
    return p - k.rate * (g / (root(s[0]) + k.eps));
  }
};
PB_OPTIMIZER(Adagrad)

// eps stands inside both roots. 28 bytes per float32 parameter.
struct Adadelta {
  static constexpr std::string_view name = "adadelta", doc = "Steps scaled by the ratio of the means of u^2 and g^2.";
  static constexpr HyperInfo hyper[] = {
      learning_rate(1.0), {"rho", 0.9, Range::Unit}, {"eps", 1e-6, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"square_avg", "acc_delta"};
  template <class S>
  struct Hyper {
    S lr, rho, eps;
  };
  template <class S>
  struct Step {
    S lr, weight, eps;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t) {
    return {h.lr, S(1.0) - h.rho, h.eps};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    s[0] = toward(s[0], g * g, k.weight);
    V u = g * (root(s[1] + k.eps) / root(s[0] + k.eps));
    s[1] = toward(s[1], u * u, k.weight);
    return p - k.lr * u;
  }
};
PB_OPTIMIZER(Adadelta)

}  // namespace pb::optim
