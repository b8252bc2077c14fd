// Positions of extremes and running sums along the middle axis of [outer, n, inner].
#pragma once
#include "cpu/row_kernels.h"

namespace pb {

// NaN beats everything but an earlier NaN.
template <bool Largest, class S>
PB_FN bool beats(S v, S best) {
  return ((Largest ? v > best : v < best) | (v != v)) & (best == best);
}

template <bool Largest, class S>
struct ExtremeJob {
  int64_t* out;
  const S* x;
  int64_t n, inner;

  static void run(void* ctx, int64_t begin, int64_t end) {
    const ExtremeJob& j = *static_cast<ExtremeJob*>(ctx);
    for (int64_t p = begin; p < end; p++) j.out[p] = j.inner == 1 ? j.row(j.x + p * j.n) : j.column(p);
  }
  int64_t column(int64_t p) const {
    const S* from = x + p / inner * n * inner + p % inner;
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
      if (beats<Largest>(from[i * inner], from[at * inner])) at = i;
    return at;
  }
  // The extreme by lanes, then the first place where it stands.
  int64_t row(const S* from) const {
    S lane[kRowLanes];
    for (int j = 0; j < kRowLanes; j++) lane[j] = from[0];
    int64_t i = 0;
    for (; i + kRowLanes <= n; i += kRowLanes)
      for (int j = 0; j < kRowLanes; j++) lane[j] = beats<Largest>(from[i + j], lane[j]) ? from[i + j] : lane[j];
    S best = lane[0];
    for (int j = 1; j < kRowLanes; j++) best = beats<Largest>(lane[j], best) ? lane[j] : best;
    for (; i < n; i++) best = beats<Largest>(from[i], best) ? from[i] : best;
    auto here = [best](S v) __attribute__((always_inline)) { return (v == best) | ((v != v) & (best != best)); };
    for (i = 0; i + kRowLanes <= n; i += kRowLanes) {
      int found = 0;
      for (int j = 0; j < kRowLanes; j++) found |= here(from[i + j]);
      if (found) break;
    }
    while (!here(from[i])) i++;
    return i;
  }
};
template <bool Largest, class S>
void run_extreme(int64_t* out, const S* x, int64_t outer, int64_t n, int64_t inner) {
  ExtremeJob<Largest, S> job{out, x, n, inner};
  pb_parallel_for(outer * inner, row_grain(n), &ExtremeJob<Largest, S>::run, &job);
}
template <class S>
void arg_extreme(int64_t* out, const void* x, int64_t outer, int64_t n, int64_t inner, bool largest) {
  auto* from = static_cast<const S*>(x);
  if (largest)
    run_extreme<true>(out, from, outer, n, inner);
  else
    run_extreme<false>(out, from, outer, n, inner);
}

template <class S>
struct RunningJob {
  S* y;
  const S* x;
  int64_t n, inner, lead;
  static void run(void* ctx, int64_t begin, int64_t end) {
    const RunningJob& j = *static_cast<RunningJob*>(ctx);
    for (int64_t o = begin; o < end; o++) j.inner == 1 ? j.row(o) : j.slab(o);
  }
  void row(int64_t o) const {
    S* to = y + o * (n + lead);
    const S* from = x + o * n;
    S sum = S(0);
    for (int64_t i = 0; i < lead; i++) *to++ = S(0);
    for (int64_t i = 0; i < n; i++) to[i] = sum += from[i];
  }
  void slab(int64_t o) const {
    S* to = y + o * (n + lead) * inner;
    const S* from = x + o * n * inner;
    for (int64_t c = 0; c < lead * inner; c++) to[c] = S(0);
    to += lead * inner;
    for (int64_t i = 0; i < n; i++, to += inner, from += inner)
#pragma GCC ivdep
      for (int64_t c = 0; c < inner; c++) to[c] = i ? to[c - inner] + from[c] : from[c];
  }
};
template <class S>
void running_sum(void* y, const void* x, int64_t outer, int64_t n, int64_t inner, int64_t lead) {
  RunningJob<S> job{static_cast<S*>(y), static_cast<const S*>(x), n, inner, lead};
  pb_parallel_for(outer, row_grain(n * inner), &RunningJob<S>::run, &job);
}

}  // namespace pb
