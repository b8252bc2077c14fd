// The pooling loops of one ISA level. A plane is one channel of one image; a thread takes whole planes.
#pragma once
#include "cpu/pool_table.h"

namespace pb {

inline int64_t pool_grain(int64_t cells) { return 32768 / (cells + 1) + 1; }

// Maxima of whole vectors of windows, a row of outputs at a time. The input rows of the windows are read where they
// lie; where a window hangs over an edge, or a vector would leave the array, from a copy with -inf around it. A vector
// that is longer than the rest of a row runs into the next one, which is written later.
template <class S, class I>
struct MaxPool {
#if defined(__AVX512F__)
  static constexpr int kBytes = 64;
#elif defined(__AVX2__)
  static constexpr int kBytes = 32;
#else
  static constexpr int kBytes = 16;
#endif
  static constexpr int kLanes = kBytes / int(sizeof(S));
  using Cell = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
  typedef S Values __attribute__((vector_size(kBytes)));
  typedef Cell Cells __attribute__((vector_size(kBytes)));
  const PoolShape& s;
  S* y;
  I* index;
  const S* x;

  int64_t reach() const { return (s.ow + kLanes - 1) / kLanes * kLanes * s.sw + s.kw; }  // read in one row of inputs

  static Values load(const S* p) {
    Values v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static Cells counting(Cell step) {
    Cells c;
    for (int i = 0; i < kLanes; i++) c[i] = Cell(i) * step;
    return c;
  }
  template <int Step>
  Values spaced(const S* from) const {
    if constexpr (Step == 1) return load(from);
    if constexpr (Step == 2) return __builtin_shuffle(load(from), load(from + kLanes), counting(2));
    Values v;
    for (int i = 0; i < kLanes; i++) v[i] = from[i * s.sw];
    return v;
  }

  // kLanes windows from output column `at` on, of which n are left before somebody else's memory begins. Input (ky, kx)
  // of window i stands at row[ky][(at + i) * sw + kx].
  template <int Step>
  void vector(S* out, I* cells, const S* const* row, int64_t at, int64_t n) const {
    int64_t top = 0;
    while (!row[top]) top++;
    // Before any cell is seen: -inf, at the window's first cell inside the plane.
    Values best = Values{} - S(__builtin_inf());
    Cells left = Cell(s.pw - at * s.sw) - counting(Cell(s.sw));
    Cells cell = Cell(top * s.kw) + (left > 0 ? left : Cells{});
    for (int64_t ky = top; ky < s.kh && row[ky]; ky++)
      for (int64_t kx = 0; kx < s.kw; kx++) {
        Values v = spaced<Step>(row[ky] + at * s.sw + kx);
        Cells take = (v > best) | (v != v);
        best = take ? v : best;
        cell = take ? Cells{} + Cell(ky * s.kw + kx) : cell;
      }
    if (n >= kLanes) {
      __builtin_memcpy(out, &best, sizeof best);
      if (cells)
        for (int i = 0; i < kLanes; i++) cells[i] = I(cell[i]);
      return;
    }
    for (int64_t i = 0; i < n; i++) out[i] = best[i];
    if (cells)
      for (int64_t i = 0; i < n; i++) cells[i] = I(cell[i]);
  }
  // The input rows of output row oy; null outside the plane.
  void rows(const S** row, S* copies, int64_t p, int64_t oy) const {
    const S* end = x + s.planes * s.h * s.w;
    for (int64_t ky = 0; ky < s.kh; ky++) {
      int64_t r = oy * s.sh - s.ph + ky;
      row[ky] = nullptr;
      if (r < 0 || r >= s.h) continue;
      row[ky] = x + (p * s.h + r) * s.w;
      if (s.pw == 0 && end - row[ky] >= reach()) continue;
      S* to = copies + ky * reach();
      for (int64_t i = 0; i < s.pw; i++) to[i] = -__builtin_inf();
      int64_t n = reach() - s.pw < s.w ? reach() - s.pw : s.w;
      for (int64_t i = 0; i < n; i++) to[s.pw + i] = row[ky][i];
      for (int64_t i = s.pw + n; i < reach(); i++) to[i] = -__builtin_inf();
      row[ky] = to;
    }
  }
  static void run(void* ctx, int64_t begin, int64_t end) {
    const MaxPool& f = *static_cast<MaxPool*>(ctx);
    const PoolShape& s = f.s;
    auto* copies = static_cast<S*>(pb_scratch(4, size_t(s.kh * f.reach()) * sizeof(S)));
    auto* row = static_cast<const S**>(pb_scratch(5, size_t(s.kh) * sizeof(S*)));
    for (int64_t p = begin; p < end; p++)
      for (int64_t oy = 0; oy < s.oh; oy++) {
        f.rows(row, copies, p, oy);
        int64_t left = ((end - p) * s.oh - oy) * s.ow, out = (p * s.oh + oy) * s.ow;
        for (int64_t at = 0; at < s.ow; at += kLanes) {
          I* cells = f.index ? f.index + out + at : nullptr;
          if (s.sw == 1)
            f.template vector<1>(f.y + out + at, cells, row, at, left - at);
          else if (s.sw == 2)
            f.template vector<2>(f.y + out + at, cells, row, at, left - at);
          else
            f.template vector<0>(f.y + out + at, cells, row, at, left - at);
        }
      }
  }
};
template <class S, class I>
void max_forward(void* y, void* index, const void* x, const PoolShape& s) {
  MaxPool<S, I> f{s, static_cast<S*>(y), static_cast<I*>(index), static_cast<const S*>(x)};
  pb_parallel_for(s.planes, pool_grain(s.oh * s.ow * s.kh * s.kw), &MaxPool<S, I>::run, &f);
}

// The two linear maps of kept indices. `cells` holds the distance of each cell from the window's first one.
template <class S, class I>
struct Kept {
  const PoolShape& s;
  S* to;
  const S* from;
  const I* index;
  int64_t* cells;
  int64_t place(int64_t oy, int64_t ox, I k) const { return (oy * s.sh - s.ph) * s.w + ox * s.sw - s.pw + cells[k]; }
  static void scatter(void* ctx, int64_t begin, int64_t end) {
    const Kept f = *static_cast<Kept*>(ctx);
    const PoolShape s = f.s;
    for (int64_t p = begin; p < end; p++) {
      S* plane = f.to + p * s.h * s.w;
      __builtin_memset(plane, 0, size_t(s.h * s.w) * sizeof(S));
      int64_t at = p * s.oh * s.ow;
      for (int64_t oy = 0; oy < s.oh; oy++)
        for (int64_t ox = 0; ox < s.ow; ox++, at++) plane[f.place(oy, ox, f.index[at])] += f.from[at];
    }
  }
  static void gather(void* ctx, int64_t begin, int64_t end) {
    const Kept f = *static_cast<Kept*>(ctx);
    const PoolShape s = f.s;
    for (int64_t p = begin; p < end; p++) {
      const S* plane = f.from + p * s.h * s.w;
      int64_t at = p * s.oh * s.ow;
      for (int64_t oy = 0; oy < s.oh; oy++)
        for (int64_t ox = 0; ox < s.ow; ox++, at++) f.to[at] = plane[f.place(oy, ox, f.index[at])];
    }
  }
};
template <class S, class I>
Kept<S, I> kept(void* to, const void* from, const void* index, const PoolShape& s) {
  auto* cells = static_cast<int64_t*>(pb_scratch(5, size_t(s.kh * s.kw) * sizeof(int64_t)));
  for (int64_t k = 0; k < s.kh * s.kw; k++) cells[k] = k / s.kw * s.w + k % s.kw;
  return {s, static_cast<S*>(to), static_cast<const S*>(from), static_cast<const I*>(index), cells};
}
template <class S, class I>
void max_scatter(void* dx, const void* g, const void* index, const PoolShape& s) {
  Kept<S, I> f = kept<S, I>(dx, g, index, s);
  pb_parallel_for(s.planes, pool_grain(s.h * s.w), &Kept<S, I>::scatter, &f);
}
template <class S, class I>
void max_gather(void* y, const void* x, const void* index, const PoolShape& s) {
  Kept<S, I> f = kept<S, I>(y, x, index, s);
  pb_parallel_for(s.planes, pool_grain(s.oh * s.ow), &Kept<S, I>::gather, &f);
}

// ---- averages: rows of a window are added first, over the whole width, then its columns

template <class S>
struct Mean {
  const MeanShape& s;
  S* to;
  const S* from;
  S divisor(int64_t oy, int64_t ox) const {
    return S(s.count ? s.count : (s.y1[oy] - s.y0[oy]) * (s.x1[ox] - s.x0[ox]));
  }
  static void forward(void* ctx, int64_t begin, int64_t end) {
    const Mean& f = *static_cast<Mean*>(ctx);
    const MeanShape& s = f.s;
    S* column = static_cast<S*>(pb_scratch(4, size_t(s.w) * sizeof(S)));
    for (int64_t p = begin; p < end; p++)
      for (int64_t oy = 0; oy < s.oh; oy++) {
        const S* row = f.from + (p * s.h + s.y0[oy]) * s.w;
        for (int64_t i = 0; i < s.w; i++) column[i] = S(0);
        for (int64_t y = s.y0[oy]; y < s.y1[oy]; y++, row += s.w)
          for (int64_t i = 0; i < s.w; i++) column[i] += row[i];
        S* out = f.to + (p * s.oh + oy) * s.ow;
        for (int64_t ox = 0; ox < s.ow; ox++) {
          S sum = S(0);
          for (int64_t i = s.x0[ox]; i < s.x1[ox]; i++) sum += column[i];
          out[ox] = sum / f.divisor(oy, ox);
        }
      }
  }
  static void pull(void* ctx, int64_t begin, int64_t end) {
    const Mean& f = *static_cast<Mean*>(ctx);
    const MeanShape& s = f.s;
    S* column = static_cast<S*>(pb_scratch(4, size_t(s.w) * sizeof(S)));
    for (int64_t p = begin; p < end; p++) {
      S* plane = f.to + p * s.h * s.w;
      __builtin_memset(plane, 0, size_t(s.h * s.w) * sizeof(S));
      for (int64_t oy = 0; oy < s.oh; oy++) {
        const S* g = f.from + (p * s.oh + oy) * s.ow;
        for (int64_t i = 0; i < s.w; i++) column[i] = S(0);
        for (int64_t ox = 0; ox < s.ow; ox++) {
          S each = g[ox] / f.divisor(oy, ox);
          for (int64_t i = s.x0[ox]; i < s.x1[ox]; i++) column[i] += each;
        }
        for (int64_t y = s.y0[oy]; y < s.y1[oy]; y++)
          for (int64_t i = 0; i < s.w; i++) plane[y * s.w + i] += column[i];
      }
    }
  }
};
template <class S>
void mean_forward(void* y, const void* x, const MeanShape& s) {
  Mean<S> f{s, static_cast<S*>(y), static_cast<const S*>(x)};
  pb_parallel_for(s.planes, pool_grain(s.h * s.w), &Mean<S>::forward, &f);
}
template <class S>
void mean_pull(void* dx, const void* g, const MeanShape& s) {
  Mean<S> f{s, static_cast<S*>(dx), static_cast<const S*>(g)};
  pb_parallel_for(s.planes, pool_grain(s.h * s.w), &Mean<S>::pull, &f);
}

#define PB_INDEXED(f)                                                                      \
  {                                                                                        \
    {&f<float, uint8_t>, &f<float, int32_t>}, { &f<double, uint8_t>, &f<double, int32_t> } \
  }
inline constexpr PoolKernels kPoolTable = {PB_INDEXED(max_forward),
                                           PB_INDEXED(max_scatter),
                                           PB_INDEXED(max_gather),
                                           {&mean_forward<float>, &mean_forward<double>},
                                           {&mean_pull<float>, &mean_pull<double>}};
#undef PB_INDEXED

}  // namespace pb
