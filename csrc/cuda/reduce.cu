// Reductions: the steps of ops/reductions.h in fixed trees, so that the bits depend on the shape alone. The middle axis
// is cut into chunks; where there is more than one, partial results are merged in a second launch.
#define PB_UNIT reductions_unit
#include "cuda/device.h"
#include "families/reduce_op.h"

namespace pb {
struct reductions_unit;
constexpr int kFirstOp = __COUNTER__ + 1;
}  // namespace pb
#include "ops/reductions.h"

namespace pb::cuda {

namespace {

constexpr int kReduces = __COUNTER__ - kFirstOp;
constexpr int64_t kRowChunk = 16384;    // elements of a row that one block reduces
constexpr int64_t kColumnChunk = 256;   // least rows that one block walks down
constexpr int64_t kColumnChunks = 128;  // most partial results of a column
constexpr int kWide = 32, kTall = 8;    // columns and row lanes of a block in the column case

template <class S>
PB_DEVICE S load_exact(const void* p, Type t, int64_t i) {
  if constexpr (std::is_same_v<S, float>)
    return load_one(p, t, i);
  else
    return static_cast<const S*>(p)[i];
}
// The result in the compute type or a narrower float. A truth value may go straight to bool.
template <class S>
PB_DEVICE void store_exact(void* p, Type t, int64_t i, S v) {
  if constexpr (std::is_same_v<S, float>)
    store_one(p, t, i, v);
  else if (t == Type::Bool)
    static_cast<uint8_t*>(p)[i] = v != S(0);
  else
    static_cast<S*>(p)[i] = v;
}

// A tree over the block's 256 values; thread 0 has the result.
template <class Op, class S>
PB_DEVICE S merge_block(S v) {
  PB_SHARED(S, lane, [kThreads]);
  lane[threadIdx.x] = v;
  __syncthreads();
#pragma unroll
  for (int w = kThreads / 2; w; w /= 2) {
    if (int(threadIdx.x) < w) lane[threadIdx.x] = Op::merge(lane[threadIdx.x], lane[threadIdx.x + w]);
    __syncthreads();
  }
  return lane[0];
}

// One chunk of one row a block. A row of one chunk is finished here, others leave a partial result.
template <class Op, class S>
__global__ void __launch_bounds__(kThreads) rows_kernel(const __grid_constant__ ReduceArgs a) {
  int64_t row = int64_t(blockIdx.x) / a.chunks, begin = int64_t(blockIdx.x) % a.chunks * a.chunk;
  int64_t end = a.n - begin < a.chunk ? a.n : begin + a.chunk, base = row * a.n;
  S v = Op::template init<S>();
  int64_t i = begin;
  if constexpr (std::is_same_v<S, float>) {
    if (base % kVec == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0) {
      int64_t whole = begin + (end - begin) / kVec * kVec;
#pragma unroll 1
      for (i = begin + int64_t(threadIdx.x) * kVec; i < whole; i += kThreads * kVec) {
        float x[kVec];
        vector_load(a.x, a.in_type, base + i, x);
#pragma unroll
        for (int j = 0; j < kVec; j++) v = Op::step(v, x[j]);
      }
      i = whole;
    }
  }
#pragma unroll 1
  for (i += threadIdx.x; i < end; i += kThreads) v = Op::step(v, load_exact<S>(a.x, a.in_type, base + i));
  v = merge_block<Op>(v);
  if (threadIdx.x != 0) return;
  if (a.chunks > 1)
    static_cast<S*>(a.partial)[blockIdx.x] = v;
  else
    store_exact<S>(a.out, a.out_type, row, Op::finish(v, S(a.n)));
}

// Joins the partial results of one row a block.
template <class Op, class S>
__global__ void __launch_bounds__(kThreads) merge_rows_kernel(const __grid_constant__ ReduceArgs a) {
  const S* partial = static_cast<const S*>(a.partial) + int64_t(blockIdx.x) * a.chunks;
  S v = Op::template init<S>();
#pragma unroll 1
  for (int64_t c = threadIdx.x; c < a.chunks; c += kThreads) v = Op::merge(v, partial[c]);
  v = merge_block<Op>(v);
  if (threadIdx.x == 0) store_exact<S>(a.out, a.out_type, blockIdx.x, Op::finish(v, S(a.n)));
}

// 32 neighbouring columns and one chunk of their rows a block; eight lanes walk down and are merged through shared
// memory. partial[outer, chunk, inner].
template <class Op, class S>
__global__ void __launch_bounds__(kThreads) columns_kernel(const __grid_constant__ ReduceArgs a) {
  PB_SHARED(S, lane, [kTall][kWide]);
  int64_t groups = (a.inner + kWide - 1) / kWide, block = blockIdx.x;
  int64_t column = block % groups * kWide + threadIdx.x % kWide, c = block / groups % a.chunks;
  int64_t o = block / groups / a.chunks, begin = c * a.chunk, end = a.n - begin < a.chunk ? a.n : begin + a.chunk;
  int tall = int(threadIdx.x) / kWide, wide = int(threadIdx.x) % kWide;
  S v = Op::template init<S>();
  if (column < a.inner) {
#pragma unroll 4
    for (int64_t r = begin + tall; r < end; r += kTall)
      v = Op::step(v, load_exact<S>(a.x, a.in_type, (o * a.n + r) * a.inner + column));
  }
  lane[tall][wide] = v;
  __syncthreads();
  if (tall != 0 || column >= a.inner) return;
#pragma unroll
  for (int w = kTall / 2; w; w /= 2)
    for (int t = 0; t < w; t++) lane[t][wide] = Op::merge(lane[t][wide], lane[t + w][wide]);
  if (a.chunks > 1)
    static_cast<S*>(a.partial)[(o * a.chunks + c) * a.inner + column] = lane[0][wide];
  else
    store_exact<S>(a.out, a.out_type, o * a.inner + column, Op::finish(lane[0][wide], S(a.n)));
}

// One column a thread.
template <class Op, class S>
__global__ void __launch_bounds__(kThreads) merge_columns_kernel(const __grid_constant__ ReduceArgs a) {
  int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.outer * a.inner) return;
  const S* partial = static_cast<const S*>(a.partial) + i / a.inner * a.chunks * a.inner + i % a.inner;
  S v = Op::template init<S>();
#pragma unroll 4
  for (int64_t c = 0; c < a.chunks; c++) v = Op::merge(v, partial[c * a.inner]);
  store_exact<S>(a.out, a.out_type, i, Op::finish(v, S(a.n)));
}

template <class Op, class S>
ReduceEntry kernels_of() {
  if constexpr (std::is_integral_v<S> && !Op::integers)
    return {};
  else
    return {reinterpret_cast<Kernel>(&rows_kernel<Op, S>), reinterpret_cast<Kernel>(&merge_rows_kernel<Op, S>),
            reinterpret_cast<Kernel>(&columns_kernel<Op, S>), reinterpret_cast<Kernel>(&merge_columns_kernel<Op, S>)};
}
template <class Op>
ReduceRow row_of() {
  return {{kernels_of<Op, float>(), kernels_of<Op, double>(), kernels_of<Op, int64_t>(), kernels_of<Op, uint64_t>()}};
}
template <size_t... I>
const ReduceRow* rows_of(std::index_sequence<I...>) {
  static const ReduceRow rows[] = {row_of<typename OpAt<reductions_unit, int(I)>::type>()...};
  return rows;
}

// How the middle axis is cut; an empty one has one chunk, which gives init.
void cut(int64_t n, int64_t inner, int64_t& chunk, int64_t& chunks) {
  chunk = kRowChunk;
  if (inner > 1) {
    chunk = (n + kColumnChunks - 1) / kColumnChunks;
    chunk = chunk < kColumnChunk ? kColumnChunk : chunk;
  }
  chunks = n > chunk ? (n + chunk - 1) / chunk : 1;
}

}  // namespace

