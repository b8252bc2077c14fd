// Averages of weights: p is the average, g the current weight.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

struct Average {
  static constexpr std::string_view name = "_average", doc = "Exponential moving average of given tensors.";
  static constexpr HyperInfo hyper[] = {{"decay", 0.999, Range::Unit}};
  template <class S>
  struct Hyper {
    S decay;
  };
  template <class S>
  struct Step {
    S weight;
  };

  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t) {
    return {S(1.0) - h.decay};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 0>&, const Step<V>& k) {
    return toward(p, g, k.weight);
  }
};
PB_OPTIMIZER(Average)

}  // namespace pb::optim
