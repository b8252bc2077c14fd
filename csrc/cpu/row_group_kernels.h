// Group normalisation: a row is the channels of one group of one sample, each a segment with a weight and a bias of its
// own. The row stays in cache for the statistics and the output, in backward for the sums per segment and the output.
#pragma once
#include "cpu/row_kernels.h"

namespace pb {

template <class S>
struct GroupJob {
  const GroupCall& call;

  // One segment's channel; a missing weight is 1, a missing bias 0.
  S weight(int64_t segment) const { return call.weight ? channel(call.weight, segment) : S(1); }
  S bias(int64_t segment) const { return call.bias ? channel(call.bias, segment) : S(0); }
  S channel(const void* p, int64_t segment) const {
    return static_cast<const S*>(p)[segment % (call.groups * call.width)];
  }

  static void forward(void* ctx, int64_t begin, int64_t end) {
    const GroupJob& j = *static_cast<GroupJob*>(ctx);
    const int64_t inner = j.call.inner, width = j.call.width, n = width * inner;
    RowSink<S> sink(j.call.out, j.call.rows * width, inner);
    for (int64_t r = begin; r < end; r++) {
      const S* x = static_cast<const S*>(j.call.x) + r * n;
      S m = fold_row<Fold::Sum, S>(n, [=](int64_t i) __attribute__((always_inline)) { return x[i]; }) / S(n);
      S v =
          fold_row<Fold::Sum, S>(n, [=](int64_t i) __attribute__((always_inline)) { return square(x[i] - m); }) / S(n);
      S scale = rsqrt(v + S(j.call.eps));
      static_cast<S*>(j.call.mean)[r] = m;
      static_cast<S*>(j.call.scale)[r] = scale;
      for (int64_t s = r * width; s < (r + 1) * width; s++, x += inner) {
        S a = scale * j.weight(s), b = j.bias(s), *out = sink.row(s);
#pragma GCC ivdep
        for (int64_t i = 0; i < inner; i++) out[i] = (x[i] - m) * a + b;
      }
    }
  }

  // With hat = (x - m) scale: gx = scale (w g - mean(w g) - hat mean(w g hat)).
  static void backward(void* ctx, int64_t begin, int64_t end) {
    const GroupJob& j = *static_cast<GroupJob*>(ctx);
    const int64_t inner = j.call.inner, width = j.call.width, n = width * inner;
    auto *total = static_cast<S*>(j.call.total), *along = static_cast<S*>(j.call.along);
    RowSink<S> sink(j.call.out, j.call.rows * width, inner);
    for (int64_t r = begin; r < end; r++) {
      const S *x = static_cast<const S*>(j.call.x) + r * n, *g = static_cast<const S*>(j.call.g) + r * n;
      S m = static_cast<const S*>(j.call.mean)[r], scale = static_cast<const S*>(j.call.scale)[r];
      S all = S(0), turn = S(0);
      for (int64_t s = r * width, at = 0; s < (r + 1) * width; s++, at += inner) {
        const S *xs = x + at, *gs = g + at;
        total[s] = fold_row<Fold::Sum, S>(inner, [=](int64_t i) __attribute__((always_inline)) { return gs[i]; });
        along[s] = scale * fold_row<Fold::Sum, S>(
                               inner, [=](int64_t i) __attribute__((always_inline)) { return gs[i] * (xs[i] - m); });
        all += j.weight(s) * total[s];
        turn += j.weight(s) * along[s];
      }
      S shift = -scale * (all / S(n)), slope = -scale * scale * (turn / S(n));
      for (int64_t s = r * width; s < (r + 1) * width; s++, x += inner, g += inner) {
        S a = scale * j.weight(s), *out = sink.row(s);
#pragma GCC ivdep
        for (int64_t i = 0; i < inner; i++) out[i] = (x[i] - m) * slope + (g[i] * a + shift);
      }
    }
  }
};

template <class S>
void group_norm(const GroupCall& call) {
  GroupJob<S> job{call};
  pb_parallel_for(call.rows, row_grain(call.width * call.inner), &GroupJob<S>::forward, &job);
}
template <class S>
void group_norm_pull(const GroupCall& call) {
  GroupJob<S> job{call};
  pb_parallel_for(call.rows, row_grain(call.width * call.inner), &GroupJob<S>::backward, &job);
}

}  // namespace pb
