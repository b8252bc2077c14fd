// Rules whose step needs a norm first, and two relatives of Adam that keep more than one sequence of iterates.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

// One number for the whole model. Reads p and g, g twice; writes p: 16 bytes per float32 parameter.
struct AdagradNorm {
  static constexpr std::string_view name = "adagrad_norm", doc = "p - lr g / sqrt(b0^2 + sum |g|^2).";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-2), {"b0", 1e-2, Range::NonNegative}};
  static constexpr std::string_view scalars[] = {"sum"};
  static constexpr int sums = 1, degrees[] = {2};
  static constexpr Scope scope = Scope::Model;
  template <class S>
  struct Hyper {
    S lr, b0;
  };
  template <class S>
  struct Step {
    S rate;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>&, int64_t, Slots<S, 1>&) {
    return {S(0.0)};
  }
  template <Value V>
  PB_FN static Slots<V, 1> measure(V, V g, const Slots<V, 0>&, const Step<V>&) {
    return {{g * g}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t t, Slots<S, 1>& kept, const Slots<S, 1>& sums, Step<S>& k) {
    kept[0] = (t == 1 ? h.b0 * h.b0 : kept[0]) + sums[0];
    auto some = kept[0] > S(0.0);
    k.rate = where(some, h.lr / sqrt(where(some, kept[0], S(1.0))), S(0.0));
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 0>&, const Step<V>& k) {
    return p - k.rate * g;
  }
};
PB_OPTIMIZER(AdagradNorm)

struct NormalizedGD {
  static constexpr std::string_view name = "normalized_gd", doc = "p - lr g / |g|^beta.";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3), {"beta", 1.0, Range::NonNegative}};
  static constexpr int sums = 1, degrees[] = {2};
  static constexpr Scope scope = Scope::Model;
  template <class S>
  struct Hyper {
    S lr, beta;
  };
  template <class S>
  struct Step {
    S rate;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>&, int64_t) {
    return {S(0.0)};
  }
  template <Value V>
  PB_FN static Slots<V, 1> measure(V, V g, const Slots<V, 0>&, const Step<V>&) {
    return {{g * g}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t, Slots<S, 0>&, const Slots<S, 1>& sums, Step<S>& k) {
    auto some = sums[0] > S(0.0);
    k.rate = where(some, h.lr * exp(S(-0.5) * h.beta * log(where(some, sums[0], S(1.0)))), S(0.0));
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 0>&, const Step<V>& k) {
    return p - k.rate * g;
  }
};
PB_OPTIMIZER(NormalizedGD)

// The averages are formed once for the norm of the direction and again for the step: 16 and 28 bytes per float32
// parameter.
struct Lamb {
  static constexpr std::string_view name = "lamb", doc = "Adam's direction with the norm of its tensor.";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"eps", 1e-6, Range::NonNegative},
                                        {"weight_decay", 0.0, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq"};
  static constexpr int sums = 2;
  static constexpr Scope scope = Scope::Tensor;
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, eps, weight_decay;
  };
  template <class S>
  struct Step {
    S w1, w2, first, second, eps, decay, rate;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    return {S(1.0) - h.beta1,
            S(1.0) - h.beta2,
            S(1.0) / (S(1.0) - power(h.beta1, double(t))),
            S(1.0) / sqrt(S(1.0) - power(h.beta2, double(t))),
            h.eps,
            h.weight_decay,
            h.lr};
  }
  template <Value V>
  PB_FN static V direction(V p, V m, V v, const Step<V>& k) {
    return k.first * m / (root(v) * k.second + k.eps) + k.decay * p;
  }
  template <Value V>
  PB_FN static Slots<V, 2> measure(V p, V g, const Slots<V, 2>& s, const Step<V>& k) {
    V u = direction(p, toward(s[0], g, k.w1), toward(s[1], g * g, k.w2), k);
    return {{p * p, u * u}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t, Slots<S, 0>&, const Slots<S, 2>& sums, Step<S>& k) {
    auto some = min(sums[0], sums[1]) > S(0.0);
    S ratio = where(some, sums[0], S(1.0)) / where(some, sums[1], S(1.0));
    k.rate = h.lr * sqrt(ratio);
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], g * g, k.w2);
    return p - k.rate * direction(p, s[0], s[1], k);
  }
};
PB_OPTIMIZER(Lamb)

