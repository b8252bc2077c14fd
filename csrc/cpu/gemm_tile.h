// The register tile of the matrix product: R rows by NV vectors of c stay in registers while k runs.
#pragma once
#include "value/half.h"

namespace pb {

// Rows and vector bytes leave room for two vectors of b and one element of a: 32 registers, or 16.
#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kMaxRows = 14;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32, kMaxRows = 6;
#else
inline constexpr int kVectorBytes = 16, kMaxRows = 4;
#endif
inline constexpr int kMaxVectors = 2;

template <class P>
struct VectorOf {
  typedef P type __attribute__((vector_size(kVectorBytes)));
  typedef P unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(P)), may_alias));
};
// The type of sums of products of P; of pairs of bfloat16 it is float.
template <class P>
struct SumOf {
  using type = P;
};
template <>
struct SumOf<uint32_t> {
  using type = float;
};
template <class S>
inline constexpr int kLanes = kVectorBytes / int(sizeof(S));
template <class S>
inline constexpr int kColumns = kMaxVectors * kLanes<S>;

template <class S>
typename VectorOf<S>::type load_vector(const S* p) {
  return *reinterpret_cast<const typename VectorOf<S>::unaligned*>(p);
}
template <class S>
void store_vector(S* p, typename VectorOf<S>::type v) {
  *reinterpret_cast<typename VectorOf<S>::unaligned*>(p) = v;
}

// A bfloat16 number of memory.
struct BFloat {
  uint16_t bits;
  operator float() const { return bf16_to_float(bits); }
};
// Two vectors of neighbouring bfloat16 numbers, those at even and those at odd places: two operations widen them.
struct Halves {
  VectorOf<float>::type even, odd;
};
inline Halves load_halves(const BFloat* p) {
  typedef uint32_t Any __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
  auto raw = VectorOf<uint32_t>::type(*reinterpret_cast<const Any*>(p));
  return {(VectorOf<float>::type)(raw << 16), (VectorOf<float>::type)(raw & 0xffff0000u)};
}
// The numbers in order.
inline Halves woven(const Halves& h) {
  typedef int32_t M __attribute__((vector_size(kVectorBytes)));
  constexpr int L = kLanes<float>;
  M low, high;
  for (int i = 0; i < L; i++) {
    low[i] = i / 2 + i % 2 * L;
    high[i] = L / 2 + i / 2 + i % 2 * L;
  }
  return {__builtin_shuffle(h.even, h.odd, low), __builtin_shuffle(h.even, h.odd, high)};
}

template <class V>
void multiply_add(V& acc, V x, V row) {
  acc += x * row;
}
#if defined(__AVX512F__)
// acc + the two products of each lane. Written so because the level does not promise the instruction.
inline void multiply_add(VectorOf<float>::type& acc, VectorOf<uint32_t>::type x, VectorOf<uint32_t>::type row) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(row));
}
#endif

// a: R elements per step of k, either neighbours (packed; a_row is 1) or where they lie in rows (a_step is 1). b: NV
// vectors per step. `width` columns of c are written, added to what is there if
// `add`. At each step the memory at `ahead` is fetched: what a later
// tile or the packing for it reads.
template <class P>
struct TileArgs {
  const P* a;
  int64_t a_row, a_step;
  const P* b;
  int64_t b_step;
  int64_t k;
  typename SumOf<P>::type* c;
  int64_t c_row;
  int64_t width;
  bool add;
  const void* ahead;
  int64_t ahead_step;  // in bytes
};

// Element r of a, three rows to a pointer: x86 addresses reach no further without another register.
template <class P, int R, bool InRows>
struct RowPointers {
  static constexpr int kCount = InRows ? (R + 2) / 3 : 1;
  const P* p[kCount];
  int64_t row, step;
  explicit RowPointers(const TileArgs<P>& t) : row(t.a_row), step(t.a_step) {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; i++) p[i] = t.a + 3 * i * row;
  }
  P at(int r) const { return InRows ? p[r / 3][r % 3 * row] : p[0][r]; }
  void next() {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; i++) p[i] += InRows ? 1 : step;
  }
};

// B is how b is stored: as packed, or a bfloat16 b where it lies, two vectors wide.
template <class P, int R, int NV, bool InRows, class B = P>
void tile(const TileArgs<P>& t) {
  using S = typename SumOf<P>::type;
  using V = typename VectorOf<S>::type;
  using VP = typename VectorOf<P>::type;
  constexpr int L = kLanes<S>;
  V acc[R][NV];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) {
      acc[i][j] = V{};
      __builtin_prefetch(t.c + i * t.c_row + j * L, 1);
    }
  RowPointers<P, R, InRows> a(t);
  auto* b = reinterpret_cast<const B*>(t.b);
  auto* ahead = static_cast<const char*>(t.ahead);
  for (int64_t p = t.k; p > 0; p--) {
    VP row[NV];
    if constexpr (std::is_same_v<B, BFloat>) {
      Halves h = load_halves(b);
      row[0] = h.even, row[1] = h.odd;
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) row[j] = load_vector(b + j * L);
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      VP x = a.at(i) - VP{};  // the same element in every lane
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) multiply_add(acc[i][j], x, row[j]);
    }
    __builtin_prefetch(ahead, 0, 2);
    ahead += t.ahead_step;
    a.next();
    b += t.b_step;
  }
  if constexpr (std::is_same_v<B, BFloat>) {
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      Halves h = woven({acc[i][0], acc[i][1]});
      acc[i][0] = h.even, acc[i][1] = h.odd;
    }
  }
  if (t.width == NV * L) {
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) {
        S* c = t.c + i * t.c_row + j * L;
        store_vector(c, t.add ? load_vector(c) + acc[i][j] : acc[i][j]);
      }
    return;
  }
  S edge[R][NV * L];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) store_vector(&edge[i][j * L], acc[i][j]);
  for (int i = 0; i < R; i++) {
    S* c = t.c + i * t.c_row;
    for (int64_t j = 0; j < t.width; j++) c[j] = t.add ? c[j] + edge[i][j] : edge[i][j];
  }
}

// kTiles<P>.fn[l][v][r]: the tile of r + 1 rows and v + 1 vectors, a packed (l = 0) or in rows (l = 1).
template <class P>
struct TileTable {
  void (*fn[2][kMaxVectors][kMaxRows])(const TileArgs<P>&);
};
template <class P, size_t... R>
constexpr TileTable<P> tile_table(std::index_sequence<R...>) {
  return {{{{&tile<P, int(R) + 1, 1, false>...}, {&tile<P, int(R) + 1, 2, false>...}},
           {{&tile<P, int(R) + 1, 1, true>...}, {&tile<P, int(R) + 1, 2, true>...}}}};
}
template <class P>
inline constexpr TileTable<P> kTiles = tile_table<P>(std::make_index_sequence<kMaxRows>{});
// The same for a packed a and a bfloat16 b where it lies.
struct HalvesTable {
  void (*fn[kMaxRows])(const TileArgs<float>&);
};
template <size_t... R>
constexpr HalvesTable halves_table(std::index_sequence<R...>) {
  return {{&tile<float, int(R) + 1, 2, false, BFloat>...}};
}
inline constexpr HalvesTable kHalvesTiles = halves_table(std::make_index_sequence<kMaxRows>{});

}  // namespace pb
