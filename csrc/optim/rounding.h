// How values become narrower than they are computed: random bits for stochastic rounding, 16-bit floats, the 8-bit map.
// The same text serves the CPU's kernels, the host and CUDA.
#pragma once
#include "value/half.h"

namespace pb::optim {

// ---- random bits

// Those of one tensor's stream at one step depend on the element's place in its tensor and on nothing else. A word
// serves two elements, 128 places apart, so that a loop over half a block has both halves at hand.
struct RoundKey {
  uint32_t a, b;
};
PB_FN uint32_t round_word(RoundKey k, uint32_t i) {
  uint32_t x = i * 0x9E3779B1u + k.a;
  x = (x ^ x >> 15 ^ k.b) * 0x85EBCA6Bu;
  return x ^ x >> 16;
}
PB_FN uint32_t round_bits(RoundKey k, uint32_t at) {  // 16 bits
  uint32_t word = round_word(k, (at >> 8 << 7) | (at & 127u));
  return at & 128u ? word >> 16 : word & 0xffffu;
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

// ---- 16-bit floats: the neighbour above with the probability that the mean asks for. `random` has 16 bits.

PB_FN uint16_t float_to_bf16_stochastic(float x, uint32_t random) {
  uint32_t b = bits_of(x);
  return (b & 0x7fffffffu) > 0x7f800000u ? uint16_t(b >> 16 | 0x40u) : uint16_t((b + random) >> 16);
}

// As a float that a 16-bit one holds exactly.
PB_FN float round_bf16_stochastic(float x, uint32_t random) {
  return bf16_to_float(float_to_bf16_stochastic(x, random));
}
PB_FN float round_f16_stochastic(float x, uint32_t random) {
  uint32_t b = bits_of(x), a = b & 0x7fffffffu;
  uint32_t normal = (a + (random >> 3)) & ~0x1fffu;
  int32_t units = int32_t(float_of(a < 0x38800000u ? a : 0u) * 0x1p40f);  // below 2^-14 the spacing is 2^-24
  uint32_t small = bits_of(float((units + int32_t(random)) >> 16) * 0x1p-24f);
  uint32_t r = a < 0x38800000u ? small : normal;
  return float_of((b & 0x80000000u) | (a >= 0x7f800000u ? a : r));
}

// ---- the 8-bit map
//
// Note [The 8-bit map]
// Read as a float, a code has an exponent of half the size that its level has: shifting the bits of a level right by
// one, and adding a constant, gives the bits of the code, and back. So two octaves share 2^k codes, the next two below
// 2^(k-1): dense where numbers are large, and 15 octaves deep; the two least codes go on in equal steps to 0. A block
// of 256 values shares one scale, which takes its largest value to the last level. A block without negative values has
// the codes 0 to 255, else -127 to 127, as bytes, and the scale is stored negative to say so. What is positive in a
// block of the first kind never becomes 0, for such states stand below a root.
inline constexpr int64_t kBlock8 = 256;
inline constexpr uint32_t kShift8 = 143u << 22;

// Bits of floats >= 0 have the order of the floats.
PB_FN float map8_level(float code) {  // code >= 0
  int32_t fine = int32_t(bits_of(code * 0x1p-15f)), level = int32_t((bits_of(code) - kShift8) << 1);
  return float_of(uint32_t(level > fine ? level : fine));
}
// In units of 1/65536. Between two codes lies what has the same share between their levels; y >= 0.
PB_FN uint32_t map8_place(float y) {
  uint32_t fine = bits_of(y * 0x1p31f), place = (bits_of(y) >> 1) + (kShift8 + (16u << 23));
  return place < fine ? place : fine;
}

struct Scale8 {
  float stored, inverse;  // inverse takes values to levels
};
// From the greatest |x| as bits, and whether some x is negative. Blocks below the smallest normal float become 0. The
// largest value stays a little below the last level, so that rounding up cannot pass it.
PB_FN Scale8 map8_scale(uint32_t largest, bool negative) {
  const float peak = (negative ? 0x1.f8p-3f : 0x1.fcp-1f) * 0x1.fffff8p-1f;  // level of the code 127 or 255
  const bool some = largest >= 0x00800000u;
  const float scale = some ? float_of(largest) / peak : 0.0f;
  return {negative ? -scale : scale, some ? peak / float_of(largest) : 0.0f};
}
PB_FN uint32_t map8_encode(float x, float inverse, uint32_t random) {
  float y = x * inverse;
  uint32_t code = uint32_t(int32_t(float_of(map8_place(y))) + int32_t(random)) >> 16, some = bits_of(y);
  some = some > 1u ? 1u : some;
  return code > some ? code : some;
}
PB_FN int32_t map8_encode_signed(float x, float inverse, uint32_t random) {
  float y = x * inverse;
  uint32_t sign = bits_of(y) & 0x80000000u;
  return (int32_t(float_of(map8_place(float_of(bits_of(y) ^ sign)) | sign)) + int32_t(random)) >> 16;
}
PB_FN float map8_decode(uint8_t code, float stored) { return map8_level(float(int32_t(code))) * stored; }
PB_FN float map8_decode_signed(int8_t code, float stored) {
  float x = float(int32_t(code));
  uint32_t sign = bits_of(x) & 0x80000000u;
  return float_of(bits_of(map8_level(float_of(bits_of(x) ^ sign))) | sign) * -stored;
}

}  // namespace pb::optim
