// The rows of every update rule: the same structs with S = double on the host and V = Tensor in the pure form.
#define PB_RULE_UNIT
#include "optim/registry.h"

#include <utility>

#include "cpu/dispatch.h"
#include "families/map.h"
#include "families/reduce.h"
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
using Scalars = Slots<double, scalar_count<Rule>()>;

template <class Rule, class S>
auto prepare_any(const typename Rule::template Hyper<S>& h, int64_t t, Slots<S, scalar_count<Rule>()>& scalars) {
  if constexpr (scalar_count<Rule>() > 0)
    return Rule::template prepare<S>(h, t, scalars);
  else
    return Rule::template prepare<S>(h, t);
}

template <class Rule>
void prepare_host(const RuleRow&, const double* hyper, int64_t t, double* scalars, double* step) {
  using Hyper = typename Rule::template Hyper<double>;
  static_assert(sizeof(Hyper) == sizeof(double) * hyper_count<Rule>(), "hyper[] names every member of Hyper");
  constexpr int n = scalar_count<Rule>();
  auto kept = from_array<Scalars<Rule>>(scalars, n);
  auto k = prepare_any<Rule, double>(from_array<Hyper>(hyper, hyper_count<Rule>()), t, kept);
  for (int i = 0; i < n; i++) scalars[i] = kept[i];
  std::memcpy(step, &k, sizeof k);
}

template <class Rule>
void finish_host(const RuleRow&, const double* hyper, int64_t t, double* scalars, const double* sums, double* step) {
  using Hyper = typename Rule::template Hyper<double>;
  constexpr int n = scalar_count<Rule>();
  auto kept = from_array<Scalars<Rule>>(scalars, n);
  auto k = from_array<typename Rule::template Step<double>>(step, step_count<Rule>());
  Rule::template finish<double>(from_array<Hyper>(hyper, hyper_count<Rule>()), t, kept,
                                from_array<Slots<double, sum_count<Rule>()>>(sums, sum_count<Rule>()), k);
  for (int i = 0; i < n; i++) scalars[i] = kept[i];
  std::memcpy(step, &k, sizeof k);
}

// Numbers known on the host are prepared there; what depends on tensors is prepared in float64, as the host does, and
// narrowed afterwards.
template <class Rule, bool Finish>
typename Rule::template Step<Tensor> prepare_graph(PureStep& s) {
  using Step = typename Rule::template Step<Tensor>;
  constexpr int n = step_count<Rule>(), kept = scalar_count<Rule>();
  if (kept == 0 && sum_count<Rule>() == 0 && !s.tensor_hyper) {
    double plain[n];
    prepare_host<Rule>(*s.row, s.plain, s.t, nullptr, plain);
    Tensor weak[n];
    for (int i = 0; i < n; i++) weak[i] = Tensor(plain[i]);
    return from_array<Step>(weak, n);
  }
  auto hyper = from_array<typename Rule::template Hyper<Tensor>>(s.hyper, hyper_count<Rule>());
  auto scalars = from_array<Slots<Tensor, kept>>(s.scalars, kept);
  auto k = prepare_any<Rule, Tensor>(hyper, s.t, scalars);
  if constexpr (Finish && sum_count<Rule>() > 0)
    Rule::template finish<Tensor>(hyper, s.t, scalars,
                                  from_array<Slots<Tensor, sum_count<Rule>()>>(s.sums, sum_count<Rule>()), k);
  if (Finish)
    for (int i = 0; i < kept; i++) s.scalars[i] = scalars[i];
  auto* members = reinterpret_cast<Tensor*>(&k);
  for (int i = 0; i < n; i++)
    if (!members[i].weak()) members[i] = cast(members[i], s.p.dtype());
  return k;
}

template <class Rule>
void pure_sums(PureStep& s) {
  constexpr int n = slot_count<Rule>();
  auto k = prepare_graph<Rule, false>(s);
  auto state = from_array<Slots<Tensor, n>>(s.slots, n);
  auto part = Rule::template measure<Tensor>(s.p, s.coupled ? s.g + s.decay * s.p : s.g, state, k);
  for (int q = 0; q < Rule::sums; q++) {
    Tensor all = cast(part[q], DType::F64);
    if (!(all.shape() == s.p.shape())) all = all + zeros(s.p.shape(), DType::F64);
    s.sums[q] = takes_largest<Rule>() ? (all.size() ? max_over(all, all_axes(all)) : zeros({}, DType::F64)) : sum(all);
  }
}

template <class Rule, Decay D>
void pure_step(PureStep& s) {
  constexpr int n = slot_count<Rule>();
  auto k = prepare_graph<Rule, true>(s);
  Slots<Tensor, n + takes_noise<Rule>()> state;
  for (int i = 0; i < n; i++) state[i] = s.slots[i];
  if constexpr (takes_noise<Rule>()) state[n] = s.noise;
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
  r.kernels = &optim_kernels().rules[index];
  r.nslots = slot_count<Rule>();
  r.nhyper = hyper_count<Rule>();
  r.nstep = step_count<Rule>();
  if constexpr (slot_count<Rule>() > 0) r.slots = Rule::slots;
  if constexpr (scalar_count<Rule>() > 0) r.scalars = Rule::scalars;
  r.nscalars = scalar_count<Rule>();
  r.nsums = sum_count<Rule>();
  if constexpr (requires { Rule::exact; }) r.exact = Rule::exact;
  r.noise = takes_noise<Rule>();
  r.largest = takes_largest<Rule>();
  if constexpr (sum_count<Rule>() > 0) {
    static_assert(sum_count<Rule>() <= kMaxSums && scalar_count<Rule>() <= kMaxScalars);
    r.scope = Rule::scope;
    r.finish = &finish_host<Rule>;
    if constexpr (requires { Rule::degrees; })
      for (int q = 0; q < sum_count<Rule>(); q++) r.degrees[q] = Rule::degrees[q];
    r.pure_sums = &pure_sums<Rule>;
  }
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

std::vector<const RuleRow*>& added() {
  static auto* rows = new std::vector<const RuleRow*>;
  return *rows;
}

}  // namespace

const OptimKernels& optim_kernels() {
  static const OptimKernels& k = *static_cast<const OptimKernels*>(isa_table("optim"));
  return k;
}

int rule_count() { return kRules + int(added().size()); }
int add_rule(RuleRow& row) {
  row.index = rule_count();
  added().push_back(&row);
  return row.index;
}
const RuleRow& rule_row(int index) {
  if (index >= kRules) return *added()[size_t(index - kRules)];
  static const RuleRow* rows = rows_of(std::make_index_sequence<size_t(kRules)>{});
  return rows[index];
}

}  // namespace pb::optim
