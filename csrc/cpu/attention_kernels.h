// Attention in blocks of queries and keys: the probabilities live in L1 and are made anew in backward.
//
// A head belongs to one thread, blocks follow each other in a fixed order and every element of a product is one chain
// of fused multiply-adds along the inner axis, so the bits depend neither on the threads nor on the vector width. Under
// the causal mask blocks above the diagonal are skipped, and in those on it the tiles above it. Dropout draws from a
// counter, so backward draws the same numbers again (value/philox.h).
#pragma once
#include "cpu/attention_tiles.h"
#include "value/philox.h"

namespace pb {

inline constexpr int64_t kBlockRows = 64;  // queries, and keys, in a block

struct AttentionJob {
  const AttentionCall& call;
  int64_t ld_width, ld_out, all_keys;  // padded

  explicit AttentionJob(const AttentionCall& c)
      : call(c), ld_width(padded(c.width, kPad)), ld_out(padded(c.out_width, kPad)), all_keys(padded(c.keys, kPanel)) {}

  static float* take(float*& at, int64_t n) {
    float* p = at;
    at += padded(n + kPanel, 16);
    return p;
  }
  HeadRows head(HeadRows r, int64_t h, int64_t from = 0) const {
    r.data += h / call.many * r.outer + h % call.many * r.inner + from * r.row;
    return r;
  }
  // How many keys of [j0, j0 + n) query i sees.
  int64_t seen(int64_t i, int64_t j0, int64_t n) const {
    if (!call.causal) return n;
    int64_t m = i + 1 - j0;
    return m < 0 ? 0 : m < n ? m : n;
  }
  // The factors of dropout for keys [j0, j0 + n) of one query.
  void draw(float* factor, int64_t h, int64_t i, int64_t j0, int64_t n) const {
    uint32_t bits[kBlockRows];
    auto first = uint64_t((h * call.queries + i) * call.keys + j0);
    philox_fill(call.seed, 0, call.offset * 4 + first, n, bits);
    const auto p = float(call.drop);
    const float keep = 1.0f / (1.0f - p);
    for (int64_t t = 0; t < n; t++) factor[t] = uniform01(bits[t]) < p ? 0.0f : keep;
  }

  // ---- forward

  struct Front {
    float *kt, *v, *q, *s, *o, *top, *total;
  };
  static void forward(void* ctx, int64_t begin, int64_t end) {
    const AttentionJob& j = *static_cast<AttentionJob*>(ctx);
    const AttentionCall& c = j.call;
    int64_t floats = j.all_keys * (c.width + j.ld_out) + kBlockRows * (j.ld_width + j.ld_out + 2) +
                     kBlockRows * kBlockRows + 7 * 3 * kPanel;
    auto* at = static_cast<float*>(pb_scratch(2, size_t(floats) * sizeof(float)));
    Front f{};
    f.kt = take(at, j.all_keys * c.width);
    f.v = take(at, j.all_keys * j.ld_out);
    f.q = take(at, kBlockRows * j.ld_width);
    f.s = take(at, kBlockRows * kBlockRows);
    f.o = take(at, kBlockRows * j.ld_out);
    f.top = take(at, kBlockRows);
    f.total = take(at, kBlockRows);
    for (int64_t h = begin; h < end; h++) {
      turn_rows(f.kt, j.head(c.k, h), c.keys, c.width);
      copy_rows(f.v, j.head(c.v, h), c.keys, c.out_width, j.ld_out, 1.0f);
      for (int64_t i0 = 0; i0 < c.queries; i0 += kBlockRows) j.forward_block(h, i0, f);
    }
  }

  void forward_block(int64_t h, int64_t i0, const Front& f) const {
    const AttentionCall& c = call;
    int64_t m = c.queries - i0 < kBlockRows ? c.queries - i0 : kBlockRows;
    copy_rows(f.q, head(c.q, h, i0), m, c.width, ld_width, c.scale);
    for (int64_t i = 0; i < m; i++) f.top[i] = -std::numeric_limits<float>::infinity(), f.total[i] = 0;
    for (int64_t j0 = 0; j0 < c.keys && seen(i0 + m - 1, j0, 1) > 0; j0 += kBlockRows) {
      int64_t n = c.keys - j0 < kBlockRows ? c.keys - j0 : kBlockRows;
      bool diagonal = c.causal && i0 == j0;
      product(f.s, kBlockRows, {f.q, ld_width, 1}, {f.kt + j0 * c.width, kPanel, c.width * kPanel}, m,
              padded(n, kPanel), c.width, false, diagonal ? Skip::Above : Skip::Nothing);
      for (int64_t i = 0; i < m; i++) softmax_row(h, i0, i, j0, n, f.s + i * kBlockRows, f);
      product(f.o, ld_out, {f.s, kBlockRows, 1}, {f.v + j0 * ld_out, ld_out, kPanel}, m, ld_out, n, j0 > 0,
              diagonal ? Skip::After : Skip::Nothing);
    }
    HeadRows y = head(c.y, h, i0);
    for (int64_t i = 0; i < m; i++) {
      copy_back({y.data + i * y.row, 0, 0, 0}, f.o + i * ld_out, 1, c.out_width, ld_out, 1.0f / f.total[i]);
      c.lse[h * c.queries + i0 + i] = f.top[i] + log(f.total[i]);
    }
  }

