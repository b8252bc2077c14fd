// Matrix products on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

inline constexpr int kMaxBatch = 6;

// c[i, j] = sum over k of a[i, k] b[k, j], plus bias[j], for every index of the batch axes. float32, bfloat16 or
// float16 memory of any strides (in elements), sums in float; k may be 0.
struct MatmulArgs {
  const void *a = nullptr, *b = nullptr, *bias = nullptr;  // bias: contiguous, or none
  void* c = nullptr;
  Type a_type = Type::F32, b_type = Type::F32, bias_type = Type::F32, c_type = Type::F32;
  int64_t m = 0, n = 0, k = 0;
  int64_t a_row = 0, a_col = 0, b_row = 0, b_col = 0, c_row = 0;  // rows of c are contiguous
  bool accumulate = false;                                        // c += a b
  int axes = 0;                                                   // of the batch, the last one is the fastest
  int64_t batch[kMaxBatch] = {}, a_batch[kMaxBatch] = {}, b_batch[kMaxBatch] = {}, c_batch[kMaxBatch] = {};
  void* scratch = nullptr;  // scratch(args) bytes
};

struct MatmulApi {
  int64_t (*scratch)(const MatmulArgs& args);
  int (*run)(const MatmulArgs& args, void* stream);
};

}  // namespace pb::cuda
