// The blocked attention of one ISA level: float32, contiguous, no mask but the causal one.
#pragma once
#include <cstdint>

namespace pb {

struct AttentionCall {
  int64_t heads, queries, keys, width, out_width;  // heads: product of the leading axes
  float scale;
  bool causal;             // query i sees keys 0..i
  const float *q, *k, *v;  // (heads, queries, width), (heads, keys, width), (heads, keys, out_width)
  float* y;                // (heads, queries, out_width)
  float* lse;              // (heads, queries): log of the sum of exp of the scores
  const float* gy;         // backward only, like y
  float *gq, *gk, *gv;
};
struct AttentionTable {
  void (*forward)(const AttentionCall& call);
  void (*backward)(const AttentionCall& call);
};

}  // namespace pb
