// The optimizer loops of one ISA level, written once for all rules. The compiler vectorises them: V is float or double.
#pragma once
#include "cpu/optim_table.h"
#include "optim/rules.h"

namespace pb::optim {

template <class Rule, class T>
PB_FN auto narrow_step(const double* from) {
  typename Rule::template Step<T> k;
  T to[step_count<Rule>()];
  for (int i = 0; i < step_count<Rule>(); i++) to[i] = T(from[i]);
  static_assert(sizeof k == sizeof to);
  std::memcpy(&k, to, sizeof k);
  return k;
}

template <class Rule, Decay D, class T, size_t... J>
void update_loop(const UpdateArgs& a, std::index_sequence<J...>) {
  auto* p = static_cast<T*>(a.p);
  auto* g = static_cast<const T*>(a.g);
  T* const s[sizeof...(J) + 1] = {static_cast<T*>(a.slots[J])...};
  (void)s;
  const auto k = narrow_step<Rule, T>(a.step);
  const T scale = T(a.scale), decay = T(a.decay);
  const int64_t n = a.n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    Slots<T, int(sizeof...(J))> state{{s[J][i]...}};
    p[i] = advance<Rule, D, T>(p[i], g[i] * scale, state, k, decay);
    ((s[J][i] = state[int(J)]), ...);
  }
}

template <class Rule, Decay D, class T>
void update_kernel(const UpdateArgs& a) {
  update_loop<Rule, D, T>(a, std::make_index_sequence<size_t(slot_count<Rule>())>{});
}

// 32 partial sums, merged pairwise: the same bits at every level and for any number of threads.
template <class T>
double measure_kernel(const void* from, int64_t n, bool* finite) {
  constexpr int kLanes = 32;
  auto* x = static_cast<const T*>(from);
  double lane[kLanes] = {};
  T zero[kLanes] = {};  // stays 0 while every element is finite
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; j++) {
      double v = double(x[i + j]);
      lane[j] += v * v;
      zero[j] += x[i + j] * T(0);
    }
  for (int j = 0; i + j < n; j++) {
    double v = double(x[i + j]);
    lane[j] += v * v;
    zero[j] += x[i + j] * T(0);
  }
  for (int w = kLanes / 2; w; w /= 2)
    for (int j = 0; j < w; j++) {
      lane[j] += lane[j + w];
      zero[j] += zero[j + w];
    }
  if (!(zero[0] == T(0))) *finite = false;
  return lane[0];
}

template <class T>
void clamp_kernel(void* to, const void* from, double scale, double bound, int64_t n) {
  auto* y = static_cast<T*>(to);
  auto* x = static_cast<const T*>(from);
  const T s = T(scale), hi = T(bound);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    T v = x[i] * s;
    v = v > hi ? hi : v;
    y[i] = v < -hi ? -hi : v;
  }
}

template <class Rule, class T>
constexpr RuleKernels::Update update_of(Decay d) {
  return d == Decay::None      ? &update_kernel<Rule, Decay::None, T>
         : d == Decay::Coupled ? &update_kernel<Rule, Decay::Coupled, T>
                               : &update_kernel<Rule, Decay::Decoupled, T>;
}
template <class Rule>
constexpr RuleKernels rule_kernels() {
  return {{{update_of<Rule, float>(Decay::None), update_of<Rule, float>(Decay::Coupled),
            update_of<Rule, float>(Decay::Decoupled)},
           {update_of<Rule, double>(Decay::None), update_of<Rule, double>(Decay::Coupled),
            update_of<Rule, double>(Decay::Decoupled)}}};
}
template <int N>
struct RuleTable {
  RuleKernels row[N];
};
template <size_t... I>
constexpr RuleTable<int(sizeof...(I))> rule_table(std::index_sequence<I...>) {
  return {{rule_kernels<typename RuleAt<int(I)>::type>()...}};
}

constexpr auto kRuleTable = rule_table(std::make_index_sequence<size_t(kRules)>{});
constexpr OptimKernels kOptimTable = {
    {&measure_kernel<float>, &measure_kernel<double>}, {&clamp_kernel<float>, &clamp_kernel<double>}, kRuleTable.row};

}  // namespace pb::optim
