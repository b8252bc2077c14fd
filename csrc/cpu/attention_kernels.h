// Attention in blocks of queries and keys: the probabilities live in L1 and are made anew in backward.
//
// A head belongs to one thread, blocks follow each other in a fixed order and every element of a product is one chain
// of fused multiply-adds along the inner axis, so the bits depend neither on the threads nor on the vector width.
#pragma once
#include "cpu/attention_table.h"
#include "cpu/row_kernels.h"

namespace pb {

inline constexpr int64_t kQueryBlock = 64, kKeyBlock = 64;

#if defined(__AVX512F__)
typedef float Wide __attribute__((vector_size(64)));
inline constexpr int kTileRows = 8;
#else
typedef float Wide __attribute__((vector_size(32)));
inline constexpr int kTileRows = 4;
#endif
inline constexpr int kWide = int(sizeof(Wide) / sizeof(float));
inline constexpr int kPanel = 32;  // widths are padded to this many columns

inline int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

PB_FN Wide load_wide(const float* p) {
  Wide v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
PB_FN void store_wide(float* p, Wide v) { __builtin_memcpy(p, &v, sizeof v); }

// c (rows, 2 vectors) += or = a (rows, depth) b (depth, 2 vectors). a[i, k] stands at a + i * ai + k * ak.
template <int Rows>
PB_FN void tile(float* c, int64_t ldc, const float* a, int64_t ai, int64_t ak, const float* b, int64_t ldb,
                int64_t depth, bool add) {
  Wide acc[Rows][2];
  for (int i = 0; i < Rows; i++)
    for (int j = 0; j < 2; j++) acc[i][j] = add ? load_wide(c + i * ldc + j * kWide) : Wide{};
  for (int64_t k = 0; k < depth; k++, b += ldb, a += ak) {
    Wide b0 = load_wide(b), b1 = load_wide(b + kWide);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; i++) {
      float x = a[i * ai];
      acc[i][0] += x * b0;
      acc[i][1] += x * b1;
    }
  }
  for (int i = 0; i < Rows; i++)
    for (int j = 0; j < 2; j++) store_wide(c + i * ldc + j * kWide, acc[i][j]);
}

// c (m, n) from a (m, depth) and b (depth, n); n is a multiple of kPanel.
inline void product(float* c, int64_t ldc, const float* a, int64_t ai, int64_t ak, const float* b, int64_t ldb,
                    int64_t m, int64_t n, int64_t depth, bool add) {
  for (int64_t j = 0; j < n; j += 2 * kWide) {
    int64_t i = 0;
    for (; i + kTileRows <= m; i += kTileRows)
      tile<kTileRows>(c + i * ldc + j, ldc, a + i * ai, ai, ak, b + j, ldb, depth, add);
    for (; i < m; i++) tile<1>(c + i * ldc + j, ldc, a + i * ai, ai, ak, b + j, ldb, depth, add);
  }
}

// (rows, width) to (rows, padded width), zeros in the padding.
inline void pad_rows(float* to, const float* from, int64_t rows, int64_t width, int64_t ld) {
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < width; c++) to[r * ld + c] = from[r * width + c];
    for (int64_t c = width; c < ld; c++) to[r * ld + c] = 0;
  }
}
// (rows, width) to (width, padded rows), zeros in the padding.
inline void transpose_rows(float* to, const float* from, int64_t rows, int64_t width, int64_t ld) {
  for (int64_t r0 = 0; r0 < rows; r0 += 16) {
    int64_t last = r0 + 16 < rows ? r0 + 16 : rows;
    for (int64_t c = 0; c < width; c++)
      for (int64_t r = r0; r < last; r++) to[c * ld + r] = from[r * width + c];
  }
  for (int64_t c = 0; c < width; c++)
    for (int64_t r = rows; r < ld; r++) to[c * ld + r] = 0;
}

// How many keys of the block [j0, j0 + keys) query i sees.
PB_FN int64_t seen(const AttentionCall& c, int64_t i, int64_t j0, int64_t keys) {
  if (!c.causal) return keys;
  int64_t n = i + 1 - j0;
  return n < 0 ? 0 : n < keys ? n : keys;
}

struct AttentionJob {
  const AttentionCall& call;
  int64_t ld_keys, ld_width, ld_out;

  static float* take(float*& at, int64_t n) {
    float* p = at;
    at += (n + 15) / 16 * 16;
    return p;
  }

