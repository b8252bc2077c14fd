// Pooling: a thread makes one element of the result. Gradients are gathered too: an element of dx looks at the windows
// that it lies in, so no two threads add to one place and the order of a sum is fixed.
#include "cuda/api_pool.h"
#include "cuda/device.h"

namespace pb::cuda {

namespace {

struct Range {
  int64_t from, to;
};
PB_DEVICE int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
// Cells of window i that lie in the plane, along one axis.
PB_DEVICE Range cells_of(int64_t i, int64_t n, int64_t windows, int64_t size, int64_t stride, int64_t pad,
                         bool adaptive) {
  if (adaptive) return {i * n / windows, ((i + 1) * n + windows - 1) / windows};
  int64_t from = i * stride - pad, to = from + size;
  return {from < 0 ? 0 : from, to > n ? n : to};
}
// Windows that cell i lies in.
PB_DEVICE Range windows_of(int64_t i, int64_t n, int64_t windows, int64_t size, int64_t stride, int64_t pad,
                           bool adaptive) {
  if (adaptive) return {i * windows / n, ((i + 1) * windows + n - 1) / n};
  int64_t from = floor_div(i + pad - size, stride) + 1, to = (i + pad) / stride + 1;
  return {from < 0 ? 0 : from, to > windows ? windows : to};
}
PB_DEVICE Range rows_of(const PoolArgs& a, int64_t oy) {
  return cells_of(oy, a.s.h, a.s.oh, a.s.kh, a.s.sh, a.s.ph, a.adaptive);
}
PB_DEVICE Range columns_of(const PoolArgs& a, int64_t ox) {
  return cells_of(ox, a.s.w, a.s.ow, a.s.kw, a.s.sw, a.s.pw, a.adaptive);
}

struct Place {
  int64_t plane, y, x;
};
PB_DEVICE Place place_of(int64_t i, int64_t h, int64_t w) {
  int64_t row = i / w, plane = row / h;
  return {plane, row - plane * h, i - row * w};
}
template <class F>
PB_DEVICE void each(int64_t n, F f) {
  int64_t threads = int64_t(gridDim.x) * kThreads;
#pragma unroll 1
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += threads) f(i);
}
PB_DEVICE int64_t index_at(const PoolArgs& a, int64_t i) {
  return a.wide ? static_cast<const int32_t*>(a.index)[i] : static_cast<const uint8_t*>(a.index)[i];
}

// A NaN is the largest, the last of them is kept.
__global__ void __launch_bounds__(kThreads) max_forward_kernel(const __grid_constant__ PoolArgs a) {
  const PoolShape& s = a.s;
  each(s.planes * s.oh * s.ow, [&](int64_t i) {
    Place p = place_of(i, s.oh, s.ow);
    Range rows = rows_of(a, p.y), columns = columns_of(a, p.x);
    int64_t top = p.y * s.sh - s.ph, left = p.x * s.sw - s.pw;
    float best = -kInf<float>;
    int64_t cell = (rows.from - top) * s.kw + (columns.from - left);
#pragma unroll 1
    for (int64_t y = rows.from; y < rows.to; y++)
#pragma unroll 1
      for (int64_t x = columns.from; x < columns.to; x++) {
        float v = load_one(a.in, a.in_type, (p.plane * s.h + y) * s.w + x);
        if (v > best || v != v) best = v, cell = (y - top) * s.kw + (x - left);
      }
    store_one(a.out, a.out_type, i, best);
    if (a.index && a.wide)
      static_cast<int32_t*>(a.index)[i] = int32_t(cell);
    else if (a.index)
      static_cast<uint8_t*>(a.index)[i] = uint8_t(cell);
  });
}

__global__ void __launch_bounds__(kThreads) max_scatter_kernel(const __grid_constant__ PoolArgs a) {
  const PoolShape& s = a.s;
  each(s.planes * s.h * s.w, [&](int64_t i) {
    Place p = place_of(i, s.h, s.w);
    Range rows = windows_of(p.y, s.h, s.oh, s.kh, s.sh, s.ph, false);
    Range columns = windows_of(p.x, s.w, s.ow, s.kw, s.sw, s.pw, false);
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t oy = rows.from; oy < rows.to; oy++)
#pragma unroll 1
      for (int64_t ox = columns.from; ox < columns.to; ox++) {
        int64_t at = (p.plane * s.oh + oy) * s.ow + ox;
        int64_t cell = (p.y - (oy * s.sh - s.ph)) * s.kw + (p.x - (ox * s.sw - s.pw));
        if (index_at(a, at) == cell) sum += load_one(a.in, a.in_type, at);
      }
    store_one(a.out, a.out_type, i, sum);
  });
}

