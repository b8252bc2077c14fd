// Copies between strided windows with a cast on the way, and fills.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

// out[i] = in[i] over `shape`; a stride of `in` may be 0. Values go through the compute type of `in_type`, as on the
// CPU, so an integer reaches a float in one rounding.
struct CopyArgs {
  void* out;
  const void* in;
  Type out_type, in_type;
  bool contiguous;  // both, and both pointers a multiple of 16 bytes
  int ndim;
  int64_t n;
  int64_t shape[kMaxDims], out_strides[kMaxDims], in_strides[kMaxDims];  // in elements
};

// Every element of the window becomes the value, whose bits are those of the type.
struct FillArgs {
  void* out;
  int item;  // bytes of an element: 1, 2, 4, 8
  bool contiguous;
  int ndim;
  int64_t n;
  int64_t shape[kMaxDims], strides[kMaxDims];
  uint64_t bits;
};

// n codes of `bits` bits, a byte each, and their words. With `out`, unpack writes level[code] there instead of codes.
struct PackArgs {
  uint8_t* codes;
  uint32_t* words;
  float* out;
  int64_t n;
  int bits;
  float level[16];
};

struct CopyApi {
  int (*copy)(const CopyArgs& args, void* stream);
  int (*fill)(const FillArgs& args, void* stream);
  int (*pack)(const PackArgs& args, void* stream);
  int (*unpack)(const PackArgs& args, void* stream);
};

}  // namespace pb::cuda
