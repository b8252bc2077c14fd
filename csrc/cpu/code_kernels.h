// Packed codes: bytes to planes and back, codes of a derivative from x, dx from codes (Note [Planes], code_table.h).
#pragma once
#include "cpu/block_kernels.h"
#include "cpu/code_lanes.h"

namespace pb {

// ---- bytes

// The planes of 32 bytes.
inline void group_planes(uint32_t* words, const uint8_t* codes, int bits) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  for (int p = 0; p < bits; p++) words[p] = _mm256_test_epi8_mask(v, _mm256_set1_epi8(char(1 << p)));
#elif defined(__AVX2__)
  __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  for (int p = 0; p < bits; p++)
    words[p] = uint32_t(_mm256_movemask_epi8(_mm256_sll_epi16(v, _mm_cvtsi32_si128(7 - p))));
#else
  for (int p = 0; p < bits; p++) {
    uint32_t w = 0;
    for (int i = 0; i < kGroup; i++) w |= uint32_t(codes[i] >> p & 1) << i;
    words[p] = w;
  }
#endif
}

// The bytes of 32 codes.
inline void group_bytes(uint8_t* codes, const uint32_t* words, int bits) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  __m256i v = _mm256_setzero_si256();
  for (int p = 0; p < bits; p++) v = _mm256_or_si256(v, _mm256_maskz_set1_epi8(__mmask32(words[p]), char(1 << p)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), v);
#elif defined(__AVX2__)
  const __m256i byte_of_lane =
      _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bit_of_lane = _mm256_set1_epi64x(int64_t(0x8040201008040201u));
  __m256i v = _mm256_setzero_si256();
  for (int p = 0; p < bits; p++) {
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(int32_t(words[p])), byte_of_lane);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit_of_lane), bit_of_lane);
    v = _mm256_or_si256(v, _mm256_and_si256(set, _mm256_set1_epi8(char(1 << p))));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), v);
#else
  for (int i = 0; i < kGroup; i++) {
    uint32_t c = 0;
    for (int p = 0; p < bits; p++) c |= (words[p] >> i & 1u) << p;
    codes[i] = uint8_t(c);
  }
#endif
}

inline void pack_codes(uint32_t* words, const uint8_t* codes, int64_t n, int bits) {
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup, words += bits) group_planes(words, codes + i, bits);
  if (i == n) return;
  uint8_t last[kGroup] = {};
  for (int j = 0; j < n - i; j++) last[j] = codes[i + j];
  group_planes(words, last, bits);
}

inline void unpack_codes(uint8_t* codes, const uint32_t* words, int64_t n, int bits) {
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup, words += bits) group_bytes(codes + i, words, bits);
  if (i == n) return;
  uint8_t last[kGroup];
  group_bytes(last, words, bits);
  for (int j = 0; j < n - i; j++) codes[i + j] = last[j];
}

// ---- codes of a derivative

inline constexpr int kChunks = kGroup / Lanes::width;

// One group by compares: a boundary costs a compare and an xor per vector.
inline void encode_group(uint32_t* words, const float* x, const CodeTable& t) {
  Lanes::Float v[kChunks];
  for (int c = 0; c < kChunks; c++) v[c] = Lanes::load(x + c * Lanes::width);
  for (int p = 0; p < t.bits; p++) {
    Lanes::Mask m[kChunks];
    for (int c = 0; c < kChunks; c++) m[c] = Lanes::all(t.label[0] >> p & 1);
    for (int j = t.at[p]; j < t.at[p + 1]; j++)
      for (int c = 0; c < kChunks; c++) m[c] = Lanes::flip(m[c], v[c], t.flips[j]);
    uint32_t w = 0;
    for (int c = 0; c < kChunks; c++) w |= Lanes::bits(m[c]) << (c * Lanes::width);
    words[p] = w;
  }
}