// w accumulates; p is w one step further along a guess of the next gradient. No correction and no eps: the maximum
// starts at v0. Slots theta, v, the maximum, w, the guess: 48 bytes per float32 parameter where the guess is the
// present gradient. A guess that is given from outside waits in a sixth slot.
template <bool Given>
struct OptAmsgradOf {
  static constexpr HyperInfo hyper[] = {learning_rate(1e-3),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"v0", 1e-8, Range::NonNegative}};
  static constexpr int displacement = 3;
  static constexpr unsigned exact = 0b01000;
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, v0;
  };
  template <class S>
  struct Step {
    S first, lr, w1, w2, v0;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t) {
    return {S(t == 1 ? 1.0 : 0.0), h.lr, S(1.0) - h.beta1, S(1.0) - h.beta2, h.v0};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 5 + Given>& s, const Step<V>& k) {
    V before = s[0], off = g - s[4];
    s[0] = toward(s[0], g, k.w1);
    s[1] = toward(s[1], off * off, k.w2);
    s[2] = max(max(s[2], s[1]), k.v0);
    V rate = k.lr / root(s[2]);
    s[3] = s[3] + where(k.first > V(0), p, V(0)) - rate * s[0];
    if constexpr (Given)
      s[4] = s[5];
    else
      s[4] = g;
    return s[3] - rate * toward(before, s[4], k.w1);
  }
};

struct OptAmsgrad : OptAmsgradOf<false> {
  static constexpr std::string_view name = "opt_amsgrad", doc = "Optimistic AMSGrad with the last gradient as guess.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "iterate", "guess"};
};
PB_OPTIMIZER(OptAmsgrad)

struct OptAmsgradGiven : OptAmsgradOf<true> {
  static constexpr std::string_view name = "opt_amsgrad_given", doc = "Optimistic AMSGrad with a guess from outside.";
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "iterate", "guess", "next"};
};
PB_OPTIMIZER(OptAmsgradGiven)

// p is y, where gradients are taken; z takes the steps; the iterate to use is x = y + (1 - 1/beta1) (z - y).
struct ScheduleFree {
  static constexpr std::string_view name = "schedule_free",
                                    doc = "AdamW whose iterates are averaged, without schedule.";
  static constexpr HyperInfo hyper[] = {learning_rate(2.5e-3),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"eps", 1e-8, Range::NonNegative},
                                        {"weight_decay", 0.0, Range::NonNegative},
                                        {"warmup_steps", 0.0, Range::NonNegative},
                                        {"r", 0.0, Range::Any},
                                        {"weight_lr_power", 2.0, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"z", "exp_avg_sq"}, scalars[] = {"lr_max", "weight_sum"};
  static constexpr unsigned exact = 0b01;
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, eps, weight_decay, warmup, r, weight_power;
  };
  template <class S>
  struct Step {
    S first, w2, correct, eps, decay, mix, pull, lr;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t, Slots<S, 2>& kept) {
    S lr = h.lr * min(S(double(t)) / h.warmup, S(1.0));
    kept[0] = max(kept[0], lr);
    S weight = exp(h.r * S(std::log(double(t)))) * pow(kept[0], h.weight_power);
    kept[1] = kept[1] + weight;
    S mix = where(kept[1] > S(0.0), weight / where(kept[1] > S(0.0), kept[1], S(1.0)), S(0.0));
    return {S(t == 1 ? 1.0 : 0.0),
            S(1.0) - h.beta2,
            S(1.0) / sqrt(S(1.0) - power(h.beta2, double(t))),
            h.eps,
            h.weight_decay,
            mix,
            lr * (h.beta1 * (S(1.0) - mix) - S(1.0)),
            lr};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2>& s, const Step<V>& k) {
    V z = where(k.first > V(0), p, s[0]);
    s[1] = toward(s[1], g * g, k.w2);
    V u = g / (root(s[1]) * k.correct + k.eps) + k.decay * p;
    s[0] = z - k.lr * u;
    return toward(p, z, k.mix) + k.pull * u;
  }
};
PB_OPTIMIZER(ScheduleFree)

}  // namespace pb::optim
