// Sums per channel and the affine map per channel (batch normalisation), and group normalisation.
#include "cuda/api_row.h"
#include "cuda/columns.h"
#include "cuda/row_lanes.h"

namespace pb::cuda {

namespace {

constexpr int kWide = 32, kTall = 8;  // columns and row lanes of a block
constexpr int64_t kPiece = 8192;      // elements of a segment that a block takes at once

// out[c] = sum of partial[., c]: 32 columns a block, eight lanes walk down each.
__global__ void __launch_bounds__(kThreads) column_kernel(const __grid_constant__ ColumnArgs a) {
  PB_SHARED(float, lane, [kTall][kWide]);
  int x = int(threadIdx.x) % kWide, tall = int(threadIdx.x) / kWide;
  int64_t column = int64_t(blockIdx.x) * kWide + x;
  const float* from = a.partial + int64_t(blockIdx.y) * a.count * a.n;
  float* out = blockIdx.y ? a.out[1] : a.out[0];
  float v = 0.0f;
  if (column < a.n) {
#pragma unroll 8
    for (int64_t r = tall; r < a.count; r += kTall) v += from[r * a.n + column];
  }
  lane[tall][x] = v;
  __syncthreads();
  if (tall != 0 || column >= a.n || !out) return;
  float s = 0.0f;
#pragma unroll
  for (int t = 0; t < kTall; t++) s += lane[t][x];
  out[column] = s;
}

// What is summed of an element: the wanted number, and for Both a second.
struct Terms {
  float first, second;
  PB_DEVICE void add(const ChannelArgs& a, float x, float g, float m) {
    float d = x - m;
    if (a.sum == ChannelArgs::X)
      first += x;
    else if (a.sum == ChannelArgs::Square)
      first += d * d;
    else
      first += g, second += g * d;
  }
};
PB_DEVICE Terms shuffle(Terms v, int w) { return {cuda::shuffle(v.first, w), cuda::shuffle(v.second, w)}; }
PB_DEVICE Terms joined(const Terms& a, const Terms& b) { return {a.first + b.first, a.second + b.second}; }

PB_DEVICE void hand_in(const ChannelArgs& a, const Terms& t, int64_t blocks, int64_t block, int64_t channel) {
  a.partial[block * a.channels + channel] = t.first;
  if (a.sum == ChannelArgs::Both) a.partial[(blocks + block) * a.channels + channel] = t.second;
}

// Channels of long segments: blockIdx.y of gridDim.y walks over pieces of all segments of channel blockIdx.x.
__global__ void __launch_bounds__(kThreads) segment_sums(const __grid_constant__ ChannelArgs a) {
  PB_SHARED(Terms, shared, [kThreads / kWarp]);
  int64_t channel = blockIdx.x, pieces = (a.inner + kPiece - 1) / kPiece;
  float m = a.m ? a.m[channel] : 0.0f;
  Terms sum{0.0f, 0.0f};
#pragma unroll 1
  for (int64_t item = blockIdx.y; item < a.outer * pieces; item += gridDim.y) {
    int64_t o = item / pieces, from = item % pieces * kPiece;
    int64_t base = (o * a.channels + channel) * a.inner + from, n = a.inner - from < kPiece ? a.inner - from : kPiece;
    walk_row(
        base, n, a.aligned, int(threadIdx.x), kThreads,
        [&](int64_t i) {
          float x[kVec], g[kVec] = {};
          load8(a.x, a.x_type, base + i, x);
          if (a.g) load8(a.g, a.g_type, base + i, g);
#pragma unroll
          for (int j = 0; j < kVec; j++) sum.add(a, x[j], g[j], m);
        },
        [&](int64_t i) { sum.add(a, load1(a.x, a.x_type, base + i), a.g ? load1(a.g, a.g_type, base + i) : 0.0f, m); });
  }
  sum = merge_lanes(sum, kThreads, shared, [](const Terms& p, const Terms& q) { return joined(p, q); });
  if (threadIdx.x == 0) hand_in(a, sum, gridDim.y, blockIdx.y, channel);
}

// Channels that are columns (inner is 1).
__global__ void __launch_bounds__(kThreads) column_sums(const __grid_constant__ ChannelArgs a) {
  PB_SHARED(Terms, lane, [kTall][kWide]);
  int wide = int(threadIdx.x) % kWide, tall = int(threadIdx.x) / kWide;
  int64_t channel = int64_t(blockIdx.x) * kWide + wide;
  Terms sum{0.0f, 0.0f};
  if (channel < a.channels) {
    float m = a.m ? a.m[channel] : 0.0f;
#pragma unroll 4
    for (int64_t r = int64_t(blockIdx.y) * kTall + tall; r < a.outer; r += int64_t(gridDim.y) * kTall) {
      int64_t i = r * a.channels + channel;
      sum.add(a, load1(a.x, a.x_type, i), a.g ? load1(a.g, a.g_type, i) : 0.0f, m);
    }
  }
  lane[tall][wide] = sum;
  __syncthreads();
  if (tall != 0 || channel >= a.channels) return;
#pragma unroll
  for (int t = 1; t < kTall; t++) sum = joined(sum, lane[t][wide]);
  hand_in(a, sum, gridDim.y, blockIdx.y, channel);
}

// Walks along elements from `i` on: which channel each belongs to. One division per eight elements.
struct Place {
  int64_t inside, channel;
  PB_DEVICE Place(const ChannelArgs& a, int64_t i) {
    int64_t segment = i / a.inner;
    inside = i - segment * a.inner;
    channel = segment % a.channels;
  }
  PB_DEVICE void next(const ChannelArgs& a) {
    if (++inside < a.inner) return;
    inside = 0;
    if (++channel == a.channels) channel = 0;
  }
};
PB_DEVICE float mapped(const ChannelArgs& a, int64_t c, float x, float g) {
  float y = (x - (a.m ? a.m[c] : 0.0f)) * (a.a ? a.a[c] : 1.0f), b = a.b ? a.b[c] : 0.0f;
  return a.g ? y + (g * (a.scale ? a.scale[c] : 1.0f) + b) : y + b;
}

__global__ void __launch_bounds__(kThreads) apply_kernel(const __grid_constant__ ChannelArgs a) {
  walk_row(
      0, a.outer * a.channels * a.inner, a.aligned, int(blockIdx.x * kThreads + threadIdx.x), int(gridDim.x * kThreads),
      [&](int64_t i) {
        float x[kVec], g[kVec] = {};
        load8(a.x, a.x_type, i, x);
        if (a.g) load8(a.g, a.g_type, i, g);
        Place p(a, i);
#pragma unroll
        for (int j = 0; j < kVec; j++) {
          x[j] = mapped(a, p.channel, x[j], g[j]);
          p.next(a);
        }
        store8(a.out, a.out_type, i, x);
      },
      [&](int64_t i) {
        float g = a.g ? load1(a.g, a.g_type, i) : 0.0f;
        store1(a.out, a.out_type, i, mapped(a, Place(a, i).channel, load1(a.x, a.x_type, i), g));
      });
}

// ---- groups: one row a block

PB_DEVICE int64_t channel_of(const GroupArgs& a, int64_t row, int64_t segment) {
  return row % a.groups * a.width + segment;
}
PB_DEVICE float weight_of(const GroupArgs& a, int64_t channel) { return a.weight ? a.weight[channel] : 1.0f; }

// f(x) of every element of a row, added up.
template <class F>
PB_DEVICE float row_sum(const GroupArgs& a, int64_t base, int64_t n, float* shared, F f) {
  float s = 0.0f;
  walk_row(
      base, n, a.aligned, int(threadIdx.x), kThreads,
      [&](int64_t i) {
        float x[kVec];
        load8(a.x, a.x_type, base + i, x);
#pragma unroll
        for (int j = 0; j < kVec; j++) s += f(x[j]);
      },
      [&](int64_t i) { s += f(load1(a.x, a.x_type, base + i)); });
  return fold_lanes<Fold::Sum>(s, kThreads, shared);
}

// out = (x - m) p + (g q) + r with p, q, r of the element's segment: of(segment, p, q, r).
template <class Of>
PB_DEVICE void write_row(const GroupArgs& a, int64_t base, int64_t n, float m, Of of) {
  auto value = [&](float x, float g, int64_t i) {
    float p, q, r;
    of(i / a.inner, p, q, r);
    return a.g ? (x - m) * p + (g * q + r) : (x - m) * p + r;
  };
  walk_row(
      base, n, a.aligned, int(threadIdx.x), kThreads,
      [&](int64_t i) {
        float x[kVec], g[kVec] = {};
        load8(a.x, a.x_type, base + i, x);
        if (a.g) load8(a.g, a.g_type, base + i, g);
#pragma unroll
        for (int j = 0; j < kVec; j++) x[j] = value(x[j], g[j], i + j);
        store8(a.out, a.out_type, base + i, x);
      },
      [&](int64_t i) {
        float g = a.g ? load1(a.g, a.g_type, base + i) : 0.0f;
        store1(a.out, a.out_type, base + i, value(load1(a.x, a.x_type, base + i), g, i));
      });
}

__global__ void __launch_bounds__(kThreads) group_kernel(const __grid_constant__ GroupArgs a) {
  PB_SHARED(float, shared, [kThreads / kWarp]);
  const int64_t n = a.width * a.inner;
#pragma unroll 1
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t base = row * n;
    float m = row_sum(a, base, n, shared, [](float x) { return x; }) / float(n);
    float v = row_sum(a, base, n, shared, [m](float x) { return square(x - m); }) / float(n);
    float scale = rsqrt(v + a.eps);
    if (threadIdx.x == 0) a.mean[row] = m, a.scale[row] = scale;
    write_row(a, base, n, m, [&](int64_t segment, float& p, float& q, float& r) {
      int64_t c = channel_of(a, row, segment);
      p = scale * weight_of(a, c), q = 0.0f, r = a.bias ? a.bias[c] : 0.0f;
    });
  }
}

// With hat = (x - m) scale: gx = scale (w g - mean(w g) - hat mean(w g hat)). A warp sums the segments it owns.
__global__ void __launch_bounds__(kThreads) group_pull_kernel(const __grid_constant__ GroupArgs a) {
  PB_SHARED(float, shared, [2][kThreads / kWarp]);
  const int64_t n = a.width * a.inner;
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
#pragma unroll 1
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t base = row * n;
    const float m = a.mean[row], scale = a.scale[row];
    float all = 0.0f, turn = 0.0f;
#pragma unroll 1
    for (int64_t s = warp; s < a.width; s += kThreads / kWarp) {
      float total = 0.0f, along = 0.0f;
      int64_t start = base + s * a.inner;
      walk_row(
          start, a.inner, a.aligned, lane, kWarp,
          [&](int64_t i) {
            float x[kVec], g[kVec];
            load8(a.x, a.x_type, start + i, x);
            load8(a.g, a.g_type, start + i, g);
#pragma unroll
            for (int j = 0; j < kVec; j++) total += g[j], along += g[j] * (x[j] - m);
          },
          [&](int64_t i) {
            float g = load1(a.g, a.g_type, start + i);
            total += g, along += g * (load1(a.x, a.x_type, start + i) - m);
          });
#pragma unroll
      for (int w = kWarp / 2; w; w /= 2) total += cuda::shuffle(total, w), along += cuda::shuffle(along, w);
      along *= scale;
      float weight = weight_of(a, channel_of(a, row, s));
      all += weight * total, turn += weight * along;
      if (lane == 0) a.total[row * a.width + s] = total, a.along[row * a.width + s] = along;
    }
    __syncthreads();
    if (lane == 0) shared[0][warp] = all, shared[1][warp] = turn;
    __syncthreads();
    all = turn = 0.0f;
#pragma unroll
    for (int w = 0; w < kThreads / kWarp; w++) all += shared[0][w], turn += shared[1][w];
    float shift = -scale * (all / float(n)), slope = -scale * scale * (turn / float(n));
    write_row(a, base, n, m, [&](int64_t segment, float& p, float& q, float& r) {
      p = slope, q = scale * weight_of(a, channel_of(a, row, segment)), r = shift;
    });
  }
}

