// Cross entropy of integer targets: one visit per row in forward (row in cache for the maximum and the sum), one in
// backward that forms the cotangent from the logits and the log-sum-exp.
#pragma once
#include "cpu/row_kernels.h"

namespace pb {

template <class S>
struct CrossEntropyJob {
  const CrossEntropyCall& call;

  static void forward(void* ctx, int64_t begin, int64_t end) {
    const CrossEntropyCall& c = static_cast<CrossEntropyJob*>(ctx)->call;
    for (int64_t r = begin; r < end; r++) forward_row(c, r);
  }
  static void forward_row(const CrossEntropyCall& c, int64_t r) {
    const S* x = static_cast<const S*>(c.x) + r * c.n;
    const S* w = static_cast<const S*>(c.weight);
    S& lse = static_cast<S*>(c.lse)[r];
    S& loss = static_cast<S*>(c.out)[r];
    int64_t t = c.target[r];
    if (t < 0) {
      lse = loss = S(0);
      return;
    }
    S m = fold_row<Fold::Max, S>(c.n, [&](int64_t i) __attribute__((always_inline)) { return x[i]; });
    S sum = fold_row<Fold::Sum, S>(c.n, [&](int64_t i) __attribute__((always_inline)) { return exp(x[i] - m); });
    lse = m + log(sum);
    // lse - x[t] with the maximum taken out first: large logits cancel without loss.
    loss = (log(sum) - (x[t] - m)) * (S(c.hit) * (w ? w[t] : S(1)));
    if (c.even == 0) return;
    S top = log(sum) + m, spread;
    if (w)
      spread =
          fold_row<Fold::Sum, S>(c.n, [&](int64_t i) __attribute__((always_inline)) { return w[i] * (top - x[i]); });
    else
      spread = fold_row<Fold::Sum, S>(c.n, [&](int64_t i) __attribute__((always_inline)) { return top - x[i]; });
    loss += S(c.even) * spread;
  }

  static void backward(void* ctx, int64_t begin, int64_t end) {
    const CrossEntropyCall& c = static_cast<CrossEntropyJob*>(ctx)->call;
    RowSink<S> sink(c.out, c.rows, c.n);
    for (int64_t r = begin; r < end; r++) backward_row(c, r, sink.row(r));
  }
  static void backward_row(const CrossEntropyCall& c, int64_t r, S* gx) {
    const S* x = static_cast<const S*>(c.x) + r * c.n;
    const S* w = static_cast<const S*>(c.weight);
    int64_t t = c.target[r];
    if (t < 0) {
      for (int64_t i = 0; i < c.n; i++) gx[i] = S(0);
      return;
    }
    S g = static_cast<const S*>(c.g)[r * c.g_step], lse = static_cast<const S*>(c.lse)[r];
    S hit = g * S(c.hit) * (w ? w[t] : S(1)), even = g * S(c.even), all = hit + even * S(c.total_weight);
    if (even == S(0)) {
#pragma GCC ivdep
      for (int64_t i = 0; i < c.n; i++) gx[i] = all * exp(x[i] - lse);
    } else if (w) {
#pragma GCC ivdep
      for (int64_t i = 0; i < c.n; i++) gx[i] = all * exp(x[i] - lse) - even * w[i];
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < c.n; i++) gx[i] = all * exp(x[i] - lse) - even;
    }
    gx[t] -= hit;
  }
};

template <class S>
void cross_entropy(const CrossEntropyCall& call) {
  CrossEntropyJob<S> job{call};
  pb_parallel_for(call.rows, row_grain(call.n), &CrossEntropyJob<S>::forward, &job);
}
template <class S>
void cross_entropy_pull(const CrossEntropyCall& call) {
  CrossEntropyJob<S> job{call};
  pb_parallel_for(call.rows, row_grain(call.n), &CrossEntropyJob<S>::backward, &job);
}

}  // namespace pb
