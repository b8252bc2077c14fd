// Packed codes: what a level offers. Plain data: host code and kernels both include it.
//
// Note [Planes]
// Codes of b bits lie in groups of 32 elements, b consecutive 32-bit words each; bit i of word p is bit p of the code
// of element i. The same layout serves 1 to 8 bits, on the CPU and the GPU, for masks and indices as well. A compare of
// a vector gives bits of one plane directly, so nothing is shuffled. Bits past the last element are zero.
#pragma once
#include <cstdint>

namespace pb {

inline constexpr int kGroup = 32;  // elements whose planes lie together

// Words of n codes.
inline constexpr int64_t code_words(int64_t n, int bits) { return (n + kGroup - 1) / kGroup * bits; }

// Note [Codes of a derivative]
// `bounds` ascending boundaries cut the line into pieces; x lies in piece number #{j : x > bound[j]}, NaN in piece 0.
// label[piece] is what is kept, level[label] the derivative that backward uses. A boundary flips the planes in which
// the labels beside it differ: with Gray labels one, so a plane is the xor of a compare mask per boundary of its own.
struct CodeTable {
  int bits = 0, bounds = 0;
  const float* bound = nullptr;    // [bounds]
  const uint8_t* label = nullptr;  // [bounds + 1]
  const float* level = nullptr;    // [1 << bits]
  // The same by plane: flips[at[p] .. at[p + 1]) are the boundaries that flip plane p.
  const float* flips = nullptr;
  int at[9] = {};
};

// Note [Blocks]
// A row of numbers is cut into blocks of 64 along the last axis. With 8 bits a block keeps one bfloat16 step, and
// steps -127 .. 127; with 4 bits a bfloat16 origin, which suits what is of one sign, and a step, and steps 0 ..
// 15: 8.25 and 4.5 bits a number. A number goes to one of the two grid points beside it at random, so that its mean is
// itself; the step is rounded up, so none lies outside the grid. A block with inf, NaN or numbers from 2^126 on reads
// back as NaN.
inline constexpr int kBlock = 64;
inline constexpr int block_heads(int bits) { return bits == 8 ? 1 : 2; }
// Bytes of a row of n numbers, even, so that the heads of the next row are aligned.
inline constexpr int64_t block_row_bytes(int64_t n, int bits) {
  int64_t body = bits == 8 ? n : n / kBlock * (kBlock / 2) + (n % kBlock + 1) / 2;
  return 2 * block_heads(bits) * ((n + kBlock - 1) / kBlock) + (body + 1) / 2 * 2;
}

struct CodeKernels {
  void (*pack)(uint32_t* words, const uint8_t* codes, int64_t n, int bits);
  void (*unpack)(uint8_t* codes, const uint32_t* words, int64_t n, int bits);
  void (*encode)(uint32_t* words, const float* x, int64_t n, const CodeTable& t);
  // Codes of numbers g between the ascending levels around them: the upper with the probability that makes the mean
  // g, by the uniform numbers u. order[k] is the label of the k-th level.
  void (*encode_random)(uint32_t* words, const float* g, const float* u, int64_t n, const float* ascending,
                        const uint8_t* order, int bits);
  // out = level of the codes, times g where that is given. out may be g.
  void (*decode)(float* out, const float* g, const uint32_t* words, int64_t n, const float* level, int bits);
  // One row of blocks; `first` counts the elements before it.
  void (*block_encode)(uint8_t* row, const float* x, int64_t n, int bits, uint64_t first, uint64_t key);
  void (*block_decode)(float* out, const uint8_t* row, int64_t n, int bits);
};

}  // namespace pb