// Blocks that share a channel's (or 32 columns') elements: about 1024 in all, and no more than there are pieces.
int64_t sharers(const ChannelArgs& a) {
  bool columns = a.inner == 1;
  int64_t across = columns ? (a.channels + kWide - 1) / kWide : a.channels;
  int64_t items = columns ? (a.outer + 4 * kTall - 1) / (4 * kTall) : a.outer * ((a.inner + kPiece - 1) / kPiece);
  int64_t blocks = (1024 + across - 1) / across;
  if (blocks > items) blocks = items;
  return blocks < kPartials ? blocks : kPartials;
}

int launch_groups(Kernel kernel, const GroupArgs& args, void* stream) {
  if (args.rows == 0 || args.width * args.inner == 0) return cudaSuccess;
  GroupArgs a = args;
  a.aligned = on_vectors(a.x) && on_vectors(a.out) && on_vectors(a.g);
  return launch(kernel, dim3(grid_of(a.rows)), dim3(kThreads), stream, a);
}

}  // namespace

cudaError_t add_columns(const ColumnArgs& args, int sums, void* stream) {
  if (args.n == 0) return cudaSuccess;
  dim3 grid(unsigned((args.n + kWide - 1) / kWide), unsigned(sums));
  return launch(reinterpret_cast<Kernel>(&column_kernel), grid, dim3(kThreads), stream, args);
}

