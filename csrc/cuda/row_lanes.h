// What kernels over rows share: a row belongs to a power of two of neighbouring threads, its lanes, and is folded in a
// tree that their number fixes.
#pragma once
#include "cuda/device.h"
#include "families/row_op.h"

namespace pb::cuda {

inline constexpr int kWarp = 32, kWidest = 512;  // lanes of a row at most
inline constexpr unsigned kAll = 0xffffffffu;

template <Fold F>
PB_DEVICE float fold_start() {
  if constexpr (F == Fold::Max)
    return -kInf<float>;
  else
    return 0.0f;
}
template <Fold F>
PB_DEVICE float fold_step(float a, float v) {
  if constexpr (F == Fold::Max)
    return v > a ? v : a;
  else
    return a + v;
}

PB_DEVICE float shuffle(float v, int w) { return __shfl_xor_sync(kAll, v, w); }
PB_DEVICE double shuffle(double v, int w) { return __shfl_xor_sync(kAll, v, w); }

// merge(a, b) over the lanes of each row; all of them get the result. Every thread of the block takes part. `shared`
// holds one T per warp and is free again after the next barrier.
template <class T, class Merge>
PB_DEVICE T merge_lanes(T v, int lanes, T* shared, Merge merge) {
#pragma unroll 1
  for (int w = (lanes < kWarp ? lanes : kWarp) / 2; w; w /= 2) v = merge(v, shuffle(v, w));
  if (lanes <= kWarp) return v;
  int warp = int(threadIdx.x) / kWarp, warps = lanes / kWarp, first = warp / warps * warps;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[warp] = v;
  __syncthreads();
  v = shared[first];
#pragma unroll 1
  for (int w = 1; w < warps; w++) v = merge(v, shared[first + w]);
  return v;
}

template <Fold F>
PB_DEVICE float fold_lanes(float v, int lanes, float* shared) {
  return merge_lanes(v, lanes, shared, [](float a, float b) { return fold_step<F>(a, b); });
}

// vector_load and vector_store of the float types, each in a branch of its own.
PB_DEVICE void load8(const void* p, Type t, int64_t i, float (&v)[kVec]) {
  if (t == Type::F32)
    vector_load(p, Type::F32, i, v);
  else if (t == Type::BF16)
    vector_load(p, Type::BF16, i, v);
  else
    vector_load(p, Type::F16, i, v);
}
PB_DEVICE void store8(void* p, Type t, int64_t i, const float (&v)[kVec]) {
  if (t == Type::F32)
    vector_store(p, Type::F32, i, v);
  else if (t == Type::BF16)
    vector_store(p, Type::BF16, i, v);
  else
    vector_store(p, Type::F16, i, v);
}
PB_DEVICE float load1(const void* p, Type t, int64_t i) {
  return t == Type::F32 ? static_cast<const float*>(p)[i] : widen(static_cast<const uint16_t*>(p)[i], t);
}
PB_DEVICE void store1(void* p, Type t, int64_t i, float v) {
  if (t == Type::F32)
    static_cast<float*>(p)[i] = v;
  else
    static_cast<uint16_t*>(p)[i] = narrow(v, t);
}

// Elements 0 .. n - 1 of a row that starts at element `base` of memory whose start is a multiple of 16 bytes (aligned)
// or not: eight(i) for groups that begin on such a multiple, one(i) for the others. Thread `lane` of `lanes`.
template <class Eight, class One>
PB_DEVICE void walk_row(int64_t base, int64_t n, bool aligned, int lane, int lanes, Eight eight, One one) {
  int64_t head = aligned ? (kVec - base % kVec) % kVec : n;
  if (head > n) head = n;
  int64_t whole = head + (n - head) / kVec * kVec;
#pragma unroll 1
  for (int64_t i = lane; i < head; i += lanes) one(i);
#pragma unroll 2
  for (int64_t i = head + lane * kVec; i < whole; i += lanes * kVec) eight(i);
#pragma unroll 1
  for (int64_t i = whole + lane; i < n; i += lanes) one(i);
}

inline bool on_vectors(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
inline unsigned grid_of(int64_t blocks, int64_t most = 1 << 20) { return unsigned(blocks < most ? blocks : most); }
// Lanes for rows of n elements: a group of eight each, at most a warp.
inline int short_lanes(int64_t n) {
  int lanes = 1;
  while (lanes < kWarp && lanes * kVec < n) lanes *= 2;
  return lanes;
}

}  // namespace pb::cuda
