// The optimizer loops of one ISA level, written once for all rules. The compiler vectorises them: V is float or double.
#pragma once
#include "cpu/optim_formats.h"
#include "cpu/optim_table.h"
#include "optim/rules.h"
#include "value/philox.h"

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
  auto* from = static_cast<const T*>(a.from);
  auto* g = static_cast<const T*>(a.g);
  T* const s[sizeof...(J) + 1] = {static_cast<T*>(a.slots[J])...};
  (void)s;
  constexpr bool noisy = takes_noise<Rule>();
  auto* u = static_cast<const T*>(a.noise);
  (void)u;
  const auto k = narrow_step<Rule, T>(a.step);
  const T scale = T(a.scale), decay = T(a.decay);
  const int64_t n = a.n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    Slots<T, int(sizeof...(J)) + noisy> state{{s[J][i]...}};
    if constexpr (noisy) state[int(sizeof...(J))] = u[i];
    p[i] = advance<Rule, D, T>(from[i], g[i] * scale, state, k, decay);
    ((s[J][i] = state[int(J)]), ...);
  }
}

template <class Rule, Decay D, class T>
void update_kernel(const UpdateArgs& a) {
  update_loop<Rule, D, T>(a, std::make_index_sequence<size_t(slot_count<Rule>())>{});
}

