// Adam and the rules that move along its averages. AdamW is Adam with decoupled decay, which the driver applies.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

// The averages move by `toward`, whose weights sum to 1 exactly: storing beta2 and 1 - beta2 in float32 would bias v by
// 1e-5. eps stands outside the root and after the correction; eps_before = 1 puts it before. adamnc = 1 replaces beta2
// by 1 - 1/t: v is the mean of all squares, which needs no correction. Both are blends, for they may be tensors.
template <double Lr, double Eps>
struct MomentsOf {
  static constexpr HyperInfo hyper[] = {learning_rate(Lr),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"eps", Eps, Range::NonNegative},
                                        {"eps_before", 0.0, Range::Any},
                                        {"adamnc", 0.0, Range::Any}};
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, eps, eps_before, adamnc;
  };
  template <class S>
  struct Step {
    S w1, w2, rate, correct, eps;
  };

  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    S c1 = S(1.0) - power(h.beta1, double(t)), c2 = S(1.0) - power(h.beta2, double(t)), w2 = S(1.0) - h.beta2;
    c2 = c2 + h.adamnc * (S(1.0) - c2);
    w2 = w2 + h.adamnc * (S(1.0 / double(t)) - w2);
    S correct = S(1.0) / sqrt(c2);
    return {S(1.0) - h.beta1, w2, h.lr / c1, correct, h.eps + h.eps * h.eps_before * (correct - S(1.0))};
  }
  template <Value V>
  PB_FN static V direction(V m, V v, const Step<V>& k) {
    return m / (root(v) * k.correct + k.eps);
  }
  template <Value V, class Slots>
  PB_FN static void average(V g, Slots& s, const Step<V>& k) {
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], g * g, k.w2);
  }
};
using Moments = MomentsOf<1e-3, 1e-8>;

// Reads p g m v, writes p m v: 28 bytes per float32 parameter.
struct Adam : Moments {
  static constexpr std::string_view name = "adam",
                                    doc = "Step along the mean of gradients over their root mean square.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq"};
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    average(g, s, k);
    return p - k.rate * direction(s[0], s[1], k);
  }
};
PB_OPTIMIZER(Adam)

// The maximum is taken of the uncorrected v and corrected afterwards. 36 bytes per float32 parameter.
struct Amsgrad : Moments {
  static constexpr std::string_view name = "amsgrad", doc = "Adam over the largest root mean square so far.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 3>& s, const Step<V>& k) {
    average(g, s, k);
    s[2] = max(s[2], s[1]);
    return p - k.rate * direction(s[0], s[2], k);
  }
};
PB_OPTIMIZER(Amsgrad)

// As published: nothing is corrected, the rate falls as 1/sqrt(t), and the maximum starts at eps instead of an eps in
// the quotient.
struct AmsgradPaper : Moments {
  static constexpr std::string_view name = "amsgrad_paper", doc = "AMSGrad as published, with lr / sqrt(t).";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    Step<S> k = Moments::prepare<S>(h, t);
    k.rate = h.lr * S(1.0 / std::sqrt(double(t)));
    return k;
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 3>& s, const Step<V>& k) {
    average(g, s, k);
    s[2] = max(max(s[2], s[1]), k.eps);
    return p - k.rate * (s[0] / root(s[2]));
  }
};
PB_OPTIMIZER(AmsgradPaper)

// Adam's length with the sign of the gradient: no move where the gradient is exactly 0.
struct Grams : MomentsOf<1e-3, 1e-6> {
  static constexpr std::string_view name = "grams", doc = "Adam's step length in the direction of -sign(g).";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq"};
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    average(g, s, k);
    return p - k.rate * (sign(g) * abs(direction(s[0], s[1], k)));
  }
};
PB_OPTIMIZER(Grams)

// Reads p g m v d, writes p m v d, where d is the previous gradient: 36 bytes per float32 parameter.
struct DiffGrad : Moments {
  static constexpr std::string_view name = "diffgrad", doc = "Adam times the sigmoid of the gradient's change.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "previous_grad"};
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 3>& s, const Step<V>& k) {
    average(g, s, k);
    V friction = V(1) / (V(1) + exp(-abs(s[2] - g)));
    s[2] = g;
    return p - k.rate * (friction * direction(s[0], s[1], k));
  }
};
PB_OPTIMIZER(DiffGrad)

// Coordinates in which Adam would climb stand still; the others are scaled by size / count. The mask is counted before
// the step, from the averages that the step will form.
struct Cautious : Moments {
  static constexpr std::string_view name = "cautious", doc = "Adam where its direction agrees with the gradient.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq"};
  static constexpr int sums = 2;
  static constexpr Scope scope = Scope::Tensor;
  template <Value V>
  PB_FN static V agrees(V m, V g) {
    return where(m * g > V(0), V(1), V(0));
  }
  template <Value V>
  PB_FN static Slots<V, 2> measure(V, V g, const Slots<V, 2>& s, const Step<V>& k) {
    return {{agrees(toward(s[0], g, k.w1), g), V(1)}};
  }
  template <class S>
  static void finish(const Hyper<S>&, int64_t, Slots<S, 0>&, const Slots<S, 2>& sums, Step<S>& k) {
    k.rate = k.rate / max(sums[0] / max(sums[1], S(1.0)), S(1e-3));
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    average(g, s, k);
    return p - k.rate * (agrees(s[0], g) * direction(s[0], s[1], k));
  }
};
PB_OPTIMIZER(Cautious)

