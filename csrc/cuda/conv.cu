// Convolutions as products of matrices that are never made: the loaders read elements of patches in place.
//
//   forward       y[o, pixel]  = sum over taps (c, ky, kx) of weight[o, tap] x[tap at pixel]
//   input_grad    dx[c, pixel] = sum over taps (o, ky, kx) of weight[tap, c] g[tap at pixel], where the stride hits one
//   weight_grad   dw[o, tap]   = sum over output pixels of all images of g[o, pixel] x[tap at pixel]
#include "cuda/api_conv.h"
#include "cuda/tile.h"

namespace pb::cuda {

namespace {

using T = SmallTile;

struct Geometry {
  int n, groups, c, o, h, w, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw;
  Divisor area, row, out_plane, out_row, in_plane, in_row, down, right;  // kernel, planes, strides
};
struct Call {
  ConvArgs g;
  Geometry q;
  Walk walk_weight;
  int64_t m, n, k;  // of the product of one group
  Parts parts;
};

PB_DEVICE uint32_t raw_at(const char* p, Type t, int64_t i) {
  return t == Type::F32 ? reinterpret_cast<const uint32_t*>(p)[i] : reinterpret_cast<const uint16_t*>(p)[i];
}
PB_DEVICE const char* moved(const void* p, Type t, int64_t i) {
  return static_cast<const char*>(p) + i * (t == Type::F32 ? 4 : 2);
}

// A pixel of one plane of one image.
struct Pixel {
  int image, y, x;
};
PB_DEVICE Pixel pixel_of(int index, const Divisor& plane, const Divisor& row) {
  int image = plane.divide(index), rest = index - image * int(plane.d), y = row.divide(rest);
  return {image, y, rest - y * int(row.d)};
}
// A tap of the kernel on one of the channels.
struct Tap {
  int channel, y, x;
  PB_DEVICE void next(const Geometry& q) {
    if (++x < q.kw) return;
    x = 0;
    if (++y < q.kh) return;
    y = 0, channel++;
  }
};
PB_DEVICE Tap tap_of(int index, const Geometry& q) {
  int channel = q.area.divide(index), rest = index - channel * q.kh * q.kw, y = q.row.divide(rest);
  return {channel, y, rest - y * q.kw};
}
PB_DEVICE bool inside(int i, int n) { return unsigned(i) < unsigned(n); }

// Lines: output pixels, steps: taps, elements of x.
struct PatchLoad {
  const char* x;  // of the group
  Type type;
  const Geometry& q;
  int pixels;
  static constexpr Walk walk = Walk::OneLine;

  struct State {
    const char* from;
    int y, x;  // of the first tap
    bool there;
  };
  PB_DEVICE State state(const Spot& s, int64_t line0) const {
    int line = int(line0) + s.line;
    bool there = line < pixels;
    Pixel p = pixel_of(there ? line : 0, q.out_plane, q.out_row);
    return {moved(x, type, int64_t(p.image) * q.groups * q.c * q.h * q.w), p.y * q.sh - q.ph, p.x * q.sw - q.pw, there};
  }
  PB_DEVICE void fetch(const State& st, const Spot& s, int64_t step, int64_t end, Eight& v) const {
    int k = int(step) + s.step, last = int(end);
    Tap t = tap_of(k, q);
    v.packed = false;
#pragma unroll
    for (int e = 0; e < 8; e++, t.next(q)) {
      int iy = st.y + t.y * q.dh, ix = st.x + t.x * q.dw;
      bool ok = st.there && k + e < last && inside(iy, q.h) && inside(ix, q.w);
      v.raw[e] = ok ? raw_at(st.from, type, (t.channel * q.h + iy) * q.w + ix) : 0u;
    }
  }
};

// Lines: input pixels, steps: taps, elements of g that the tap carries to the pixel.
struct SpreadLoad {
  const char* g;
  Type type;
  const Geometry& q;
  int pixels;
  static constexpr Walk walk = Walk::OneLine;

