// Reductions: the steps of ops/reductions.h in fixed trees, so that the bits depend on the shape alone.
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
constexpr int64_t kChunk = 16384;     // elements of a row that one block reduces
constexpr int kWide = 32, kTall = 8;  // columns and row lanes of a block in the column case

// Chunks of a row; an empty row has one, which gives init.
PB_FN int64_t chunks_of(int64_t n) { return n > kChunk ? (n + kChunk - 1) / kChunk : 1; }

// A tree over the block's 256 values; thread 0 has the result.
template <class Op>
PB_DEVICE float merge_block(float v) {
  PB_SHARED(float, lane, [kThreads]);
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
template <class Op>
__global__ void __launch_bounds__(kThreads) rows_kernel(const __grid_constant__ ReduceArgs a) {
  int64_t chunks = chunks_of(a.n);
  int64_t row = int64_t(blockIdx.x) / chunks, begin = int64_t(blockIdx.x) % chunks * kChunk;
  int64_t end = a.n - begin < kChunk ? a.n : begin + kChunk, base = row * a.n;
  float v = Op::template init<float>();
  bool aligned = base % kVec == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0;
  int64_t i = begin;
  if (aligned) {
    int64_t whole = begin + (end - begin) / kVec * kVec;
#pragma unroll 1
    for (i = begin + threadIdx.x * kVec; i < whole; i += kThreads * kVec) {
      float x[kVec];
      vector_load(a.x, a.in_type, base + i, x);
#pragma unroll
      for (int j = 0; j < kVec; j++) v = Op::step(v, x[j]);
    }
    i = whole;
  }
#pragma unroll 1
  for (i += threadIdx.x; i < end; i += kThreads) v = Op::step(v, load_one(a.x, a.in_type, base + i));
  v = merge_block<Op>(v);
  if (threadIdx.x != 0) return;
  if (chunks > 1)
    a.partial[blockIdx.x] = v;
  else
    store_one(a.out, a.out_type, row, float(Op::finish(v, float(a.n))));
}

// Joins the partial results of one row a block.
template <class Op>
__global__ void __launch_bounds__(kThreads) merge_kernel(const __grid_constant__ ReduceArgs a) {
  int64_t chunks = chunks_of(a.n);
  float v = Op::template init<float>();
#pragma unroll 1
  for (int64_t c = threadIdx.x; c < chunks; c += kThreads) v = Op::merge(v, a.partial[blockIdx.x * chunks + c]);
  v = merge_block<Op>(v);
  if (threadIdx.x == 0) store_one(a.out, a.out_type, blockIdx.x, float(Op::finish(v, float(a.n))));
}

// 32 neighbouring columns a block; eight lanes walk down each and are merged through shared memory.
template <class Op>
__global__ void __launch_bounds__(kThreads) columns_kernel(const __grid_constant__ ReduceArgs a) {
  PB_SHARED(float, lane, [kTall][kWide]);
  int64_t groups = (a.inner + kWide - 1) / kWide;
  int64_t o = int64_t(blockIdx.x) / groups, column = int64_t(blockIdx.x) % groups * kWide + threadIdx.x % kWide;
  int tall = int(threadIdx.x) / kWide;
  float v = Op::template init<float>();
  if (column < a.inner) {
#pragma unroll 4
    for (int64_t r = tall; r < a.n; r += kTall)
      v = Op::step(v, load_one(a.x, a.in_type, (o * a.n + r) * a.inner + column));
  }
  lane[tall][threadIdx.x % kWide] = v;
  __syncthreads();
  if (tall != 0 || column >= a.inner) return;
#pragma unroll
  for (int w = kTall / 2; w; w /= 2)
    for (int t = 0; t < w; t++) lane[t][threadIdx.x] = Op::merge(lane[t][threadIdx.x], lane[t + w][threadIdx.x]);
  store_one(a.out, a.out_type, o * a.inner + column, float(Op::finish(lane[0][threadIdx.x], float(a.n))));
}

template <class Op>
ReduceEntry entry_of() {
  return {reinterpret_cast<Kernel>(&rows_kernel<Op>), reinterpret_cast<Kernel>(&merge_kernel<Op>),
          reinterpret_cast<Kernel>(&columns_kernel<Op>)};
}
template <size_t... I>
const ReduceEntry* entries_of(std::index_sequence<I...>) {
  static const ReduceEntry rows[] = {entry_of<typename OpAt<reductions_unit, int(I)>::type>()...};
  return rows;
}

}  // namespace

const ReduceEntry* reduce_entries(int& count) {
  count = kReduces;
  return entries_of(std::make_index_sequence<kReduces>{});
}

int64_t reduce_scratch(int64_t outer, int64_t n, int64_t inner) {
  int64_t chunks = chunks_of(n);
  return inner == 1 && chunks > 1 ? outer * chunks : 0;
}

int launch_reduce(const ReduceEntry& entry, const ReduceArgs& args, void* stream) {
  int64_t results = args.outer * args.inner;
  if (results == 0) return cudaSuccess;
  int64_t chunks = chunks_of(args.n);
  bool rows = args.inner == 1;
  int64_t blocks = rows ? args.outer * chunks : args.outer * ((args.inner + kWide - 1) / kWide);
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  cudaError_t e = launch(rows ? entry.rows : entry.columns, dim3(unsigned(blocks)), dim3(kThreads), stream, args);
  if (e == cudaSuccess && rows && chunks > 1)
    e = launch(entry.merge, dim3(unsigned(args.outer)), dim3(kThreads), stream, args);
  return e;
}

}  // namespace pb::cuda
