// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011): random words from a counter, so that any element of a stream can
// be drawn alone, on any device, by any number of threads.
#pragma once
#include "value/value.h"

namespace pb {

// One block: four words of counter and the key, replaced by four random words.
PB_FN void philox_block(uint32_t c[4], uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; round++) {
    uint64_t a = uint64_t(c[0]) * 0xD2511F53u, b = uint64_t(c[2]) * 0xCD9E8D57u;
    uint32_t c1 = c[1], c3 = c[3];
    c[0] = uint32_t(b >> 32) ^ c1 ^ k0;
    c[1] = uint32_t(b);
    c[2] = uint32_t(a >> 32) ^ c3 ^ k1;
    c[3] = uint32_t(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// Words first .. first + n - 1 of the stream. Word w is word w % 4 of the block with counter w / 4; `stream` fills the
// upper half of the counter, `seed` is the key.
PB_FN void philox_fill(uint64_t seed, uint64_t stream, uint64_t first, int64_t n, uint32_t* out) {
  constexpr int kBlocks = 16;  // made side by side, one per vector lane
  uint64_t block = first / 4;
  int64_t skip = int64_t(first % 4);
  for (int64_t at = -skip; at < n; at += 4 * kBlocks, block += kBlocks) {
    uint32_t c[4][kBlocks];
    for (int j = 0; j < kBlocks; j++) {
      uint32_t one[4] = {uint32_t(block + uint64_t(j)), uint32_t((block + uint64_t(j)) >> 32), uint32_t(stream),
                         uint32_t(stream >> 32)};
      philox_block(one, uint32_t(seed), uint32_t(seed >> 32));
      for (int i = 0; i < 4; i++) c[i][j] = one[i];
    }
    int64_t begin = at < 0 ? -at : 0, end = n - at < 4 * kBlocks ? n - at : 4 * kBlocks;
    for (int64_t i = begin; i < end; i++) out[at + i] = c[i % 4][i / 4];
  }
}

// The middle of one of 2^23 (2^52) equal cells of (0, 1): neither 0 nor 1 occurs, and every value is exact.
PB_FN float uniform01(uint32_t bits) { return (float(int32_t(bits >> 9)) + 0.5f) * 0x1p-23f; }
PB_FN double uniform01_double(uint32_t high, uint32_t low) {
  uint64_t w = (uint64_t(high) << 32 | low) >> 12;
  return (double(int64_t(w)) + 0.5) * 0x1p-52;
}

}  // namespace pb