  struct State {
    const char* from;
    int y, x;
    bool there;
  };
  PB_DEVICE State state(const Spot& s, int64_t line0) const {
    int line = int(line0) + s.line;
    bool there = line < pixels;
    Pixel p = pixel_of(there ? line : 0, q.in_plane, q.in_row);
    return {moved(g, type, int64_t(p.image) * q.groups * q.o * q.oh * q.ow), p.y + q.ph, p.x + q.pw, there};
  }
  PB_DEVICE void fetch(const State& st, const Spot& s, int64_t step, int64_t end, Eight& v) const {
    int k = int(step) + s.step, last = int(end);
    Tap t = tap_of(k, q);
    v.packed = false;
#pragma unroll
    for (int e = 0; e < 8; e++, t.next(q)) {
      int down = st.y - t.y * q.dh, right = st.x - t.x * q.dw;
      bool ok = st.there && k + e < last && down >= 0 && right >= 0;
      int oy = ok ? q.down.divide(down) : 0, ox = ok ? q.right.divide(right) : 0;
      ok = ok && oy * q.sh == down && ox * q.sw == right && oy < q.oh && ox < q.ow;
      v.raw[e] = ok ? raw_at(st.from, type, (t.channel * q.oh + oy) * q.ow + ox) : 0u;
    }
  }
};

// Lines: input channels, steps: taps (o, ky, kx), elements of the weight.
struct TurnedLoad {
  const char* weight;
  Type type;
  const Geometry& q;
  static constexpr Walk walk = Walk::OneLine;

  struct State {
    int channel;
  };
  PB_DEVICE State state(const Spot& s, int64_t line0) const { return {int(line0) + s.line}; }
  PB_DEVICE void fetch(const State& st, const Spot& s, int64_t step, int64_t end, Eight& v) const {
    int k = int(step) + s.step, last = int(end);
    Tap t = tap_of(k, q);
    v.packed = false;
#pragma unroll
    for (int e = 0; e < 8; e++, t.next(q)) {
      bool ok = st.channel < q.c && k + e < last;
      int64_t at = (int64_t(t.channel) * q.c + st.channel) * (q.kh * q.kw) + t.y * q.kw + t.x;
      v.raw[e] = ok ? raw_at(weight, type, at) : 0u;
    }
  }
};

// Lines: output channels, steps: output pixels of all images, elements of g.
struct GradLoad {
  const char* g;
  Type type;
  const Geometry& q;
  static constexpr Walk walk = Walk::Steps;

  struct State {
    int channel;
  };
  PB_DEVICE State state(const Spot& s, int64_t line0) const { return {int(line0) + s.line}; }
  PB_DEVICE void fetch(const State& st, const Spot& s, int64_t step, int64_t end, Eight& v) const {
    int index = int(step) + s.step, plane = q.oh * q.ow;
    bool there = index < end;
    int image = q.out_plane.divide(there ? index : 0);
    const char* from = moved(g, type, (int64_t(image) * q.groups * q.o + st.channel) * plane + (index - image * plane));
    unsigned mask = 0;
#pragma unroll
    for (int e = 0; e < 8; e++) mask |= unsigned(there && st.channel + e * s.lines < q.o) << e;
    gather8(from, type, int64_t(s.lines) * plane * (type == Type::F32 ? 4 : 2), mask, v);
  }
};

// Lines: taps, steps: output pixels of all images, elements of x.
struct TapLoad {
  const char* x;
  Type type;
  const Geometry& q;
  int taps;
  static constexpr Walk walk = Walk::Steps;

