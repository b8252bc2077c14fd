// What the kernels need of CUDA beyond its language: memory types, and the names under which the same text can be
// compiled as plain C++ by an emulator.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>
#include <utility>

#include "cuda/api.h"
#include "value/half.h"
#include "value/philox.h"
#include "value/value.h"

#define PB_DEVICE __device__ __forceinline__
// Shared memory of a block, of fixed size or as much as the launch asks for (one array in a kernel).
#ifndef PB_SHARED
#define PB_SHARED(T, name, dims) __shared__ T name dims
#define PB_DYN_SHARED(T, name)                                       \
  extern __shared__ __align__(16) unsigned char pb_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(pb_dynamic_shared)
#endif

namespace pb::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kVec = 8;  // elements a thread takes at once: 16 bytes of a 16-bit type, twice 16 of float

// The kernel takes one struct, by value; `shared` bytes are for PB_DYN_SHARED.
template <class Args>
cudaError_t launch(Kernel kernel, dim3 grid, dim3 block, void* stream, const Args& args, size_t shared = 0) {
  if (shared > (48 << 10)) {  // more than a kernel has without asking
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
    if (e != cudaSuccess) return e;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, reinterpret_cast<void (*)(Args)>(const_cast<void*>(kernel)), args);
}

PB_DEVICE float widen(uint16_t h, Type t) {
  return t == Type::F16 ? __half2float(__ushort_as_half(h)) : bf16_to_float(h);
}
PB_DEVICE uint16_t narrow(float v, Type t) {
  return t == Type::F16 ? __half_as_ushort(__float2half_rn(v)) : float_to_bf16(v);
}

PB_DEVICE float load_one(const void* p, Type t, int64_t i) {
  if (t == Type::F32) return static_cast<const float*>(p)[i];
  if (t == Type::Bool) return static_cast<const uint8_t*>(p)[i] ? 1.0f : 0.0f;
  return widen(static_cast<const uint16_t*>(p)[i], t);
}
PB_DEVICE void store_one(void* p, Type t, int64_t i, float v) {
  if (t == Type::F32)
    static_cast<float*>(p)[i] = v;
  else if (t == Type::Bool)
    static_cast<uint8_t*>(p)[i] = v != 0.0f;
  else
    static_cast<uint16_t*>(p)[i] = narrow(v, t);
}

// Elements i .. i + 7 of contiguous memory whose start is a multiple of 16 bytes; i is a multiple of 8.
PB_DEVICE void vector_load(const void* p, Type t, int64_t i, float (&v)[kVec]) {
  if (t == Type::F32) {
    const auto* from = reinterpret_cast<const float4*>(static_cast<const float*>(p) + i);
    float4 a = from[0], b = from[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else if (t == Type::Bool) {
    uint2 w = *reinterpret_cast<const uint2*>(static_cast<const uint8_t*>(p) + i);
#pragma unroll
    for (int j = 0; j < kVec; j++) v[j] = ((j < 4 ? w.x : w.y) >> 8 * (j % 4) & 255u) ? 1.0f : 0.0f;
  } else {
    uint4 w = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(p) + i);
    const uint32_t part[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int j = 0; j < kVec; j++) v[j] = widen(uint16_t(part[j / 2] >> 16 * (j % 2)), t);
  }
}
PB_DEVICE void vector_store(void* p, Type t, int64_t i, const float (&v)[kVec]) {
  if (t == Type::F32) {
    auto* to = reinterpret_cast<float4*>(static_cast<float*>(p) + i);
    to[0] = make_float4(v[0], v[1], v[2], v[3]);
    to[1] = make_float4(v[4], v[5], v[6], v[7]);
  } else if (t == Type::Bool) {
    uint32_t part[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < kVec; j++) part[j / 4] |= uint32_t(v[j] != 0.0f) << 8 * (j % 4);
    *reinterpret_cast<uint2*>(static_cast<uint8_t*>(p) + i) = make_uint2(part[0], part[1]);
  } else {
    uint32_t part[4] = {0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < kVec; j++) part[j / 2] |= uint32_t(narrow(v[j], t)) << 16 * (j % 2);
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(p) + i) = make_uint4(part[0], part[1], part[2], part[3]);
  }
}

}  // namespace pb::cuda
