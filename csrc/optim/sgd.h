// Gradient descent, with momentum and with Nesterov's momentum.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

// Reads p g, writes p: 12 bytes per float32 parameter.
struct Sgd {
  static constexpr std::string_view name = "sgd", doc = "p - lr g.";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3)};
  template <class S>
  struct Hyper {
    S lr;
  };
  template <class S>
  struct Step {
    S lr;
  };

  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t) {
    return {h.lr};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 0>&, const Step<V>& k) {
    return p - k.lr * g;
  }
};
PB_OPTIMIZER(Sgd)

// m = momentum m + (1 - dampening) g; the first m is g itself. The learning rate stands outside m, so that a schedule
// acts at once. Reads p g m, writes p m: 20 bytes per float32 parameter.
struct HeavyBall {
  static constexpr std::string_view slots[] = {"momentum_buffer"};
  static constexpr HyperInfo hyper[] = {
      learning_rate(1e-3), {"momentum", 0.9, Range::NonNegative}, {"dampening", 0.0, Range::Any}};
  template <class S>
  struct Hyper {
    S lr, momentum, dampening;
  };
  template <class S>
  struct Step {
    S lr, momentum, keep, take;
  };

  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    if (t == 1) return {h.lr, h.momentum, S(0.0), S(1.0)};
    return {h.lr, h.momentum, h.momentum, S(1.0) - h.dampening};
  }
  template <Value V>
  PB_FN static V mix(V m, V g, const Step<V>& k) {
    return k.keep * m + k.take * g;
  }
};

struct Momentum : HeavyBall {
  static constexpr std::string_view name = "momentum", doc = "p - lr m with m = momentum m + (1 - dampening) g.";
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& m, const Step<V>& k) {
    m[0] = mix(m[0], g, k);
    return p - k.lr * m[0];
  }
};
PB_OPTIMIZER(Momentum)

struct Nesterov : HeavyBall {
  static constexpr std::string_view name = "nesterov", doc = "p - lr (g + momentum m).";
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& m, const Step<V>& k) {
    m[0] = mix(m[0], g, k);
    return p - k.lr * (g + k.momentum * m[0]);
  }
};
PB_OPTIMIZER(Nesterov)

}  // namespace pb::optim
