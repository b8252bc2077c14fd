// One vector of floats as packed codes see it: compares to bits, and levels by label. Three forms, one interface.
#pragma once
#include "cpu/code_table.h"
#include "value/code.h"

namespace pb {

#if defined(__AVX512F__)

struct Lanes {
  static constexpr int width = 16;
  using Float = __m512;
  using Mask = __mmask16;
  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Float v) { _mm512_storeu_ps(p, v); }
  static Float times(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Mask all(bool on) { return on ? Mask(0xffff) : Mask(0); }
  static Mask flip(Mask m, Float x, float bound) {
    return Mask(m ^ _mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_GT_OQ));
  }
  static uint32_t bits(Mask m) { return m; }
};

// Levels of up to 32 labels lie in two registers.
struct Levels {
  static constexpr int bits_max = 5;
  __m512 low, high;
  Levels(const float* level, int bits) {
    alignas(64) float all[32];
    for (int i = 0; i < 32; i++) all[i] = level[i & ((1 << bits) - 1)];
    low = _mm512_load_ps(all);
    high = _mm512_load_ps(all + 16);
  }
  // The levels of lanes `first` .. first + 15 of a group.
  __m512 at(const uint32_t* words, int bits, int first) const {
    __m512i label = _mm512_setzero_si512();
    for (int p = 0; p < bits; p++)
      label = _mm512_or_si512(label, _mm512_maskz_set1_epi32(__mmask16(words[p] >> first), 1 << p));
    return _mm512_permutex2var_ps(low, label, high);
  }
};

#elif defined(__AVX2__)

struct Lanes {
  static constexpr int width = 8;
  using Float = __m256;
  using Mask = __m256;
  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
  static Float times(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Mask all(bool on) { return _mm256_castsi256_ps(_mm256_set1_epi32(on ? -1 : 0)); }
  static Mask flip(Mask m, Float x, float bound) {
    return _mm256_xor_ps(m, _mm256_cmp_ps(x, _mm256_set1_ps(bound), _CMP_GT_OQ));
  }
  static uint32_t bits(Mask m) { return uint32_t(_mm256_movemask_ps(m)); }
};

struct Levels {
  static constexpr int bits_max = 4;
  __m256 low, high;
  Levels(const float* level, int bits) {
    alignas(32) float all[16];
    for (int i = 0; i < 16; i++) all[i] = level[i & ((1 << bits) - 1)];
    low = _mm256_load_ps(all);
    high = _mm256_load_ps(all + 8);
  }
  __m256 at(const uint32_t* words, int bits, int first) const {
    const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
    const __m256i one = _mm256_set1_epi32(1);
    __m256i label = _mm256_setzero_si256();
    for (int p = bits; p-- > 0;) {
      __m256i plane = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(int32_t(words[p])), lane), one);
      label = _mm256_or_si256(_mm256_add_epi32(label, label), plane);
    }
    __m256 v = _mm256_permutevar8x32_ps(low, label);
    if (bits < 4) return v;
    __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(label, 28));  // the sign bit selects
    return _mm256_blendv_ps(v, _mm256_permutevar8x32_ps(high, label), upper);
  }
};

#else

struct Lanes {
  static constexpr int width = 1;
  using Float = float;
  using Mask = uint32_t;
  static Float load(const float* p) { return *p; }
  static void store(float* p, Float v) { *p = v; }
  static Float times(Float a, Float b) { return a * b; }
  static Mask all(bool on) { return on; }
  static Mask flip(Mask m, Float x, float bound) { return code_plane(x, &bound, 0, 1, m != 0); }
  static uint32_t bits(Mask m) { return m; }
};

struct Levels {
  static constexpr int bits_max = 8;
  const float* level;
  Levels(const float* l, int) : level(l) {}
  float at(const uint32_t* words, int bits, int first) const {
    uint32_t label = 0;
    for (int p = 0; p < bits; p++) label |= (words[p] >> first & 1u) << p;
    return level[label];
  }
};

#endif

}  // namespace pb