  // Scores of query i0 + i and the keys from j0 on become exp(score - largest so far); what was summed before is
  // scaled down to the new largest.
  void softmax_row(int64_t h, int64_t i0, int64_t i, int64_t j0, int64_t n, float* row, const Front& f) const {
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    auto see = int32_t(seen(i0 + i, j0, n));
    const int64_t columns = padded(see, kPanel);
    float best = fold_row<Fold::Max, float>(
        columns, [&](int64_t t) __attribute__((always_inline)) { return row[t] = int32_t(t) < see ? row[t] : kNone; });
    best = best > f.top[i] ? best : f.top[i];
    float base = best == kNone ? 0.0f : best;
    float sum = fold_row<Fold::Sum, float>(
        columns, [&](int64_t t) __attribute__((always_inline)) { return row[t] = exp_negative(row[t] - base); });
    float keep = exp(f.top[i] - base);
    f.total[i] = f.total[i] * keep + sum;
    f.top[i] = best;
    if (j0 > 0 && keep != 1.0f)
      for (int64_t e = 0; e < ld_out; e++) f.o[i * ld_out + e] *= keep;
    if (call.drop == 0) return;
    float factor[kBlockRows];
    draw(factor, h, i0 + i, j0, see);
    for (int32_t t = 0; t < see; t++) row[t] *= factor[t];
  }

  // ---- backward

  // Scratch of one thread: operands of the products with padded rows, and two tiles.
  struct Back {
    float *kt, *vt, *k, *q, *gy, *gk, *gv, *gq, *p, *dp, *delta;
  };
  int64_t back_floats() const {
    const AttentionCall& c = call;
    return (c.width + c.out_width) * all_keys + (2 * c.keys + 2 * c.queries) * ld_width +
           (c.keys + c.queries) * ld_out + 2 * kBlockRows * kBlockRows + c.queries + 11 * 3 * kPanel;
  }
  static void backward(void* ctx, int64_t begin, int64_t end) {
    const AttentionJob& j = *static_cast<AttentionJob*>(ctx);
    const AttentionCall& c = j.call;
    auto* at = static_cast<float*>(pb_scratch(2, size_t(j.back_floats()) * sizeof(float)));
    Back b{};
    b.kt = take(at, c.width * j.all_keys);
    b.vt = take(at, c.out_width * j.all_keys);
    b.k = take(at, c.keys * j.ld_width);
    b.gk = take(at, c.keys * j.ld_width);
    b.q = take(at, c.queries * j.ld_width);
    b.gq = take(at, c.queries * j.ld_width);
    b.gv = take(at, c.keys * j.ld_out);
    b.gy = take(at, c.queries * j.ld_out);
    b.p = take(at, kBlockRows * kBlockRows);
    b.dp = take(at, kBlockRows * kBlockRows);
    b.delta = take(at, c.queries);
    for (int64_t h = begin; h < end; h++) j.backward_head(h, b);
  }

  void backward_head(int64_t h, const Back& b) const {
    const AttentionCall& c = call;
    turn_rows(b.kt, head(c.k, h), c.keys, c.width);
    turn_rows(b.vt, head(c.v, h), c.keys, c.out_width);
    copy_rows(b.k, head(c.k, h), c.keys, c.width, ld_width, 1.0f);
    copy_rows(b.q, head(c.q, h), c.queries, c.width, ld_width, c.scale);
    copy_rows(b.gy, head(c.gy, h), c.queries, c.out_width, ld_out, 1.0f);
    for (int64_t i = 0; i < c.queries; i++) {
      const float *g = b.gy + i * ld_out, *y = head(c.y, h, i).data;
      b.delta[i] = fold_row<Fold::Sum, float>(c.out_width,
                                              [=](int64_t e) __attribute__((always_inline)) { return g[e] * y[e]; });
    }
    std::memset(b.gk, 0, size_t(c.keys * ld_width) * sizeof(float));
    std::memset(b.gv, 0, size_t(c.keys * ld_out) * sizeof(float));
    std::memset(b.gq, 0, size_t(c.queries * ld_width) * sizeof(float));
    for (int64_t i0 = 0; i0 < c.queries; i0 += kBlockRows)
      for (int64_t j0 = 0; j0 < c.keys; j0 += kBlockRows) backward_block(h, i0, j0, b);
    copy_back(head(c.gq, h), b.gq, c.queries, c.width, ld_width, c.scale);
    copy_back(head(c.gk, h), b.gk, c.keys, c.width, ld_width, 1.0f);  // q carried the scale
    copy_back(head(c.gv, h), b.gv, c.keys, c.out_width, ld_out, 1.0f);
  }

