// Matrix products: tiles in shared memory for matrices, and kernels that read the matrix once for a single row.
#include "cuda/api_matmul.h"
#include "cuda/tile.h"

namespace pb::cuda {

namespace {

// What the kernels get: the call, and what the host derived from it.
struct Call {
  MatmulArgs g;
  Walk walk_a, walk_b;
  bool vector_c;  // rows of c start at multiples of 16 bytes
  int64_t batches = 1;
  Parts parts;
  float* partial = nullptr;  // [parts, batches, m, n]
};

struct Matrices {
  int64_t a = 0, b = 0, c = 0;  // offsets of one product
};
PB_DEVICE Matrices matrices_of(const MatmulArgs& g, int64_t index) {
  Matrices r;
#pragma unroll 1
  for (int d = g.axes; d-- > 0;) {
    int64_t rest = index / g.batch[d], i = index - rest * g.batch[d];
    r.a += i * g.a_batch[d], r.b += i * g.b_batch[d], r.c += i * g.c_batch[d];
    index = rest;
  }
  return r;
}
PB_DEVICE DenseLoad load_of(const void* p, Type t, Walk walk, int64_t at, int64_t line, int64_t step, int64_t lines) {
  int64_t item = t == Type::F32 ? 4 : 2;
  return {static_cast<const char*>(p) + at * item, t, walk, line * item, step * item, lines};
}

// A complete sum: bias, what was there before, and the store.
PB_DEVICE void finish(const MatmulArgs& g, int64_t at, int64_t j, float v) {
  if (g.bias) v += load_one(g.bias, g.bias_type, j);
  if (g.accumulate) v += load_one(g.c, g.c_type, at);
  store_one(g.c, g.c_type, at, v);
}
PB_DEVICE void finish4(const Call& c, int64_t at, int64_t j, int64_t n, float (&v)[4]) {
  if (c.vector_c && !c.g.accumulate && j + 4 <= n) {
    if (c.g.bias)
#pragma unroll
      for (int e = 0; e < 4; e++) v[e] += load_one(c.g.bias, c.g.bias_type, j + e);
    return store4(c.g.c, c.g.c_type, at, v);
  }
#pragma unroll
  for (int e = 0; e < 4; e++)
    if (j + e < n) finish(c.g, at + e, j + e, v[e]);
}

// Tiles in bands of eight rows of tiles, so that blocks that run together share panels of b in the cache.
template <class T>
PB_DEVICE void tile_place(int64_t index, int64_t m, int64_t n, int64_t& row, int64_t& col) {
  int64_t rows = (m + T::kLines - 1) / T::kLines, cols = (n + T::kLines - 1) / T::kLines, band = 8 * cols;
  int64_t first = index / band * 8, in_band = rows - first < 8 ? rows - first : 8, rest = index % band;
  row = (first + rest % in_band) * T::kLines;
  col = rest / in_band * T::kLines;
}

template <class T>
__global__ void __launch_bounds__(T::kTileThreads, T::kBlocks) tile_kernel(const __grid_constant__ Call c) {
  const MatmulArgs& g = c.g;
  int64_t tiles = (g.m + T::kLines - 1) / T::kLines * ((g.n + T::kLines - 1) / T::kLines);
  int64_t batch = int64_t(blockIdx.x) / tiles, m0, n0;
  tile_place<T>(int64_t(blockIdx.x) % tiles, g.m, g.n, m0, n0);
  int64_t k0 = blockIdx.y * c.parts.length, k1 = k0 + c.parts.length < g.k ? k0 + c.parts.length : g.k;
  Matrices o = matrices_of(g, batch);
  DenseLoad a = load_of(g.a, g.a_type, c.walk_a, o.a, g.a_row, g.a_col, g.m);
  DenseLoad b = load_of(g.b, g.b_type, c.walk_b, o.b, g.b_col, g.b_row, g.n);
  float acc[T::kRows][T::kCols];
  multiply<T>(a, b, m0, n0, k0, k1, acc);
#pragma unroll
  for (int i = 0; i < T::kRows; i++) {
    int64_t row = m0 + row_of<T>(i);
    if (row >= g.m) continue;
#pragma unroll
    for (int q = 0; q < T::kCols; q += 4) {
      int64_t col = n0 + col_of<T>(q);
      float v[4] = {acc[i][q], acc[i][q + 1], acc[i][q + 2], acc[i][q + 3]};
      if (c.parts.count == 1) {
        finish4(c, o.c + row * g.c_row + col, col, g.n, v);
        continue;
      }
      float* to = c.partial + ((blockIdx.y * c.batches + batch) * g.m + row) * g.n + col;
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (col + e < g.n) to[e] = v[e];
    }
  }
}

// Adds the parts of each sum in order.
__global__ void __launch_bounds__(kThreads) join_kernel(const __grid_constant__ Call c) {
  const MatmulArgs& g = c.g;
  int64_t all = c.batches * g.m * g.n, threads = int64_t(gridDim.x) * kThreads;
#pragma unroll 1
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < all; i += threads) {
    float v = 0.0f;
#pragma unroll 4
    for (int p = 0; p < c.parts.count; p++) v += c.partial[p * all + i];
    int64_t row = i / g.n, col = i - row * g.n, batch = row / g.m;
    finish(g, matrices_of(g, batch).c + (row - batch * g.m) * g.c_row + col, col, v);
  }
}

PB_DEVICE float warp_sum(float v) {
#pragma unroll
  for (int w = 16; w; w /= 2) v += __shfl_xor_sync(0xffffffffu, v, w);
  return v;
}

// One row, b with its steps beside each other: a warp for a column, or for few columns a block.
constexpr int kWarps = kThreads / 32;
constexpr int64_t kLongSum = 4096;
template <bool Wide>
__global__ void __launch_bounds__(kThreads) dot_kernel(const __grid_constant__ Call c) {
  const MatmulArgs& g = c.g;
  constexpr int per = Wide ? 1 : kWarps, width = kThreads / per;
  int64_t groups = (g.n + per - 1) / per, batch = int64_t(blockIdx.x) / groups;
  int64_t j = int64_t(blockIdx.x) % groups * per + int(threadIdx.x) / width;
  int lane = int(threadIdx.x) % width;
  Matrices o = matrices_of(g, batch);
  float sum = 0.0f;
  if (j < g.n) {
    int64_t from = o.b + j * g.b_col;
    bool at_once = c.walk_a == Walk::StepsAtOnce && c.walk_b == Walk::StepsAtOnce;
    int64_t whole = at_once ? g.k / 8 * 8 : 0;
#pragma unroll 2
    for (int64_t k = lane * 8; k < whole; k += width * 8) {
      float x[8], y[8];
      vector_load(g.a, g.a_type, o.a + k, x);
      vector_load(g.b, g.b_type, from + k, y);
#pragma unroll
      for (int e = 0; e < 8; e++) sum = fma(x[e], y[e], sum);
    }
#pragma unroll 4
    for (int64_t k = whole + lane; k < g.k; k += width)
      sum = fma(load_one(g.a, g.a_type, o.a + k * g.a_col), load_one(g.b, g.b_type, from + k * g.b_row), sum);
  }
  sum = warp_sum(sum);
  if constexpr (Wide) {
    PB_SHARED(float, part, [kWarps]);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int w = 0; w < kWarps; w++) sum += part[w];
  }
  if (lane == 0 && j < g.n) finish(g, o.c + j, j, sum);
}

