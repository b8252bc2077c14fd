// Positions of extremes and running sums along the middle axis of [outer, n, inner]. Long rows are cut into chunks of a
// fixed size.
#include "cuda/api_row.h"
#include "cuda/fault.h"
#include "cuda/row_lanes.h"

namespace pb::cuda {

namespace {

constexpr int64_t kChunk = 16384;  // elements of a row that one block takes
int64_t chunks_of(int64_t n) { return (n + kChunk - 1) / kChunk; }

template <class T>
struct Candidate {
  T value;
  int64_t at;
};

// NaN beats everything, the first of equals wins.
template <class T>
PB_DEVICE bool beats(const Candidate<T>& v, const Candidate<T>& best, bool largest) {
  if (v.at < 0 || best.at < 0) return best.at < 0;
  bool nan = v.value != v.value, best_nan = best.value != best.value;
  if (nan || best_nan) return nan && (!best_nan || v.at < best.at);
  if (v.value == best.value) return v.at < best.at;
  return largest ? v.value > best.value : v.value < best.value;
}
template <class T>
PB_DEVICE Candidate<T> shuffle(const Candidate<T>& c, int w) {
  return {__shfl_xor_sync(kAll, c.value, w), __shfl_xor_sync(kAll, c.at, w)};
}
template <class T>
PB_DEVICE Candidate<T> best_of_block(Candidate<T> best, bool largest, Candidate<T>* shared) {
  return merge_lanes(best, kThreads, shared,
                     [largest](const Candidate<T>& a, const Candidate<T>& b) { return beats(b, a, largest) ? b : a; });
}

// A chunk of a row a block; the only one gives the answer, several leave their candidates.
template <class T>
__global__ void __launch_bounds__(kThreads) extreme_rows(const __grid_constant__ ScanArgs a) {
  PB_SHARED(Candidate<T>, shared, [kThreads / kWarp]);
  int64_t row = int64_t(blockIdx.x) / a.chunks, from = int64_t(blockIdx.x) % a.chunks * kChunk;
  int64_t end = a.n - from < kChunk ? a.n : from + kChunk;
  const T* x = static_cast<const T*>(a.x) + row * a.n;
  Candidate<T> best{T(0), -1};
#pragma unroll 4
  for (int64_t i = from + threadIdx.x; i < end; i += kThreads) {
    Candidate<T> c{x[i], i};
    if (beats(c, best, a.largest)) best = c;
  }
  best = best_of_block(best, a.largest, shared);
  if (threadIdx.x != 0) return;
  if (a.chunks == 1)
    static_cast<int64_t*>(a.out)[row] = best.at;
  else
    static_cast<Candidate<T>*>(a.partial)[blockIdx.x] = best;
}
template <class T>
__global__ void __launch_bounds__(kThreads) extreme_merge(const __grid_constant__ ScanArgs a) {
  PB_SHARED(Candidate<T>, shared, [kThreads / kWarp]);
  Candidate<T> best{T(0), -1};
#pragma unroll 1
  for (int64_t c = threadIdx.x; c < a.chunks; c += kThreads) {
    Candidate<T> v = static_cast<const Candidate<T>*>(a.partial)[blockIdx.x * a.chunks + c];
    if (beats(v, best, a.largest)) best = v;
  }
  best = best_of_block(best, a.largest, shared);
  if (threadIdx.x == 0) static_cast<int64_t*>(a.out)[blockIdx.x] = best.at;
}
// One column of [outer, ., inner] a thread.
template <class T>
__global__ void __launch_bounds__(kThreads) extreme_columns(const __grid_constant__ ScanArgs a) {
  each_index(a.outer * a.inner, [&](int64_t t) {
    const T* x = static_cast<const T*>(a.x) + t / a.inner * a.n * a.inner + t % a.inner;
    Candidate<T> best{x[0], 0};
#pragma unroll 4
    for (int64_t i = 1; i < a.n; i++) {
      Candidate<T> c{x[i * a.inner], i};
      if (beats(c, best, a.largest)) best = c;
    }
    static_cast<int64_t*>(a.out)[t] = best.at;
  });
}

// ---- running sums

// The sum of v over this thread and those before it; `total` over the block.
template <class T>
PB_DEVICE T running_block(T v, T& total, T* shared) {
  int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
#pragma unroll
  for (int w = 1; w < kWarp; w *= 2) {
    T up = __shfl_up_sync(kAll, v, w);
    if (lane >= w) v = up + v;
  }
  __syncthreads();
  if (lane == kWarp - 1) shared[warp] = v;
  __syncthreads();
  T before = T(0);
  total = T(0);
#pragma unroll
  for (int w = 0; w < kThreads / kWarp; w++) {
    if (w < warp) before = before + shared[w];
    total = total + shared[w];
  }
  return before + v;
}

// The sum of each chunk of each row, if there are several.
template <class T>
__global__ void __launch_bounds__(kThreads) chunk_sums(const __grid_constant__ ScanArgs a) {
  PB_SHARED(T, shared, [kThreads / kWarp]);
  int64_t row = int64_t(blockIdx.x) / a.chunks, from = int64_t(blockIdx.x) % a.chunks * kChunk;
  int64_t end = a.n - from < kChunk ? a.n : from + kChunk;
  const T* x = static_cast<const T*>(a.x) + row * a.n;
  T sum = T(0), total;
#pragma unroll 4
  for (int64_t i = from + threadIdx.x; i < end; i += kThreads) sum = sum + x[i];
  running_block(sum, total, shared);
  if (threadIdx.x == 0) static_cast<T*>(a.partial)[blockIdx.x] = total;
}
// Walks a chunk with what the chunks before add up to.
template <class T>
__global__ void __launch_bounds__(kThreads) running_rows(const __grid_constant__ ScanArgs a) {
  PB_SHARED(T, shared, [kThreads / kWarp]);
  int64_t row = int64_t(blockIdx.x) / a.chunks, chunk = int64_t(blockIdx.x) % a.chunks, from = chunk * kChunk;
  int64_t end = a.n - from < kChunk ? a.n : from + kChunk;
  const T* x = static_cast<const T*>(a.x) + row * a.n;
  T* out = static_cast<T*>(a.out) + row * (a.n + a.lead);
  T carry = T(0), total;
  if (chunk > 0) {
    T sum = T(0);
#pragma unroll 1
    for (int64_t c = threadIdx.x; c < chunk; c += kThreads)
      sum = sum + static_cast<const T*>(a.partial)[row * a.chunks + c];
    running_block(sum, carry, shared);
  }
  if (chunk == 0 && int64_t(threadIdx.x) < a.lead) out[threadIdx.x] = T(0);
#pragma unroll 1
  for (int64_t at = from; at < end; at += kThreads) {
    int64_t i = at + threadIdx.x;
    T sum = carry + running_block(i < end ? x[i] : T(0), total, shared);
    if (i < end) out[i + a.lead] = sum;
    carry = carry + total;
  }
}
template <class T>
__global__ void __launch_bounds__(kThreads) running_columns(const __grid_constant__ ScanArgs a) {
  each_index(a.outer * a.inner, [&](int64_t t) {
    int64_t o = t / a.inner, i = t - o * a.inner;
    const T* x = static_cast<const T*>(a.x) + o * a.n * a.inner + i;
    T* out = static_cast<T*>(a.out) + o * (a.n + a.lead) * a.inner + i;
    T sum = T(0);
#pragma unroll 1
    for (int64_t r = 0; r < a.lead; r++) out[r * a.inner] = T(0);
    out += a.lead * a.inner;
#pragma unroll 4
    for (int64_t r = 0; r < a.n; r++) out[r * a.inner] = sum = sum + x[r * a.inner];
  });
}

struct ScanKernels {
  Kernel chunks, merge, rows, columns;
};
template <class T>
ScanKernels extremes() {
  return {reinterpret_cast<Kernel>(&extreme_rows<T>), reinterpret_cast<Kernel>(&extreme_merge<T>), nullptr,
          reinterpret_cast<Kernel>(&extreme_columns<T>)};
}
template <class T>
ScanKernels sums() {
  return {reinterpret_cast<Kernel>(&chunk_sums<T>), nullptr, reinterpret_cast<Kernel>(&running_rows<T>),
          reinterpret_cast<Kernel>(&running_columns<T>)};
}

cudaError_t start(Kernel kernel, int64_t blocks, const ScanArgs& args, void* stream) {
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  ScanArgs a = args;
  a.chunks = args.n ? chunks_of(args.n) : 1;
  return launch(kernel, dim3(unsigned(blocks)), dim3(kThreads), stream, a);
}

}  // namespace

int64_t extreme_scratch(const ScanArgs& a) {
  int64_t chunks = chunks_of(a.n);
  return a.inner == 1 && chunks > 1 ? a.outer * chunks * 16 : 0;
}
int extreme(const ScanArgs& a, void* stream) {
  if (a.outer * a.inner == 0) return cudaSuccess;
  ScanKernels k = a.type == Type::F32   ? extremes<float>()
                  : a.type == Type::F64 ? extremes<double>()
                  : a.type == Type::I64 ? extremes<int64_t>()
                                        : extremes<uint64_t>();
  if (a.inner > 1) return start(k.columns, blocks_for(a.outer * a.inner), a, stream);
  int64_t chunks = chunks_of(a.n);
  cudaError_t e = start(k.chunks, a.outer * chunks, a, stream);
  if (e != cudaSuccess || chunks == 1) return e;
  return start(k.merge, a.outer, a, stream);
}

int64_t running_scratch(const ScanArgs& a) {
  int64_t chunks = chunks_of(a.n);
  return a.inner == 1 && chunks > 1 ? a.outer * chunks * 8 : 0;
}
int running(const ScanArgs& a, void* stream) {
  if (a.outer * a.inner * (a.n + a.lead) == 0) return cudaSuccess;
  ScanKernels k = a.type == Type::F32 ? sums<float>() : a.type == Type::F64 ? sums<double>() : sums<uint64_t>();
  if (a.inner > 1) return start(k.columns, blocks_for(a.outer * a.inner), a, stream);
  int64_t chunks = a.n ? chunks_of(a.n) : 1;
  cudaError_t e = chunks > 1 ? start(k.chunks, a.outer * chunks, a, stream) : cudaSuccess;
  if (e != cudaSuccess) return e;
  return start(k.rows, a.outer * chunks, a, stream);
}

}  // namespace pb::cuda
