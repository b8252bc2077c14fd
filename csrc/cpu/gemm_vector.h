// Products with one row: c[n] = a[k] b[k, n]. Memory bound, so b is read where it lies and nothing is packed.
#pragma once
#include "cpu/gemm_load.h"
#include "cpu/gemm_tile.h"

namespace pb {

inline constexpr int64_t kVectorWork = 1 << 16;  // products worth a task of their own
inline constexpr int kWide = 8;                  // vectors of c in registers
inline constexpr int kSlotRow = 4;
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

// A bfloat16 number of memory.
struct BFloat {
  uint16_t bits;
  operator float() const { return bf16_to_float(bits); }
};
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

// b has rows of neighbours: the same sums as the register tile makes.
template <class S, class B>
void vector_axpy(const S* a, const B* b, int64_t b_row, S* c, int64_t n, int64_t k, bool add) {
  using V = typename VectorOf<S>::type;
  constexpr int L = kLanes<S>;
  for (int64_t k0 = 0, depth = block_depth(k); k0 < k; k0 += depth) {
    int64_t end = at_most(k, k0 + depth), j = 0;
    bool adds = add || k0 > 0;
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

// One scalar product in 256 bytes of partial sums, a layout that does not depend on the vector width.
template <class S, class B>
S dot(const S* a, const B* b, int64_t k) {
  using V = typename VectorOf<S>::type;
  constexpr int L = kLanes<S>, N = 256 / kVectorBytes, Lanes = N * L;
  V acc[N];
#pragma GCC unroll 16
  for (int v = 0; v < N; v++) acc[v] = V{};
  int64_t p = 0;
  for (; p + Lanes <= k; p += Lanes) {
#pragma GCC unroll 16
    for (int v = 0; v < N; v++) acc[v] += load_vector(a + p + v * L) * load_wide(b + p + v * L);
  }
  S sums[Lanes];
#pragma GCC unroll 16
  for (int v = 0; v < N; v++) store_vector(sums + v * L, acc[v]);
  for (int64_t i = 0; p + i < k; i++) sums[i] = fused(a[p + i], S(b[p + i]), sums[i]);
  for (int half = Lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

template <class S, class B>
void vector_product(const S* a, const B* b, int64_t b_row, int64_t b_col, S* c, int64_t n, int64_t k, bool add,
                    bool stream) {
  if (stream && n >= 256) return vector_stream(a, b, b_row, c, n, k, add);
  if (b_col == 1 && !(b_row == 1 && n == 1)) return vector_axpy(a, b, b_row, c, n, k, add);
  for (int64_t j = 0; j < n; j++) {
    S sum = dot(a, b + j * b_col, k);
    c[j] = add ? c[j] + sum : sum;
  }
}

}  // namespace pb
