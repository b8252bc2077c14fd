// float2 .. ulonglong4 with CUDA's alignments, and make_float2(...) and so on.
#pragma once
#include "cuda_runtime_api.h"

#define PB_EMULATED_VECTORS(T, name, align2, align4)                 \
  struct name##1 { T x; };                                           \
  struct alignas(align2) name##2 { T x, y; };                        \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(align4) name##4 { T x, y, z, w; };                  \
  inline name##1 make_##name##1(T x) { return {x}; }                 \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

PB_EMULATED_VECTORS(signed char, char, 2, 4)
PB_EMULATED_VECTORS(unsigned char, uchar, 2, 4)
PB_EMULATED_VECTORS(short, short, 4, 8)
PB_EMULATED_VECTORS(unsigned short, ushort, 4, 8)
PB_EMULATED_VECTORS(int, int, 8, 16)
PB_EMULATED_VECTORS(unsigned int, uint, 8, 16)
PB_EMULATED_VECTORS(long, long, 16, 16)
PB_EMULATED_VECTORS(unsigned long, ulong, 16, 16)
PB_EMULATED_VECTORS(long long, longlong, 16, 16)
PB_EMULATED_VECTORS(unsigned long long, ulonglong, 16, 16)
PB_EMULATED_VECTORS(float, float, 8, 16)
PB_EMULATED_VECTORS(double, double, 16, 16)
#undef PB_EMULATED_VECTORS
