// Distance over gradients: steps without a rate to choose.
//
// Slots hold the start p0 and the displacement d, and p = p0 + d at the store: while the distance is 1e-6 of |p|,
// p - p0 has almost no correct digits in float32. The average weighs step t by 9 / (8 + t).
#pragma once
#include "optim/rule.h"

namespace pb::optim {

template <Scope Over, bool Averaged>
struct DoGBase {
  static constexpr std::string_view doc = "p - lr r / sqrt(G) g, r the greatest distance from the start, G sum |g|^2.";
  static constexpr HyperInfo hyper[] = {
      learning_rate(1.0), {"reps_rel", 1e-6, Range::NonNegative}, {"eps", 1e-8, Range::NonNegative}};
  static constexpr std::string_view scalars[] = {"distance", "grad_squares"};
  static constexpr int displacement = 1, sums = 3;
  static constexpr unsigned exact = 0b111;
  static constexpr int degrees[] = {2, 0, 0};
  static constexpr Scope scope = Over;
  template <class S>
  struct Hyper {
    S lr, reps_rel, eps;
  };
  template <class S>
  struct Step {
    S first, weight, rate;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>&, int64_t t, Slots<S, 2>&) {
    return {S(t == 1 ? 1.0 : 0.0), S(9.0 / (8.0 + double(t))), S(0.0)};
  }
  template <Value V>
  PB_FN static Slots<V, 3> measure(V p, V g, const Slots<V, 2 + Averaged>& s, const Step<V>& k) {
    return {{g * g, s[1] * s[1], where(k.first > V(0), p * p, V(0))}};
  }
  template <class S>
  static void move(const Hyper<S>& h, int64_t t, Slots<S, 2>& kept, const Slots<S, 3>& sums) {
    kept[0] = t == 1 ? h.reps_rel * (S(1.0) + root(sums[2])) : max(kept[0], root(sums[1]));
    kept[1] = (t == 1 ? h.eps : kept[1]) + sums[0];
  }
  template <class S>
  static S over_root(S x, S square) {
    auto some = square > S(0.0);
    return where(some, x / sqrt(where(some, square, S(1.0))), S(0.0));
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t t, Slots<S, 2>& kept, const Slots<S, 3>& sums, Step<S>& k) {
    move(h, t, kept, sums);
    k.rate = over_root(h.lr * kept[0], kept[1]);
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 2 + Averaged>& s, const Step<V>& k) {
    s[0] = where(k.first > V(0), p, s[0]);
    s[1] = s[1] - k.rate * g;
    V next = s[0] + s[1];
    if constexpr (Averaged) s[2] = toward(s[2], next, k.weight);
    return next;
  }
};

#define PB_DOG(Name, NAME, BASE)                                                                               \
  struct Name : BASE<false> {                                                                                  \
    static constexpr std::string_view name = NAME, slots[] = {"start", "displacement"};                        \
  };                                                                                                           \
  PB_OPTIMIZER(Name)                                                                                           \
  struct Name##Averaged : BASE<true> {                                                                         \
    static constexpr std::string_view name = NAME "_averaged", slots[] = {"start", "displacement", "average"}; \
  };                                                                                                           \
  PB_OPTIMIZER(Name##Averaged)

template <bool Averaged>
using DoGOf = DoGBase<Scope::Model, Averaged>;
template <bool Averaged>
using LDoGOf = DoGBase<Scope::Tensor, Averaged>;
PB_DOG(DoG, "dog", DoGOf)
PB_DOG(LDoG, "ldog", LDoGOf)

// Tamed: G is enlarged so far that the iterates provably stay bounded. L is the largest gradient norm so far;
// G' = 8^4 h^2 ln+(1 + t L^2 / L_1^2)^2 (G_{t-1} + 16 L^2), with h = log(60 log(6 t) / delta) and ln+(x) = 1 + ln x.
// h is squared because the proof needs both the sum of squares of the noise terms eta <noise, x - x*> to be of the
// order of 1/h and the largest of them to be of the order of 1/h, in units of the squared distance.
template <bool Averaged>
struct TDoGOf : DoGBase<Scope::Model, Averaged> {
  static constexpr std::string_view doc = "DoG with a larger G, which keeps the iterates bounded.";
  static constexpr HyperInfo hyper[] = {learning_rate(1.0),
                                        {"reps_rel", 1e-6, Range::NonNegative},
                                        {"eps", 1e-8, Range::NonNegative},
                                        {"delta", 0.01, Range::Unit}};
  static constexpr std::string_view scalars[] = {"distance", "grad_squares", "largest_square", "first_square"};
  template <class S>
  struct Hyper {
    S lr, reps_rel, eps, delta;
  };
  template <class S>
  using Step = typename DoGBase<Scope::Model, Averaged>::template Step<S>;
  template <class S>
  static Step<S> prepare(const Hyper<S>&, int64_t t, Slots<S, 4>&) {
    return {S(t == 1 ? 1.0 : 0.0), S(9.0 / (8.0 + double(t))), S(0.0)};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t t, Slots<S, 4>& kept, const Slots<S, 3>& sums, Step<S>& k) {
    kept[0] = t == 1 ? h.reps_rel * (S(1.0) + root(sums[2])) : max(kept[0], root(sums[1]));
    kept[2] = t == 1 ? sums[0] : max(kept[2], sums[0]);
    if (t == 1) kept[3] = sums[0];
    S before = t == 1 ? h.eps : kept[1];
    kept[1] = before + sums[0];
    S ratio = where(kept[3] > S(0.0), kept[2] / where(kept[3] > S(0.0), kept[3], S(1.0)), S(1.0));
    S growth = S(1.0) + log(S(1.0) + S(double(t)) * ratio);
    S chance = log(S(60.0 * std::log(6.0 * double(t))) / h.delta);
    S tamed = S(4096.0) * chance * chance * growth * growth * (before + S(16.0) * kept[2]);
    k.rate = DoGBase<Scope::Model, Averaged>::over_root(h.lr * kept[0], tamed);
  }
};
PB_DOG(TDoG, "tdog", TDoGOf)
#undef PB_DOG

// The distance estimate d grows from d0 by the correlation of the gradients with the way gone. Slots: m, v, the
// weighted gradient sum s, the start and the displacement; bytes 48 and 28 for the sums.
struct Prodigy {
  static constexpr std::string_view name = "prodigy", doc = "Adam with its rate times an estimate of the distance.";
  static constexpr HyperInfo hyper[] = {learning_rate(1.0),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.999, Range::Unit},
                                        {"beta3", 0.0, Range::Unit},
                                        {"eps", 1e-8, Range::NonNegative},
                                        {"weight_decay", 0.0, Range::NonNegative},
                                        {"use_bias_correction", 0.0, Range::Any},
                                        {"safeguard_warmup", 0.0, Range::Any},
                                        {"d0", 1e-6, Range::NonNegative},
                                        {"d_coef", 1.0, Range::NonNegative},
                                        {"growth_rate", 1e300, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"exp_avg", "exp_avg_sq", "s", "start", "displacement"};
  static constexpr std::string_view scalars[] = {"d", "d_max", "d_numerator"};
  static constexpr unsigned exact = 0b11000;
  static constexpr int sums = 2;
  static constexpr Scope scope = Scope::Model;
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, beta3, eps, weight_decay, correct, safeguard, d0, d_coef, growth;
  };
  template <class S>
  struct Step {
    S first, w2, keep1, take1, take2, beta3, take_s, dot, rate, eps, decay;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t t, Slots<S, 3>& kept) {
    if (t == 1) kept[0] = h.d0, kept[1] = h.d0, kept[2] = S(0.0);
    S d = kept[0];
    S bias = sqrt(S(1.0) - power(h.beta2, double(t))) / (S(1.0) - power(h.beta1, double(t)));
    S dlr = d * h.lr * (S(1.0) + h.correct * (bias - S(1.0)));
    S w2 = S(1.0) - h.beta2, take_s = d / h.d0 * (dlr + h.safeguard * (d - dlr));
    return {S(t == 1 ? 1.0 : 0.0), w2,  h.beta1, d * (S(1.0) - h.beta1), d * d, h.beta3, take_s,
            d / h.d0 * dlr,        dlr, S(0.0),  h.weight_decay * dlr};
  }
  template <Value V>
  PB_FN static Slots<V, 2> measure(V, V g, const Slots<V, 5>& s, const Step<V>& k) {
    return {{-(g * s[4]), abs(k.beta3 * s[2] + k.take_s * g)}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t, Slots<S, 3>& kept, const Slots<S, 2>& sums, Step<S>& k) {
    kept[2] = h.beta3 * kept[2] + k.dot * sums[0];
    auto some = sums[1] > S(0.0);
    S guess = h.d_coef * kept[2] / where(some, sums[1], S(1.0)), d = kept[0];
    guess = where(some, guess, S(0.0));
    d = where(d <= h.d0, max(d, guess), d);
    kept[1] = max(kept[1], guess);
    kept[0] = where(some, min(kept[1], d * h.growth), kept[0]);
    k.eps = kept[0] * h.eps;
    k.rate = where(some, k.rate, S(0.0));
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 5>& s, const Step<V>& k) {
    s[0] = k.keep1 * s[0] + k.take1 * g;
    s[1] = toward(s[1], k.take2 * (g * g), k.w2);
    s[2] = k.beta3 * s[2] + k.take_s * g;
    s[3] = where(k.first > V(0), p, s[3]);
    V spread = root(s[1]) + k.eps;
    V u = s[0] / where(spread > V(0), spread, V(1));
    s[4] = s[4] - (k.decay * p + k.rate * u);
    return s[3] + s[4];
  }
};
PB_OPTIMIZER(Prodigy)

}  // namespace pb::optim
