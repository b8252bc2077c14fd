// The pooling loops of one ISA level. A plane is one channel of one image; a thread takes whole planes.
#pragma once
#include "cpu/pool_table.h"

namespace pb {

inline int64_t pool_grain(int64_t cells) { return 32768 / (cells + 1) + 1; }

// Calls f(row, first output column, last + 1, input column of the first, cell) for the cells of the windows of
// output row oy that lie inside the plane, in the order of the window.
template <class F>
void each_cell(const PoolShape& s, int64_t oy, F f) {
  for (int64_t ky = 0; ky < s.kh; ky++) {
    int64_t row = oy * s.sh - s.ph + ky;
    if (row < 0 || row >= s.h) continue;
    for (int64_t kx = 0; kx < s.kw; kx++) {
      int64_t shift = kx - s.pw, lo = shift < 0 ? (-shift + s.sw - 1) / s.sw : 0;
      int64_t hi = shift < s.w ? (s.w - shift + s.sw - 1) / s.sw : 0;
      if (hi > s.ow) hi = s.ow;
      if (lo < hi) f(row, lo, hi, lo * s.sw + shift, int32_t(ky * s.kw + kx));
    }
  }
}

template <class S, class I>
struct MaxPool {
  const PoolShape& s;
  S* y;
  I* index;
  const S* x;

  template <int Step>
  static void step(S* best, int32_t* cell, const S* from, int64_t n, int64_t stride, int32_t k) {
    if (Step) stride = Step;
    for (int64_t i = 0; i < n; i++) {
      S v = from[i * stride];
      bool take = (v > best[i]) | (v != v);
      best[i] = take ? v : best[i];
      cell[i] = take ? k : cell[i];
    }
  }
  void row(S* best, int32_t* cell, const S* plane, int64_t oy) const {
    // Before any cell is seen: -inf, at the window's first cell inside the plane.
    int64_t top = s.ph - oy * s.sh > 0 ? s.ph - oy * s.sh : 0;
    for (int64_t i = 0; i < s.ow; i++) {
      int64_t left = s.pw - i * s.sw;
      best[i] = -__builtin_inf();
      cell[i] = int32_t(top * s.kw + (left > 0 ? left : 0));
    }
    each_cell(s, oy, [&](int64_t r, int64_t lo, int64_t hi, int64_t from, int32_t k) {
      const S* src = plane + r * s.w + from;
      if (s.sw == 1)
        step<1>(best + lo, cell + lo, src, hi - lo, 1, k);
      else if (s.sw == 2)
        step<2>(best + lo, cell + lo, src, hi - lo, 2, k);
      else
        step<0>(best + lo, cell + lo, src, hi - lo, s.sw, k);
    });
  }
  static void run(void* ctx, int64_t begin, int64_t end) {
    const MaxPool& f = *static_cast<MaxPool*>(ctx);
    const PoolShape& s = f.s;
    auto* cell = static_cast<int32_t*>(pb_scratch(4, size_t(s.ow) * sizeof(int32_t)));
    for (int64_t p = begin; p < end; p++)
      for (int64_t oy = 0; oy < s.oh; oy++) {
        int64_t at = (p * s.oh + oy) * s.ow;
        f.row(f.y + at, cell, f.x + p * s.h * s.w, oy);
        if (f.index)
          for (int64_t i = 0; i < s.ow; i++) f.index[at + i] = I(cell[i]);
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
