// Numbers rounded to 8 or 4 bits in blocks of 64 along a row (Note [Blocks], code_table.h).
#pragma once
#include "cpu/code_table.h"
#include "value/half.h"

namespace pb {

// A uniform number in [0, 1) for element i of a tensor with this key.
inline float block_noise(uint32_t i, uint32_t key) {
  uint32_t v = i * 0x9E3779B9u ^ key;
  v = (v ^ v >> 16) * 0x7feb352du;
  v = (v ^ v >> 15) * 0x846ca68bu;
  return float(int32_t((v ^ v >> 16) >> 8)) * 0x1p-24f;
}

// bfloat16 at or above, for v >= 0, and at or below.
inline uint16_t bf16_above(float v) { return uint16_t((bits_of(v) + 0xffffu) >> 16); }
inline uint16_t bf16_below(float v) {
  uint32_t b = bits_of(v);
  return uint16_t((b >> 31 ? b + 0xffffu : b) >> 16);
}

inline constexpr uint32_t kBlockTop = 0x7e800000u;  // 2^126: a block that reaches it, inf or NaN is kept as NaN
inline constexpr uint16_t kBlockNan = 0x7fc0u;

// Steps of the grid between v_min and the largest value; 0 where all are equal.
inline uint16_t block_step(float range, float steps) {
  if (!(range > 0.0f)) return 0;
  float step = range / steps;
  return bf16_above(step > 0x1p-100f ? step : 0x1p-100f);
}

// q[i] = x[i] on the grid origin + step * {0 .. top}, up or down at random so that the mean is x[i].
inline void block_round(uint8_t* q, const float* x, int m, float origin, uint16_t step_bits, float top, uint32_t first,
                        uint32_t key) {
  float step = bf16_to_float(step_bits), inverse = step > 0.0f ? 1.0f / step : 0.0f;
  for (int i = 0; i < m; i++) {
    float v = __builtin_floorf((x[i] - origin) * inverse + block_noise(first + uint32_t(i), key));
    v = v < 0.0f ? 0.0f : v;
    q[i] = uint8_t(int32_t(v > top ? top : v));
  }
}

inline void block_encode(uint16_t* head, uint8_t* body, const float* x, int m, int bits, uint32_t first, uint32_t key) {
  uint32_t largest = 0;
  for (int i = 0; i < m; i++) {
    uint32_t a = bits_of(x[i]) & 0x7fffffffu;
    largest = a > largest ? a : largest;
  }
  bool bad = largest >= kBlockTop;
  uint8_t q[kBlock] = {};
  if (bits == 8) {  // symmetric: 255 levels, one number a block
    head[0] = bad ? kBlockNan : block_step(float_of(largest), 127.0f);
    float origin = -127.0f * bf16_to_float(head[0]);
    if (!bad) block_round(q, x, m, origin, head[0], 254.0f, first, key);
    for (int i = 0; i < m; i++) body[i] = q[i];
    return;
  }
  float low = x[0], high = x[0];
  for (int i = 0; i < m; i++) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  head[0] = bad ? kBlockNan : bf16_below(low);
  float origin = bf16_to_float(head[0]);
  head[1] = bad ? kBlockNan : block_step(high - origin, 15.0f);
  if (!bad) block_round(q, x, m, origin, head[1], 15.0f, first, key);
  int half = (m + 1) / 2;
  for (int i = 0; i < half; i++) body[i] = uint8_t(q[i] | (i + half < m ? q[i + half] : 0) << 4);
}

inline void block_decode(float* out, const uint16_t* head, const uint8_t* body, int m, int bits) {
  float first = bf16_to_float(head[0]);
  if (bits == 8) {
    for (int i = 0; i < m; i++) out[i] = float(int32_t(body[i]) - 127) * first;
    return;
  }
  float step = bf16_to_float(head[1]);
  int half = (m + 1) / 2;
  for (int i = 0; i < half; i++) out[i] = first + float(int32_t(body[i] & 15)) * step;
  for (int i = half; i < m; i++) out[i] = first + float(int32_t(body[i - half] >> 4)) * step;
}

// One row: the heads of its blocks, then their bodies.
inline void encode_row(uint8_t* row, const float* x, int64_t n, int bits, uint64_t first, uint64_t key) {
  int per = block_heads(bits);
  auto* head = reinterpret_cast<uint16_t*>(row);
  uint8_t* body = row + 2 * per * ((n + kBlock - 1) / kBlock);
  uint32_t k = uint32_t(key) ^ uint32_t(first >> 32) * 0x85ebca6bu ^ uint32_t(key >> 32);
  for (int64_t at = 0; at < n; at += kBlock, head += per) {
    int m = n - at < kBlock ? int(n - at) : kBlock;
    block_encode(head, body, x + at, m, bits, uint32_t(first) + uint32_t(at), k);
    body += bits == 8 ? m : (m + 1) / 2;
  }
}
inline void decode_row(float* out, const uint8_t* row, int64_t n, int bits) {
  int per = block_heads(bits);
  auto* head = reinterpret_cast<const uint16_t*>(row);
  const uint8_t* body = row + 2 * per * ((n + kBlock - 1) / kBlock);
  for (int64_t at = 0; at < n; at += kBlock, head += per) {
    int m = n - at < kBlock ? int(n - at) : kBlock;
    block_decode(out + at, head, body, m, bits);
    body += bits == 8 ? m : (m + 1) / 2;
  }
}

}  // namespace pb