  static void forward(void* ctx, int64_t begin, int64_t end) {
    const AttentionJob& j = *static_cast<AttentionJob*>(ctx);
    const AttentionCall& c = j.call;
    int64_t floats = c.width * j.ld_keys + c.keys * j.ld_out + kQueryBlock * (kKeyBlock + j.ld_out) + 4 * 64;
    auto* at = static_cast<float*>(pb_scratch(2, size_t(floats) * sizeof(float)));
    float *kt = take(at, c.width * j.ld_keys), *v = take(at, c.keys * j.ld_out);
    float *s = take(at, kQueryBlock * kKeyBlock), *o = take(at, kQueryBlock * j.ld_out);
    for (int64_t h = begin; h < end; h++) {
      transpose_rows(kt, c.k + h * c.keys * c.width, c.keys, c.width, j.ld_keys);
      pad_rows(v, c.v + h * c.keys * c.out_width, c.keys, c.out_width, j.ld_out);
      for (int64_t i0 = 0; i0 < c.queries; i0 += kQueryBlock) j.forward_block(h, i0, kt, v, s, o);
    }
  }

  void forward_block(int64_t h, int64_t i0, const float* kt, const float* v, float* s, float* o) const {
    const AttentionCall& c = call;
    int64_t m = c.queries - i0 < kQueryBlock ? c.queries - i0 : kQueryBlock;
    const float* q = c.q + (h * c.queries + i0) * c.width;
    float top[kQueryBlock], total[kQueryBlock];
    for (int64_t i = 0; i < m; i++) top[i] = -std::numeric_limits<float>::infinity(), total[i] = 0;
    for (int64_t i = 0; i < m * ld_out; i++) o[i] = 0;
    for (int64_t j0 = 0; j0 < c.keys && seen(c, i0 + m - 1, j0, kKeyBlock) > 0; j0 += kKeyBlock) {
      int64_t n = c.keys - j0 < kKeyBlock ? c.keys - j0 : kKeyBlock;
      product(s, kKeyBlock, q, c.width, 1, kt + j0, ld_keys, m, padded(n), c.width, false);
      for (int64_t i = 0; i < m; i++) {
        float* row = s + i * kKeyBlock;
        int64_t see = seen(c, i0 + i, j0, n);
        for (int64_t t = see; t < kKeyBlock; t++) row[t] = 0;
        if (see == 0) continue;
        for (int64_t t = 0; t < see; t++) row[t] *= c.scale;
        float best = fold_row<Fold::Max, float>(see, [&](int64_t t) __attribute__((always_inline)) { return row[t]; });
        best = best > top[i] ? best : top[i];
        float base = best == -std::numeric_limits<float>::infinity() ? 0.0f : best;
        float keep = exp(top[i] - base);
        float sum = fold_row<Fold::Sum, float>(
            see, [&](int64_t t) __attribute__((always_inline)) { return row[t] = exp(row[t] - base); });
        total[i] = total[i] * keep + sum;
        top[i] = best;
        if (keep != 1.0f)
          for (int64_t e = 0; e < ld_out; e++) o[i * ld_out + e] *= keep;
      }
      product(o, ld_out, s, kKeyBlock, 1, v + j0 * ld_out, ld_out, m, ld_out, n, true);
    }
    for (int64_t i = 0; i < m; i++) {
      float* y = c.y + (h * c.queries + i0 + i) * c.out_width;
      float r = 1.0f / total[i];
      for (int64_t e = 0; e < c.out_width; e++) y[e] = o[i * ld_out + e] * r;
      c.lse[h * c.queries + i0 + i] = top[i] + log(total[i]);
    }
  }

  // Scratch of one thread in backward: operands of the products with padded rows, and two tiles.
  struct Back {
    float *kt, *vt, *k, *q, *gy, *gk, *gv, *gq, *p, *dp, *delta;
  };
  int64_t back_floats() const {
    const AttentionCall& c = call;
    return (c.width + c.out_width) * ld_keys + (2 * c.keys + 2 * c.queries) * ld_width + (c.keys + c.queries) * ld_out +
           2 * kQueryBlock * kKeyBlock + c.queries + 16 * 16;
  }

  static void backward(void* ctx, int64_t begin, int64_t end) {
    const AttentionJob& j = *static_cast<AttentionJob*>(ctx);
    const AttentionCall& c = j.call;
    auto* at = static_cast<float*>(pb_scratch(2, size_t(j.back_floats()) * sizeof(float)));
    Back b{};
    b.kt = take(at, c.width * j.ld_keys);
    b.vt = take(at, c.out_width * j.ld_keys);
    b.k = take(at, c.keys * j.ld_width);
    b.gk = take(at, c.keys * j.ld_width);
    b.q = take(at, c.queries * j.ld_width);
    b.gq = take(at, c.queries * j.ld_width);
    b.gv = take(at, c.keys * j.ld_out);
    b.gy = take(at, c.queries * j.ld_out);
    b.p = take(at, kQueryBlock * kKeyBlock);
    b.dp = take(at, kQueryBlock * kKeyBlock);
    b.delta = take(at, c.queries);
    for (int64_t h = begin; h < end; h++) j.backward_head(h, b);
  }

