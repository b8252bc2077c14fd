// Loops over tiles for programs of kernels. Compiled without contraction: a product and a sum keep their two roundings.
#pragma once
#include "cpu/tile_table.h"

namespace pb {

template <class T, int Form, bool OneB, bool OneC>
void mul_add_kernel(void* out, const void* pa, const void* pb, const void* pc, int64_t n) {
  auto* o = static_cast<T*>(out);
  auto *a = static_cast<const T*>(pa), *b = static_cast<const T*>(pb), *c = static_cast<const T*>(pc);
  const T b0 = *b, c0 = *c;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const T product = a[i] * (OneB ? b0 : b[i]), z = OneC ? c0 : c[i];
    o[i] = Form == 0 ? z + product : Form == 1 ? z - product : product - z;
  }
}

// 32 partial sums, merged pairwise.
template <class T>
double sum_kernel(const void* from, int64_t n) {
  constexpr int kLanes = 32;
  auto* x = static_cast<const T*>(from);
  double lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; j++) lane[j] += double(x[i + j]);
  for (int j = 0; i + j < n; j++) lane[j] += double(x[i + j]);
  for (int w = kLanes / 2; w; w /= 2)
    for (int j = 0; j < w; j++) lane[j] += lane[j + w];
  return lane[0];
}

template <class T>
void fill_kernel(void* out, const void* value, int64_t n) {
  auto* o = static_cast<T*>(out);
  const T v = *static_cast<const T*>(value);
  for (int64_t i = 0; i < n; i++) o[i] = v;
}

#define PB_FORM(T, form)                                                                \
  {                                                                                     \
    {&mul_add_kernel<T, form, false, false>, &mul_add_kernel<T, form, false, true>}, {  \
      &mul_add_kernel<T, form, true, false>, &mul_add_kernel<T, form, true, true>       \
    }                                                                                   \
  }
#define PB_FORMS(T) \
  { PB_FORM(T, 0), PB_FORM(T, 1), PB_FORM(T, 2) }
constexpr TileKernels kTileTable = {{PB_FORMS(float), PB_FORMS(double)},
                                    {&sum_kernel<float>, &sum_kernel<double>},
                                    {&fill_kernel<float>, &fill_kernel<double>}};
#undef PB_FORMS
#undef PB_FORM

}  // namespace pb
