// U-DoG: an extragradient pair whose step size is distance over gradients. One iteration is two steps of the driver.
//
// With r the greatest distance of an iterate from the start, s the sum of r so far and a = s / r, iterate t weighs s.
// The first gradient m is taken at the weighted mean of past x and the present y, x = y - a eta m; the second, g, at
// the weighted mean of all x, y = y - a eta' g. eta = r / sqrt(G), G = M + Q with M the largest a^2 |m|^2 and Q the sum
// of a^2 |g - m|^2, in eta without the present one. Slots: the start, the displacements of y and of the mean, m.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

struct UDoGPair {
  static constexpr HyperInfo hyper[] = {
      learning_rate(1.0), {"reps_rel", 1e-6, Range::NonNegative}, {"eps", 1e-8, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"start", "displacement", "average_displacement", "first_grad"};
  static constexpr std::string_view scalars[] = {"distance", "distance_sum", "weight_sum",
                                                 "largest",  "changes",      "move"};
  static constexpr Scope scope = Scope::Model;
  static constexpr unsigned exact = 0b0111;
  template <class S>
  struct Hyper {
    S lr, reps_rel, eps;
  };
  template <class S>
  struct Step {
    S first, rate, mix, move;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>&, int64_t t, Slots<S, 6>& kept) {
    return {S(t == 1 ? 1.0 : 0.0), S(0.0), S(0.0), kept[5]};
  }
  template <class S>
  static S rate(const Hyper<S>& h, const Slots<S, 6>& kept) {
    S square = kept[3] + kept[4];
    auto some = square > S(0.0);
    return where(some, h.lr * kept[1] / sqrt(where(some, square, S(1.0))), S(0.0));  // a r = s
  }
  template <class S>
  static S squared_a(const Slots<S, 6>& kept) {
    S a = kept[1] / where(kept[0] > S(0.0), kept[0], S(1.0));
    return a * a;
  }
};

struct UDoGFirst : UDoGPair {
  static constexpr std::string_view name = "_udog_first", doc = "The first half of an iteration of U-DoG.";
  static constexpr int sums = 2, degrees[] = {2, 0};
  template <Value V>
  PB_FN static Slots<V, 2> measure(V p, V g, const Slots<V, 4>&, const Step<V>& k) {
    return {{g * g, where(k.first > V(0), p * p, V(0))}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t t, Slots<S, 6>& kept, const Slots<S, 2>& sums, Step<S>& k) {
    if (t == 1) {
      kept[0] = kept[1] = h.reps_rel * (S(1.0) + root(sums[1]));
      kept[4] = h.eps;
    }
    kept[3] = max(kept[3], squared_a(kept) * sums[0]);
    kept[2] = kept[2] + kept[1];
    k.rate = kept[5] = rate(h, kept);
    k.mix = where(kept[2] > S(0.0), kept[1] / where(kept[2] > S(0.0), kept[2], S(1.0)), S(0.0));
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 4>& s, const Step<V>& k) {
    s[0] = where(k.first > V(0), p, s[0]);
    s[2] = toward(s[2], s[1] - k.rate * g, k.mix);
    s[3] = g;
    return s[0] + s[2];
  }
};
PB_OPTIMIZER(UDoGFirst)

// The distance of the new y follows from |y|^2, <y, g> and |g|^2, so that the point of the next gradient can be formed
// in the same pass.
struct UDoG : UDoGPair {
  static constexpr std::string_view name = "udog", doc = "The second half of an iteration of U-DoG.";
  static constexpr int sums = 5;
  template <Value V>
  PB_FN static Slots<V, 5> measure(V, V g, const Slots<V, 4>& s, const Step<V>& k) {
    V change = g - s[3], x = s[1] - k.move * s[3];
    return {{change * change, x * x, s[1] * s[1], s[1] * g, g * g}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t, Slots<S, 6>& kept, const Slots<S, 5>& sums, Step<S>& k) {
    kept[4] = kept[4] + squared_a(kept) * sums[0];
    k.rate = rate(h, kept);
    S y = max(sums[2] - S(2.0) * k.rate * sums[3] + k.rate * k.rate * sums[4], S(0.0));
    kept[0] = max(kept[0], root(max(sums[1], y)));
    kept[1] = kept[1] + kept[0];
    S all = kept[2] + kept[1];
    k.mix = where(all > S(0.0), kept[1] / where(all > S(0.0), all, S(1.0)), S(0.0));
  }
  template <Value V>
  PB_FN static V rule(V, V g, Slots<V, 4>& s, const Step<V>& k) {
    s[1] = s[1] - k.rate * g;
    return s[0] + toward(s[2], s[1], k.mix);
  }
};
PB_OPTIMIZER(UDoG)

}  // namespace pb::optim
