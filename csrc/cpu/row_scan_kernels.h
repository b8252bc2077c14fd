// Positions of extremes and running sums along the middle axis of [outer, n, inner].
#pragma once
#include "cpu/row_kernels.h"

namespace pb {

template <class S>
PB_FN bool beats(S v, S best, bool largest) {
  if constexpr (std::is_floating_point_v<S>)
    if (best != best) return false;
  return (largest ? v > best : v < best) | (v != v);
}

template <class S>
struct ExtremeJob {
  int64_t* out;
  const S* x;
  int64_t n, inner;
  bool largest;
  static void run(void* ctx, int64_t begin, int64_t end) {
    const ExtremeJob& j = *static_cast<ExtremeJob*>(ctx);
    for (int64_t p = begin; p < end; p++) {
      const S* from = j.x + p / j.inner * j.n * j.inner + p % j.inner;
      int64_t at = 0;
      S best = from[0];
      for (int64_t i = 1; i < j.n; i++)
        if (beats(from[i * j.inner], best, j.largest)) {
          best = from[i * j.inner];
          at = i;
        }
      j.out[p] = at;
    }
  }
};
template <class S>
void arg_extreme(int64_t* out, const void* x, int64_t outer, int64_t n, int64_t inner, bool largest) {
  ExtremeJob<S> job{out, static_cast<const S*>(x), n, inner, largest};
  pb_parallel_for(outer * inner, row_grain(n), &ExtremeJob<S>::run, &job);
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
