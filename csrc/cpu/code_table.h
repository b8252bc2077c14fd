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
};

}  // namespace pb