const ReduceRow* reduce_rows(int& count) {
  count = kReduces;
  return rows_of(std::make_index_sequence<kReduces>{});
}

int64_t reduce_scratch(int64_t outer, int64_t n, int64_t inner) {
  int64_t chunk, chunks;
  cut(n, inner, chunk, chunks);
  return chunks > 1 ? outer * chunks * inner * 8 : 0;
}

int launch_reduce(const ReduceEntry& entry, const ReduceArgs& args, void* stream) {
  int64_t results = args.outer * args.inner;
  if (results == 0) return cudaSuccess;
  ReduceArgs a = args;
  cut(a.n, a.inner, a.chunk, a.chunks);
  bool rows = a.inner == 1;
  int64_t blocks = a.outer * a.chunks * (rows ? 1 : (a.inner + kWide - 1) / kWide);
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  cudaError_t e = launch(rows ? entry.rows : entry.columns, dim3(unsigned(blocks)), dim3(kThreads), stream, a);
  if (e != cudaSuccess || a.chunks == 1) return e;
  int64_t merges = rows ? a.outer : (results + kThreads - 1) / kThreads;
  return launch(rows ? entry.merge_rows : entry.merge_columns, dim3(unsigned(merges)), dim3(kThreads), stream, a);
}

}  // namespace pb::cuda
