// Adam and its variant with the running maximum. AdamW is Adam with decoupled decay, which the driver applies.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

// The averages move by `toward`, whose weights sum to 1 exactly: storing beta2 and 1 - beta2 in float32 would bias v by
// 1e-5. eps stands outside the root and after the correction.
struct Moments {
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"eps", 1e-8, Range::NonNegative}};
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, eps;
  };
  template <class S>
  struct Step {
    S w1, w2, rate, correct, eps;
  };

  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    S c1 = S(1.0) - power(h.beta1, double(t)), c2 = S(1.0) - power(h.beta2, double(t));
    return {S(1.0) - h.beta1, S(1.0) - h.beta2, h.lr / c1, S(1.0) / sqrt(c2), h.eps};
  }
  template <Value V>
  PB_FN static V move(V p, V m, V v, const Step<V>& k) {
    return p - k.rate * (m / (root(v) * k.correct + k.eps));
  }
};

// Reads p g m v, writes p m v: 28 bytes per float32 parameter.
struct Adam : Moments {
  static constexpr std::string_view name = "adam",
                                    doc = "Step along the mean of gradients over their root mean square.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq"};
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], g * g, k.w2);
    return move(p, s[0], s[1], k);
  }
};
PB_OPTIMIZER(Adam)

// The maximum is taken of the uncorrected v and corrected afterwards. 36 bytes per float32 parameter.
struct Amsgrad : Moments {
  static constexpr std::string_view name = "amsgrad", doc = "Adam over the largest root mean square so far.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 3>& s, const Step<V>& k) {
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], g * g, k.w2);
    s[2] = max(s[2], s[1]);
    return move(p, s[0], s[2], k);
  }
};
PB_OPTIMIZER(Amsgrad)

}  // namespace pb::optim