// Reads p g m v, writes p m v.
struct RAdam {
  static constexpr std::string_view name = "radam", doc = "Adam with the variance of its rate rectified.";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"eps", 1e-8, Range::NonNegative},
                                        {"eps_before", 0.0, Range::Any}};
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq"};
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, eps, eps_before;
  };
  template <class S>
  struct Step {
    S w1, w2, rate, correct, eps, rectify, plain;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    S b2t = power(h.beta2, double(t)), c1 = S(1.0) - power(h.beta1, double(t)), c2 = S(1.0) - b2t;
    S full = S(2.0) / (S(1.0) - h.beta2) - S(1.0), rho = full - S(2.0 * double(t)) * b2t / c2;
    auto ready = rho > S(5.0);
    S ratio = (rho - S(4.0)) * (rho - S(2.0)) * full / ((full - S(4.0)) * (full - S(2.0)) * rho);
    S rectify = where(ready, sqrt(where(ready, ratio, S(1.0))), S(0.0)), correct = S(1.0) / sqrt(c2);
    return {S(1.0) - h.beta1,
            S(1.0) - h.beta2,
            h.lr / c1,
            correct,
            h.eps + h.eps * h.eps_before * (correct - S(1.0)),
            rectify,
            where(ready, S(0.0), S(1.0))};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], g * g, k.w2);
    return p - k.rate * s[0] * (k.plain + k.rectify / (root(s[1]) * k.correct + k.eps));
  }
};
PB_OPTIMIZER(RAdam)

// Nesterov's momentum mu_t rises towards beta1; its running product is a scalar of each tensor.
struct NAdam {
  static constexpr std::string_view name = "nadam", doc = "Adam with Nesterov's momentum.";
  static constexpr HyperInfo hyper[] = {learning_rate(2e-3),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"eps", 1e-8, Range::NonNegative},
                                        {"momentum_decay", 4e-3, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq"}, scalars[] = {"mu_product"};
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, eps, momentum_decay;
  };
  template <class S>
  struct Step {
    S w1, w2, of_g, of_m, correct, eps;
  };
  template <class S>
  static S momentum(const Hyper<S>& h, int64_t t) {
    return h.beta1 * (S(1.0) - S(0.5) * exp(h.momentum_decay * S(double(t) * std::log(0.96))));
  }
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t, Slots<S, 1>& kept) {
    S mu = momentum(h, t), next = momentum(h, t + 1);
    kept[0] = t == 1 ? mu : kept[0] * mu;
    return {S(1.0) - h.beta1,
            S(1.0) - h.beta2,
            h.lr * (S(1.0) - mu) / (S(1.0) - kept[0]),
            h.lr * next / (S(1.0) - kept[0] * next),
            S(1.0) / sqrt(S(1.0) - power(h.beta2, double(t))),
            h.eps};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], g * g, k.w2);
    return p - (k.of_g * g + k.of_m * s[0]) / (root(s[1]) * k.correct + k.eps);
  }
};
PB_OPTIMIZER(NAdam)

// A fast mean m, corrected, and a slow one n, not corrected. alpha grows linearly over alpha_steps, and over
// beta3_steps the half-life of n grows linearly from that of beta1; 0 steps: at once. Reads p g m n v, writes p m n v:
// 36 bytes.
struct AdEMAMix {
  static constexpr std::string_view name = "ademamix", doc = "Adam with a second, slow mean of the gradients.";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"beta3", 0.9999, Range::Unit},
                                        {"alpha", 5.0, Range::NonNegative},
                                        {"alpha_steps", 0.0, Range::NonNegative},
                                        {"beta3_steps", 0.0, Range::NonNegative},
                                        {"eps", 1e-8, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "exp_avg_slow"};
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, beta3, alpha, alpha_steps, beta3_steps, eps;
  };
  template <class S>
  struct Step {
    S w1, w2, w3, alpha, rate, correct, eps;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    S c1 = S(1.0) - power(h.beta1, double(t)), c2 = S(1.0) - power(h.beta2, double(t));
    S part = min(S(double(t)) / h.beta3_steps, S(1.0)), alpha = h.alpha * min(S(double(t)) / h.alpha_steps, S(1.0));
    S beta3 = exp(S(1.0) / ((S(1.0) - part) / log(h.beta1) + part / log(h.beta3)));
    beta3 = where(part < S(1.0), beta3, h.beta3);
    return {S(1.0) - h.beta1, S(1.0) - h.beta2, S(1.0) - beta3, alpha * c1, h.lr / c1, S(1.0) / sqrt(c2), h.eps};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 3>& s, const Step<V>& k) {
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], g * g, k.w2);
    s[2] = toward(s[2], g, k.w3);
    return p - k.rate * ((s[0] + k.alpha * s[2]) / (root(s[1]) * k.correct + k.eps));
  }
};
PB_OPTIMIZER(AdEMAMix)

}  // namespace pb::optim
