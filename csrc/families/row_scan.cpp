// Positions of extremes, running sums and orders: rows with saved or returned indices.
#include <algorithm>
#include <numeric>

#include "cpu/isa_std.h"
#include "families/gather.h"
#include "families/row.h"
#include "families/row_call.h"
#include "tensor/profile.h"

namespace pb {

namespace {

// x as [outer, n, inner] around an axis.
struct Split {
  int64_t outer = 1, n = 1, inner = 1;
  Split(const Shape& s, int axis) {
    for (int i = 0; i < s.size(); i++) (i < axis ? outer : i == axis ? n : inner) *= s[i];
  }
};

Tensor strong(const Tensor& x) {
  Tensor t = x.weak() && is_float(x.dtype()) ? cast(x, DType::F32) : x;
  if (!t.weak()) return t;
  t = detach(t);
  t->weak = false;
  return t;
}

}  // namespace

Tensor arg_extreme(const Tensor& x, const int64_t* axis, bool keepdims, bool largest) {
  const char* op = largest ? "argmax" : "argmin";
  Tensor t = plain(x, dtype_of(compute_of(x.dtype())));
  int nd = x.ndim(), a = axis && nd ? normalize_axis(*axis, nd, op) : 0;
  if (axis && !nd) normalize_axis(*axis, 1, op);
  if (!axis || nd == 0) t = reshape(t, {t.size()});
  Split s(t.shape(), a);
  if (s.n == 0) fail<ValueError>(op, "an empty slice has no extreme element", "use an axis that is not empty", x);
  Shape shape;
  for (int i = 0; i < nd; i++)
    if (axis && i != a)
      shape.push_back(x.shape()[i]);
    else if (keepdims)
      shape.push_back(1);
  Tensor out = empty(shape, DType::I64, x.device());
  if (on_cuda(x))
    cuda::extreme(out, t, s.outer, s.n, s.inner, largest);
  else
    row_table().arg_extreme[int(compute_of(x.dtype()))](out.data<int64_t>(), t.raw(), s.outer, s.n, s.inner, largest);
  return out;
}

namespace {

Tensor running_sum(const Tensor& x, int axis, bool initial) {
  Tensor t = plain(x, dtype_of(compute_of(x.dtype())));
  Split s(t.shape(), axis);
  Shape shape = x.shape();
  shape[axis] += initial;
  Tensor wide = empty(shape, t.dtype(), x.device()), out;
  if (on_cuda(x))
    cuda::running_sum(wide, t, s.outer, s.n, s.inner, initial);
  else
    row_table().running_sum[int(compute_of(x.dtype()))](wide.raw(), t.raw(), s.outer, s.n, s.inner, initial);
  {
    GradMode off(false);
    out = cast(wide, x.dtype());
  }
  int64_t n = s.n;
  record("cumulative_sum", {x}, out, [axis, initial, n](const PullArgs& a) {
    Tensor g = initial ? slice(a.g[0], axis, 1, n) : a.g[0];
    a.gin[0] = flip(running_sum(flip(g, {axis}), axis, false), {axis});
  });
  push_forward({x}, out,
               [&](const Tensor*, const Tensor* d, const Tensor&) { return running_sum(d[0], axis, initial); });
  return out;
}

}  // namespace

Tensor cumulative_sum(const Tensor& input, const int64_t* axis, bool initial) {
  Profiled scope("cumulative_sum");
  Tensor x = strong(input);
  if (!is_float(x.dtype())) x = cast(x, category(x.dtype()) == Category::Unsigned ? DType::U64 : DType::I64);
  if (x.ndim() == 0) x = reshape(x, {1});
  if (!axis && x.ndim() != 1)
    fail<ShapeError>("cumulative_sum", "axis must be given when x has several dimensions", "pass axis=, or flatten x",
                     x);
  return running_sum(x, axis ? normalize_axis(*axis, x.ndim(), "cumulative_sum") : 0, initial);
}

namespace {

// NaN counts as the largest value; equal elements keep their order in either direction.
template <class S>
struct Before {
  const S* x;
  bool descending;
  bool less(S a, S b) const {
    if constexpr (std::is_floating_point_v<S>)
      return a < b || (b != b && a == a);
    else
      return a < b;
  }
  bool operator()(int64_t i, int64_t j) const { return descending ? less(x[j], x[i]) : less(x[i], x[j]); }
};

template <class S>
struct OrderJob {
  int64_t* out;  // (rows, k)
  const S* x;    // (rows, n)
  int64_t n, k;
  bool descending;

