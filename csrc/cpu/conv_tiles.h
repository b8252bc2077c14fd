// Register tiles of the convolution: two small products whose operands are read where they lie.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pb {

// kRows x 2 accumulators, two loads and a broadcast fill the vector registers of the level.
#if defined(__AVX512F__)
inline constexpr int kVecBytes = 64, kRows = 14, kThin = 4, kThinVecs = 4, kDotVecs = 4;
constexpr int dot_rows(int vecs) { return vecs == 4 ? 6 : vecs == 3 ? 8 : 10; }
#elif defined(__AVX2__)
inline constexpr int kVecBytes = 32, kRows = 6, kThin = 3, kThinVecs = 4, kDotVecs = 2;
constexpr int dot_rows(int vecs) { return vecs == 2 ? 6 : 8; }
#else
inline constexpr int kVecBytes = 16, kRows = 6, kThin = 3, kThinVecs = 4, kDotVecs = 2;
constexpr int dot_rows(int vecs) { return vecs == 2 ? 6 : 8; }
#endif

template <class S>
struct VecOf {
  typedef S type __attribute__((vector_size(kVecBytes)));
};
template <class S>
using Vec = typename VecOf<S>::type;
template <class S>
constexpr int kLanes = kVecBytes / int(sizeof(S));

#define PB_TILE inline __attribute__((always_inline))
template <class S>
PB_TILE Vec<S> load(const S* p) {
  Vec<S> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class S>
PB_TILE void store(S* p, Vec<S> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

#if defined(__AVX512F__)
PB_TILE Vec<float> splat(float x) { return (Vec<float>)_mm512_set1_ps(x); }
PB_TILE Vec<double> splat(double x) { return (Vec<double>)_mm512_set1_pd(x); }
PB_TILE Vec<float> fmadd(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
PB_TILE Vec<double> fmadd(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__AVX2__) && defined(__FMA__)
PB_TILE Vec<float> splat(float x) { return (Vec<float>)_mm256_set1_ps(x); }
PB_TILE Vec<double> splat(double x) { return (Vec<double>)_mm256_set1_pd(x); }
PB_TILE Vec<float> fmadd(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
PB_TILE Vec<double> fmadd(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
template <class S>
PB_TILE Vec<S> splat(S x) {
  return x - Vec<S>{};
}
template <class V>
PB_TILE V fmadd(V a, V b, V c) {
  return a * b + c;
}
#endif

// c[r, p] (+)= sum_k a[k, r] b[off[k] + p] for R rows and NV vectors of p. `a` is packed with R values per k.
template <class S, int R, int NV>
void tile_product(const S* a, const S* b, const int64_t* off, int64_t k, S* c, int64_t ldc, bool add) {
  Vec<S> acc[R][NV] = {};
  for (int64_t i = 0; i < k; i++, a += R) {
    const S* from = b + off[i];
    Vec<S> x[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) x[v] = load(from + v * kLanes<S>);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      Vec<S> w = splat(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) acc[r][v] = fmadd(w, x[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      S* to = c + r * ldc + v * kLanes<S>;
      store(to, add ? load(to) + acc[r][v] : acc[r][v]);
    }
}

// d[r, o] += sum over a rectangle of positions (y, x) of in[off[r] + y pitch + x] gt[y, x, o].
template <class S, int R, int NV>
void tile_dot(const S* in, const int64_t* off, int64_t rows, int64_t cols, int64_t pitch, const S* gt, S* d,
              int64_t ldd) {
  constexpr int width = NV * kLanes<S>;
  Vec<S> acc[R][NV] = {};
  const S* from[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) from[r] = in + off[r];
  for (int64_t y = 0; y < rows; y++) {
    for (int64_t x = 0; x < cols; x++, gt += width) {
      Vec<S> g[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) g[v] = load(gt + v * kLanes<S>);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        Vec<S> a = splat(from[r][x]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[r][v] = fmadd(a, g[v], acc[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) from[r] += pitch;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      S* to = d + r * ldd + v * kLanes<S>;
      store(to, load(to) + acc[r][v]);
    }
}

// ---- few output channels (depthwise): positions run along the lanes, kWideLanes of them at every ISA level

template <class S>
constexpr int kWideLanes = 64 / int(sizeof(S));
inline constexpr int kParts = 64 / kVecBytes;
inline constexpr int kLaneRows = kParts == 1 ? 9 : kParts == 2 ? 5 : 2;

// Part v of kWideLanes lanes, zero from lane n on.
template <class S>
PB_TILE Vec<S> mask_lanes(Vec<S> x, int64_t n, int v) {
  typedef std::conditional_t<sizeof(S) == 4, int32_t, int64_t> Bits;
  static constexpr Bits table[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
  typedef Bits Mask __attribute__((vector_size(kVecBytes)));
  Mask m;
  __builtin_memcpy(&m, table + 16 - n + v * kLanes<S>, sizeof m);
  return (Vec<S>)((Mask)x & m);
}

// d[r] += sum over a rectangle of positions of in[off[r] + y pitch + x] g[y, x]; rows of g are filled up with zeros.
template <class S, int R>
void lane_dot(const S* in, const int64_t* off, int64_t rows, int64_t cols, int64_t pitch, const S* g, S* d,
              int64_t ldd) {
  Vec<S> acc[R][kParts] = {};
  for (int64_t y = 0; y < rows; y++, in += pitch)
    for (int64_t x = 0; x < cols; x += kWideLanes<S>, g += kWideLanes<S>) {
      bool tail = cols - x < kWideLanes<S>;
#pragma GCC unroll 16
      for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < kParts; v++) {
          Vec<S> a = load(in + off[r] + x + v * kLanes<S>);
          if (tail) a = mask_lanes<S>(a, cols - x, v);
          acc[r][v] = fmadd(a, load(g + v * kLanes<S>), acc[r][v]);
        }
    }
  for (int r = 0; r < R; r++) {
    S lane[kWideLanes<S>];
    __builtin_memcpy(lane, acc[r], sizeof lane);
    for (int w = kWideLanes<S> / 2; w; w /= 2)
      for (int i = 0; i < w; i++) lane[i] += lane[i + w];
    d[r * ldd] += lane[0];
  }
}

template <class S>
using ProductFn = void (*)(const S*, const S*, const int64_t*, int64_t, S*, int64_t, bool);
template <class S>
using DotFn = void (*)(const S*, const int64_t*, int64_t, int64_t, int64_t, const S*, S*, int64_t);
template <class S, int NV, class I>
struct ProductTable;
template <class S, int NV, int... R>
struct ProductTable<S, NV, std::integer_sequence<int, R...>> {
  static constexpr ProductFn<S> fn[] = {&tile_product<S, R + 1, NV>...};
};
template <class S, int NV, class I>
struct DotTable;
template <class S, int NV, int... R>
struct DotTable<S, NV, std::integer_sequence<int, R...>> {
  static constexpr DotFn<S> fn[] = {&tile_dot<S, R + 1, NV>...};
};
template <class S, class I>
struct LaneTable;
template <class S, int... R>
struct LaneTable<S, std::integer_sequence<int, R...>> {
  static constexpr DotFn<S> fn[] = {&lane_dot<S, R + 1>...};
};
template <class S>
DotFn<S> lane_dot_of(int64_t rows) {
  return LaneTable<S, std::make_integer_sequence<int, kLaneRows>>::fn[rows - 1];
}
template <class S>
ProductFn<S> product_of(int64_t rows, bool thin) {
  if (thin) return ProductTable<S, kThinVecs, std::make_integer_sequence<int, kThin>>::fn[rows - 1];
  return ProductTable<S, 2, std::make_integer_sequence<int, kRows>>::fn[rows - 1];
}
template <class S>
DotFn<S> dot_of(int64_t rows, int vecs) {
#define PB_DOT(n) DotTable<S, n, std::make_integer_sequence<int, dot_rows(n)>>::fn[rows - 1]
  if (vecs == 1) return PB_DOT(1);
#if defined(__AVX512F__)
  if (vecs == 3) return PB_DOT(3);
  if (vecs == 4) return PB_DOT(4);
#endif
  return PB_DOT(2);
#undef PB_DOT
}

// n cut into `count` pieces whose sizes differ by at most one, the larger ones first.
struct Split {
  int64_t count, base, extra;
  Split(int64_t n, int64_t most) : count((n + most - 1) / most) {
    base = count ? n / count : 0;
    extra = count ? n % count : 0;
  }
  int64_t size(int64_t i) const { return base + (i < extra); }
  int64_t start(int64_t i) const { return i * base + (i < extra ? i : extra); }
};

inline constexpr int64_t kDepth = 320;  // summed before a tile goes back to memory: a panel of b then stays in L1

// c[m, p] = sum_k a[m, k] b[off[k] + p] for p in [0, cols), `a` as panels of Split(m, kRows) rows. Columns are written
// up to the next multiple of the tile, and b is read as far.
template <class S>
constexpr int64_t kTileCols = kThinVecs * kLanes<S>;
template <class S>
void grid_product(S* c, int64_t ldc, const S* panels, int64_t m, const S* b, const int64_t* off, int64_t k,
                  int64_t cols) {
  Split ms(m, kRows), ks(k, kDepth);
  bool thin = m <= kThin;
  int64_t tile = (thin ? kThinVecs : 2) * kLanes<S>;
  if (k == 0)
    for (int64_t r = 0; r < m; r++) __builtin_memset(c + r * ldc, 0, size_t(cols) * sizeof(S));
  for (int64_t kb = 0; kb < ks.count; kb++)
    for (int64_t p = 0; p < cols; p += tile)
      for (int64_t i = 0; i < ms.count; i++) {
        int64_t rows = ms.size(i), first = ms.start(i);
        product_of<S>(rows, thin)(panels + first * k + ks.start(kb) * rows, b + p, off + ks.start(kb), ks.size(kb),
                                  c + first * ldc + p, ldc, kb > 0);
      }
}

// The useful positions of a grid: `rows` runs of `cols` neighbours, `pitch` apart, in each of `count` images.
struct Positions {
  int64_t count, image, rows, cols, pitch;
  int64_t all() const { return count * rows * cols; }
};

// Note [Small planes]
// On a plane of 7x7 or 14x14 the surplus columns of a grid and the unfilled last tile cost a quarter or an eighth of
// the work. With enough output channels it pays to copy the useful positions of several images side by side, one block
// of k at a time, and to read the tiles from there.
template <class S>
constexpr int64_t kCopiedCols = 1280 / int64_t(sizeof(S));  // with kDepth steps of k, half of a second-level cache
template <class S>
int64_t copied_pitch(int64_t cols) {
  constexpr int64_t tile = 2 * kLanes<S>;
  return (cols + tile - 1) / tile * tile;
}
// How many of n images to take together; 0 where copying does not pay. `wide` columns of one image lie on the grid.
template <class S>
int64_t images_together(int64_t n, int64_t m, int64_t useful, int64_t wide) {
  int64_t best = 0;
  double share = double(useful) / double(copied_pitch<S>(wide)) * (1 + 12.0 / double(m));
  for (int64_t t = 1; t <= n && (t == 1 || t * useful <= kCopiedCols<S>); t++) {
    double s = double(t * useful) / double(copied_pitch<S>(t * useful));
    if (s > share + 1e-9) best = t, share = s;
  }
  return useful <= kCopiedCols<S> ? best : 0;
}

template <class S>
void copy_positions(S* to, int64_t ld, const S* b, const int64_t* off, int64_t k, const Positions& p) {
  typedef S Eight __attribute__((vector_size(8 * sizeof(S))));
  for (int64_t i = 0; i < k; i++) {
    S* at = to + i * ld;
    for (int64_t n = 0; n < p.count; n++) {
      const S* from = b + off[i] + n * p.image;
      for (int64_t r = 0; r < p.rows; r++, at += p.cols, from += p.pitch)
        for (int64_t q = 0; q < p.cols; q += 8) {  // what is written too far is overwritten next
          Eight v;
          __builtin_memcpy(&v, from + q, sizeof v);
          __builtin_memcpy(at + q, &v, sizeof v);
        }
    }
  }
}

// grid_product on the useful positions only; `space` has room for kDepth * copied_pitch + 8 numbers.
template <class S>
void copied_product(S* c, int64_t ldc, const S* panels, int64_t m, const S* b, const int64_t* off, int64_t k,
                    const Positions& positions, S* space) {
  Split ms(m, kRows), ks(k, kDepth);
  constexpr int64_t tile = 2 * kLanes<S>;
  int64_t cols = positions.all(), ld = copied_pitch<S>(cols), at[kDepth];
  for (int64_t i = 0; i < kDepth; i++) at[i] = i * ld;
  for (int64_t kb = 0; kb < ks.count; kb++) {
    copy_positions(space, ld, b, off + ks.start(kb), ks.size(kb), positions);
    for (int64_t p = 0; p < cols; p += tile)
      for (int64_t i = 0; i < ms.count; i++) {
        int64_t rows = ms.size(i), first = ms.start(i);
        product_of<S>(rows, false)(panels + first * k + ks.start(kb) * rows, space + p, at, ks.size(kb),
                                   c + first * ldc + p, ldc, kb > 0);
      }
  }
}

}  // namespace pb
