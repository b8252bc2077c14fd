// Rules with random numbers or a bounded force: exponential random scaling, Langevin dynamics, Gravity.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

// m = momentum m + g; p - scale lr m with one scale ~ Exp(1) for the whole model, drawn by the caller. 20 bytes. g is
// multiplied by a 1 that the compiler does not know, so that it rounds as Momentum does and scale 1 gives its bits.
struct ExpScaled {
  static constexpr std::string_view name = "exp_scaled", doc = "Momentum with one random factor per step.";
  static constexpr HyperInfo hyper[] = {
      learning_rate(1e-3), {"momentum", 0.9, Range::NonNegative}, {"scale", 1.0, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"momentum_buffer"};
  template <class S>
  struct Hyper {
    S lr, momentum, scale;
  };
  template <class S>
  struct Step {
    S rate, momentum, take;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t) {
    return {h.lr * h.scale, h.momentum, S(1.0)};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& m, const Step<V>& k) {
    m[0] = k.momentum * m[0] + k.take * g;
    return p - k.rate * m[0];
  }
};
PB_OPTIMIZER(ExpScaled)

// Noise is made in the step: 12 bytes per float32 parameter.
struct Sgld {
  static constexpr std::string_view name = "sgld", doc = "p - lr/2 g + sqrt(lr temperature) times normal noise.";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3), {"temperature", 1.0, Range::NonNegative}};
  static constexpr std::string_view scalars[] = {"seed"};
  static constexpr bool noise = true;
  template <class S>
  struct Hyper {
    S lr, temperature;
  };
  template <class S>
  struct Step {
    S drift, deviation;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t, Slots<S, 1>&) {
    return {S(0.5) * h.lr, sqrt(h.lr * h.temperature)};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& xi, const Step<V>& k) {
    return p - k.drift * g + k.deviation * xi[0];
  }
};
PB_OPTIMIZER(Sgld)

// The force g / (1 + (g max|g|)^2) is at most 1 / (2 max|g|). 24 bytes per float32 parameter.
struct Gravity {
  static constexpr std::string_view name = "gravity", doc = "Momentum of gradients whose large elements are damped.";
  static constexpr HyperInfo hyper[] = {
      learning_rate(0.1), {"beta", 0.9, Range::Unit}, {"t0", 0.0, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"velocity"};
  static constexpr int sums = 1, degrees[] = {1};
  static constexpr Scope scope = Scope::Tensor;
  static constexpr bool largest = true;
  template <class S>
  struct Hyper {
    S lr, beta, t0;
  };
  template <class S>
  struct Step {
    S lr, weight, top;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    S count = S(double(t - 1)) + h.t0;
    return {h.lr, S(1.0) - (h.beta * count + S(1.0)) / (count + S(2.0)), S(0.0)};
  }
  template <Value V>
  PB_FN static Slots<V, 1> measure(V, V g, const Slots<V, 1>&, const Step<V>&) {
    return {{abs(g)}};
  }
  template <class S>
  static void finish(const Hyper<S>&, int64_t, Slots<S, 0>&, const Slots<S, 1>& sums, Step<S>& k) {
    k.top = sums[0];
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& s, const Step<V>& k) {
    V x = g * k.top;
    s[0] = toward(s[0], g / (V(1) + x * x), k.weight);
    return p - k.lr * s[0];
  }
};
PB_OPTIMIZER(Gravity)

}  // namespace pb::optim
