// The blocked attention of one ISA level: float32, no mask but the causal one.
#pragma once
#include <cstdint>

namespace pb {

// A stack of matrices, one per head: head h begins at data + h / many * outer + h % many * inner. Elements of a row are
// neighbours.
struct HeadRows {
  float* data;
  int64_t outer, inner, row;
};

struct AttentionCall {
  int64_t heads, many;  // of all leading axes; of the last of them
  int64_t queries, keys, width, out_width;
  float scale;
  bool causal;              // query i sees keys 0..i
  HeadRows q, k, v, y;      // (queries, width), (keys, width), (keys, out_width), (queries, out_width)
  float* lse;               // (heads, queries): log of the sum of exp of the scores
  HeadRows gy, gq, gk, gv;  // backward only
  double drop;              // the share of probabilities that dropout takes
  uint64_t seed, offset;    // of its draws, one per element of (heads, queries, keys)
};
struct AttentionTable {
  void (*forward)(const AttentionCall& call);
  void (*backward)(const AttentionCall& call);
};

}  // namespace pb
