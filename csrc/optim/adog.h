// A-DoG: two coupled sequences, as in accelerated methods, whose step size is distance over gradients.
//
// With r the greatest distance of w from the start and a = max(1, sum of r / (2 r)), a step with the gradient g at p is
// G += a^2 |g|^2, eta = r / sqrt(G), y = p - eta g, w = w - a eta g; then r and a move on, and p = y + (w - y) / a.
// Slots hold the start and the displacements of w and of p, for the reason given in dog.h.
#pragma once
#include "optim/dog.h"

namespace pb::optim {

// The distance of the new w follows from |w|^2, <w, g> and |g|^2, so that p can be formed in the same pass. Reads p g w
// x and the start (g and w twice), writes p w x: 40 bytes per float32 parameter, and 8 for the average.
template <bool Averaged>
struct ADoGOf {
  static constexpr std::string_view doc = "An accelerated pair of sequences with the step size r / sqrt(G).";
  static constexpr HyperInfo hyper[] = {
      learning_rate(1.0), {"reps_rel", 1e-6, Range::NonNegative}, {"eps", 1e-8, Range::NonNegative}};
  static constexpr std::string_view scalars[] = {"distance", "distance_sum", "grad_squares"};
  static constexpr int sums = 4, degrees[] = {2, 0, 1, 0};
  static constexpr unsigned exact = 0b1111;
  static constexpr Scope scope = Scope::Model;
  template <class S>
  struct Hyper {
    S lr, reps_rel, eps;
  };
  template <class S>
  struct Step {
    S first, weight, rate, far, mix;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>&, int64_t t, Slots<S, 3>&) {
    return {S(t == 1 ? 1.0 : 0.0), S(9.0 / (8.0 + double(t))), S(0.0), S(0.0), S(1.0)};
  }
  template <Value V>
  PB_FN static Slots<V, 4> measure(V p, V g, const Slots<V, 3 + Averaged>& s, const Step<V>& k) {
    return {{g * g, s[1] * s[1], s[1] * g, where(k.first > V(0), p * p, V(0))}};
  }
  template <class S>
  static S weight(const Slots<S, 3>& kept) {
    auto some = kept[0] > S(0.0);
    return max(S(1.0), where(some, S(0.5) * kept[1] / where(some, kept[0], S(1.0)), S(1.0)));
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t t, Slots<S, 3>& kept, const Slots<S, 4>& sums, Step<S>& k) {
    if (t == 1) {
      kept[0] = kept[1] = h.reps_rel * (S(1.0) + root(sums[3]));
      kept[2] = h.eps;
    }
    S a = weight(kept);
    kept[2] = kept[2] + a * a * sums[0];
    k.rate = DoGOf<Averaged>::over_root(h.lr * kept[0], kept[2]);
    k.far = a * k.rate;
    S square = sums[1] - S(2.0) * k.far * sums[2] + k.far * k.far * sums[0];
    kept[0] = max(kept[0], root(max(square, S(0.0))));
    kept[1] = kept[1] + kept[0];
    k.mix = S(1.0) / weight(kept);
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 3 + Averaged>& s, const Step<V>& k) {
    s[0] = where(k.first > V(0), p, s[0]);
    s[1] = s[1] - k.far * g;
    s[2] = toward(s[2] - k.rate * g, s[1], k.mix);
    V next = s[0] + s[2];
    if constexpr (Averaged) s[3] = toward(s[3], next, k.weight);
    return next;
  }
};

struct ADoG : ADoGOf<false> {
  static constexpr std::string_view name = "adog", slots[] = {"start", "displacement", "iterate_displacement"};
};
PB_OPTIMIZER(ADoG)
struct ADoGAveraged : ADoGOf<true> {
  static constexpr std::string_view name = "adog_averaged",
                                    slots[] = {"start", "displacement", "iterate_displacement", "average"};
};
PB_OPTIMIZER(ADoGAveraged)

}  // namespace pb::optim
