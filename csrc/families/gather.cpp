#include "families/gather.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "cpu/isa_std.h"
#include "cuda/faults.h"
#include "cuda/gather_call.h"
#include "families/map.h"
#include "families/view.h"
#include "tape/node.h"
#include "tensor/profile.h"

namespace pb {

namespace {

// A tensor as [outer, n, inner] around one axis, or around `span` neighbouring axes.
struct Around {
  int64_t outer = 1, n = 1, inner = 1;
};
Around around(const Shape& s, int axis, int span = 1) {
  Around a;
  for (int i = 0; i < s.size(); i++) (i < axis ? a.outer : i < axis + span ? a.n : a.inner) *= s[i];
  return a;
}

Shape replace_axes(const Shape& s, int axis, int span, const Shape& by) {
  Shape out;
  for (int i = 0; i < axis; i++) out.push_back(s[i]);
  for (int64_t v : by) out.push_back(v);
  for (int i = axis + span; i < s.size(); i++) out.push_back(s[i]);
  return out;
}

// f(begin, end) over pieces of [0, n), about 64 K units of `work` each at least.
template <class F>
void parallel(int64_t n, int64_t work, F f) {
  int64_t grain = n > 0 ? std::max<int64_t>(1, n / std::max<int64_t>(1, work >> 16)) : 1;
  pb_parallel_for(n, grain, [](void* c, int64_t b, int64_t e) { (*static_cast<F*>(c))(b, e); }, &f);
}

Tensor raw_contiguous(const Tensor& t) {
  GradMode off(false);
  return t.contiguous() ? t : clone(t);
}

template <class F>
void by_size(int bytes, F f) {
  if (bytes == 1)
    f(uint8_t());
  else if (bytes == 2)
    f(uint16_t());
  else if (bytes == 4)
    f(uint32_t());
  else
    f(uint64_t());
}

[[noreturn]] void not_numbers(const char* op, const Tensor& t) {
  fail<DTypeError>(op, "values of this dtype cannot be added", "cast with x.astype(pb.int64)", t);
}

// f(T()) with the type in which sums of this dtype run; 16-bit floats are summed by the caller in float32.
template <class F>
void by_number(const Tensor& t, const char* op, F f) {
  switch (t.dtype()) {
    case DType::F32:
      return f(float());
    case DType::F64:
      return f(double());
    case DType::I8:
    case DType::U8:
      return f(uint8_t());
    case DType::I16:
    case DType::U16:
      return f(uint16_t());
    case DType::I32:
    case DType::U32:
      return f(uint32_t());
    case DType::I64:
    case DType::U64:
      return f(uint64_t());
    default:
      not_numbers(op, t);
  }
}

bool half(DType t) { return t == DType::F16 || t == DType::BF16; }

}  // namespace

// ---- rows

namespace {

Tensor host_index(const Tensor& indices, int64_t n, int axis, const char* op);

}  // namespace

Tensor index_rows(const Tensor& indices, int64_t n, int axis, const char* op, Device device) {
  if (!is_integer(indices.dtype()) && indices.size())
    fail<DTypeError>(op, "indices must be integers", "cast with indices.astype(pb.int64)", indices);
  GradMode off(false);
  if (!on_cuda(indices)) return to_device(host_index(indices, n, axis, op), device);
  if (!(indices.device() == device))
    fail<DeviceError>(op,
                      "the indices lie on " + device_name(indices.device()) + ", the tensor on " + device_name(device),
                      "move the indices: indices.to(\"" + device_name(device) + "\")", indices);
  return cuda::checked_index(indices, n, axis, op);
}

namespace {

Tensor host_index(const Tensor& indices, int64_t n, int axis, const char* op) {
  Tensor i = contiguous(cast(detach(indices), DType::I64));
  const int64_t* p = i.data<int64_t>();
  bool negative = false, wide = indices.dtype() == DType::U64;
  for (int64_t j = 0; j < i.size(); j++) {
    int64_t v = p[j];
    negative = negative || v < 0;
    if (v < -n || v >= n || (wide && v < 0)) fail<IndexError>(op, cuda::index_rule(v, wide, axis, n), cuda::kIndexHelp);
  }
  if (!negative) return i;
  Tensor fixed = empty(i.shape(), DType::I64);
  int64_t* q = fixed.data<int64_t>();
  for (int64_t j = 0; j < i.size(); j++) q[j] = p[j] < 0 ? p[j] + n : p[j];
  return fixed;
}

void raw_take(const Tensor& out, const Tensor& x, const Tensor& index, Around a) {
  if (on_cuda(x)) return cuda::take(out, x, index, {a.outer, a.n, a.inner}, false);
  const int64_t* idx = index.data<int64_t>();
  int64_t m = index.size(), item = itemsize(x.dtype()), bytes = a.inner * item;
  if (out.size() == 0) return;
  auto* src = static_cast<const char*>(x.raw());
  auto* dst = static_cast<char*>(out.raw());
  if (a.inner == 1) {
    by_size(int(item), [&](auto zero) {
      using T = decltype(zero);
      parallel(a.outer * m, a.outer * m, [&](int64_t b, int64_t e) {
        auto* d = reinterpret_cast<T*>(dst);
        int64_t o = b / m, j = b % m;
        for (int64_t r = b; r < e; r++) {
          d[r] = reinterpret_cast<const T*>(src)[o * a.n + idx[j]];
          if (++j == m) j = 0, o++;
        }
      });
    });
    return;
  }
  parallel(a.outer * m, out.size(), [&](int64_t b, int64_t e) {
    int64_t o = b / m, j = b % m;
    for (int64_t r = b; r < e; r++) {
      std::memcpy(dst + r * bytes, src + (o * a.n + idx[j]) * bytes, size_t(bytes));
      if (++j == m) j = 0, o++;
    }
  });
}

template <class T>
void add_range(T* out, const T* v, const int64_t* idx, int64_t m, Around a, int64_t o, int64_t from, int64_t to) {
  for (int64_t j = 0; j < m; j++) {
    int64_t r = idx[j];
    if (r < from || r >= to) continue;
    T* d = out + (o * a.n + r) * a.inner;
    const T* s = v + (o * m + j) * a.inner;
    for (int64_t i = 0; i < a.inner; i++) d[i] = T(d[i] + s[i]);
  }
}

}  // namespace

Tensor take_rows(const Tensor& x, const Tensor& index, int axis) {
  int64_t n = x.shape()[axis];
  Tensor out = empty(replace_axes(x.shape(), axis, 1, index.shape()), x.dtype(), x.device());
  raw_take(out, raw_contiguous(x), index, around(x.shape(), axis));
  if (any_wants(x))
    record("take", {x}, out, {Saved(index)},
           [axis, n](const Slots& s, const PullArgs& a) { a.gin[0] = add_rows(a.g[0], s[0], axis, n); });
  push_forward({x}, out, [&](const Tensor*, const Tensor* t, const Tensor&) { return take_rows(t[0], index, axis); });
  return out;
}

Tensor add_rows(const Tensor& values, const Tensor& index, int axis, int64_t n) {
  if (half(values.dtype()) && !on_cuda(values))
    return cast(add_rows(cast(values, DType::F32), index, axis, n), values.dtype());
  Tensor out = zeros(replace_axes(values.shape(), axis, index.ndim(), {n}), values.dtype(), values.device());
  Around a = around(out.shape(), axis);
  Tensor v = raw_contiguous(values);
  const int64_t* idx = index.data<int64_t>();
  int64_t m = index.size();
  if (v.size() && on_cuda(v)) {
    if (v.dtype() == DType::Bool) not_numbers("add_rows", v);
    cuda::add(out, v, index, {a.outer, a.n, a.inner}, false);
  } else if (v.size())
    by_number(v, "add_rows", [&](auto zero) {
      using T = decltype(zero);
      T* d = out.data<T>();
      const T* s = v.data<T>();
      if (a.outer > 1)
        parallel(a.outer, v.size(), [&](int64_t b, int64_t e) {
          for (int64_t o = b; o < e; o++) add_range(d, s, idx, m, a, o, 0, a.n);
        });
      else
        parallel(a.n, v.size(), [&](int64_t b, int64_t e) { add_range(d, s, idx, m, a, 0, b, e); });
    });
  if (any_wants(values))
    record("add_rows", {values}, out, {Saved(index)},
           [axis](const Slots& s, const PullArgs& a) { a.gin[0] = take_rows(a.g[0], s[0], axis); });
  push_forward({values}, out,
               [&](const Tensor*, const Tensor* t, const Tensor&) { return add_rows(t[0], index, axis, n); });
  return out;
}

Tensor take(const Tensor& x, const Tensor& indices, int64_t axis) {
  Profiled scope("take");
  int a = normalize_axis(axis, x.ndim(), "take");
  return take_rows(x, index_rows(indices, x.shape()[a], a, "take", x.device()), a);
}

void write_rows(const Tensor& x, const Tensor& index, const Tensor& values, int axis) {
  Around a = around(x.shape(), axis);
  const int64_t* idx = index.data<int64_t>();
  int64_t m = index.size(), item = itemsize(x.dtype()), bytes = a.inner * item;
  if (m == 0 || x.size() == 0) return;
  if (on_cuda(x)) return cuda::put(x, values, index, {a.outer, a.n, a.inner});
  Tensor v = raw_contiguous(values);
  auto* dst = static_cast<char*>(x.raw());
  auto* src = static_cast<const char*>(v.raw());
  parallel(a.outer, v.size(), [&](int64_t b, int64_t e) {
    for (int64_t o = b; o < e; o++)
      if (a.inner == 1)
        by_size(int(item), [&](auto zero) {
          using T = decltype(zero);
          for (int64_t j = 0; j < m; j++)
            reinterpret_cast<T*>(dst)[o * a.n + idx[j]] = reinterpret_cast<const T*>(src)[o * m + j];
        });
      else
        for (int64_t j = 0; j < m; j++)
          std::memcpy(dst + (o * a.n + idx[j]) * bytes, src + (o * m + j) * bytes, size_t(bytes));
  });
}

namespace {

// For each index whether it is the last of its value; undefined when no value is known to repeat.
Tensor winners(const Tensor& index, int64_t n) {
  if (on_cuda(index)) return cuda::winners(index, n);
  const int64_t* idx = index.data<int64_t>();
  int64_t m = index.size();
  Tensor mask = empty(index.shape(), DType::Bool);
  bool* last = mask.data<bool>();
  bool repeats = false;
  auto settle = [&](auto& seen) {  // from the end: the first met is the last written
    for (int64_t j = m - 1; j >= 0; j--) {
      auto& mark = seen[size_t(idx[j])];
      last[j] = !mark;
      repeats = repeats || mark;
      mark = 1;
    }
  };
  if (n > 16 * m) {
    std::unordered_map<size_t, char> seen;
    settle(seen);
  } else {
    std::vector<char> seen(size_t(n), 0);
    settle(seen);
  }
  return repeats ? mask : Tensor();
}

}  // namespace

Tensor pull_put_values(const Tensor& g, const Tensor& index, int axis) {
  Tensor v = take_rows(g, index, axis);
  Tensor last = winners(index, g.shape()[axis]);
  if (!last) return v;
  Shape s = index.shape();
  for (int i = axis + 1; i < g.ndim(); i++) s.push_back(1);
  return where(reshape(last, s), v, Tensor(0.0));
}

Tensor put_rows(const Tensor& x, const Tensor& index, const Tensor& values, int axis) {
  Tensor out = clone(x);
  write_rows(out, index, values, axis);
  Shape vs = values.shape();
  if (any_wants(x, values))
    record("put_rows", {x, values}, out, {Saved(index)}, [axis, vs](const Slots& s, const PullArgs& a) {
      if (a.need(0)) a.gin[0] = put_rows(a.g[0], s[0], zeros(vs, a.g[0].dtype(), a.g[0].device()), axis);
      if (a.need(1)) a.gin[1] = pull_put_values(a.g[0], s[0], axis);
    });
  push_forward({x, values}, out, [&](const Tensor*, const Tensor* t, const Tensor&) {
    Device d = x.device();
    return put_rows(t[0] ? t[0] : zeros(x.shape(), x.dtype(), d), index, t[1] ? t[1] : zeros(vs, x.dtype(), d), axis);
  });
  return out;
}

// ---- along an axis: one index per element

namespace {

Tensor along_add(const Tensor& values, const Tensor& index, int axis, int64_t n);

Tensor along(const Tensor& x, const Tensor& index, int axis) {  // equal shapes but for the axis
  Tensor out = empty(index.shape(), x.dtype(), x.device());
  Around a = around(x.shape(), axis);
  Tensor xc = raw_contiguous(x);
  int64_t m = index.shape()[axis], n = a.n;
  const int64_t* idx = index.data<int64_t>();
  if (out.size() && on_cuda(x))
    cuda::take(out, xc, index, {a.outer, a.n, a.inner}, true);
  else if (out.size())
    by_size(itemsize(x.dtype()), [&](auto zero) {
      using T = decltype(zero);
      const T* s = xc.data<T>();
      T* d = out.data<T>();
      parallel(a.outer * m, out.size(), [&](int64_t b, int64_t e) {
        for (int64_t r = b; r < e; r++) {
          const T* row = s + (r / m) * n * a.inner;
          for (int64_t i = 0; i < a.inner; i++) d[r * a.inner + i] = row[idx[r * a.inner + i] * a.inner + i];
        }
      });
    });
  if (any_wants(x))
    record("take_along_axis", {x}, out, {Saved(index)},
           [axis, n](const Slots& s, const PullArgs& a) { a.gin[0] = along_add(a.g[0], s[0], axis, n); });
  push_forward({x}, out, [&](const Tensor*, const Tensor* t, const Tensor&) { return along(t[0], index, axis); });
  return out;
}

Tensor along_add(const Tensor& values, const Tensor& index, int axis, int64_t n) {
  if (half(values.dtype())) return cast(along_add(cast(values, DType::F32), index, axis, n), values.dtype());
  Tensor out = zeros(replace_axes(values.shape(), axis, 1, {n}), values.dtype(), values.device());
  Around a = around(out.shape(), axis);
  Tensor v = raw_contiguous(values);
  int64_t m = index.shape()[axis];
  const int64_t* idx = index.data<int64_t>();
  if (v.size() && on_cuda(v)) {
    if (v.dtype() == DType::Bool) not_numbers("scatter_add", v);
    cuda::add(out, v, index, {a.outer, a.n, a.inner}, true);
  } else if (v.size())
    by_number(v, "scatter_add", [&](auto zero) {
      using T = decltype(zero);
      const T* s = v.data<T>();
      T* d = out.data<T>();
      auto columns = [&](int64_t o, int64_t from, int64_t to) {
        for (int64_t j = 0; j < m; j++) {
          int64_t at = (o * m + j) * a.inner;
          for (int64_t i = from; i < to; i++) {
            T& sum = d[(o * n + idx[at + i]) * a.inner + i];
            sum = T(sum + s[at + i]);
          }
        }
      };
      if (a.outer > 1)
        parallel(a.outer, v.size(), [&](int64_t b, int64_t e) {
          for (int64_t o = b; o < e; o++) columns(o, 0, a.inner);
        });
      else
        parallel(a.inner, v.size(), [&](int64_t b, int64_t e) { columns(0, b, e); });
    });
  if (any_wants(values))
    record("scatter_add", {values}, out, {Saved(index)},
           [axis](const Slots& s, const PullArgs& a) { a.gin[0] = along(a.g[0], s[0], axis); });
  push_forward({values}, out,
               [&](const Tensor*, const Tensor* t, const Tensor&) { return along_add(t[0], index, axis, n); });
  return out;
}

void check_same_ndim(const Tensor& x, const Tensor& indices, const char* op) {
  if (x.ndim() != indices.ndim() || x.ndim() == 0)
    fail<ShapeError>(op, "the indices must have as many dimensions as the tensor, at least 1",
                     "use pb.take to pick whole rows", x, indices);
}

// The common shape of a and b where `axis` has the size of `own`.
Shape common_but(const Shape& a, const Shape& b, int axis, int64_t own, const char* op) {
  Shape p = a, q = b;
  p[axis] = q[axis] = 1;
  Shape s = broadcast(p, q, op);
  s[axis] = own;
  return s;
}

}  // namespace

Tensor take_along_axis(const Tensor& x, const Tensor& indices, int64_t axis) {
  Profiled scope("take_along_axis");
  check_same_ndim(x, indices, "take_along_axis");
  int a = normalize_axis(axis, x.ndim(), "take_along_axis");
  int64_t n = x.shape()[a], m = indices.shape()[a];
  Tensor i = broadcast_to(indices, common_but(x.shape(), indices.shape(), a, m, "take_along_axis"));
  Tensor wide = broadcast_to(x, common_but(x.shape(), indices.shape(), a, n, "take_along_axis"));
  return along(wide, index_rows(i, n, a, "take_along_axis", x.device()), a);
}

Tensor scatter_add(const Tensor& x, const Tensor& indices, const Tensor& values, int64_t axis) {
  Profiled scope("scatter_add");
  check_same_ndim(x, indices, "scatter_add");
  int a = normalize_axis(axis, x.ndim(), "scatter_add");
  int64_t n = x.shape()[a], m = indices.shape()[a];
  if (!values.weak() && category(values.dtype()) > category(x.dtype()))
    fail<DTypeError>("scatter_add", "values of a higher kind cannot be added into x", "cast x or the values first", x,
                     values);
  Shape s = common_but(x.shape(), indices.shape(), a, m, "scatter_add");
  Shape back = s;
  back[a] = n;
  if (!(back == x.shape()))
    fail<ShapeError>("scatter_add", "the indices are larger than x beside the axis",
                     "sizes beside the axis must be equal or 1", x, indices);
  if (!values.weak() && !(values.device() == x.device())) mixed_devices("scatter_add", x, values);
  Tensor i = index_rows(broadcast_to(indices, s), n, a, "scatter_add", x.device());
  if (!(broadcast(values.shape(), s, "scatter_add") == s))
    fail<ShapeError>("scatter_add", "the values do not fit the indices",
                     "the values must broadcast to the shape of the indices", indices, values);
  Tensor wide = cast(broadcast_to(values, s), x.dtype());
  return x + along_add(values.weak() ? to_device(wide, x.device()) : wide, i, a, n);
}

// ---- joining and padding

namespace {

// Copies a part into its place along the axis; blocks of memory where both are contiguous.
void place_part(const Tensor& out, const Tensor& part, int axis, int64_t at) {
  int64_t item = itemsize(out.dtype());
  if (part.size() == 0) return;
  if (part.contiguous() && !on_cuda(out)) {
    Around a = around(out.shape(), axis);
    int64_t rows = part.shape()[axis] * a.inner * item, whole = a.n * a.inner * item;
    auto* d = static_cast<char*>(out.raw()) + at * a.inner * item;
    auto* s = static_cast<const char*>(part.raw());
    parallel(a.outer, part.size(), [&](int64_t b, int64_t e) {
      for (int64_t o = b; o < e; o++) std::memcpy(d + o * whole, s + o * rows, size_t(rows));
    });
  } else {
    copy_into(alias(out, part.shape(), out.strides(), out->offset + at * out.strides()[axis]), part);
  }
}

Tensor concat_same(const std::vector<Tensor>& parts, int axis, const Shape& shape) {
  Tensor out = empty(shape, parts[0].dtype(), parts[0].device());
  int64_t at = 0;
  for (const Tensor& t : parts) {
    place_part(out, t, axis, at);
    at += t.shape()[axis];
  }
  std::vector<int64_t> sizes;
  for (const Tensor& t : parts) sizes.push_back(t.shape()[axis]);
  record_n("concat", parts, {&out, 1}, {}, [axis, sizes](const Slots&, const PullArgs& a) {
    int64_t from = 0;
    for (size_t i = 0; i < sizes.size(); i++) {
      if (a.need(int(i))) a.gin[i] = slice(a.g[0], axis, from, sizes[i]);
      from += sizes[i];
    }
  });
  push_forward(parts, out, [&](const Tensor*, const Tensor* t, const Tensor&) {
    std::vector<Tensor> d;
    for (size_t i = 0; i < parts.size(); i++)
      d.push_back(t[i] ? t[i] : zeros(parts[i].shape(), parts[i].dtype(), out.device()));
    return concat_same(d, axis, shape);
  });
  return out;
}

}  // namespace

Tensor concat(const std::vector<Tensor>& parts, int64_t axis) {
  Profiled scope("concat");
  if (parts.empty()) fail<ValueError>("concat", "there is nothing to join", "pass at least one tensor");
  if (parts[0].ndim() == 0)
    fail<ShapeError>("concat", "0-d tensors have no axis to join along", "use pb.stack", parts[0]);
  int a = normalize_axis(axis, parts[0].ndim(), "concat");
  Shape shape = parts[0].shape();
  shape[a] = 0;
  for (const Tensor& t : parts) {
    bool fits = t.ndim() == shape.size();
    for (int i = 0; fits && i < t.ndim(); i++) fits = i == a || t.shape()[i] == shape[i];
    if (!fits)
      fail<ShapeError>("concat", "shapes differ beside axis " + std::to_string(a),
                       "all sizes but that of the axis must be equal", parts[0], t);
    if (__builtin_add_overflow(shape[a], t.shape()[a], &shape[a]))
      fail<ShapeError>("concat", "the joined size overflows", "join fewer tensors", t);
  }
  DType d = result_dtype(parts, "concat");
  common_device("concat", parts);
  std::vector<Tensor> same;
  for (const Tensor& t : parts) same.push_back(cast(t, d));
  return concat_same(same, a, shape);
}

Tensor pad(const Tensor& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value) {
  Profiled scope("pad");
  if (int(widths.size()) != x.ndim())
    fail<ShapeError>("pad",
                     std::to_string(widths.size()) + " pairs of widths for " + std::to_string(x.ndim()) + " axes",
                     "give one pair per axis", x);
  Geometry inside{x.shape(), {}, 0};
  Shape shape = x.shape();
  for (int i = 0; i < x.ndim(); i++) {
    auto [before, after] = widths[size_t(i)];
    int64_t total;
    if (before < 0 || after < 0)
      fail<ShapeError>("pad", "negative width at axis " + std::to_string(i), "use a slice to cut elements off", x);
    if (__builtin_add_overflow(before, after, &total) || __builtin_add_overflow(shape[i], total, &shape[i]))
      fail<ShapeError>("pad", "the padded size of axis " + std::to_string(i) + " overflows", "use smaller widths", x);
  }
  Tensor out = full(shape, value, x.dtype(), x.device());
  inside.strides = out.strides();
  for (int i = 0; i < x.ndim(); i++) inside.offset += widths[size_t(i)].first * out.strides()[i];
  if (x.size()) copy_into(alias(out, inside.shape, inside.strides, inside.offset), x);
  record("pad", {x}, out, [widths, before = x.shape()](const PullArgs& a) {
    Tensor g = a.g[0];
    for (int i = 0; i < before.size(); i++)
      if (before[i] != g.shape()[i]) g = slice(g, i, widths[size_t(i)].first, before[i]);
    a.gin[0] = g;
  });
  push_forward({x}, out, [&](const Tensor*, const Tensor* t, const Tensor&) { return pad(t[0], widths, 0); });
  return out;
}

Tensor tile(const Tensor& x, const Dims& times) {
  Profiled scope("tile");
  int n = std::max(x.ndim(), times.size());
  Shape split, wide, whole;
  for (int i = 0; i < n; i++) {
    int ix = i - (n - x.ndim()), it = i - (n - times.size());
    int64_t size = ix < 0 ? 1 : x.shape()[ix], k = it < 0 ? 1 : times[it], product;
    if (k < 0)
      fail<ShapeError>("tile", "negative number of repetitions in " + to_string(times), "use counts of at least 0", x);
    if (__builtin_mul_overflow(size, k, &product))
      fail<ShapeError>("tile", "the size of axis " + std::to_string(i) + " overflows", "use fewer repetitions", x);
    split.push_back(1);
    split.push_back(size);
    wide.push_back(k);
    wide.push_back(size);
    whole.push_back(product);
  }
  count(whole, "tile");
  return with_copy(reshape(broadcast_to(reshape(x, split), wide), whole));
}

Tensor roll(const Tensor& x, int64_t shift, int axis) {
  Profiled scope("roll");
  int64_t n = x.shape()[axis];
  int64_t k = n ? ((shift % n) + n) % n : 0;
  if (k == 0) return with_copy(x);
  return concat({slice(x, axis, n - k, k), slice(x, axis, 0, n - k)}, axis);
}

std::vector<Tensor> unstack(const Tensor& x, int64_t axis) {
  int a = normalize_axis(axis, x.ndim(), "unstack");
  int64_t n = x.shape()[a];
  std::vector<Tensor> outs;
  outs.reserve(size_t(n));
  Geometry g = geometry(x);
  int64_t step = g.strides[a];
  g.shape.erase(a);
  g.strides.erase(a);
  for (int64_t i = 0; i < n; i++) outs.push_back(clone(alias(x, g.shape, g.strides, g.offset + i * step)));
  Shape part = g.shape;
  DType dtype = x.dtype();
  Device device = x.device();
  record_n("unstack", {&x, 1}, outs, {}, [a, n, part, dtype, device](const Slots&, const PullArgs& p) {
    std::vector<Tensor> parts;
    for (int64_t i = 0; i < n; i++) parts.push_back(expand_dims(p.g[i] ? p.g[i] : zeros(part, dtype, device), a));
    p.gin[0] = concat(parts, a);
  });
  for (int64_t i = 0; i < n; i++)
    push_forward({x}, outs[size_t(i)],
                 [a, i](const Tensor*, const Tensor* t, const Tensor&) { return with_copy(select(t[0], a, i)); });
  return outs;
}

}  // namespace pb