  struct State {
    int at[8];       // in the planes of one image
    uint32_t yx[8];  // rows and columns from the first tap
    unsigned there;
  };
  PB_DEVICE State state(const Spot& s, int64_t line0) const {
    State r{};
#pragma unroll
    for (int e = 0; e < 8; e++) {
      int line = int(line0) + s.line + e * s.lines;
      Tap t = tap_of(line < taps ? line : 0, q);
      r.at[e] = (t.channel * q.h + t.y * q.dh) * q.w + t.x * q.dw;
      r.yx[e] = uint32_t(t.y * q.dh) << 16 | uint32_t(t.x * q.dw);
      r.there |= unsigned(line < taps) << e;
    }
    return r;
  }
  PB_DEVICE void fetch(const State& st, const Spot& s, int64_t step, int64_t end, Eight& v) const {
    int index = int(step) + s.step;
    bool there = index < end;
    Pixel p = pixel_of(there ? index : 0, q.out_plane, q.out_row);
    const char* from = moved(x, type, int64_t(p.image) * q.groups * q.c * q.h * q.w);
    int y = p.y * q.sh - q.ph, left = p.x * q.sw - q.pw, at = y * q.w + left;
    v.packed = false;
#pragma unroll
    for (int e = 0; e < 8; e++) {
      bool ok = there && (st.there >> e & 1) && inside(y + int(st.yx[e] >> 16), q.h) &&
                inside(left + int(st.yx[e] & 0xffffu), q.w);
      v.raw[e] = ok ? raw_at(from, type, at + st.at[e]) : 0u;
    }
  }
};

// Where the sums of four neighbouring pixels go: planes of `channels`, `group` of them further for the group.
PB_DEVICE void store_pixels(const Call& c, const Divisor& plane, int channels, int group, int64_t m0, int64_t n0,
                            const float (&acc)[T::kRows][T::kCols]) {
  int64_t at[T::kCols];
#pragma unroll
  for (int j = 0; j < T::kCols; j++) {
    int col = int(n0) + col_of<T>(j), image = plane.divide(col < c.n ? col : 0);
    at[j] = (int64_t(image) * c.q.groups + group) * channels * int64_t(plane.d) + (col - image * int(plane.d));
  }
#pragma unroll
  for (int i = 0; i < T::kRows; i++) {
    int row = int(m0) + row_of<T>(i);
    if (row >= channels) continue;
    float bias = c.g.bias ? load_one(c.g.bias, c.g.bias_type, group * channels + row) : 0.0f;
#pragma unroll
    for (int j = 0; j < T::kCols; j++)
      if (n0 + col_of<T>(j) < c.n) store_one(c.g.out, c.g.out_type, at[j] + int64_t(row) * plane.d, acc[i][j] + bias);
  }
}

PB_DEVICE void place_of(const Call& c, int& group, int64_t& m0, int64_t& n0) {
  int64_t rows = (c.m + T::kLines - 1) / T::kLines, cols = (c.n + T::kLines - 1) / T::kLines;
  int64_t index = blockIdx.x, tile = index % (rows * cols);
  group = int(index / (rows * cols));
  m0 = tile % rows * T::kLines;
  n0 = tile / rows * T::kLines;
}

__global__ void __launch_bounds__(T::kTileThreads, 4) forward_kernel(const __grid_constant__ Call c) {
  const Geometry& q = c.q;
  int group;
  int64_t m0, n0;
  place_of(c, group, m0, n0);
  int64_t item = c.g.weight_type == Type::F32 ? 4 : 2;
  DenseLoad a{
      moved(c.g.weight, c.g.weight_type, group * c.m * c.k), c.g.weight_type, c.walk_weight, c.k * item, item, c.m};
  PatchLoad b{moved(c.g.x, c.g.x_type, int64_t(group) * q.c * q.h * q.w), c.g.x_type, q, int(c.n)};
  float acc[T::kRows][T::kCols];
  multiply<T>(a, b, m0, n0, 0, c.k, acc);
  store_pixels(c, q.out_plane, q.o, group, m0, n0, acc);
}

__global__ void __launch_bounds__(T::kTileThreads, 4) input_grad_kernel(const __grid_constant__ Call c) {
  const Geometry& q = c.q;
  int group;
  int64_t m0, n0;
  place_of(c, group, m0, n0);
  TurnedLoad a{moved(c.g.weight, c.g.weight_type, group * c.m * c.k), c.g.weight_type, q};
  SpreadLoad b{moved(c.g.g, c.g.g_type, int64_t(group) * q.o * q.oh * q.ow), c.g.g_type, q, int(c.n)};
  float acc[T::kRows][T::kCols];
  multiply<T>(a, b, m0, n0, 0, c.k, acc);
  store_pixels(c, q.in_plane, q.c, group, m0, n0, acc);
}

__global__ void __launch_bounds__(T::kTileThreads, 4) weight_grad_kernel(const __grid_constant__ Call c) {
  const Geometry& q = c.q;
  int group;
  int64_t m0, n0;
  place_of(c, group, m0, n0);
  int64_t k0 = blockIdx.y * c.parts.length, k1 = k0 + c.parts.length < c.k ? k0 + c.parts.length : c.k;
  GradLoad a{moved(c.g.g, c.g.g_type, int64_t(group) * q.o * q.oh * q.ow), c.g.g_type, q};
  TapLoad b{moved(c.g.x, c.g.x_type, int64_t(group) * q.c * q.h * q.w), c.g.x_type, q, int(c.n)};
  float acc[T::kRows][T::kCols];
  multiply<T>(a, b, m0, n0, k0, k1, acc);
  bool whole = c.parts.count == 1;
  int64_t base = ((whole ? 0 : int64_t(blockIdx.y)) * q.groups + group) * c.m * c.n;
#pragma unroll
  for (int i = 0; i < T::kRows; i++)
#pragma unroll
    for (int j = 0; j < T::kCols; j++) {
      int64_t row = m0 + row_of<T>(i), col = n0 + col_of<T>(j), at = base + row * c.n + col;
      if (row >= c.m || col >= c.n) continue;
      if (whole)
        store_one(c.g.out, c.g.out_type, at, acc[i][j]);
      else
        static_cast<float*>(c.g.scratch)[at] = acc[i][j];
    }
}

// Note [Parts of a sum]
__global__ void __launch_bounds__(kThreads) join_kernel(const __grid_constant__ Call c) {
  int64_t all = c.q.groups * c.m * c.n, threads = int64_t(gridDim.x) * kThreads;
  auto* part = static_cast<const float*>(c.g.scratch);
#pragma unroll 1
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < all; i += threads) {
    float v = 0.0f;
#pragma unroll 4
    for (int p = 0; p < c.parts.count; p++) v += part[p * all + i];
    store_one(c.g.out, c.g.out_type, i, v);
  }
}

// ---- the host's part

// Sizes that the kernels count with 32 bits; false where one does not fit.
bool geometry_of(const ConvShape& s, Geometry& q) {
  constexpr int64_t kMost = INT32_MAX / 2;
  for (int64_t v : {s.n, s.groups, s.c, s.o, s.h, s.w, s.oh, s.ow, s.kh, s.kw, s.sh, s.sw, s.ph, s.pw, s.dh, s.dw})
    if (v > kMost) return false;
  auto small = [](__int128 v) { return v <= kMost; };
  using Big = __int128;
  if (!small(Big(s.n) * s.oh * s.ow) || !small(Big(s.n) * s.h * s.w) || !small(Big(s.c) * s.h * s.w) ||
      !small(Big(s.o) * s.oh * s.ow) || !small(Big(s.c) * s.kh * s.kw) || !small(Big(s.o) * s.kh * s.kw))
    return false;
  if ((s.kh - 1) * s.dh > 32767 || (s.kw - 1) * s.dw > 32767) return false;
  if ((s.oh - 1) * s.sh > kMost || (s.ow - 1) * s.sw > kMost) return false;
  q = {int(s.n),  int(s.groups), int(s.c),  int(s.o),  int(s.h),  int(s.w),  int(s.oh), int(s.ow),
       int(s.kh), int(s.kw),     int(s.sh), int(s.sw), int(s.ph), int(s.pw), int(s.dh), int(s.dw)};
  q.area = Divisor(s.kh * s.kw), q.row = Divisor(s.kw);
  q.out_plane = Divisor(s.oh * s.ow), q.out_row = Divisor(s.ow);
  q.in_plane = Divisor(s.h * s.w), q.in_row = Divisor(s.w);
  q.down = Divisor(s.sh), q.right = Divisor(s.sw);
  return true;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int launch_product(const void* kernel, const Call& c, void* stream) {
  int64_t blocks = c.q.groups * ceil_div(c.m, T::kLines) * ceil_div(c.n, T::kLines);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  return launch(kernel, dim3(unsigned(blocks), unsigned(c.parts.count)), dim3(T::kTileThreads), stream, c);
}

int forward(const ConvArgs& args, void* stream) {
  Call c{args, {}, Walk::Steps, args.s.o, args.s.n * args.s.oh * args.s.ow, args.s.c * args.s.kh * args.s.kw, {}};
  if (c.m == 0 || c.n == 0) return cudaSuccess;
  if (!geometry_of(args.s, c.q)) return cudaErrorInvalidValue;
  int64_t item = itemsize(args.weight_type);
  if (reinterpret_cast<uintptr_t>(args.weight) % 16 == 0 && c.k * item % 16 == 0) c.walk_weight = Walk::StepsAtOnce;
  return launch_product(reinterpret_cast<const void*>(&forward_kernel), c, stream);
}

int input_grad(const ConvArgs& args, void* stream) {
  Call c{args, {}, Walk::Steps, args.s.c, args.s.n * args.s.h * args.s.w, args.s.o * args.s.kh * args.s.kw, {}};
  c.g.bias = nullptr;
  if (c.m == 0 || c.n == 0) return cudaSuccess;
  if (args.s.oh == 0 || args.s.ow == 0) c.k = 0;
  ConvShape s = args.s;
  if (s.oh == 0) s.oh = 1;  // divisors of nothing
  if (s.ow == 0) s.ow = 1;
  if (!geometry_of(s, c.q)) return cudaErrorInvalidValue;
  return launch_product(reinterpret_cast<const void*>(&input_grad_kernel), c, stream);
}

bool weight_call(const ConvArgs& args, Call& c) {
  c = {args, {}, Walk::Steps, args.s.o, args.s.c * args.s.kh * args.s.kw, args.s.n * args.s.oh * args.s.ow, {}};
  if (c.m == 0 || c.n == 0) return true;
  ConvShape s = args.s;
  for (int64_t* v : {&s.h, &s.w, &s.oh, &s.ow})
    if (*v == 0) *v = 1;
  if (!geometry_of(s, c.q)) return false;
  c.parts = parts_of(args.s.groups * ceil_div(c.m, T::kLines) * ceil_div(c.n, T::kLines), c.k);
  return true;
}
int64_t weight_grad_scratch(const ConvArgs& args) {
  Call c;
  if (!weight_call(args, c) || c.parts.count == 1) return 0;
  return c.parts.count * args.s.groups * c.m * c.n * int64_t(sizeof(float));
}
int weight_grad(const ConvArgs& args, void* stream) {
  Call c;
  if (!weight_call(args, c)) return cudaErrorInvalidValue;
  if (c.m == 0 || c.n == 0) return cudaSuccess;
  int e = launch_product(reinterpret_cast<const void*>(&weight_grad_kernel), c, stream);
  if (e != cudaSuccess || c.parts.count == 1) return e;
  int64_t blocks = ceil_div(args.s.groups * c.m * c.n, kThreads);
  return launch(reinterpret_cast<const void*>(&join_kernel), dim3(unsigned(blocks < 65535 ? blocks : 65535)),
                dim3(kThreads), stream, c);
}

}  // namespace

const ConvApi* conv_api() {
  static const ConvApi api = {&forward, &input_grad, &weight_grad_scratch, &weight_grad};
  return &api;
}

}  // namespace pb::cuda
