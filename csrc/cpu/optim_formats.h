// Tiles in and out of narrow memory: what a rule reads and writes as float lies as 16 or 8 bits, and p may be the
// rounded form of a finer number.
#pragma once
#include "cpu/optim_table.h"
#include "optim/rounding.h"

namespace pb::optim {

inline void widen_bf16(float* to, const uint16_t* from, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) to[i] = bf16_to_float(from[i]);
}
inline void narrow_bf16(uint16_t* to, const float* from, RoundKey key, uint32_t at, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) to[i] = float_to_bf16_stochastic(from[i], round_bits(key, at + uint32_t(i)));
}

// One block: m is 256 but for the last of a tensor, and known to the compiler where it is.
PB_FN void unpack_block(float* to, const uint8_t* codes, float scale, int64_t m) {
#pragma GCC ivdep
  for (int64_t i = 0; i < m; i++) to[i] = map8_decode(codes[i], scale);
}
inline void unpack8(float* to, const uint8_t* codes, const float* scales, int64_t n) {
  for (; n >= kBlock8; n -= kBlock8, to += kBlock8, codes += kBlock8) unpack_block(to, codes, *scales++, kBlock8);
  if (n) unpack_block(to, codes, *scales, n);
}

template <bool Stochastic>
PB_FN float pack_block(uint8_t* codes, const float* from, RoundKey key, uint32_t at, int64_t m) {
  uint32_t largest = 0, signs = 0;
  for (int64_t i = 0; i < m; i++) {
    uint32_t b = bits_of(from[i]), a = b & 0x7fffffffu;
    largest = a > largest ? a : largest;
    signs |= b;
  }
  const Scale8 s = map8_scale(largest, signs >> 31);
#pragma GCC ivdep
  for (int64_t i = 0; i < m; i++)
    codes[i] = uint8_t(map8_encode(from[i], s, Stochastic ? unit_of(round_bits(key, at + uint32_t(i))) : 0.5f));
  return s.stored;
}
template <bool Stochastic>
void pack8(uint8_t* codes, float* scales, const float* from, RoundKey key, uint32_t at, int64_t n) {
  for (; n >= kBlock8; n -= kBlock8, from += kBlock8, codes += kBlock8, at += uint32_t(kBlock8))
    *scales++ = pack_block<Stochastic>(codes, from, key, at, kBlock8);
  if (n) *scales = pack_block<Stochastic>(codes, from, key, at, n);
}

// ---- parameters of 16 bits

struct Half {
  PB_FN static float nearest(float x) { return f16_to_float(float_to_f16(x)); }
  PB_FN static float stochastic(float x, uint32_t random) { return round_f16_stochastic(x, random); }
};
struct Brain {
  PB_FN static float nearest(float x) { return bf16_to_float(float_to_bf16(x)); }
  PB_FN static float stochastic(float x, uint32_t random) { return round_bf16_stochastic(x, random); }
};

template <class Type>
void round_tile(float* p, RoundKey key, uint32_t at, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) p[i] = Type::stochastic(p[i], round_bits(key, at + uint32_t(i)));
}

// A finer number counts as long as p is its rounded form: where p was written by others, p counts.
template <class Type>
void refine_tile(float* fine, const float* p, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) fine[i] = Type::nearest(fine[i]) == p[i] ? fine[i] : p[i];
}
template <class Type>
void compensate_tile(float* p, const float* rest, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    float fine = p[i] + rest[i];
    p[i] = Type::nearest(fine) == p[i] ? fine : p[i];
  }
}
template <class Type>
void split_tile(float* p, float* rest, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    float rounded = Type::nearest(p[i]);
    rest[i] = p[i] - rounded;
    p[i] = rounded;
  }
}

inline constexpr FormatKernels kFormatKernels = {&widen_bf16,
                                                 &narrow_bf16,
                                                 &unpack8,
                                                 {&pack8<false>, &pack8<true>},
                                                 {&round_tile<Half>, &round_tile<Brain>},
                                                 {&refine_tile<Half>, &refine_tile<Brain>},
                                                 {&compensate_tile<Half>, &compensate_tile<Brain>},
                                                 {&split_tile<Half>, &split_tile<Brain>}};

}  // namespace pb::optim