__global__ void __launch_bounds__(kThreads) max_gather_kernel(const __grid_constant__ PoolArgs a) {
  const PoolShape& s = a.s;
  each(s.planes * s.oh * s.ow, [&](int64_t i) {
    Place p = place_of(i, s.oh, s.ow);
    int64_t cell = index_at(a, i), y = p.y * s.sh - s.ph + cell / s.kw, x = p.x * s.sw - s.pw + cell % s.kw;
    store_one(a.out, a.out_type, i, load_one(a.in, a.in_type, (p.plane * s.h + y) * s.w + x));
  });
}

PB_DEVICE float divisor(const PoolArgs& a, Range rows, Range columns) {
  return a.adaptive ? float((rows.to - rows.from) * (columns.to - columns.from)) : float(a.s.kh * a.s.kw);
}

__global__ void __launch_bounds__(kThreads) mean_forward_kernel(const __grid_constant__ PoolArgs a) {
  const PoolShape& s = a.s;
  each(s.planes * s.oh * s.ow, [&](int64_t i) {
    Place p = place_of(i, s.oh, s.ow);
    Range rows = rows_of(a, p.y), columns = columns_of(a, p.x);
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t y = rows.from; y < rows.to; y++)
#pragma unroll 1
      for (int64_t x = columns.from; x < columns.to; x++)
        sum += load_one(a.in, a.in_type, (p.plane * s.h + y) * s.w + x);
    store_one(a.out, a.out_type, i, sum / divisor(a, rows, columns));
  });
}

__global__ void __launch_bounds__(kThreads) mean_pull_kernel(const __grid_constant__ PoolArgs a) {
  const PoolShape& s = a.s;
  each(s.planes * s.h * s.w, [&](int64_t i) {
    Place p = place_of(i, s.h, s.w);
    Range down = windows_of(p.y, s.h, s.oh, s.kh, s.sh, s.ph, a.adaptive);
    Range right = windows_of(p.x, s.w, s.ow, s.kw, s.sw, s.pw, a.adaptive);
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t oy = down.from; oy < down.to; oy++)
#pragma unroll 1
      for (int64_t ox = right.from; ox < right.to; ox++)
        sum += load_one(a.in, a.in_type, (p.plane * s.oh + oy) * s.ow + ox) /
               divisor(a, rows_of(a, oy), columns_of(a, ox));
    store_one(a.out, a.out_type, i, sum);
  });
}

int run(Kernel kernel, const PoolArgs& args, int64_t n, void* stream) {
  if (n <= 0) return cudaSuccess;
  int64_t blocks = (n + kThreads - 1) / kThreads;
  return launch(kernel, dim3(unsigned(blocks < 65535 ? blocks : 65535)), dim3(kThreads), stream, args);
}
int64_t results(const PoolArgs& a) { return a.s.planes * a.s.oh * a.s.ow; }
int64_t inputs(const PoolArgs& a) { return a.s.planes * a.s.h * a.s.w; }

int max_forward(const PoolArgs& a, void* stream) {
  return run(reinterpret_cast<Kernel>(&max_forward_kernel), a, results(a), stream);
}
int max_scatter(const PoolArgs& a, void* stream) {
  return run(reinterpret_cast<Kernel>(&max_scatter_kernel), a, inputs(a), stream);
}
int max_gather(const PoolArgs& a, void* stream) {
  return run(reinterpret_cast<Kernel>(&max_gather_kernel), a, results(a), stream);
}
int mean_forward(const PoolArgs& a, void* stream) {
  return run(reinterpret_cast<Kernel>(&mean_forward_kernel), a, results(a), stream);
}
int mean_pull(const PoolArgs& a, void* stream) {
  return run(reinterpret_cast<Kernel>(&mean_pull_kernel), a, inputs(a), stream);
}

}  // namespace

const PoolApi* pool_api() {
  static const PoolApi api = {&max_forward, &max_scatter, &max_gather, &mean_forward, &mean_pull};
  return &api;
}

}  // namespace pb::cuda
