// How values become narrower than they are computed: random bits for stochastic rounding, 16-bit floats, the 8-bit map.
// The same text serves the CPU's kernels, the host and CUDA.
#pragma once
#include "value/half.h"

namespace pb::optim {

// ---- random bits

// Those of one tensor's stream at one step; `at` is the element's place in its tensor, so that neither the grouping of
// tensors nor the number of threads matters. Two rounds of multiplication: the upper 16 bits are used.
struct RoundKey {
  uint32_t a, b;
};
PB_FN uint32_t round_bits(RoundKey k, uint32_t at) {
  uint32_t x = (at ^ k.a) * 0x9E3779B1u;
  x = ((x ^ x >> 15) + k.b) * 0x85EBCA6Bu;
  return x ^ x >> 14;
}

// `high` holds the upper half of the place; a stream is a slot, or the parameter itself.
inline RoundKey round_key(uint64_t seed, uint64_t step, uint32_t stream, uint32_t high) {
  auto mix = [](uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
  };
  uint64_t k = mix(mix(mix(seed + 0x9E3779B97F4A7C15u) + step) + (uint64_t(stream) << 32 | high));
  return {uint32_t(k), uint32_t(k >> 32)};
}

PB_FN float unit_of(uint32_t random) { return float(int32_t(random >> 8)) * 0x1p-24f; }  // in [0, 1)

// ---- 16-bit floats: the neighbour above with the probability that the mean asks for

PB_FN uint16_t float_to_bf16_stochastic(float x, uint32_t random) {
  uint32_t b = bits_of(x);
  return (b & 0x7fffffffu) > 0x7f800000u ? uint16_t(b >> 16 | 0x40u) : uint16_t((b + (random >> 16)) >> 16);
}

// As a float that a 16-bit one holds exactly.
PB_FN float round_bf16_stochastic(float x, uint32_t random) {
  return bf16_to_float(float_to_bf16_stochastic(x, random));
}
PB_FN float round_f16_stochastic(float x, uint32_t random) {
  uint32_t b = bits_of(x), a = b & 0x7fffffffu;
  uint32_t normal = (a + (random >> 19)) & ~0x1fffu;
  float units = float_of(a < 0x38800000u ? a : 0u) * 0x1p24f;  // below 2^-14 the spacing is 2^-24
  uint32_t small = bits_of(float(int32_t(units + unit_of(random))) * 0x1p-24f);
  uint32_t r = a < 0x38800000u ? small : normal;
  return float_of((b & 0x80000000u) | (a >= 0x7f800000u ? a : r));
}

// ---- the 8-bit map
//
// Note [The 8-bit map]
// Codes in [2^k, 2^(k+1)) cover [8^(k-8), 8^(k-7)) in 2^k equal steps: dense where numbers are large, and 24 octaves
// deep. Code and level follow from each other by shifts of float exponents, for the float of a code has k in its
// exponent and the place between in its mantissa. A block of 256 values shares one scale, which takes its largest value
// to the last level. A block without negative values uses all 8 bits for the size and keeps what is positive positive,
// for such states stand below a root; else the upper bit is the sign, and the scale is stored negative to say so.
inline constexpr int64_t kBlock8 = 256;

PB_FN float map8_level(uint32_t code) {
  uint32_t b = bits_of(float(int32_t(code)));
  float mantissa = float_of((b & 0x7fffffu) | 0x3f800000u), step = float_of((3u * (b >> 23) - 278u) << 23);
  return code ? (7.0f * mantissa - 6.0f) * step : 0.0f;
}
inline constexpr float kPeakUnsigned = 0x1.fc8p-1f, kPeakSigned = 0x1.f9p-4f;  // levels of the codes 255 and 127

// The place of y >= 0 among the codes; what lies between two codes lies at the same share between their levels.
PB_FN float map8_place(float y) {
  int32_t octave = int32_t(bits_of(y) >> 23) - 103;
  uint32_t k = uint32_t((octave < 0 ? 0 : octave) * 11) >> 5;  // octave / 3
  float step = float_of((151u - 2u * k) << 23), first = float_of((127u + k) << 23);
  float place = fma(y * step, 0x1.24924ap-3f, first * 0x1.b6db6ep-1f);
  return octave < 0 ? y * 0x1p24f : place;
}

struct Scale8 {
  float stored, inverse;  // inverse takes values to the units of map8_place
  uint32_t last;          // the greatest code
};
// From the greatest |x| as bits, and whether some x is negative. Blocks below the smallest normal float become 0.
PB_FN Scale8 map8_scale(uint32_t largest, bool negative) {
  const float peak = negative ? kPeakSigned : kPeakUnsigned;
  const bool some = largest >= 0x00800000u;
  const float scale = some ? float_of(largest) / peak : 0.0f;
  return {negative ? -scale : scale, some ? peak / float_of(largest) : 0.0f, negative ? 127u : 255u};
}
PB_FN uint32_t map8_encode(float x, Scale8 s, float unit) {
  float y = abs(x) * s.inverse;
  auto code = uint32_t(int32_t(map8_place(y) + unit));
  code = code > s.last ? s.last : code;
  bool kept = s.last == 255u && y > 0.0f && code == 0u;
  return (kept ? 1u : code) | (s.last == 127u ? bits_of(x) >> 31 << 7 : 0u);
}
PB_FN float map8_decode(uint32_t code, float stored) {
  const bool negative = bits_of(stored) >> 31;
  uint32_t size = negative ? code & 127u : code, sign = negative ? (code & 128u) << 24 : 0u;
  return float_of(bits_of(map8_level(size) * abs(stored)) ^ sign);
}

}  // namespace pb::optim
