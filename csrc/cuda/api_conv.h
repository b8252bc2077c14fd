// Convolutions on the device.
#pragma once
#include "cpu/conv_table.h"
#include "cuda/api.h"

namespace pb::cuda {

// One of the three maps of families/conv.h. Memory is contiguous, float32, bfloat16 or float16, in the layouts of
// ConvKernels; sums in float.
struct ConvArgs {
  void* out = nullptr;
  const void *x = nullptr, *weight = nullptr, *bias = nullptr;  // forward
  const void* g = nullptr;                                      // gradients
  Type out_type = Type::F32, x_type = Type::F32, weight_type = Type::F32, bias_type = Type::F32, g_type = Type::F32;
  ConvShape s;
  void* scratch = nullptr;
};

struct ConvApi {
  int (*forward)(const ConvArgs& args, void* stream);
  int (*input_grad)(const ConvArgs& args, void* stream);
  int64_t (*weight_grad_scratch)(const ConvArgs& args);
  int (*weight_grad)(const ConvArgs& args, void* stream);
};

}  // namespace pb::cuda
