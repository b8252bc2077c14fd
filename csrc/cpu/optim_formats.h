// Tiles in and out of narrow memory: what a rule reads and writes as float lies as 16 or 8 bits, and p may be the
// rounded form of a finer number.
#pragma once
#include "cpu/optim_table.h"
#include "optim/rounding.h"

namespace pb::optim {

// Calls f(i, bits) for i in [0, n); `at` is a multiple of a block.
template <class F>
PB_FN void with_bits(RoundKey key, uint32_t at, int64_t n, F f) {
  constexpr int kHalf = int(kBlock8) / 2;
  int64_t i = 0;
  for (; i + kBlock8 <= n; i += kBlock8) {
    const uint32_t first = (at + uint32_t(i)) >> 1;
#pragma GCC ivdep
    for (int j = 0; j < kHalf; j++) {
      uint32_t word = round_word(key, first + uint32_t(j));
      f(i + j, word & 0xffffu);
      f(i + j + kHalf, word >> 16);
    }
  }
  for (; i < n; i++) f(i, round_bits(key, at + uint32_t(i)));
}

inline void widen_bf16(float* to, const uint16_t* from, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) to[i] = bf16_to_float(from[i]);
}
inline void narrow_bf16(uint16_t* to, const float* from, RoundKey key, uint32_t at, int64_t n) {
  with_bits(key, at, n, [=](int64_t i, uint32_t random) __attribute__((always_inline)) {
    to[i] = float_to_bf16_stochastic(from[i], random);
  });
}

// One block: m is 256 but for the last of a tensor, and known to the compiler where it is.
PB_FN void unpack_block(float* to, const uint8_t* codes, float stored, int64_t m) {
  auto* both = reinterpret_cast<const int8_t*>(codes);
  if (bits_of(stored) >> 31) {
#pragma GCC ivdep
    for (int64_t i = 0; i < m; i++) to[i] = map8_decode_signed(both[i], stored);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < m; i++) to[i] = map8_decode(codes[i], stored);
  }
}
inline void unpack8(float* to, const uint8_t* codes, const float* scales, int64_t n) {
  for (; n >= kBlock8; n -= kBlock8, to += kBlock8, codes += kBlock8) unpack_block(to, codes, *scales++, kBlock8);
  if (n) unpack_block(to, codes, *scales, n);
}

PB_FN Scale8 scale_block(const float* from, int64_t m) {
  int32_t most = 0;    // as signed numbers the bits of positive floats are in order,
  uint32_t least = 0;  // as unsigned ones those of negative floats come last
  for (int64_t i = 0; i < m; i++) {
    uint32_t b = bits_of(from[i]);
    most = int32_t(b) > most ? int32_t(b) : most;
    least = b > least ? b : least;
  }
  const bool negative = least >> 31;
  const uint32_t size = least & 0x7fffffffu;
  return map8_scale(negative && size > uint32_t(most) ? size : uint32_t(most), negative);
}
template <bool Stochastic>
PB_FN void pack_block(uint8_t* codes, const float* from, Scale8 s, RoundKey key, uint32_t at, int64_t m) {
  const float inverse = s.inverse;
  auto encode = [=](auto code) __attribute__((always_inline)) {
    if constexpr (Stochastic)
      with_bits(key, at, m, code);
    else
      for (int64_t i = 0; i < m; i++) code(i, 0x8000u);
  };
  if (bits_of(s.stored) >> 31)
    encode([=](int64_t i, uint32_t random)
               __attribute__((always_inline)) { codes[i] = uint8_t(map8_encode_signed(from[i], inverse, random)); });
  else
    encode([=](int64_t i, uint32_t random)
               __attribute__((always_inline)) { codes[i] = uint8_t(map8_encode(from[i], inverse, random)); });
}
// The scales of two blocks first: one's reduction and quotient then run beside the other's.
template <bool Stochastic>
void pack8(uint8_t* codes, float* scales, const float* from, RoundKey key, uint32_t at, int64_t n) {
  constexpr int64_t kPair = 2 * kBlock8;
  for (; n >= kPair; n -= kPair, from += kPair, codes += kPair, at += uint32_t(kPair)) {
    const Scale8 a = scale_block(from, kBlock8), b = scale_block(from + kBlock8, kBlock8);
    *scales++ = a.stored;
    *scales++ = b.stored;
    pack_block<Stochastic>(codes, from, a, key, at, kBlock8);
    pack_block<Stochastic>(codes + kBlock8, from + kBlock8, b, key, at + uint32_t(kBlock8), kBlock8);
  }
  for (int64_t m = 0; n > 0; n -= m, from += m, codes += m, at += uint32_t(m)) {
    m = n < kBlock8 ? n : kBlock8;
    const Scale8 s = scale_block(from, m);
    *scales++ = s.stored;
    pack_block<Stochastic>(codes, from, s, key, at, m);
  }
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
  with_bits(key, at, n,
            [=](int64_t i, uint32_t random) __attribute__((always_inline)) { p[i] = Type::stochastic(p[i], random); });
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
    // A rest of half a unit may itself be a rounded one: the condition allows for that.
    p[i] = Type::nearest(p[i] + rest[i] * 0x1.fcp-1f) == p[i] ? p[i] + rest[i] : p[i];
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
