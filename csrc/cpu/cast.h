// Tiles in and out: conversion between every dtype and the four compute types, and uniform draws.
#pragma once
#include "cpu/map_table.h"
#include "value/half.h"
#include "value/philox.h"

namespace pb {

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

template <class S, class T>
PB_FN S to_compute(T v) {
  if constexpr (std::is_same_v<T, F16>)
    return S(f16_to_float(v.bits));
  else if constexpr (std::is_same_v<T, BF16>)
    return S(bf16_to_float(v.bits));
  else
    return S(v);
}
template <class T, class S>
PB_FN T from_compute(S v) {
  if constexpr (std::is_same_v<T, F16>)
    return F16{float_to_f16(float(v))};
  else if constexpr (std::is_same_v<T, BF16>)
    return BF16{float_to_bf16(float(v))};
  else if constexpr (std::is_same_v<T, bool>)
    return v != S(0);
  else if constexpr (std::is_floating_point_v<S> && std::is_integral_v<T> && sizeof(T) < 8)
    return T(int64_t(v));
  else
    return T(v);
}

template <class S, class T>
void load_tile(void* tile, const void* src, int64_t stride, int64_t n) {
  auto* d = static_cast<S*>(tile);
  auto* s = static_cast<const T*>(src);
  if (stride == 1)
    for (int64_t i = 0; i < n; i++) d[i] = to_compute<S>(s[i]);
  else if (stride == 0) {
    S v = to_compute<S>(s[0]);
    for (int64_t i = 0; i < n; i++) d[i] = v;
  } else
    for (int64_t i = 0; i < n; i++) d[i] = to_compute<S>(s[i * stride]);
}
template <class S, class T>
void store_tile(void* dst, int64_t stride, const void* tile, int64_t n) {
  auto* d = static_cast<T*>(dst);
  auto* s = static_cast<const S*>(tile);
  if (stride == 1)
    for (int64_t i = 0; i < n; i++) d[i] = from_compute<T>(s[i]);
  else
    for (int64_t i = 0; i < n; i++) d[i * stride] = from_compute<T>(s[i]);
}

inline constexpr int64_t kDrawTile = 1024;

// The counter of element e is offset + e / 4; a float64 draw takes two words.
inline void draw_bits(uint32_t* out, uint64_t seed, uint64_t offset, uint64_t first, int64_t n) {
  philox_fill(seed, 0, offset * 4 + first, n, out);
}
inline void uniform_float(void* tile, uint64_t seed, uint64_t offset, uint64_t first, int64_t n) {
  auto* d = static_cast<float*>(tile);
  uint32_t bits[kDrawTile];
  for (int64_t at = 0; at < n; at += kDrawTile) {
    int64_t m = n - at < kDrawTile ? n - at : kDrawTile;
    draw_bits(bits, seed, offset, first + uint64_t(at), m);
    for (int64_t i = 0; i < m; i++) d[at + i] = uniform01(bits[i]);
  }
}
inline void uniform_double(void* tile, uint64_t seed, uint64_t offset, uint64_t first, int64_t n) {
  auto* d = static_cast<double*>(tile);
  uint32_t bits[2 * kDrawTile];
  for (int64_t at = 0; at < n; at += kDrawTile) {
    int64_t m = n - at < kDrawTile ? n - at : kDrawTile;
    draw_bits(bits, seed, offset, 2 * (first + uint64_t(at)), 2 * m);
    for (int64_t i = 0; i < m; i++) d[at + i] = uniform01_double(bits[2 * i], bits[2 * i + 1]);
  }
}

inline constexpr CastKernels kCastTable = {
#define PB_ROWS(f) {PB_ROW(f, float), PB_ROW(f, double), PB_ROW(f, int64_t), PB_ROW(f, uint64_t)}
#define PB_ROW(f, S)                                                                                                  \
  {&f<S, bool>,     &f<S, int8_t>,   &f<S, int16_t>, &f<S, int32_t>, &f<S, int64_t>, &f<S, uint8_t>, &f<S, uint16_t>, \
   &f<S, uint32_t>, &f<S, uint64_t>, &f<S, F16>,     &f<S, BF16>,    &f<S, float>,   &f<S, double>}
    PB_ROWS(load_tile), PB_ROWS(store_tile), {&uniform_float, &uniform_double}, &draw_bits};
#undef PB_ROW
#undef PB_ROWS

}  // namespace pb