  void backward_block(int64_t h, int64_t i0, int64_t j0, const Back& b) const {
    const AttentionCall& c = call;
    int64_t m = c.queries - i0 < kBlockRows ? c.queries - i0 : kBlockRows;
    int64_t n = c.keys - j0 < kBlockRows ? c.keys - j0 : kBlockRows;
    if (seen(i0 + m - 1, j0, n) == 0) return;
    bool diagonal = c.causal && i0 == j0;
    Skip above = diagonal ? Skip::Above : Skip::Nothing, after = diagonal ? Skip::After : Skip::Nothing;
    Skip before = diagonal ? Skip::Before : Skip::Nothing;
    const float *q = b.q + i0 * ld_width, *gy = b.gy + i0 * ld_out;
    product(b.p, kBlockRows, {q, ld_width, 1}, {b.kt + j0 * c.width, kPanel, c.width * kPanel}, m, padded(n, kPanel),
            c.width, false, above);
    product(b.dp, kBlockRows, {gy, ld_out, 1}, {b.vt + j0 * c.out_width, kPanel, c.out_width * kPanel}, m,
            padded(n, kPanel), c.out_width, false, above);
    for (int64_t i = 0; i < m; i++)
      scores_pull(h, i0 + i, j0, n, b.p + i * kBlockRows, b.dp + i * kBlockRows, b.delta[i0 + i]);
    int64_t keys = diagonal && m < n ? m : n;  // the others are seen by no query of this block
    product(b.gv + j0 * ld_out, ld_out, {b.p, 1, kBlockRows}, {gy, ld_out, kPanel}, keys, ld_out, m, true, before);
    product(b.gk + j0 * ld_width, ld_width, {b.dp, 1, kBlockRows}, {q, ld_width, kPanel}, keys, ld_width, m, true,
            before);
    product(b.gq + i0 * ld_width, ld_width, {b.dp, kBlockRows, 1}, {b.k + j0 * ld_width, ld_width, kPanel}, m, ld_width,
            n, true, after);
  }

  // A row of scores becomes probabilities as the values met them, a row of their cotangents that of the scores.
  void scores_pull(int64_t h, int64_t i, int64_t j0, int64_t n, float* p, float* d, float delta) const {
    const float lse = call.lse[h * call.queries + i];
    const auto see = int32_t(seen(i, j0, n)), all = int32_t(padded(see, kPanel));
    if (call.drop == 0) {
#pragma GCC ivdep
      for (int32_t t = 0; t < all; t++) {
        float e = exp_negative(p[t] - lse);
        p[t] = t < see ? e : 0.0f;
        d[t] = p[t] * (d[t] - delta);
      }
      return;
    }
    float factor[kBlockRows] = {};
    draw(factor, h, i, j0, see);
#pragma GCC ivdep
    for (int32_t t = 0; t < all; t++) {
      float e = exp_negative(p[t] - lse);
      e = t < see ? e : 0.0f;
      d[t] = e * (d[t] * factor[t] - delta);
      p[t] = e * factor[t];
    }
  }
};

// Heads that make a piece of work worth a thread.
inline int64_t head_grain(const AttentionCall& c) {
  double work = double(c.queries) * double(c.keys) * double(c.width + c.out_width);
  return work > 1e5 ? 1 : int64_t(1e5 / (work + 1)) + 1;
}
inline void attention_forward(const AttentionCall& call) {
  AttentionJob job{call};
  pb_parallel_for(call.heads, head_grain(call), &AttentionJob::forward, &job);
}
inline void attention_backward(const AttentionCall& call) {
  AttentionJob job{call};
  pb_parallel_for(call.heads, head_grain(call), &AttentionJob::backward, &job);
}

}  // namespace pb
