// The iteration space of a launch: neighbouring dimensions that every operand walks with one stride are merged.
#pragma once
#include "cuda/engine.h"

namespace pb::cuda {

inline constexpr int kMaxOperands = 6;

struct Layout {
  int ndim = 0, operands = 0;
  int64_t shape[kMaxDims];
  int64_t strides[kMaxOperands][kMaxDims];  // in elements
};
// `strides` of each operand belong to `shape`. DeviceError naming `op` when more than kMaxDims dimensions remain.
Layout merged(const Shape& shape, const Strides* strides, int operands, const char* op);

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace pb::cuda