#if defined(__AVX512F__)
// One group by bisection among up to 31 boundaries that lie in two registers: five steps whatever their number.
struct Bisection {
  static constexpr int from = 9, to = 31;  // where this is cheaper than compares
  __m512 low, high;
  __m512i label_low, label_high;
  explicit Bisection(const CodeTable& t) {
    alignas(64) float bound[32];
    alignas(64) int32_t label[32];
    for (int i = 0; i < 32; i++) {
      bound[i] = i < t.bounds ? t.bound[i] : std::numeric_limits<float>::infinity();
      label[i] = t.label[i <= t.bounds ? i : t.bounds];
    }
    low = _mm512_load_ps(bound);
    high = _mm512_load_ps(bound + 16);
    label_low = _mm512_load_si512(label);
    label_high = _mm512_load_si512(label + 16);
  }
  __m512i labels(__m512 x) const {
    __m512i piece = _mm512_setzero_si512();
    for (int step = 16; step; step /= 2) {
      __m512i probe = _mm512_add_epi32(piece, _mm512_set1_epi32(step - 1));
      __mmask16 past = _mm512_cmp_ps_mask(x, _mm512_permutex2var_ps(low, probe, high), _CMP_GT_OQ);
      piece = _mm512_mask_add_epi32(piece, past, piece, _mm512_set1_epi32(step));
    }
    return _mm512_permutex2var_epi32(label_low, piece, label_high);
  }
  void group(uint32_t* words, const float* x, const CodeTable& t) const {
    __m512i a = labels(_mm512_loadu_ps(x)), b = labels(_mm512_loadu_ps(x + 16));
    for (int p = 0; p < t.bits; p++) {
      __m512i bit = _mm512_set1_epi32(1 << p);
      words[p] = _mm512_test_epi32_mask(a, bit) | uint32_t(_mm512_test_epi32_mask(b, bit)) << 16;
    }
  }
};
#else
struct Bisection {
  static constexpr int from = 1, to = 0;
  explicit Bisection(const CodeTable&) {}
  void group(uint32_t*, const float*, const CodeTable&) const {}
};
#endif

template <class Group>
inline void encode_all(uint32_t* words, const float* x, int64_t n, const CodeTable& t, Group group) {
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup, words += t.bits) group(words, x + i);
  if (i == n) return;
  float last[kGroup] = {};
  for (int j = 0; j < n - i; j++) last[j] = x[i + j];
  group(words, last);
  for (int p = 0; p < t.bits; p++) words[p] &= (1u << (n - i)) - 1;
}

inline void encode(uint32_t* words, const float* x, int64_t n, const CodeTable& t) {
  if (t.bounds >= Bisection::from && t.bounds <= Bisection::to) {
    const Bisection bisect(t);
    encode_all(words, x, n, t, [&](uint32_t* w, const float* v) { bisect.group(w, v, t); });
  } else {
    encode_all(words, x, n, t, [&](uint32_t* w, const float* v) { encode_group(w, v, t); });
  }
}

inline void encode_random(uint32_t* words, const float* g, const float* u, int64_t n, const float* ascending,
                          const uint8_t* order, int bits) {
  const int levels = 1 << bits;
  for (int64_t i = 0; i < n; i += kGroup, words += bits) {
    uint8_t codes[kGroup] = {};
    int m = n - i < kGroup ? int(n - i) : kGroup;
    for (int j = 0; j < m; j++) {
      int k = 0;  // the level at or below g
      for (int step = levels / 2; step; step /= 2) k += g[i + j] >= ascending[k + step] ? step : 0;
      if (k < levels - 1) {
        float room = ascending[k + 1] - ascending[k];
        k += u[i + j] * room < g[i + j] - ascending[k] ? 1 : 0;
      }
      codes[j] = order[k];
    }
    group_planes(words, codes, bits);
  }
}

// ---- back

inline void decode_group(float* out, const float* g, const uint32_t* words, const Levels& levels, int bits) {
  for (int c = 0; c < kChunks; c++) {
    Lanes::Float v = levels.at(words, bits, c * Lanes::width);
    Lanes::store(out + c * Lanes::width, g ? Lanes::times(Lanes::load(g + c * Lanes::width), v) : v);
  }
}

// Labels of more levels than registers hold are looked up in memory.
inline void decode_wide(float* out, const float* g, const uint32_t* words, const float* level, int bits) {
  uint8_t codes[kGroup];
  group_bytes(codes, words, bits);
  for (int i = 0; i < kGroup; i++) out[i] = g ? g[i] * level[codes[i]] : level[codes[i]];
}

inline void decode(float* out, const float* g, const uint32_t* words, int64_t n, const float* level, int bits) {
  const Levels levels(level, bits <= Levels::bits_max ? bits : 0);
  auto group = [&](float* o, const float* in, const uint32_t* w) {
    bits <= Levels::bits_max ? decode_group(o, in, w, levels, bits) : decode_wide(o, in, w, level, bits);
  };
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup, words += bits) group(out + i, g ? g + i : nullptr, words);
  if (i == n) return;
  float in[kGroup] = {}, last[kGroup];
  for (int j = 0; g && j < n - i; j++) in[j] = g[i + j];
  group(last, g ? in : nullptr, words);
  for (int j = 0; j < n - i; j++) out[i + j] = last[j];
}

inline constexpr CodeKernels kCodeTable = {&pack_codes, &unpack_codes, &encode,    &encode_random,
                                           &decode,     &encode_row,   &decode_row};

}  // namespace pb
