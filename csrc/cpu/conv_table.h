// The functions that one ISA level offers to the convolution driver. Memory is contiguous, float or double.
#pragma once
#include <cstdint>

namespace pb {

struct ConvShape {
  int64_t n = 0, groups = 1;
  int64_t c = 0, o = 0;  // channels of one group, in and out
  int64_t h = 0, w = 0, oh = 0, ow = 0, kh = 0, kw = 0;
  int64_t sh = 1, sw = 1, ph = 0, pw = 0, dh = 1, dw = 1;
};

// x: [n, groups, c, h, w], weight: [groups, o, c, kh, kw], y: [n, groups, o, oh, ow]. Indexed by Compute F32, F64.
struct ConvKernels {
  void (*forward[2])(void* y, const void* x, const void* weight, const void* bias, const ConvShape& s);
  void (*input_grad[2])(void* dx, const void* g, const void* weight, const ConvShape& s);
  // dbias may be null.
  void (*weight_grad[2])(void* dweight, void* dbias, const void* x, const void* g, const ConvShape& s);
};

}  // namespace pb
