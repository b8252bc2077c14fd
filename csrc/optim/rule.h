// What an update rule says about itself. One struct per rule; nothing here knows tensors' layout, threads or Python.
//
// A rule is a struct with
//   name, doc                       strings
//   hyper[] = {learning_rate(1e-3), ...}  its hyper-parameters in the order of Hyper's members: name, default, range;
//                                   the first is the learning rate, which decoupled decay multiplies
//   slots[] = {"exp_avg", ...}      its states (omitted: none), each of the parameter's size and zero at the start
//   Hyper<S>, Step<S>               aggregates of S only
//   prepare<S>(hyper, t)            once per step, t = 1, 2, ...; S = double on the host, S = Tensor in the pure form
//   rule<V>(p, g, slots, step)      the formula: returns the new p and writes the slots
// and, where it needs them,
//   scalars[] = {"mu_product", ...} numbers kept per tensor, zero at the start, moved by prepare<S>(hyper, t, scalars)
//   sums, scope                     how many sums over whole tensors the step needs, and over which tensors
//   degrees[] = {2, 0}              of the sums in g, where all are homogeneous: clipping then costs no further pass
//   largest = true                  the greatest instead of the sum
//   measure<V>(p, g, slots, step)   what one element adds to each
//   finish<S>(hyper, t, scalars, sums, step)  once per step and tensor: completes step and scalars
//   noise = true                    one more slot holds a normal number, made of the first scalar (a seed), t and the
//                                   element's place
//   displacement = i                p is formed anew from slot i, to which decoupled decay therefore goes
//   exact = 0b01                    bits of the slots that bear no rounding (points, small differences of large
//   numbers)
// Weight decay, unscaling and clipping belong to the driver and work for every rule (see `advance`).
#pragma once
#include <cmath>
#include <cstdint>
#include <string_view>

#include "value/value.h"

namespace pb {
inline double power(double base, double exponent) { return std::pow(base, exponent); }
}  // namespace pb

namespace pb::optim {

inline constexpr int kMaxSlots = 6, kMaxHyper = 12, kMaxStep = 16, kMaxScalars = 6, kMaxSums = 5;

enum class Range : uint8_t { NonNegative, Unit, Any };  // >= 0; [0, 1); any finite number
struct HyperInfo {
  std::string_view name;
  double value;
  Range range;
};
constexpr HyperInfo learning_rate(double value) { return {"lr", value, Range::NonNegative}; }

template <class V, int N>
struct Slots {
  V v[N ? N : 1];
  PB_FN V& operator[](int i) { return v[i]; }
  PB_FN const V& operator[](int i) const { return v[i]; }
};

enum class Scope : uint8_t { Tensor, Model };  // what a sum runs over

enum class Decay : uint8_t { None, Coupled, Decoupled };
inline constexpr int kDecays = 3;

template <class Rule>
constexpr int slot_count() {
  if constexpr (requires { Rule::slots; })
    return int(sizeof(Rule::slots) / sizeof(std::string_view));
  else
    return 0;
}
template <class Rule>
constexpr int scalar_count() {
  if constexpr (requires { Rule::scalars; })
    return int(sizeof(Rule::scalars) / sizeof(std::string_view));
  else
    return 0;
}
template <class Rule>
constexpr int sum_count() {
  if constexpr (requires { Rule::sums; })
    return Rule::sums;
  else
    return 0;
}
template <class Rule>
constexpr bool takes_largest() {
  return requires { Rule::largest; };
}
template <class Rule>
constexpr bool takes_noise() {
  return requires { Rule::noise; };
}
template <class Rule>
constexpr int hyper_count() {
  return int(sizeof(Rule::hyper) / sizeof(HyperInfo));
}
template <class Rule>
constexpr int step_count() {
  return int(sizeof(typename Rule::template Step<double>) / 8);
}

// ---- shared formulas

template <class V>
PB_FN V toward(V a, V b, V w) {
  return a + w * (b - a);
}

// The square root of a non-negative state. In the graph its derivative at 0 is 0: a parameter that never received a
// gradient must not turn meta-gradients into NaN.
template <class V>
PB_FN V root(V x) {
  if constexpr (std::is_floating_point_v<V>) {
    return sqrt(x);
  } else {
    auto inside = x > V(0);
    return where(inside, sqrt(where(inside, x, V(1))), V(0));
  }
}

// One element's step with its weight decay: `decay` is the coefficient of p in the gradient (coupled) or of p itself
// (decoupled: lr * weight_decay). A stored 1 - lr * decay would lose up to 3 % of the decay in float32.
template <class Rule, Decay D, class V, class Slots, class Step>
PB_FN V advance(V p, V g, Slots& s, const Step& k, V decay) {
  if constexpr (D == Decay::Coupled) g = g + decay * p;
  if constexpr (D == Decay::Decoupled) {
    if constexpr (requires { Rule::displacement; })
      s[Rule::displacement] = s[Rule::displacement] - decay * p;
    else
      p = p - decay * p;
  }
  return Rule::template rule<V>(p, g, s, k);
}

// Rules are numbered by PB_OPTIMIZER in the order of optim/rules.h; a unit that builds a table of them defines
// PB_RULE_UNIT.
template <int I>
struct RuleAt;

}  // namespace pb::optim

#ifndef PB_RULE_UNIT
#define PB_OPTIMIZER(Rule)
#else
#define PB_OPTIMIZER(Rule)                  \
  template <>                               \
  struct RuleAt<__COUNTER__ - kFirstRule> { \
    using type = Rule;                      \
  };
#endif