// One row, b with its columns beside each other: 64 columns a block, 32 threads walk down each eight of them.
constexpr int kRowColumns = 64, kRowLanes = kThreads * 8 / kRowColumns;
__global__ void __launch_bounds__(kThreads) row_kernel(const __grid_constant__ Call c) {
  PB_SHARED(float, part, [kRowLanes][kRowColumns + 1]);
  const MatmulArgs& g = c.g;
  int64_t groups = (g.n + kRowColumns - 1) / kRowColumns, batch = int64_t(blockIdx.x) / groups;
  int64_t j0 = int64_t(blockIdx.x) % groups * kRowColumns;
  Matrices o = matrices_of(g, batch);
  DenseLoad b = load_of(g.b, g.b_type, c.walk_b, o.b, g.b_col, g.b_row, g.n);
  int eight = int(threadIdx.x) % (kRowColumns / 8), lane = int(threadIdx.x) / (kRowColumns / 8);
  bool at_once = c.walk_b == Walk::LinesAtOnce;
  const Spot s{at_once ? eight * 8 : eight, 0, at_once ? 1 : kRowColumns / 8, 0};
  float sum[8] = {};
  int64_t k0 = blockIdx.y * c.parts.length, k1 = k0 + c.parts.length < g.k ? k0 + c.parts.length : g.k;
  const auto from = b.state(s, j0);
#pragma unroll 2
  for (int64_t k = k0 + lane; k < k1; k += kRowLanes) {
    Eight eights;
    float y[8];
    b.fetch(from, s, k, k1, eights);
    unpack8(eights, g.b_type, y);
    float x = load_one(g.a, g.a_type, o.a + k * g.a_col);
#pragma unroll
    for (int e = 0; e < 8; e++) sum[e] = fma(x, y[e], sum[e]);
  }
#pragma unroll
  for (int e = 0; e < 8; e++) part[lane][s.line + e * s.lines] = sum[e];
  __syncthreads();
  int64_t j = j0 + threadIdx.x;
  if (threadIdx.x >= kRowColumns || j >= g.n) return;
  float v = 0.0f;
  for (int l = 0; l < kRowLanes; l++) v += part[l][threadIdx.x];
  if (c.parts.count == 1)
    finish(g, o.c + j, j, v);
  else
    c.partial[(blockIdx.y * c.batches + batch) * g.n + j] = v;
}

// ---- the host's part

