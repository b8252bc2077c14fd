// Cross entropy of integer targets: one read of the logits for the loss, a second, from cache where the row fits, for
// its derivative.
#include "cuda/api_loss.h"
#include "cuda/fault.h"
#include "cuda/row_lanes.h"

namespace pb::cuda {

namespace {

constexpr int kTotals = kThreads;  // blocks that share the sum of weights, at most

PB_DEVICE double sum_block(double v, double* shared) {
  return merge_lanes(v, kThreads, shared, [](double a, double b) { return a + b; });
}

__global__ void __launch_bounds__(kThreads) target_kernel(const __grid_constant__ TargetArgs a) {
  PB_SHARED(double, shared, [kThreads / kWarp]);
  double total = 0.0;
  each_index(a.count, [&](int64_t i) {
    int64_t t = load_integer(a.in, a.type, i);
    bool counts = !(a.has_ignored && t == a.ignored);
    if (counts && (t < 0 || t >= a.classes)) {
      tell(a.fault, {1, true, a.type == Type::U64, a.op, t, i, 0, a.classes});
      counts = false;
    }
    a.out[i] = counts ? t : -1;
    if (counts) total += a.weight ? double(a.weight[t]) : 1.0;
  });
  total = sum_block(total, shared);
  if (threadIdx.x == 0) a.partial[blockIdx.x] = total;
}
__global__ void __launch_bounds__(kThreads) total_kernel(const __grid_constant__ TargetArgs a) {
  PB_SHARED(double, shared, [kThreads / kWarp]);
  double total = sum_block(int(threadIdx.x) < a.blocks ? a.partial[threadIdx.x] : 0.0, shared);
  if (threadIdx.x == 0) *a.total = float(total);
}

// The largest of some numbers and the sum of exp(x - largest). Before any finite number the sum is 0, or NaN.
struct Exps {
  float top, sum;
};
PB_DEVICE Exps shuffle(Exps e, int w) { return {cuda::shuffle(e.top, w), cuda::shuffle(e.sum, w)}; }
PB_DEVICE float moved(const Exps& e, float top) { return e.top == -kInf<float> ? e.sum : e.sum * exp(e.top - top); }
PB_DEVICE Exps joined(const Exps& a, const Exps& b) {
  float top = b.top > a.top ? b.top : a.top;
  return {top, moved(a, top) + moved(b, top)};
}
template <int N>
PB_DEVICE void add(Exps& e, const float (&x)[N]) {
  float top = e.top;
#pragma unroll
  for (int j = 0; j < N; j++) top = x[j] > top ? x[j] : top;
  float sum = top > e.top ? moved(e, top) : e.sum;
  const bool none = top == -kInf<float>;  // only -inf, which adds nothing, and NaN, which stays
#pragma unroll
  for (int j = 0; j < N; j++) sum += none ? (x[j] == x[j] ? 0.0f : x[j]) : exp(x[j] - top);
  e = {top, sum};
}

__global__ void __launch_bounds__(kWidest) cross_entropy_kernel(const __grid_constant__ CrossEntropyArgs a) {
  PB_SHARED(Exps, shared, [kWidest / kWarp]);
  PB_SHARED(float, spreads, [kWidest / kWarp]);
  const int slots = int(blockDim.x) / a.lanes, lane = int(threadIdx.x) % a.lanes;
#pragma unroll 1
  for (int64_t first = int64_t(blockIdx.x) * slots; first < a.rows; first += int64_t(gridDim.x) * slots) {
    int64_t row = first + int(threadIdx.x) / a.lanes;
    const bool live = row < a.rows;  // the others read the last row again
    if (!live) row = a.rows - 1;
    const int64_t base = row * a.n, t = a.target[row];
    const bool counts = t >= 0;
    Exps e{-kInf<float>, 0.0f};
    if (counts)
      walk_row(
          base, a.n, a.aligned, lane, a.lanes,
          [&](int64_t i) {
            float x[kVec];
            load8(a.x, a.x_type, base + i, x);
            add(e, x);
          },
          [&](int64_t i) {
            float x[1] = {load1(a.x, a.x_type, base + i)};
            add(e, x);
          });
    e = merge_lanes(e, a.lanes, shared, [](const Exps& p, const Exps& q) { return joined(p, q); });
    // log(sum) - (x[t] - top): large logits cancel without loss.
    const float rest = log(e.sum), lse = rest + e.top, w = a.weight && counts ? a.weight[t] : 1.0f, hit = a.hit * w;
    const float all = hit + a.even * (a.all_weight ? *a.all_weight : float(a.n));
    float spread = 0.0f;
    auto weight = [&](int64_t i) { return a.weight ? a.weight[i] : 1.0f; };
    auto slope = [&](float x, int64_t i) {
      float even = a.even * weight(i);
      if (a.even != 0.0f) spread += weight(i) * (lse - x);
      float g = all * exp(x - lse) - even;
      return counts ? (i == t ? g - hit : g) : 0.0f;
    };
    const bool writes = live && a.slope;
    if (writes || a.even != 0.0f)
      walk_row(
          base, a.n, a.aligned, lane, a.lanes,
          [&](int64_t i) {
            float x[kVec];
            load8(a.x, a.x_type, base + i, x);
#pragma unroll
            for (int j = 0; j < kVec; j++) x[j] = slope(x[j], i + j);
            if (writes) store8(a.slope, a.slope_type, base + i, x);
          },
          [&](int64_t i) {
            float g = slope(load1(a.x, a.x_type, base + i), i);
            if (writes) store1(a.slope, a.slope_type, base + i, g);
          });
    if (a.even != 0.0f) spread = fold_lanes<Fold::Sum>(spread, a.lanes, spreads);
    if (live && lane == 0) {
      float x = counts ? load1(a.x, a.x_type, base + t) : 0.0f;
      float loss = (rest - (x - e.top)) * hit;
      a.loss[row] = !counts ? 0.0f : a.even == 0.0f ? loss : loss + a.even * spread;
    }
  }
}

// Rows of eight or more stay in one row or pass to the next within a group: at most one division per group.
__global__ void __launch_bounds__(kThreads) scale_kernel(const __grid_constant__ ScaleRowsArgs a) {
  walk_row(
      0, a.rows * a.n, a.aligned, int(blockIdx.x * kThreads + threadIdx.x), int(gridDim.x * kThreads),
      [&](int64_t i) {
        float x[kVec];
        load8(a.x, a.x_type, i, x);
        int64_t row = i / a.n, inside = i - row * a.n;
        float g = a.g[row * a.g_step];
#pragma unroll
        for (int j = 0; j < kVec; j++) {
          if (inside == a.n) {
            inside = 0;
            g = a.g[++row * a.g_step];
          }
          x[j] *= g;
          inside++;
        }
        store8(a.out, a.out_type, i, x);
      },
      [&](int64_t i) { store1(a.out, a.out_type, i, load1(a.x, a.x_type, i) * a.g[i / a.n * a.g_step]); });
}

unsigned total_blocks(int64_t count) { return grid_of((count + 4 * kThreads - 1) / (4 * kThreads), kTotals); }
int64_t target_scratch(int64_t count) { return total_blocks(count); }

int launch_targets(const TargetArgs& args, void* stream) {
  if (args.count == 0) return cudaMemsetAsync(args.total, 0, sizeof(float), static_cast<cudaStream_t>(stream));
  TargetArgs a = args;
  unsigned blocks = total_blocks(a.count);
  a.blocks = int(blocks);
  cudaError_t e = launch(reinterpret_cast<Kernel>(&target_kernel), dim3(blocks), dim3(kThreads), stream, a);
  if (e != cudaSuccess) return e;
  return launch(reinterpret_cast<Kernel>(&total_kernel), dim3(1), dim3(kThreads), stream, a);
}

int launch_cross_entropy(const CrossEntropyArgs& args, void* stream) {
  if (args.rows == 0) return cudaSuccess;
  CrossEntropyArgs a = args;
  a.aligned = on_vectors(a.x) && on_vectors(a.slope);
  a.lanes = a.n <= 2048 ? short_lanes(a.n) : a.n <= 16384 ? kThreads : kWidest;
  int threads = a.lanes < kThreads ? kThreads : a.lanes;
  int64_t slots = threads / a.lanes;
  return launch(reinterpret_cast<Kernel>(&cross_entropy_kernel), dim3(grid_of((a.rows + slots - 1) / slots)),
                dim3(unsigned(threads)), stream, a);
}

int launch_scale(const ScaleRowsArgs& args, void* stream) {
  int64_t n = args.rows * args.n;
  if (n == 0) return cudaSuccess;
  ScaleRowsArgs a = args;
  a.aligned = on_vectors(a.x) && on_vectors(a.out);
  int64_t per_block = a.aligned ? int64_t(kThreads) * kVec : kThreads;
  return launch(reinterpret_cast<Kernel>(&scale_kernel), dim3(grid_of((n + per_block - 1) / per_block, 65535)),
                dim3(kThreads), stream, a);
}

}  // namespace

const LossApi* loss_api() {
  static const LossApi api{&launch_targets, &target_scratch, &launch_cross_entropy, &launch_scale};
  return &api;
}

}  // namespace pb::cuda