int64_t channel_scratch(const ChannelArgs& a) { return 2 * sharers(a) * a.channels; }

int channel_sums(const ChannelArgs& args, void* stream) {
  if (args.outer * args.channels * args.inner == 0) return cudaSuccess;
  ChannelArgs a = args;
  a.aligned = on_vectors(a.x) && on_vectors(a.g);
  bool columns = a.inner == 1;
  int64_t blocks = sharers(a);
  dim3 grid(unsigned(columns ? (a.channels + kWide - 1) / kWide : a.channels), unsigned(blocks));
  Kernel kernel = columns ? reinterpret_cast<Kernel>(&column_sums) : reinterpret_cast<Kernel>(&segment_sums);
  cudaError_t e = launch(kernel, grid, dim3(kThreads), stream, a);
  if (e != cudaSuccess) return e;
  return add_columns({{a.total[0], a.total[1]}, a.partial, blocks, a.channels}, a.sum == ChannelArgs::Both ? 2 : 1,
                     stream);
}

int channel_apply(const ChannelArgs& args, void* stream) {
  int64_t n = args.outer * args.channels * args.inner;
  if (n == 0) return cudaSuccess;
  ChannelArgs a = args;
  a.aligned = on_vectors(a.x) && on_vectors(a.out) && on_vectors(a.g);
  int64_t per_block = a.aligned ? int64_t(kThreads) * kVec : kThreads;
  return launch(reinterpret_cast<Kernel>(&apply_kernel), dim3(grid_of((n + per_block - 1) / per_block, 65535)),
                dim3(kThreads), stream, a);
}

int group_norm(const GroupArgs& args, void* stream) {
  return launch_groups(reinterpret_cast<Kernel>(&group_kernel), args, stream);
}
int group_norm_pull(const GroupArgs& args, void* stream) {
  return launch_groups(reinterpret_cast<Kernel>(&group_pull_kernel), args, stream);
}

}  // namespace pb::cuda
