// float16 and bfloat16 as bits. Every conversion is branch-free integer and float arithmetic, so loops over it
// vectorise; narrowing rounds to nearest, ties to even; NaN stays NaN with the high bits of its payload.
#pragma once
#include "value/value.h"

namespace pb {

PB_FN float f16_to_float(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000u) << 16, e = h & 0x7c00u, m = h & 0x3ffu;
  uint32_t normal = (uint32_t(h & 0x7fffu) << 13) + (e == 0x7c00u ? (255u - 31u) << 23 : (127u - 15u) << 23);
  uint32_t small = bits_of(float(int32_t(m)) * 0x1p-24f);  // zero and subnormal: m units of 2^-24
  return float_of(sign | (e == 0 ? small : normal));
}

PB_FN uint16_t float_to_f16(float x) {
  uint32_t b = bits_of(x), a = b & 0x7fffffffu;
  uint32_t normal = (a + 0xfffu + (a >> 13 & 1u) - ((127u - 15u) << 23)) >> 13;
  normal = normal > 0x7c00u ? 0x7c00u : normal;
  // Below 2^-14 the spacing is 2^-24, that of floats in [0.5, 1): the addition rounds.
  uint32_t small = bits_of(float_of(a < 0x38800000u ? a : 0u) + 0.5f) - 0x3f000000u;
  uint32_t nan = 0x7e00u | (a >> 13 & 0x1ffu);
  uint32_t r = a < 0x38800000u ? small : normal;
  r = a >= 0x47800000u ? 0x7c00u : r;
  r = a > 0x7f800000u ? nan : r;
  return uint16_t((b >> 16 & 0x8000u) | r);
}

PB_FN float bf16_to_float(uint16_t h) { return float_of(uint32_t(h) << 16); }

PB_FN uint16_t float_to_bf16(float x) {
  uint32_t b = bits_of(x);
  uint32_t rounded = (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
  return uint16_t((b & 0x7fffffffu) > 0x7f800000u ? b >> 16 | 0x40u : rounded);
}

}  // namespace pb
