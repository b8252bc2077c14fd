#include "families/pool.h"

#include <memory>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/pool_table.h"
#include "cuda/calls.h"
#include "families/map.h"
#include "families/view.h"
#include "fewbit/codec.h"
#include "tensor/profile.h"

namespace pb {

namespace {

const PoolKernels& kernels() {
  static const PoolKernels& k = *static_cast<const PoolKernels*>(isa_table("pool"));
  return k;
}

constexpr int64_t kLargest = int64_t(1) << 30;

void check_input(const char* op, const Tensor& x) {
  if (x.ndim() != 3 && x.ndim() != 4)
    fail<ShapeError>(op, "the input must have 3 or 4 dimensions, (channels, height, width) or with a batch axis",
                     "reshape the input", x);
  if (!is_float(x.dtype())) fail<DTypeError>(op, "the input must be a float", "cast it with .astype(pb.float32)", x);
}

void check_planes(const char* op, const Tensor& x) {
  if (x.shape()[x.ndim() - 2] < 1 || x.shape().back() < 1)
    fail<ShapeError>(op, "the planes of the input are empty", "height and width must be at least 1", x);
}

void check_windows(const char* op, const Tensor& x, Pair size, Pair stride, Pair padding) {
  check_input(op, x);
  check_planes(op, x);
  for (int i = 0; i < 2; i++) {
    if (size[i] < 1 || stride[i] < 1 || size[i] > kLargest || stride[i] > kLargest)
      fail<ValueError>(op,
                       "size and stride must be at least 1 and at most 2**30, got " + std::to_string(size[i]) +
                           " and " + std::to_string(stride[i]),
                       "give an int or a pair of ints (height, width)", x);
    if (padding[i] < 0 || padding[i] > size[i] / 2)
      fail<ValueError>(op,
                       "padding must be at least 0 and at most half of the window, got " + std::to_string(padding[i]),
                       "pad the input with pb.pad for more", x);
    if (x.shape()[x.ndim() - 2 + i] + 2 * padding[i] < size[i])
      fail<ShapeError>(
          op,
          "the window " + std::to_string(size[0]) + "x" + std::to_string(size[1]) + " is larger than the padded input",
          "use a smaller window or more padding", x);
  }
}

int64_t planes_of(const Shape& s) { return s.size() == 4 ? s[0] * s[1] : s[0]; }
int64_t height(const Shape& s) { return s[s.size() - 2]; }
Shape resized(Shape s, int64_t h, int64_t w) {
  s[s.size() - 2] = h;
  s[s.size() - 1] = w;
  return s;
}
Tensor staged(const Tensor& t, Compute c) { return contiguous(cast(detach(t), dtype_of(c))); }

// ---- max: forward finds the cells, afterwards everything is gather and scatter by the kept index

PoolShape pool_shape(const Shape& x, Pair size, Pair stride, Pair padding) {
  PoolShape s;
  s.planes = planes_of(x), s.h = height(x), s.w = x.back();
  s.kh = size[0], s.kw = size[1], s.sh = stride[0], s.sw = stride[1], s.ph = padding[0], s.pw = padding[1];
  s.oh = (s.h + 2 * s.ph - s.kh) / s.sh + 1;
  s.ow = (s.w + 2 * s.pw - s.kw) / s.sw + 1;
  return s;
}
int wide_index(const PoolShape& s) { return s.kh * s.kw > 256; }

Tensor scatter(const Tensor& g, const Tensor& index, const PoolShape& s);

Tensor gather(const Tensor& x, const Tensor& index, const PoolShape& s) {
  Tensor y;
  {
    GradMode off(false);
    if (on_cuda(x)) {
      y = empty(index.shape(), x.dtype(), x.device());
      cuda::pool(cuda::Pool::MaxGather, y, x, index, s);
    } else {
      Compute c = compute_of(x.dtype());
      Tensor wide = empty(index.shape(), dtype_of(c)), from = staged(x, c);
      if (wide.size()) kernels().max_gather[int(c)][wide_index(s)](wide.raw(), from.raw(), index.raw(), s);
      y = cast(wide, x.dtype());
    }
  }
  record("max_pool2d_gather", {x}, y, {Saved(index)},
         [s](const Slots& slots, const PullArgs& a) { a.gin[0] = scatter(a.g[0], slots[0], s); });
  push_forward({x}, y, [&](const Tensor*, const Tensor* t, const Tensor&) { return gather(t[0], index, s); });
  return y;
}

Tensor scatter(const Tensor& g0, const Tensor& index, const PoolShape& s) {
  Tensor g = broadcast_to(g0, index.shape()), dx;
  {
    GradMode off(false);
    Shape shape = resized(index.shape(), s.h, s.w);
    if (on_cuda(g)) {
      dx = empty(shape, g.dtype(), g.device());
      cuda::pool(cuda::Pool::MaxScatter, dx, g, index, s);
    } else {
      Compute c = compute_of(g.dtype());
      Tensor wide = empty(shape, dtype_of(c)), from = staged(g, c);
      if (wide.size()) kernels().max_scatter[int(c)][wide_index(s)](wide.raw(), from.raw(), index.raw(), s);
      dx = cast(wide, g.dtype());
    }
  }
  record("max_pool2d_scatter", {g}, dx, {Saved(index)}, [s](const Slots& slots, const PullArgs& a) {
    Tensor index = slots[0];
    a.gin[0] = gather(broadcast_to(a.g[0], resized(index.shape(), s.h, s.w)), index, s);
  });
  push_forward({g}, dx, [&](const Tensor*, const Tensor* t, const Tensor&) { return scatter(t[0], index, s); });
  return dx;
}

// The cell of a window as ceil(log2(kh * kw)) bits.
class PackedIndex final : public Late {
 public:
  PackedIndex(const Shape& shape, int bits) : shape_(shape), bits_(bits) {}
  Tensor get(const Tensor& words, const char*) const override {
    Tensor codes = unpack_codes(words, bits_, count(shape_));
    return alias(codes, shape_, contiguous_strides(shape_), 0);
  }
  const char* scheme() const override { return "index"; }

