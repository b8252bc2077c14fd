// Loops over tiles for programs of kernels. Compiled without contraction: a product and a sum keep their two roundings.
#pragma once
#include "cpu/tile_table.h"
#include "value/value.h"

namespace pb {

// PB_FUSED(name, pattern, tiles, values, formula)
#define PB_FUSED(Name, PATTERN, TILES, VALUES, FORMULA)                                                       \
  struct Name {                                                                                               \
    static constexpr const char* pattern = PATTERN;                                                           \
    static constexpr int tiles = TILES, values = VALUES;                                                      \
    template <class T>                                                                                        \
    PB_FN static T at([[maybe_unused]] T a, [[maybe_unused]] T b, [[maybe_unused]] T c, [[maybe_unused]] T A, \
                      [[maybe_unused]] T B, [[maybe_unused]] T C, [[maybe_unused]] T D) {                     \
      return FORMULA;                                                                                         \
    }                                                                                                         \
  };
// The step along a mean over a root mean square, with decay and correction or without.
PB_FUSED(AdamWStep, "--a*Aa*B/b+*CrcD", 3, 4, (a - A * a) - B * (b / (C * sqrt(c) + D)))
PB_FUSED(AdamStep, "-a*A/b+*BrcC", 3, 3, a - A * (b / (B * sqrt(c) + C)))
PB_FUSED(RootStep, "-a*A/b+rcB", 3, 2, a - A * (b / (sqrt(c) + B)))
// LAMB's direction, and Adam's.
PB_FUSED(Direction, "+/*Aa+*BrbC*Dc", 3, 4, (A * a) / (B * sqrt(b) + C) + D * c)
PB_FUSED(PlainDirection, "/a+*ArbB", 2, 2, a / (A * sqrt(b) + B))
// Steps by signs.
PB_FUSED(SignOfMeanStep, "-a*As+b*B-cb", 3, 2, a - A * sign(b + B * (c - b)))
PB_FUSED(SignStep, "-a*Asb", 2, 1, a - A * sign(b))
// A mean that moves towards a product or a value.
PB_FUSED(MeanOfProduct, "+a*A-*bca", 3, 1, a + A * (b * c - a))
PB_FUSED(Mean, "+a*A-ba", 2, 1, a + A * (b - a))
PB_FUSED(AddQuotient, "+a*A/bc", 3, 1, a + A * (b / c))
PB_FUSED(SubtractQuotient, "-a*A/bc", 3, 1, a - A * (b / c))
PB_FUSED(ScaledRoot, "+*AraB", 1, 2, A* sqrt(a) + B)
PB_FUSED(Combination, "+*Aa*Bb", 2, 2, A* a + B * b)
PB_FUSED(AddProduct, "+a*bc", 3, 0, a + b * c)
PB_FUSED(AddScaled, "+a*Ab", 2, 1, a + A * b)
PB_FUSED(ShiftProduct, "+A*ab", 2, 1, A + a * b)
PB_FUSED(ShiftScaled, "+A*Ba", 1, 2, A + B * a)
PB_FUSED(SubtractProduct, "-a*bc", 3, 0, a - b * c)
PB_FUSED(SubtractScaled, "-a*Ab", 2, 1, a - A * b)
PB_FUSED(RestOfProduct, "-A*ab", 2, 1, A - a * b)
PB_FUSED(RestOfScaled, "-A*Ba", 1, 2, A - B * a)
PB_FUSED(ProductLess, "-*abc", 3, 0, a* b - c)
PB_FUSED(ScaledLess, "-*Aab", 2, 1, A* a - b)
PB_FUSED(ShiftedRoot, "+raA", 1, 1, sqrt(a) + A)
#undef PB_FUSED

template <class F, class T>
void fused_kernel(void* out, const void* const* in, int64_t n) {
  auto* o = static_cast<T*>(out);
  auto tile = [&](int j) { return static_cast<const T*>(in[j < F::tiles ? j : 0]); };
  auto value = [&](int j) { return j < F::values ? *static_cast<const T*>(in[F::tiles + j]) : T(0); };
  const T *a = tile(0), *b = tile(1), *c = tile(2);
  const T A = value(0), B = value(1), C = value(2), D = value(3);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) o[i] = F::template at<T>(a[i], b[i], c[i], A, B, C, D);
}

template <class T>
void sum_kernel(double* lane, const void* from, int64_t n) {
  auto* x = static_cast<const T*>(from);
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (int j = 0; j < kSumLanes; j++) lane[j] += double(x[i + j]);
  for (int j = 0; i + j < n; j++) lane[j] += double(x[i + j]);
}

template <class T>
void fill_kernel(void* out, const void* value, int64_t n) {
  auto* o = static_cast<T*>(out);
  const T v = *static_cast<const T*>(value);
  for (int64_t i = 0; i < n; i++) o[i] = v;
}

template <int N>
struct FusedTable {
  FusedKernel row[N];
};
template <class... F>
constexpr FusedTable<int(sizeof...(F))> fused_table() {
  return {{{F::pattern, F::tiles, F::values, {&fused_kernel<F, float>, &fused_kernel<F, double>}}...}};
}

constexpr auto kFused =
    fused_table<AdamWStep, AdamStep, Direction, SignOfMeanStep, RootStep, MeanOfProduct, PlainDirection, SignStep, Mean,
                AddQuotient, SubtractQuotient, ScaledRoot, Combination, AddProduct, AddScaled, ShiftProduct,
                ShiftScaled, SubtractProduct, SubtractScaled, RestOfProduct, RestOfScaled, ProductLess, ScaledLess,
                ShiftedRoot>();
constexpr TileKernels kTileTable = {kFused.row,
                                    int(sizeof kFused.row / sizeof kFused.row[0]),
                                    {&sum_kernel<float>, &sum_kernel<double>},
                                    {&fill_kernel<float>, &fill_kernel<double>}};

}  // namespace pb
