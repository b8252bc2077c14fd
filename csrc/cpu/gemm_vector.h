// Products with one row: c[n] = a[k] b[k, n]. Memory bound, so b is read where it lies and nothing is packed.
#pragma once
#include "cpu/gemm_load.h"
#include "cpu/gemm_tile.h"

namespace pb {

inline constexpr int64_t kVectorWork = 1 << 16;  // products worth a task of their own
inline constexpr int kWide = 8;                  // vectors of c in registers
inline constexpr int kSlotRow = 4, kSlotHalves = 5;
inline constexpr int64_t kStreamColumns = 1024;
inline constexpr int64_t kStreamBytes = 1 << 23;  // a b of this size comes from memory
template <class S>
inline constexpr int64_t kVectorColumns = 128;

// a * b + c rounded once wherever the level can, also where a compiler would rather multiply and add apart.
inline float fused(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
inline double fused(double a, double b, double c) {
#if defined(__FMA__)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

template <class S>
typename VectorOf<S>::type load_wide(const S* p) {
  return load_vector(p);
}
inline VectorOf<float>::type load_wide(const BFloat* p) {
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint16_t Any __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
  typedef uint32_t Whole __attribute__((vector_size(kVectorBytes)));
  Whole w = __builtin_convertvector(Half(*reinterpret_cast<const Any*>(p)), Whole) << 16;
  return (VectorOf<float>::type)w;
}

// Columns of vector_axpy in whole runs of kWide vectors, for steps [k0, end). Gives the first that is left.
template <class S, class B>
int64_t vector_halves(const S* a, const B* b, int64_t b_row, S* c, int64_t n, int64_t k0, int64_t end, bool adds) {
  constexpr int L = kLanes<S>;
  int64_t j = 0;
  for (; j + kWide * L <= n; j += kWide * L) {
    Halves acc[kWide / 2];
#pragma GCC unroll 4
    for (int v = 0; v < kWide / 2; v++) acc[v] = Halves{};
    for (int64_t p = k0; p < end; p++) {
      auto x = a[p] - typename VectorOf<S>::type{};
#pragma GCC unroll 4
      for (int v = 0; v < kWide / 2; v++) {
        Halves row = load_halves(b + p * b_row + j + v * 2 * L);
        acc[v].even += x * row.even;
        acc[v].odd += x * row.odd;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kWide / 2; v++) {
      Halves y = woven(acc[v]);
      S* to = c + j + v * 2 * L;
      store_vector(to, adds ? load_vector(to) + y.even : y.even);
      store_vector(to + L, adds ? load_vector(to + L) + y.odd : y.odd);
    }
  }
  return j;
}

// b has rows of neighbours: the same sums as the register tile makes.
template <class S, class B>
void vector_axpy(const S* a, const B* b, int64_t b_row, S* c, int64_t n, int64_t k, bool add) {
  using V = typename VectorOf<S>::type;
  constexpr int L = kLanes<S>;
  for (int64_t k0 = 0, depth = block_depth(k); k0 < k; k0 += depth) {
    int64_t end = at_most(k, k0 + depth), j = 0;
    bool adds = add || k0 > 0;
    if constexpr (std::is_same_v<B, BFloat>) j = vector_halves(a, b, b_row, c, n, k0, end, adds);
    for (; j + kWide * L <= n; j += kWide * L) {
      V acc[kWide];
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) acc[v] = V{};
      for (int64_t p = k0; p < end; p++) {
        V x = a[p] - V{};
#pragma GCC unroll 8
        for (int v = 0; v < kWide; v++) acc[v] += x * load_wide(b + p * b_row + j + v * L);
      }
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) store_vector(c + j + v * L, adds ? load_vector(c + j + v * L) + acc[v] : acc[v]);
    }
    for (; j + L <= n; j += L) {
      V acc{};
      for (int64_t p = k0; p < end; p++) acc += (a[p] - V{}) * load_wide(b + p * b_row + j);
      store_vector(c + j, adds ? load_vector(c + j) + acc : acc);
    }
    for (; j < n; j++) {
      S acc = 0;
      for (int64_t p = k0; p < end; p++) acc = fused(a[p], S(b[p * b_row + j]), acc);
      c[j] = adds ? c[j] + acc : acc;
    }
  }
}

// The same sums for a b that comes from beyond the caches: long runs of four rows at a time, sums in L1.
template <class S, class B>
void vector_stream(const S* a, const B* b, int64_t b_row, S* c, int64_t n, int64_t k, bool add) {
  alignas(64) S acc[kStreamColumns];
  for (int64_t j0 = 0; j0 < n; j0 += kStreamColumns, b += kStreamColumns, c += kStreamColumns) {
    int64_t cols = at_most(n - j0, kStreamColumns);
    for (int64_t k0 = 0, depth = block_depth(k); k0 < k; k0 += depth) {
      int64_t p = k0, end = at_most(k, k0 + depth);
      for (int64_t j = 0; j < cols; j++) acc[j] = 0;
      for (; p + 4 <= end; p += 4) {
        S x0 = a[p], x1 = a[p + 1], x2 = a[p + 2], x3 = a[p + 3];
        const B *r0 = b + p * b_row, *r1 = r0 + b_row, *r2 = r1 + b_row, *r3 = r2 + b_row;
        for (int64_t j = 0; j < cols; j++)
          acc[j] = fused(x3, S(r3[j]), fused(x2, S(r2[j]), fused(x1, S(r1[j]), fused(x0, S(r0[j]), acc[j]))));
      }
      for (; p < end; p++)
        for (int64_t j = 0; j < cols; j++) acc[j] = fused(a[p], S(b[p * b_row + j]), acc[j]);
      bool adds = add || k0 > 0;
      for (int64_t j = 0; j < cols; j++) c[j] = adds ? c[j] + acc[j] : acc[j];
    }
  }
}

// One scalar product in 256 bytes of partial sums, a layout that does not depend on the vector width. For a bfloat16 b
// the row a is rearranged (in_halves).
template <class S>
inline constexpr int kDotSums = 256 / int(sizeof(S));

template <class S>
S sum_up(S (&sums)[kDotSums<S>]) {
  for (int half = kDotSums<S> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

template <class S>
S dot(const S* a, const S* b, int64_t k) {
  using V = typename VectorOf<S>::type;
  constexpr int L = kLanes<S>, N = 256 / kVectorBytes, Lanes = N * L;
  V acc[N];
#pragma GCC unroll 16
  for (int v = 0; v < N; v++) acc[v] = V{};
  int64_t p = 0;
  for (; p + Lanes <= k; p += Lanes) {
#pragma GCC unroll 16
    for (int v = 0; v < N; v++) acc[v] += load_vector(a + p + v * L) * load_vector(b + p + v * L);
  }
  S sums[Lanes];
#pragma GCC unroll 16
  for (int v = 0; v < N; v++) store_vector(sums + v * L, acc[v]);
  for (int64_t i = 0; p + i < k; i++) sums[i] = fused(a[p + i], b[p + i], sums[i]);
  return sum_up<S>(sums);
}

inline float dot(const float* a, const BFloat* b, int64_t k) {
  constexpr int L = kLanes<float>, N = 128 / kVectorBytes, Lanes = kDotSums<float>;
  Halves acc[N];
#pragma GCC unroll 8
  for (int v = 0; v < N; v++) acc[v] = Halves{};
  int64_t p = 0;
  for (; p + Lanes <= k; p += Lanes) {
#pragma GCC unroll 8
    for (int v = 0; v < N; v++) {
      Halves h = load_halves(b + p + v * 2 * L);
      acc[v].even += load_vector(a + p + v * 2 * L) * h.even;
      acc[v].odd += load_vector(a + p + v * 2 * L + L) * h.odd;
    }
  }
  float sums[Lanes];
#pragma GCC unroll 8
  for (int v = 0; v < N; v++) {
    Halves y = woven(acc[v]);
    store_vector(sums + v * 2 * L, y.even);
    store_vector(sums + v * 2 * L + L, y.odd);
  }
  for (int64_t i = 0; p + i < k; i++) sums[i] = fused(a[p + i], float(b[p + i]), sums[i]);
  return sum_up<float>(sums);
}
// What this dot reads of whole runs: of each two vectors those at even places, then those at odd ones.
inline void in_halves(float* to, const float* a, int64_t k) {
  constexpr int L = kLanes<float>, Run = 2 * L;
  int64_t whole = k / kDotSums<float> * kDotSums<float>;
  for (int64_t p = 0; p < whole; p += Run)
    for (int i = 0; i < L; i++) to[p + i] = a[p + 2 * i], to[p + L + i] = a[p + 2 * i + 1];
  for (int64_t p = whole; p < k; p++) to[p] = a[p];
}

template <class S, class B>
void vector_product(const S* a, const B* b, int64_t b_row, int64_t b_col, S* c, int64_t n, int64_t k, bool add,
                    bool stream) {
  if (stream && n >= 256) return vector_stream(a, b, b_row, c, n, k, add);
  if (b_col == 1 && !(b_row == 1 && n == 1)) return vector_axpy(a, b, b_row, c, n, k, add);
  if constexpr (std::is_same_v<B, BFloat>) {
    auto* halves = static_cast<float*>(pb_scratch(kSlotHalves, size_t(k) * sizeof(float)));
    in_halves(halves, a, k);
    a = halves;
  }
  for (int64_t j = 0; j < n; j++) {
    S sum = dot(a, b + j * b_col, k);
    c[j] = add ? c[j] + sum : sum;
  }
}

}  // namespace pb