 private:
  Shape shape_;
  int bits_;
};

Saved keep_index(const Tensor& index, const PoolShape& s) {
  int bits = 0;
  while ((int64_t(1) << bits) < s.kh * s.kw) bits++;
  if (bits == 0 || bits > 7 || index.size() < 32) return Saved(index);
  return Saved::packed(pack_bytes(index, bits), std::make_shared<PackedIndex>(index.shape(), bits));
}

// ---- averages: one linear map and its transpose

using Ends = std::vector<int64_t>;
struct Windows {
  Ends y0, y1, x0, x1;
  int64_t h, w, count;  // count 0: each window's own number of cells
  PoolShape shape;      // the same for a device, which computes the ends
};
using WindowsPtr = std::shared_ptr<const Windows>;

template <class F>
Ends ends(int64_t out, F f) {
  Ends e(static_cast<size_t>(out));
  for (int64_t i = 0; i < out; i++) e[size_t(i)] = f(i);
  return e;
}

MeanShape mean_shape(int64_t planes, const Windows& w) {
  MeanShape s;
  s.planes = planes, s.h = w.h, s.w = w.w, s.oh = int64_t(w.y0.size()), s.ow = int64_t(w.x0.size()), s.count = w.count;
  s.y0 = w.y0.data(), s.y1 = w.y1.data(), s.x0 = w.x0.data(), s.x1 = w.x1.data();
  return s;
}

Tensor mean_on_device(cuda::Pool kind, const Tensor& in, const Shape& shape, const Windows& w) {
  Tensor out = empty(shape, in.dtype(), in.device());
  PoolShape s = w.shape;
  s.planes = planes_of(shape);
  cuda::pool(kind, out, in, Tensor(), s, w.count == 0);
  return out;
}

Tensor mean_pull(const char* op, const Tensor& g, const WindowsPtr& w);

Tensor mean_forward(const char* op, const Tensor& x0, const WindowsPtr& w) {
  Tensor x = x0, y;
  Shape shape = resized(x.shape(), int64_t(w->y0.size()), int64_t(w->x0.size()));
  {
    GradMode off(false);
    if (on_cuda(x)) {
      y = mean_on_device(cuda::Pool::MeanForward, x, shape, *w);
    } else {
      Compute c = compute_of(x.dtype());
      Tensor wide = empty(shape, dtype_of(c)), from = staged(x, c);
      if (wide.size()) kernels().mean_forward[int(c)](wide.raw(), from.raw(), mean_shape(planes_of(shape), *w));
      y = cast(wide, x.dtype());
    }
  }
  record(op, {x}, y, [op, w, shape](const PullArgs& a) { a.gin[0] = mean_pull(op, broadcast_to(a.g[0], shape), w); });
  push_forward({x}, y, [&](const Tensor*, const Tensor* t, const Tensor&) { return mean_forward(op, t[0], w); });
  return y;
}

Tensor mean_pull(const char* op, const Tensor& g, const WindowsPtr& w) {
  Tensor dx;
  Shape shape = resized(g.shape(), w->h, w->w);
  {
    GradMode off(false);
    if (on_cuda(g)) {
      dx = mean_on_device(cuda::Pool::MeanPull, g, shape, *w);
    } else {
      Compute c = compute_of(g.dtype());
      Tensor wide = empty(shape, dtype_of(c)), from = staged(g, c);
      if (wide.size()) kernels().mean_pull[int(c)](wide.raw(), from.raw(), mean_shape(planes_of(shape), *w));
      dx = cast(wide, g.dtype());
    }
  }
  record(op, {g}, dx,
         [op, w, shape](const PullArgs& a) { a.gin[0] = mean_forward(op, broadcast_to(a.g[0], shape), w); });
  push_forward({g}, dx, [&](const Tensor*, const Tensor* t, const Tensor&) { return mean_pull(op, t[0], w); });
  return dx;
}

}  // namespace

Tensor max_pool2d(const Tensor& x, Pair size, Pair stride, Pair padding) {
  Profiled scope("max_pool2d");
  check_windows("max_pool2d", x, size, stride, padding);
  PoolShape s = pool_shape(x.shape(), size, stride, padding);
  bool keeps = any_wants(x) || has_tangent(x);
  Tensor y, index;
  {
    GradMode off(false);
    Shape shape = resized(x.shape(), s.oh, s.ow);
    if (keeps) index = empty(shape, wide_index(s) ? DType::I32 : DType::U8, x.device());
    if (on_cuda(x)) {
      y = empty(shape, x.dtype(), x.device());
      cuda::pool(cuda::Pool::MaxForward, y, x, index, s);
    } else {
      Compute c = compute_of(x.dtype());
      Tensor wide = empty(shape, dtype_of(c)), from = staged(x, c);
      if (wide.size())
        kernels().max_forward[int(c)][wide_index(s)](wide.raw(), keeps ? index.raw() : nullptr, from.raw(), s);
      y = cast(wide, x.dtype());
    }
  }
  if (!keeps) return y;
  Saved kept = any_wants(x) ? keep_index(index, s) : Saved();
  record("max_pool2d", {x}, y, {kept},
         [s](const Slots& slots, const PullArgs& a) { a.gin[0] = scatter(a.g[0], slots[0], s); });
  push_forward({x}, y, [&](const Tensor*, const Tensor* t, const Tensor&) { return gather(t[0], index, s); });
  return y;
}

Tensor avg_pool2d(const Tensor& x, Pair size, Pair stride, Pair padding) {
  Profiled scope("avg_pool2d");
  check_windows("avg_pool2d", x, size, stride, padding);
  PoolShape s = pool_shape(x.shape(), size, stride, padding);
  auto clamp = [](int64_t v, int64_t n) { return v < 0 ? 0 : v > n ? n : v; };
  auto w = std::make_shared<Windows>();
  w->h = s.h, w->w = s.w, w->count = s.kh * s.kw;
  w->shape = s;
  w->y0 = ends(s.oh, [&](int64_t i) { return clamp(i * s.sh - s.ph, s.h); });
  w->y1 = ends(s.oh, [&](int64_t i) { return clamp(i * s.sh - s.ph + s.kh, s.h); });
  w->x0 = ends(s.ow, [&](int64_t i) { return clamp(i * s.sw - s.pw, s.w); });
  w->x1 = ends(s.ow, [&](int64_t i) { return clamp(i * s.sw - s.pw + s.kw, s.w); });
  return mean_forward("avg_pool2d", x, w);
}

Tensor adaptive_avg_pool2d(const Tensor& x, Pair size) {
  Profiled scope("adaptive_avg_pool2d");
  const char* op = "adaptive_avg_pool2d";
  check_input(op, x);
  int64_t h = height(x.shape()), wide = x.shape().back();
  for (int64_t v : size)
    if (v < 1 || v > kLargest)
      fail<ValueError>(op, "size must be at least 1, got " + std::to_string(v),
                       "give an int or a pair of ints (height, width)", x);
  check_planes(op, x);
  auto w = std::make_shared<Windows>();
  w->h = h, w->w = wide, w->count = 0;
  w->shape.h = h, w->shape.w = wide, w->shape.oh = size[0], w->shape.ow = size[1];
  w->y0 = ends(size[0], [&](int64_t i) { return i * h / size[0]; });
  w->y1 = ends(size[0], [&](int64_t i) { return ((i + 1) * h + size[0] - 1) / size[0]; });
  w->x0 = ends(size[1], [&](int64_t i) { return i * wide / size[1]; });
  w->x1 = ends(size[1], [&](int64_t i) { return ((i + 1) * wide + size[1] - 1) / size[1]; });
  return mean_forward(op, x, w);
}

}  // namespace pb
