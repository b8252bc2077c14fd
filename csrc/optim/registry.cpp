// The rows of every update rule: the same structs with S = double on the host and V = Tensor in the pure form.
#define PB_RULE_UNIT
#include "optim/registry.h"

#include <utility>

#include "families/map.h"
#include "value/tensor_value.h"

namespace pb {
static Tensor power(const Tensor& base, double exponent) { return pow(base, Tensor(exponent)); }
}  // namespace pb

#include "optim/rules.h"

namespace pb::optim {

namespace {

// Hyper and Step are aggregates of S only, so they are arrays of S under other names.
template <class To, class S>
To from_array(const S* from, int n) {
  static_assert(sizeof(To) % sizeof(S) == 0);
  To t{};
  S* to = reinterpret_cast<S*>(&t);
  for (int i = 0; i < n; i++) to[i] = from[i];
  return t;
}

template <class Rule>
void prepare_host(const double* hyper, int64_t t, double* step) {
  using Hyper = typename Rule::template Hyper<double>;
  static_assert(sizeof(Hyper) == sizeof(double) * hyper_count<Rule>(), "hyper[] names every member of Hyper");
  auto k = Rule::template prepare<double>(from_array<Hyper>(hyper, hyper_count<Rule>()), t);
  std::memcpy(step, &k, sizeof k);
}

// Hyper-parameters given as tensors are prepared in float64, as the host does, and narrowed afterwards.
template <class Rule>
typename Rule::template Step<Tensor> prepare_graph(const PureStep& s) {
  using Step = typename Rule::template Step<Tensor>;
  constexpr int n = step_count<Rule>();
  if (!s.tensor_hyper) {
    double plain[n];
    prepare_host<Rule>(s.plain, s.t, plain);
    Tensor weak[n];
    for (int i = 0; i < n; i++) weak[i] = Tensor(plain[i]);
    return from_array<Step>(weak, n);
  }
  auto k = Rule::template prepare<Tensor>(
      from_array<typename Rule::template Hyper<Tensor>>(s.hyper, hyper_count<Rule>()), s.t);
  auto* members = reinterpret_cast<Tensor*>(&k);
  for (int i = 0; i < n; i++)
    if (!members[i].weak()) members[i] = cast(members[i], s.p.dtype());
  return k;
}

template <class Rule, Decay D>
void pure_step(PureStep& s) {
  constexpr int n = slot_count<Rule>();
  auto k = prepare_graph<Rule>(s);
  Slots<Tensor, n> state;
  for (int i = 0; i < n; i++) state[i] = s.slots[i];
  s.p = advance<Rule, D, Tensor>(s.p, s.g, state, k, s.decay);
  for (int i = 0; i < n; i++) s.slots[i] = state[i];
}

template <class Rule>
RuleRow row_of(int index) {
  static_assert(slot_count<Rule>() <= kMaxSlots && hyper_count<Rule>() <= kMaxHyper && step_count<Rule>() <= kMaxStep);
  RuleRow r;
  r.name = Rule::name;
  r.doc = Rule::doc;
  r.index = index;
  r.nslots = slot_count<Rule>();
  r.nhyper = hyper_count<Rule>();
  r.nstep = step_count<Rule>();
  if constexpr (slot_count<Rule>() > 0) r.slots = Rule::slots;
  r.hyper = Rule::hyper;
  r.prepare = &prepare_host<Rule>;
  r.pure[int(Decay::None)] = &pure_step<Rule, Decay::None>;
  r.pure[int(Decay::Coupled)] = &pure_step<Rule, Decay::Coupled>;
  r.pure[int(Decay::Decoupled)] = &pure_step<Rule, Decay::Decoupled>;
  return r;
}

template <size_t... I>
const RuleRow* rows_of(std::index_sequence<I...>) {
  static const RuleRow rows[] = {row_of<typename RuleAt<int(I)>::type>(int(I))...};
  return rows;
}

}  // namespace

int rule_count() { return kRules; }
const RuleRow& rule_row(int index) {
  static const RuleRow* rows = rows_of(std::make_index_sequence<size_t(kRules)>{});
  return rows[index];
}

}  // namespace pb::optim