  void backward_head(int64_t h, const Back& b) const {
    const AttentionCall& c = call;
    const float *q = c.q + h * c.queries * c.width, *k = c.k + h * c.keys * c.width,
                *v = c.v + h * c.keys * c.out_width;
    const float *gy = c.gy + h * c.queries * c.out_width, *y = c.y + h * c.queries * c.out_width;
    transpose_rows(b.kt, k, c.keys, c.width, ld_keys);
    transpose_rows(b.vt, v, c.keys, c.out_width, ld_keys);
    pad_rows(b.k, k, c.keys, c.width, ld_width);
    pad_rows(b.q, q, c.queries, c.width, ld_width);
    pad_rows(b.gy, gy, c.queries, c.out_width, ld_out);
    for (int64_t i = 0; i < c.queries; i++)
      b.delta[i] = fold_row<Fold::Sum, float>(c.out_width, [&](int64_t e) __attribute__((always_inline)) {
        return gy[i * c.out_width + e] * y[i * c.out_width + e];
      });
    for (int64_t i = 0; i < c.keys * ld_width; i++) b.gk[i] = 0;
    for (int64_t i = 0; i < c.keys * ld_out; i++) b.gv[i] = 0;
    for (int64_t i = 0; i < c.queries * ld_width; i++) b.gq[i] = 0;
    for (int64_t i0 = 0; i0 < c.queries; i0 += kQueryBlock)
      for (int64_t j0 = 0; j0 < c.keys; j0 += kKeyBlock) backward_block(h, i0, j0, b);
    unpad(c.gq + h * c.queries * c.width, b.gq, c.queries, c.width, ld_width, c.scale);
    unpad(c.gk + h * c.keys * c.width, b.gk, c.keys, c.width, ld_width, c.scale);
    unpad(c.gv + h * c.keys * c.out_width, b.gv, c.keys, c.out_width, ld_out, 1.0f);
  }

  static void unpad(float* to, const float* from, int64_t rows, int64_t width, int64_t ld, float scale) {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < width; c++) to[r * width + c] = from[r * ld + c] * scale;
  }

  void backward_block(int64_t h, int64_t i0, int64_t j0, const Back& b) const {
    const AttentionCall& c = call;
    int64_t m = c.queries - i0 < kQueryBlock ? c.queries - i0 : kQueryBlock;
    int64_t n = c.keys - j0 < kKeyBlock ? c.keys - j0 : kKeyBlock;
    if (seen(c, i0 + m - 1, j0, n) == 0) return;
    product(b.p, kKeyBlock, b.q + i0 * ld_width, ld_width, 1, b.kt + j0, ld_keys, m, padded(n), c.width, false);
    product(b.dp, kKeyBlock, b.gy + i0 * ld_out, ld_out, 1, b.vt + j0, ld_keys, m, padded(n), c.out_width, false);
    for (int64_t i = 0; i < m; i++) {
      float *p = b.p + i * kKeyBlock, *d = b.dp + i * kKeyBlock;
      float lse = c.lse[h * c.queries + i0 + i], delta = b.delta[i0 + i];
      int64_t see = seen(c, i0 + i, j0, n);
#pragma GCC ivdep
      for (int64_t t = 0; t < see; t++) {
        p[t] = exp(p[t] * c.scale - lse);
        d[t] = p[t] * (d[t] - delta);
      }
      for (int64_t t = see; t < kKeyBlock; t++) p[t] = d[t] = 0;
    }
    product(b.gv + j0 * ld_out, ld_out, b.p, 1, kKeyBlock, b.gy + i0 * ld_out, ld_out, n, ld_out, m, true);
    product(b.gk + j0 * ld_width, ld_width, b.dp, 1, kKeyBlock, b.q + i0 * ld_width, ld_width, n, ld_width, m, true);
    product(b.gq + i0 * ld_width, ld_width, b.dp, kKeyBlock, 1, b.k + j0 * ld_width, ld_width, m, ld_width, n, true);
  }
};

inline void attention_forward(const AttentionCall& call) {
  AttentionJob job{call, padded(call.keys), padded(call.width), padded(call.out_width)};
  pb_parallel_for(call.heads, 1, &AttentionJob::forward, &job);
}
inline void attention_backward(const AttentionCall& call) {
  AttentionJob job{call, padded(call.keys), padded(call.width), padded(call.out_width)};
  pb_parallel_for(call.heads, 1, &AttentionJob::backward, &job);
}

}  // namespace pb