int64_t size_of(Type t) { return itemsize(t); }
bool aligned(const void* p, Type t, int64_t line, const int64_t* batch, int axes) {
  bool ok = reinterpret_cast<uintptr_t>(p) % 16 == 0 && line * size_of(t) % 16 == 0;
  for (int d = 0; d < axes; d++) ok = ok && batch[d] * size_of(t) % 16 == 0;
  return ok;
}
// How threads walk over an operand whose lines are `line` and steps `step` elements apart.
Walk walk_of(const void* p, Type t, int64_t line, int64_t step, const int64_t* batch, int axes) {
  if (step == 1) return aligned(p, t, line, batch, axes) ? Walk::StepsAtOnce : Walk::Steps;
  if (line == 1) return aligned(p, t, step, batch, axes) ? Walk::LinesAtOnce : Walk::Lines;
  return (step < 0 ? -step : step) < (line < 0 ? -line : line) ? Walk::Steps : Walk::Lines;
}

enum class Way { Dot, WideDot, Row, Small, Large };
struct Plan {
  Call call;
  Way way;
  int64_t blocks;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t tiles_of(const MatmulArgs& g, int64_t lines) { return ceil_div(g.m, lines) * ceil_div(g.n, lines); }

Plan plan_of(const MatmulArgs& args) {
  Plan p{};
  Call& c = p.call;
  c.g = args;
  MatmulArgs& g = c.g;
  if (g.n == 1 && g.m > 1 && g.c_row == 1 && !g.bias) {  // a column is the row of the transposed product
    g.m = 1, g.n = args.m, g.c_row = args.m;
    g.a = args.b, g.a_type = args.b_type, g.a_row = args.b_col, g.a_col = args.b_row;
    g.b = args.a, g.b_type = args.a_type, g.b_row = args.a_col, g.b_col = args.a_row;
    for (int d = 0; d < g.axes; d++) g.a_batch[d] = args.b_batch[d], g.b_batch[d] = args.a_batch[d];
  }
  for (int d = 0; d < g.axes; d++) c.batches *= g.batch[d];
  c.walk_a = walk_of(g.a, g.a_type, g.a_row, g.a_col, g.a_batch, g.axes);
  c.walk_b = walk_of(g.b, g.b_type, g.b_col, g.b_row, g.b_batch, g.axes);
  c.vector_c = aligned(g.c, g.c_type, g.c_row, g.c_batch, g.axes);
  c.parts = {1, g.k};
  if (g.m == 1 && g.b_row == 1) {
    p.way = g.k >= kLongSum && g.n < 1024 ? Way::WideDot : Way::Dot;
    p.blocks = c.batches * ceil_div(g.n, p.way == Way::Dot ? kWarps : 1);
  } else if (g.m == 1) {
    p.way = Way::Row;
    p.blocks = c.batches * ceil_div(g.n, kRowColumns);
    c.parts = parts_of(p.blocks, g.k);
  } else {
    bool large = g.m > 64 && g.n > 64 && c.batches * tiles_of(g, 128) >= 96;
    p.way = large ? Way::Large : Way::Small;
    p.blocks = c.batches * tiles_of(g, large ? 128 : 64);
    c.parts = parts_of(p.blocks, g.k);
  }
  return p;
}

bool nothing(const MatmulArgs& g) {
  for (int d = 0; d < g.axes; d++)
    if (g.batch[d] == 0) return true;
  return g.m <= 0 || g.n <= 0;
}

int64_t scratch(const MatmulArgs& args) {
  if (nothing(args)) return 0;
  Plan p = plan_of(args);
  if (p.call.parts.count == 1) return 0;
  return p.call.parts.count * p.call.batches * args.m * args.n * int64_t(sizeof(float));
}

int run(const MatmulArgs& args, void* stream) {
  if (nothing(args)) return cudaSuccess;
  Plan p = plan_of(args);
  Call& c = p.call;
  c.partial = static_cast<float*>(args.scratch);
  if (p.blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  static const Kernel kernels[] = {reinterpret_cast<Kernel>(&dot_kernel<false>),
                                   reinterpret_cast<Kernel>(&dot_kernel<true>), reinterpret_cast<Kernel>(&row_kernel),
                                   reinterpret_cast<Kernel>(&tile_kernel<SmallTile>),
                                   reinterpret_cast<Kernel>(&tile_kernel<LargeTile>)};
  int threads = p.way == Way::Small ? SmallTile::kTileThreads : kThreads;
  cudaError_t e = launch(kernels[int(p.way)], dim3(unsigned(p.blocks), unsigned(c.parts.count)),
                         dim3(unsigned(threads)), stream, c);
  if (e != cudaSuccess || c.parts.count == 1) return e;
  int64_t blocks = ceil_div(c.batches * c.g.m * c.g.n, kThreads);
  return launch(reinterpret_cast<Kernel>(&join_kernel), dim3(unsigned(blocks < 65535 ? blocks : 65535)), dim3(kThreads),
                stream, c);
}

}  // namespace

const MatmulApi* matmul_api() {
  static const MatmulApi api = {&scratch, &run};
  return &api;
}

}  // namespace pb::cuda