  static void run(void* ctx, int64_t begin, int64_t end) {
    const OrderJob& j = *static_cast<OrderJob*>(ctx);
    std::vector<int64_t> order(static_cast<size_t>(j.n));
    for (int64_t r = begin; r < end; r++) {
      Before<S> before{j.x + r * j.n, j.descending};
      std::iota(order.begin(), order.end(), int64_t(0));
      if (j.k == j.n) {
        std::stable_sort(order.begin(), order.end(), before);
      } else {
        auto first = [&](int64_t a, int64_t b) { return before(a, b) || (!before(b, a) && a < b); };
        std::partial_sort(order.begin(), order.begin() + j.k, order.end(), first);
      }
      std::copy_n(order.begin(), j.k, j.out + r * j.k);
    }
  }
};

template <class S>
void order_rows(const Tensor& out, const Tensor& x, int64_t n, int64_t k, bool descending) {
  OrderJob<S> job{out.data<int64_t>(), x.data<S>(), n, k, descending};
  pb_parallel_for(x.size() / n, 8192 / (n + 1) + 1, &OrderJob<S>::run, &job);
}

// Indices of the first k elements in order along the last axis.
Tensor order(const Tensor& x, int64_t k, bool descending) {
  Compute c = compute_of(x.dtype());
  Tensor t = plain(x, dtype_of(c));
  Shape shape = x.shape();
  int64_t n = shape.back();
  shape[shape.size() - 1] = k;
  Tensor out = empty(shape, DType::I64, x.device());
  if (x.size() == 0 || k == 0) return out;
  if (on_cuda(x))
    cuda::order(out, t, n, k, descending);
  else if (c == Compute::F32)
    order_rows<float>(out, t, n, k, descending);
  else if (c == Compute::F64)
    order_rows<double>(out, t, n, k, descending);
  else if (c == Compute::I64)
    order_rows<int64_t>(out, t, n, k, descending);
  else
    order_rows<uint64_t>(out, t, n, k, descending);
  return out;
}

// Values at `indices`, with the cotangent scattered back.
Tensor at_indices(const Tensor& x, const Tensor& indices, int64_t axis) {
  if (x.ndim() == 0) return reshape(take_along_axis(reshape(x, {1}), reshape(indices, {1}), 0), {});
  return take_along_axis(x, indices, axis);
}

}  // namespace

Tensor argsort(const Tensor& input, int64_t axis, bool descending) {
  Profiled scope("argsort");
  Tensor x = detach(strong(input));
  return on_last_axis(x, axis, "argsort", [&](const Tensor& t) { return order(t, t.shape().back(), descending); });
}

Tensor sort(const Tensor& input, int64_t axis, bool descending) {
  Profiled scope("sort");
  Tensor x = strong(input);
  if (x.ndim() == 0)
    normalize_axis(axis, 1, "sort");
  else
    normalize_axis(axis, x.ndim(), "sort");
  return at_indices(x, argsort(x, axis, descending), axis);
}

std::pair<Tensor, Tensor> topk(const Tensor& input, int64_t k, int64_t axis) {
  Profiled scope("topk");
  Tensor x = strong(input);
  int a = normalize_axis(axis, std::max(1, x.ndim()), "topk");
  int64_t n = x.ndim() ? x.shape()[a] : 1;
  if (k < 0 || k > n || (x.ndim() == 0 && k == 0))
    fail<ShapeError>("topk", "k = " + std::to_string(k) + " is not in [0, " + std::to_string(n) + "]",
                     "k counts elements along the axis", x);
  Tensor indices = on_last_axis(detach(x), axis, "topk", [&](const Tensor& t) { return order(t, k, true); });
  return {at_indices(x, indices, axis), indices};
}

}  // namespace pb
