// Reading by index, the check of indices, positions of true elements, and tensors that are filled by a rule.
#include "cuda/api_gather.h"
#include "cuda/fault.h"
#include "cuda/row_lanes.h"

namespace pb::cuda {

int add(const AddArgs& args, void* stream);
int64_t add_scratch(const AddArgs& args);
int put(const PutArgs& args, void* stream);
int winners(const PutArgs& args, void* stream);

namespace {

__global__ void __launch_bounds__(kThreads) index_kernel(const __grid_constant__ IndexArgs a) {
  each_index(a.count, [&](int64_t i) {
    int64_t v = load_integer(a.in, a.type, i);
    bool wide = a.type == Type::U64;
    if (v < (wide ? 0 : -a.size) || v >= a.size) {
      tell(a.fault, {1, false, wide, a.op, v, i, a.axis, a.size});
      v = 0;
    }
    a.out[i] = v < 0 ? v + a.size : v;
  });
}

// A row is copied in units of T.
template <class T>
__global__ void __launch_bounds__(kThreads) take_kernel(const __grid_constant__ TakeArgs a) {
  const int64_t units = a.inner;
  each_index(a.outer * a.m * units, [&](int64_t i) {
    int64_t row = i / units, unit = i - row * units, o = row / a.m, from = o * a.n + a.index[row - o * a.m];
    static_cast<T*>(a.out)[i] = static_cast<const T*>(a.x)[from * units + unit];
  });
}
template <class T>
__global__ void __launch_bounds__(kThreads) along_kernel(const __grid_constant__ TakeArgs a) {
  each_index(a.outer * a.m * a.inner, [&](int64_t i) {
    int64_t row = i / a.inner, o = row / a.m, from = (o * a.n + a.index[i]) * a.inner + (i - row * a.inner);
    static_cast<T*>(a.out)[i] = static_cast<const T*>(a.x)[from];
  });
}

template <class T>
Kernel kernel_of(bool along) {
  return along ? reinterpret_cast<Kernel>(&along_kernel<T>) : reinterpret_cast<Kernel>(&take_kernel<T>);
}
Kernel kernel_of(int bytes, bool along) {
  return bytes == 1   ? kernel_of<uint8_t>(along)
         : bytes == 2 ? kernel_of<uint16_t>(along)
         : bytes == 4 ? kernel_of<uint32_t>(along)
         : bytes == 8 ? kernel_of<uint64_t>(along)
                      : reinterpret_cast<Kernel>(&take_kernel<uint4>);
}

int launch_index(const IndexArgs& args, void* stream) {
  if (args.count == 0) return cudaSuccess;
  return launch(reinterpret_cast<Kernel>(&index_kernel), dim3(blocks_for(args.count)), dim3(kThreads), stream, args);
}
int launch_take(const TakeArgs& args, void* stream) {
  if (args.outer * args.m * args.inner == 0) return cudaSuccess;
  TakeArgs a = args;
  // The widest unit that divides a row and both addresses.
  uint64_t all = uint64_t(a.inner * a.item) | reinterpret_cast<uintptr_t>(a.x) | reinterpret_cast<uintptr_t>(a.out);
  int unit = 16;
  while (all % unsigned(unit)) unit /= 2;
  a.inner = a.inner * a.item / unit;
  return launch(kernel_of(unit, false), dim3(blocks_for(a.outer * a.m * a.inner)), dim3(kThreads), stream, a);
}
int launch_along(const TakeArgs& args, void* stream) {
  int64_t n = args.outer * args.m * args.inner;
  if (n == 0) return cudaSuccess;
  return launch(kernel_of(args.item, true), dim3(blocks_for(n)), dim3(kThreads), stream, args);
}

// ---- positions of true elements: a block counts a piece, and after the running sum of the counts writes its own

constexpr int kEach = 16;  // neighbours a thread looks at
constexpr int64_t kPiece = kThreads * kEach;

// The sum of v over the threads before this one; `total` over the block.
PB_DEVICE int before(int v, int& total) {
  PB_SHARED(int, warps, [kThreads / kWarp]);
  int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, sum = v;
#pragma unroll
  for (int w = 1; w < kWarp; w *= 2) {
    int up = __shfl_up_sync(kAll, sum, w);
    if (lane >= w) sum += up;
  }
  if (lane == kWarp - 1) warps[warp] = sum;
  __syncthreads();
  int first = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < kThreads / kWarp; w++) {
    if (w < warp) first += warps[w];
    total += warps[w];
  }
  return first + sum - v;
}
PB_DEVICE int true_in(const PositionArgs& a, int64_t from) {
  int count = 0;
#pragma unroll
  for (int j = 0; j < kEach; j++) count += from + j < a.n && a.mask[from + j];
  return count;
}

__global__ void __launch_bounds__(kThreads) count_kernel(const __grid_constant__ PositionArgs a) {
  int total;
  before(true_in(a, int64_t(blockIdx.x) * kPiece + threadIdx.x * kEach), total);
  if (threadIdx.x != 0) return;
  a.counts[1 + blockIdx.x] = total;
  if (blockIdx.x == 0) a.counts[0] = 0;
}
__global__ void __launch_bounds__(kThreads) position_kernel(const __grid_constant__ PositionArgs a) {
  int64_t from = int64_t(blockIdx.x) * kPiece + threadIdx.x * kEach;
  int total;
  int64_t at = a.counts[blockIdx.x] + before(true_in(a, from), total);
#pragma unroll 1
  for (int j = 0; j < kEach; j++) {
    if (from + j >= a.n || !a.mask[from + j]) continue;
    int64_t rest = from + j;
#pragma unroll 1
    for (int d = a.ndim; d-- > 0;) {
      int64_t q = rest / a.shape[d];
      a.out[d * a.found + at] = rest - q * a.shape[d];
      rest = q;
    }
    at++;
  }
}

int64_t pieces(int64_t n) { return (n + kPiece - 1) / kPiece; }
int launch_positions(Kernel kernel, const PositionArgs& args, void* stream) {
  int64_t blocks = pieces(args.n);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  return launch(kernel, dim3(unsigned(blocks)), dim3(kThreads), stream, args);
}
int launch_count(const PositionArgs& args, void* stream) {
  return launch_positions(reinterpret_cast<Kernel>(&count_kernel), args, stream);
}
int launch_write(const PositionArgs& args, void* stream) {
  return launch_positions(reinterpret_cast<Kernel>(&position_kernel), args, stream);
}

__global__ void __launch_bounds__(kThreads) join_kernel(const __grid_constant__ JoinArgs a) {
  each_index(a.n, [&](int64_t i) {
    int64_t at = a.index[0][i];
#pragma unroll 1
    for (int k = 1; k < a.count; k++) at = at * a.size[k] + a.index[k][i];
    a.out[i] = at;
  });
}
int launch_join(const JoinArgs& args, void* stream) {
  if (args.n == 0) return cudaSuccess;
  return launch(reinterpret_cast<Kernel>(&join_kernel), dim3(blocks_for(args.n)), dim3(kThreads), stream, args);
}

// ---- filled by position

// Words 2 i and 2 i + 1 of the stream.
PB_DEVICE uint64_t word_pair(const PatternArgs& a, int64_t i) {
  uint64_t block = uint64_t(i) / 2;
  uint32_t c[4] = {uint32_t(block), uint32_t(block >> 32), uint32_t(a.offset), uint32_t(a.offset >> 32)};
  philox_block(c, uint32_t(a.seed), uint32_t(a.seed >> 32));
  return i % 2 ? uint64_t(c[2]) << 32 | c[3] : uint64_t(c[0]) << 32 | c[1];
}
// The upper half of the 128 bits of a product.
PB_DEVICE uint64_t high_product(uint64_t x, uint64_t y) {
  uint64_t x0 = x & 0xffffffffu, x1 = x >> 32, y0 = y & 0xffffffffu, y1 = y >> 32;
  uint64_t middle = x1 * y0 + (x0 * y0 >> 32), other = x0 * y1 + (middle & 0xffffffffu);
  return x1 * y1 + (middle >> 32) + (other >> 32);
}

__global__ void __launch_bounds__(kThreads) pattern_kernel(const __grid_constant__ PatternArgs a) {
  each_index(a.n, [&](int64_t i) {
    if (a.kind == PatternArgs::Count) {
      static_cast<int64_t*>(a.out)[i] = a.start + i * a.step;
    } else if (a.kind == PatternArgs::Triangle) {
      int64_t row = i / a.columns, d = i - row * a.columns - row;
      static_cast<bool*>(a.out)[i] = a.lower ? d <= a.k : d >= a.k;
    } else {
      static_cast<uint64_t*>(a.out)[i] = uint64_t(a.start) + high_product(word_pair(a, i), a.range);
    }
  });
}
int launch_pattern(const PatternArgs& args, void* stream) {
  if (args.n == 0) return cudaSuccess;
  return launch(reinterpret_cast<Kernel>(&pattern_kernel), dim3(blocks_for(args.n)), dim3(kThreads), stream, args);
}

}  // namespace

const GatherApi* gather_api() {
  static const GatherApi api{&launch_index, &launch_take, &launch_along, &add,          &add_scratch, &put,
                             &winners,      &pieces,      &launch_count, &launch_write, &launch_join, &launch_pattern};
  return &api;
}

}  // namespace pb::cuda
