// Integers of any type as int64, and telling the host about those that are out of range.
#pragma once
#include "cuda/api_fault.h"
#include "cuda/device.h"

namespace pb::cuda {

PB_DEVICE int64_t load_integer(const void* p, Type t, int64_t i) {
  switch (t) {
    case Type::Bool:
    case Type::U8:
      return static_cast<const uint8_t*>(p)[i];
    case Type::I8:
      return static_cast<const int8_t*>(p)[i];
    case Type::I16:
      return static_cast<const int16_t*>(p)[i];
    case Type::U16:
      return static_cast<const uint16_t*>(p)[i];
    case Type::I32:
      return static_cast<const int32_t*>(p)[i];
    case Type::U32:
      return static_cast<const uint32_t*>(p)[i];
    default:
      return static_cast<const int64_t*>(p)[i];
  }
}

PB_DEVICE void tell(Fault* f, const Fault& what) {
  if (atomicCAS(&f->set, 0u, 1u) != 0u) return;
  f->target = what.target;
  f->wide = what.wide;
  f->op = what.op;
  f->value = what.value;
  f->position = what.position;
  f->axis = what.axis;
  f->size = what.size;
}

inline unsigned blocks_for(int64_t n) {
  int64_t blocks = (n + kThreads - 1) / kThreads;
  return unsigned(blocks < 65535 ? blocks : 65535);
}

// f(i) for every i in [0, n), spread over the grid.
template <class F>
PB_DEVICE void each_index(int64_t n, F f) {
#pragma unroll 1
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads) f(i);
}

}  // namespace pb::cuda
