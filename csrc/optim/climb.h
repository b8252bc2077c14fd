// Moves to the point where a further gradient is taken. p becomes the perturbed point and the slot keeps p itself, from
// which the base rule then steps: no pass restores anything. 16 bytes per float32 parameter.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

struct Climb {
  static constexpr std::string_view name = "_climb", doc = "p + rho g.";
  static constexpr HyperInfo hyper[] = {{"rho", 0.05, Range::Any}};
  static constexpr std::string_view slots[] = {"origin"};
  static constexpr unsigned exact = 0b1;
  template <class S>
  struct Hyper {
    S rho;
  };
  template <class S>
  struct Step {
    S rho;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t) {
    return {h.rho};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& s, const Step<V>& k) {
    s[0] = p;
    return p + k.rho * g;
  }
};
PB_OPTIMIZER(Climb)

struct ClimbSharp : Climb {
  static constexpr std::string_view name = "_climb_sam", doc = "p + rho g / (|g| + 1e-12).";
  static constexpr int sums = 1, degrees[] = {2};
  static constexpr Scope scope = Scope::Model;
  template <Value V>
  PB_FN static Slots<V, 1> measure(V, V g, const Slots<V, 1>&, const Step<V>&) {
    return {{g * g}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t, Slots<S, 0>&, const Slots<S, 1>& sums, Step<S>& k) {
    k.rho = h.rho / (root(sums[0]) + S(1e-12));
  }
};
PB_OPTIMIZER(ClimbSharp)

struct ClimbAdaptive : ClimbSharp {
  static constexpr std::string_view name = "_climb_asam", doc = "p + rho p^2 g / (|p g| + 1e-12).";
  template <Value V>
  PB_FN static Slots<V, 1> measure(V p, V g, const Slots<V, 1>&, const Step<V>&) {
    return {{p * g * (p * g)}};
  }
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& s, const Step<V>& k) {
    s[0] = p;
    return p + k.rho * (p * p * g);
  }
};
PB_OPTIMIZER(ClimbAdaptive)

}  // namespace pb::optim