// The sums of a rule over one piece: 32 partial ones for each, merged pairwise.
template <class Rule, bool Coupled, class T, size_t... J>
void sums_loop(const UpdateArgs& a, double* sums, std::index_sequence<J...>) {
  constexpr int kLanes = 32, kSums = sum_count<Rule>();
  auto* p = static_cast<const T*>(a.from);
  auto* g = static_cast<const T*>(a.g);
  const T* const s[sizeof...(J) + 1] = {static_cast<const T*>(a.slots[J])...};
  (void)s;
  const auto k = narrow_step<Rule, T>(a.step);
  const T scale = T(a.scale), decay = T(a.decay);
  double lane[kSums][kLanes] = {};
  auto add = [&](int64_t i, int j) __attribute__((always_inline)) {
    Slots<T, int(sizeof...(J))> state{{s[J][i]...}};
    T slope = g[i] * scale;
    if constexpr (Coupled) slope = slope + decay * p[i];
    auto part = Rule::template measure<T>(p[i], slope, state, k);
    for (int q = 0; q < kSums; q++) {
      if constexpr (takes_largest<Rule>())
        lane[q][j] = max(double(part[q]), lane[q][j]);
      else
        lane[q][j] += double(part[q]);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= a.n; i += kLanes)
    for (int j = 0; j < kLanes; j++) add(i + j, j);
  for (int j = 0; i + j < a.n; j++) add(i + j, j);
  for (int q = 0; q < kSums; q++) {
    for (int w = kLanes / 2; w; w /= 2)
      for (int j = 0; j < w; j++) {
        if constexpr (takes_largest<Rule>())
          lane[q][j] = max(lane[q][j], lane[q][j + w]);
        else
          lane[q][j] += lane[q][j + w];
      }
    sums[q] = lane[q][0];
  }
}

template <class Rule, bool Coupled, class T>
void sums_kernel(const UpdateArgs& a, double* sums) {
  sums_loop<Rule, Coupled, T>(a, sums, std::make_index_sequence<size_t(slot_count<Rule>())>{});
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

// Sixteen Philox blocks with counters block, block + 1, ...: word i of block j becomes out[i][j].
PB_FN void philox_sixteen(uint64_t block, uint64_t stream, uint64_t seed, uint32_t (&out)[4][16]) {
#if defined(__AVX512F__)
  // Words lie in the lower halves of 64-bit lanes, where the product finds them; what is above is ignored.
  constexpr __mmask8 all = 0xff;  // the forms without a mask make gcc 12 warn
  for (int half = 0; half < 2; half++) {
    __m512i c0 =
        _mm512_add_epi64(_mm512_set1_epi64(int64_t(block) + 8 * half), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    __m512i c1 = _mm512_maskz_srli_epi64(all, c0, 32), c2 = _mm512_set1_epi64(int64_t(stream));
    __m512i c3 = _mm512_maskz_srli_epi64(all, c2, 32);
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    auto k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; round++) {
      __m512i a = _mm512_maskz_mul_epu32(all, c0, m0), b = _mm512_maskz_mul_epu32(all, c2, m1);
      c0 = _mm512_xor_si512(_mm512_xor_si512(_mm512_maskz_srli_epi64(all, b, 32), c1), _mm512_set1_epi64(k0));
      c2 = _mm512_xor_si512(_mm512_xor_si512(_mm512_maskz_srli_epi64(all, a, 32), c3), _mm512_set1_epi64(k1));
      c1 = b;
      c3 = a;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const __m512i words[4] = {c0, c1, c2, c3};
    for (int i = 0; i < 4; i++)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(&out[i][8 * half]), _mm512_maskz_cvtepi64_epi32(all, words[i]));
  }
#else
  for (int j = 0; j < 16; j++) {
    uint32_t one[4] = {uint32_t(block + uint64_t(j)), uint32_t((block + uint64_t(j)) >> 32), uint32_t(stream),
                       uint32_t(stream >> 32)};
    philox_block(one, uint32_t(seed), uint32_t(seed >> 32));
    for (int i = 0; i < 4; i++) out[i][j] = one[i];
  }
#endif
}

// ndtri_near where its quotient is not needed.
PB_FN float ndtri_middle(float p) {
  float w = -log(4.0f * p * (1.0f - p));
  return (p - 0.5f) * polynomial(w - 3.0f, 4.59207058f, 0.683434069f, -0.0162314251f, -0.00236530672f, 0.00055296137f,
                                 -3.58849793e-5f, -5.33614639e-6f, 1.26279588e-6f, -1.23975354e-8f, -1.53672026e-8f);
}

// x = ndtri(u), where the root and the quotient that only one number in 800 needs are formed for blocks that have one.
template <int N>
PB_FN void normal_block(const float* u, float* x) {
  uint32_t tail = 0;
  for (int i = 0; i < N; i++) {
    x[i] = ndtri_middle(u[i]);
    tail |= uint32_t(u[i] < 0.0007f) | uint32_t(u[i] > 0.9993f);
  }
  if (tail)
    for (int i = 0; i < N; i++) x[i] = ndtri_near(u[i]);
}

// Sixteen Philox blocks side by side give 64 float or 32 double numbers; number i of a block comes from lane i % 16.
// `first` is a multiple of 64.
template <class T>
void normal_kernel(void* to, uint64_t seed, uint64_t stream, uint64_t first, int64_t n) {
  constexpr int kLanes = 16, kWords = sizeof(T) / 4, kRows = 4 / kWords, kBlock = kLanes * kRows;
  auto* x = static_cast<T*>(to);
  uint64_t block = first * kWords / 4;
  for (int64_t at = 0; at < n; at += kBlock, block += kLanes) {
    alignas(64) uint32_t c[4][kLanes];
    philox_sixteen(block, stream, seed, c);
    T uniform[kBlock], made[kBlock];
    for (int r = 0; r < kRows; r++)
      for (int j = 0; j < kLanes; j++) {
        if constexpr (kWords == 1)
          uniform[r * kLanes + j] = uniform01(c[r][j]);
        else
          uniform[r * kLanes + j] = uniform01_double(c[2 * r][j], c[2 * r + 1][j]);
      }
    if constexpr (kWords == 1)
      normal_block<kBlock>(uniform, made);
    else
      for (int i = 0; i < kBlock; i++) made[i] = ndtri(uniform[i]);
    if (n - at >= kBlock)
      for (int i = 0; i < kBlock; i++) x[at + i] = made[i];
    else
      for (int i = 0; i < int(n - at); i++) x[at + i] = made[i];
  }
}

// p = sign(p) max(|p| - threshold, 0), then limited to [low, high].
template <class T>
void prox_kernel(void* to, double threshold, double low, double high, int64_t n) {
  auto* p = static_cast<T*>(to);
  const T cut = T(threshold), lo = T(low), hi = T(high);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    T v = p[i] > cut ? p[i] - cut : p[i] < -cut ? p[i] + cut : p[i] * T(0);
    v = v > hi ? hi : v;
    p[i] = v < lo ? lo : v;
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
  RuleKernels row = {{{update_of<Rule, float>(Decay::None), update_of<Rule, float>(Decay::Coupled),
                       update_of<Rule, float>(Decay::Decoupled)},
                      {update_of<Rule, double>(Decay::None), update_of<Rule, double>(Decay::Coupled),
                       update_of<Rule, double>(Decay::Decoupled)}},
                     {}};
  if constexpr (sum_count<Rule>() > 0) {
    row.measure[0][0] = &sums_kernel<Rule, false, float>;
    row.measure[0][1] = &sums_kernel<Rule, true, float>;
    row.measure[1][0] = &sums_kernel<Rule, false, double>;
    row.measure[1][1] = &sums_kernel<Rule, true, double>;
  }
  return row;
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
constexpr OptimKernels kOptimTable = {{&measure_kernel<float>, &measure_kernel<double>},
                                      {&clamp_kernel<float>, &clamp_kernel<double>},
                                      {&normal_kernel<float>, &normal_kernel<double>},
                                      {&prox_kernel<float>, &prox_kernel<double>},
                                      kRuleTable.row,
                                      &kFormatKernels};

}  // namespace pb::optim
