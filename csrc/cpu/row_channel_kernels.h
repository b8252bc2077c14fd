// Sums per channel and the affine map per channel: batch normalisation. A channel, or a group of columns, belongs to
// one thread and is summed in an order that the shape fixes.
#pragma once
#include "cpu/row_kernels.h"

namespace pb {

inline constexpr int64_t kColumnGroup = 256, kColumnRows = 512;

template <class S>
struct ChannelJob {
  const ChannelCall& call;
  const S *x, *g, *m, *a, *b, *scale;
  S* out;
  explicit ChannelJob(const ChannelCall& c)
      : call(c),
        x(static_cast<const S*>(c.x)),
        g(static_cast<const S*>(c.g)),
        m(static_cast<const S*>(c.m)),
        a(static_cast<const S*>(c.a)),
        b(static_cast<const S*>(c.b)),
        scale(static_cast<const S*>(c.scale)),
        out(static_cast<S*>(c.out)) {}

  template <int Sum>
  static PB_FN S value(const S* x, const S* g, S m, int64_t i) {
    if constexpr (Sum == ChannelCall::X)
      return x[i];
    else if constexpr (Sum == ChannelCall::Square)
      return square(x[i] - m);
    else if constexpr (Sum == ChannelCall::G)
      return g[i];
    else
      return g[i] * (x[i] - m);
  }

  // Channels of long segments.
  template <int Sum>
  static void segments(void* ctx, int64_t begin, int64_t end) {
    const ChannelJob& j = *static_cast<ChannelJob*>(ctx);
    for (int64_t c = begin; c < end; c++) {
      S total = S(0), m = j.m ? j.m[c] : S(0);
      for (int64_t o = 0; o < j.call.outer; o++) {
        int64_t at = (o * j.call.channels + c) * j.call.inner;
        const S *x = j.x + at, *g = j.g ? j.g + at : nullptr;
        total += fold_row<Fold::Sum, S>(
            j.call.inner, [=](int64_t i) __attribute__((always_inline)) { return value<Sum>(x, g, m, i); });
      }
      j.out[c] = total;
    }
  }

  // Channels that are columns, kColumnGroup at a time.
  template <int Sum>
  static void columns(void* ctx, int64_t begin, int64_t end) {
    const ChannelJob& j = *static_cast<ChannelJob*>(ctx);
    int64_t all = j.call.channels;
    for (int64_t p = begin; p < end; p++) {
      int64_t first = p * kColumnGroup, width = all - first < kColumnGroup ? all - first : kColumnGroup;
      S total[kColumnGroup] = {}, block[kColumnGroup], m[kColumnGroup] = {};
      if (j.m)
        for (int64_t c = 0; c < width; c++) m[c] = j.m[first + c];
      for (int64_t o = 0; o < j.call.outer; o += kColumnRows) {
        int64_t last = o + kColumnRows < j.call.outer ? o + kColumnRows : j.call.outer;
        for (int64_t c = 0; c < width; c++) block[c] = S(0);
        for (int64_t r = o; r < last; r++) {
          const S *x = j.x + r * all + first, *g = j.g ? j.g + r * all + first : nullptr;
#pragma GCC ivdep
          for (int64_t c = 0; c < width; c++) block[c] += value<Sum>(x, g, m[c], c);
        }
        for (int64_t c = 0; c < width; c++) total[c] += block[c];
      }
      for (int64_t c = 0; c < width; c++) j.out[first + c] = total[c];
    }
  }

  template <int Sum>
  static void sums(const ChannelCall& call) {
    ChannelJob job(call);
    if (call.inner > 1) {
      pb_parallel_for(call.channels, row_grain(call.outer * call.inner), &ChannelJob::segments<Sum>, &job);
      return;
    }
    int64_t groups = (call.channels + kColumnGroup - 1) / kColumnGroup;
    int64_t width = call.channels < kColumnGroup ? call.channels : kColumnGroup;
    pb_parallel_for(groups, row_grain(call.outer * width), &ChannelJob::columns<Sum>, &job);
  }

  // One row of the result per step: a segment of one channel, or all columns of an outer index.
  static void apply(void* ctx, int64_t begin, int64_t end) {
    const ChannelJob& j = *static_cast<ChannelJob*>(ctx);
    int64_t inner = j.call.inner, channels = j.call.channels;
    const int64_t n = inner > 1 ? inner : channels;
    RowSink<S> sink(j.out, inner > 1 ? j.call.outer * channels : j.call.outer, n);
    for (int64_t r = begin; r < end; r++) {
      const S *x = j.x + r * n, *g = j.g ? j.g + r * n : nullptr;
      S* out = sink.row(r);
      if (inner > 1) {
        S m = j.m[r % channels], a = j.a[r % channels], b = j.b[r % channels];
        if (g) {
          S scale = j.scale[r % channels];
#pragma GCC ivdep
          for (int64_t i = 0; i < n; i++) out[i] = (x[i] - m) * a + (g[i] * scale + b);
        } else {
#pragma GCC ivdep
          for (int64_t i = 0; i < n; i++) out[i] = (x[i] - m) * a + b;
        }
      } else if (g) {
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) out[i] = (x[i] - j.m[i]) * j.a[i] + (g[i] * j.scale[i] + j.b[i]);
      } else {
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) out[i] = (x[i] - j.m[i]) * j.a[i] + j.b[i];
      }
    }
  }
};

template <class S>
void channel_sums(const ChannelCall& call) {
  if (call.sum == ChannelCall::X)
    ChannelJob<S>::template sums<ChannelCall::X>(call);
  else if (call.sum == ChannelCall::Square)
    ChannelJob<S>::template sums<ChannelCall::Square>(call);
  else if (call.sum == ChannelCall::G)
    ChannelJob<S>::template sums<ChannelCall::G>(call);
  else
    ChannelJob<S>::template sums<ChannelCall::Product>(call);
}

template <class S>
void channel_apply(const ChannelCall& call) {
  ChannelJob<S> job(call);
  int64_t rows = call.inner > 1 ? call.outer * call.channels : call.outer,
          n = call.inner > 1 ? call.inner : call.channels;
  pb_parallel_for(rows, row_grain(n), &ChannelJob<S>::apply, &job);
}

}  // namespace pb
