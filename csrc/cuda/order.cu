// Orders: a bitonic network over pairs of a key and a position. All pairs differ, so the result does not depend on the
// way there, and equal elements keep their order. Steps within a tile run in shared memory.
#include "cuda/api_row.h"
#include "cuda/fault.h"
#include "cuda/order.h"

namespace pb::cuda {

namespace {

constexpr int64_t kTile = 1024;  // pairs of a block in shared memory, a power of two

PB_DEVICE bool after(uint64_t ka, int64_t ia, uint64_t kb, int64_t ib) { return ka > kb || (ka == kb && ia > ib); }

// Whether the pair at `i` of its row belongs to an ascending run of the step.
PB_DEVICE bool ascends(int64_t i, int64_t width) { return (i & width) == 0; }

// One step in memory: every thread compares a pair of places `distance` apart.
__global__ void __launch_bounds__(kThreads) step_kernel(const __grid_constant__ PairArgs a) {
  each_index(a.rows * (a.padded / 2), [&](int64_t t) {
    int64_t row = t / (a.padded / 2), half = t - row * (a.padded / 2);
    int64_t i = half / a.distance * 2 * a.distance + half % a.distance;
    uint64_t* key = a.key + row * a.padded + i;
    int64_t* index = a.index + row * a.padded + i;
    uint64_t ka = key[0], kb = key[a.distance];
    int64_t ia = index[0], ib = index[a.distance];
    if (after(ka, ia, kb, ib) != ascends(i, a.width)) return;
    key[0] = kb, key[a.distance] = ka;
    index[0] = ib, index[a.distance] = ia;
  });
}

// All steps of the widths from `width` to the tile's (width 2 at first), or the rest of one wider width.
__global__ void __launch_bounds__(kThreads) tile_kernel(const __grid_constant__ PairArgs a) {
  PB_SHARED(uint64_t, key, [kTile]);
  PB_SHARED(int64_t, index, [kTile]);
  const int64_t tile = a.padded < kTile ? a.padded : kTile, tiles = a.padded / tile;
  const int64_t from = int64_t(blockIdx.x) * tile, first = int64_t(blockIdx.x) % tiles * tile;
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < tile; i += kThreads) key[i] = a.key[from + i], index[i] = a.index[from + i];
  __syncthreads();
  const int64_t last = a.width > tile ? a.width : tile;
#pragma unroll 1
  for (int64_t width = a.width; width <= last; width *= 2) {
#pragma unroll 1
    for (int64_t d = (width < tile ? width : tile) / 2; d; d /= 2) {
#pragma unroll 1
      for (int64_t h = threadIdx.x; h < tile / 2; h += kThreads) {
        int64_t i = h / d * 2 * d + h % d;
        uint64_t ka = key[i], kb = key[i + d];
        int64_t ia = index[i], ib = index[i + d];
        if (after(ka, ia, kb, ib) == ascends(first + i, width)) {
          key[i] = kb, key[i + d] = ka;
          index[i] = ib, index[i + d] = ia;
        }
      }
      __syncthreads();
    }
  }
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < tile; i += kThreads) a.key[from + i] = key[i], a.index[from + i] = index[i];
}

// Bits that order as the numbers do, NaN above all, both zeros alike.
PB_DEVICE uint64_t key_of(double v) {
  uint64_t b = bits_of(v == 0.0 ? 0.0 : v);
  return v != v ? ~uint64_t(0) : b >> 63 ? ~b : b | uint64_t(1) << 63;
}

struct KeyArgs {
  OrderArgs a;
  PairArgs p;
};
__global__ void __launch_bounds__(kThreads) key_kernel(const __grid_constant__ KeyArgs k) {
  const OrderArgs& a = k.a;
  each_index(k.p.rows * k.p.padded, [&](int64_t t) {
    int64_t row = t / k.p.padded, i = t - row * k.p.padded;
    uint64_t key = ~uint64_t(0);
    if (i < a.n) {
      int64_t at = row * a.n + i;
      if (a.type == Type::F32)
        key = key_of(double(static_cast<const float*>(a.x)[at]));
      else if (a.type == Type::F64)
        key = key_of(static_cast<const double*>(a.x)[at]);
      else
        key = static_cast<const uint64_t*>(a.x)[at] ^ (a.type == Type::I64 ? uint64_t(1) << 63 : 0);
      if (a.descending) key = ~key;
    }
    k.p.key[t] = key;
    k.p.index[t] = i;
  });
}
__global__ void __launch_bounds__(kThreads) write_kernel(const __grid_constant__ KeyArgs k) {
  each_index(k.a.rows * k.a.k, [&](int64_t t) {
    int64_t row = t / k.a.k, i = t - row * k.a.k;
    k.a.out[t] = k.p.index[row * k.p.padded + i];
  });
}

PairArgs pairs_of(const OrderArgs& a) {
  PairArgs p{};
  p.rows = a.rows;
  p.padded = padded_size(a.n);
  p.key = static_cast<uint64_t*>(a.partial);
  p.index = reinterpret_cast<int64_t*>(p.key + p.rows * p.padded);
  return p;
}

}  // namespace

int64_t padded_size(int64_t n) {
  int64_t m = 1;
  while (m < n) m *= 2;
  return m;
}

cudaError_t sort_pairs(const PairArgs& args, void* stream) {
  if (args.padded < 2 || args.rows == 0) return cudaSuccess;
  PairArgs a = args;
  int64_t tile = a.padded < kTile ? a.padded : kTile, blocks = a.rows * (a.padded / tile);
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  a.width = 2;
  Kernel within = reinterpret_cast<Kernel>(&tile_kernel), step = reinterpret_cast<Kernel>(&step_kernel);
  cudaError_t e = launch(within, dim3(unsigned(blocks)), dim3(kThreads), stream, a);
  for (a.width = 2 * tile; e == cudaSuccess && a.width <= a.padded; a.width *= 2) {
    for (a.distance = a.width / 2; e == cudaSuccess && a.distance >= tile; a.distance /= 2)
      e = launch(step, dim3(blocks_for(a.rows * (a.padded / 2))), dim3(kThreads), stream, a);
    if (e == cudaSuccess) e = launch(within, dim3(unsigned(blocks)), dim3(kThreads), stream, a);
  }
  return e;
}

int64_t order_scratch(const OrderArgs& a) { return a.rows * padded_size(a.n) * 16; }

int order(const OrderArgs& a, void* stream) {
  if (a.rows == 0 || a.k == 0) return cudaSuccess;
  KeyArgs k{a, pairs_of(a)};
  cudaError_t e =
      launch(reinterpret_cast<Kernel>(&key_kernel), dim3(blocks_for(k.p.rows * k.p.padded)), dim3(kThreads), stream, k);
  if (e == cudaSuccess) e = sort_pairs(k.p, stream);
  if (e != cudaSuccess) return e;
  return launch(reinterpret_cast<Kernel>(&write_kernel), dim3(blocks_for(a.rows * a.k)), dim3(kThreads), stream, k);
}

}  // namespace pb::cuda
