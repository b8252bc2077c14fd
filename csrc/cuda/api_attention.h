// Attention on the device.
#pragma once
#include "cuda/api.h"
#include "cuda/api_matmul.h"

namespace pb::cuda {

// (batch..., rows, width), anywhere in memory but for the last axis, which is contiguous. Strides in elements.
struct HeadsOperand {
  void* data = nullptr;
  Type type = Type::F32;
  int64_t batch[kMaxBatch] = {}, row = 0;
  bool aligned = false;  // every row starts at a multiple of 16 bytes
};

// Heads are numbered over the batch axes, the last one fastest. float32, bfloat16 or float16, sums in float.
struct AttentionArgs {
  int axes = 0;
  int64_t batch[kMaxBatch] = {};
  int64_t heads = 0, queries = 0, keys = 0, width = 0, out_width = 0;  // widths up to kMostWidth
  float scale = 1;
  bool causal = false;  // query i sees keys 0..i
  HeadsOperand q, k, v, y;
  const void* mask = nullptr;  // bool: True attends; else added to the scores. Strides may be 0.
  Type mask_type = Type::Bool;
  int64_t mask_batch[kMaxBatch] = {}, mask_row = 0, mask_col = 0;
  float dropout = 0;  // of the probabilities, by the uniform numbers of element (head, query, key)
  uint64_t seed = 0, offset = 0;
  float* lse = nullptr;    // (heads, queries): log of the sum of exp of the scores
  HeadsOperand gy;         // backward only
  float* delta = nullptr;  // (heads, queries), scratch
  HeadsOperand gq, gk, gv;
};
inline constexpr int64_t kMostWidth = 128;

struct AttentionApi {
  int (*forward)(const AttentionArgs& args, void* stream);
  int (*backward)(const AttentionArgs& args, void* stream);
};

}  // namespace pb::cuda
