#include "families/reduce.h"

#include <cmath>
#include <limits>
#include <map>

#include "cuda/map_call.h"
#include "families/map.h"
#include "families/view.h"
#include "ops/reductions.h"
#include "tensor/profile.h"

namespace pb {

namespace {
std::vector<const ReduceOp*>& rows() {
  static auto* r = new std::vector<const ReduceOp*>;
  return *r;
}
}  // namespace

const std::vector<const ReduceOp*>& reduce_ops() { return rows(); }
void add_reduce(const ReduceOp& row) { rows().push_back(new ReduceOp(row)); }
const ReduceOp& find_reduce(std::string_view name) {
  for (const ReduceOp* r : rows())
    if (r->name == name) return *r;
  fail<ValueError>("registry", "no reduction is called " + std::string(name), "see pb.ops()");
}

Dims all_axes(const Tensor& x) {
  Dims a(x.ndim());
  for (int i = 0; i < x.ndim(); i++) a[i] = i;
  return a;
}

namespace {

struct Split {
  Dims reduced;      // 0/1 per axis
  Shape kept_shape;  // with the axes as size 1
  Shape out_shape;
  int64_t n = 1;  // elements of a slice
};

Split split_of(const Tensor& x, const Dims& axes, bool keepdims, const char* op) {
  Split s;
  s.reduced = Dims(x.ndim(), 0);
  for (int64_t a : axes) {
    int i = normalize_axis(a, x.ndim(), op);
    if (s.reduced[i]) fail<ShapeError>(op, "axis " + std::to_string(a) + " is named twice", "name each axis once", x);
    s.reduced[i] = 1;
  }
  for (int i = 0; i < x.ndim(); i++) {
    int64_t size = x.shape()[i];
    s.kept_shape.push_back(s.reduced[i] ? 1 : size);
    if (!s.reduced[i] || keepdims) s.out_shape.push_back(s.reduced[i] ? 1 : size);
    if (s.reduced[i]) s.n *= size;
  }
  return s;
}

// x as [outer, n, inner] when the reduced axes are neighbours of a contiguous x; otherwise by a permuted copy.
struct Layout {
  Tensor x;
  int64_t outer = 1, n = 1, inner = 1;
};
Layout layout_of(const Tensor& x, const Split& s) {
  Layout l{x};
  int stage = 0;  // 0 outer, 1 reduced, 2 inner
  bool neighbours = true;
  for (int i = 0; i < x.ndim(); i++) {
    int64_t size = x.shape()[i];
    if (size == 1) continue;
    if (s.reduced[i]) {
      if (stage == 2) neighbours = false;
      stage = 1;
      l.n *= size;
    } else {
      if (stage >= 1) stage = 2;
      (stage == 0 ? l.outer : l.inner) *= size;
    }
  }
  if (neighbours && x.contiguous()) return l;
  Dims order;
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < x.ndim(); i++)
      if (s.reduced[i] == pass) order.push_back(i);
  GradMode off(false);
  l.x = contiguous(permute(detach(x), order));
  l.outer *= l.inner;
  l.inner = 1;
  return l;
}

DType reduce_dtype(const ReduceOp& op, DType t) {
  if (op.mask) return DType::Bool;
  if (is_float(t) || op.keeps_dtype) return t;
  if (!op.integers) return DType::F32;
  return category(t) == Category::Unsigned ? DType::U64 : DType::I64;
}

Tensor run(const ReduceOp& op, const Tensor& x, const Split& s, DType result) {
  if (op.needs_elements && s.n == 0)
    fail<ShapeError>(op.name, "an empty slice has no such element", "reduce over axes that are not empty", x);
  DType in = op.mask ? x.dtype() : result;
  Compute c = compute_of(in);
  GradMode off(false);
  if (on_cuda(x)) {  // the kernels read 16-bit floats, and bools where truth is asked, as they are
    bool asis = c == Compute::F32 || (op.mask && in == DType::Bool);
    Layout l = layout_of(cast(detach(x), asis ? in : dtype_of(c)), s);
    DType wide = op.mask ? DType::Bool : is_float(result) ? result : dtype_of(c);
    Tensor out = empty(s.out_shape, wide, x.device());
    cuda::reduce(op, out, l.x, l.outer, l.n, l.inner);
    return cast(out, result);
  }
  Layout l = layout_of(x.dtype() == dtype_of(c) ? x : cast(detach(x), dtype_of(c)), s);
  Tensor wide = empty(s.out_shape, dtype_of(c));
  op.kernels->fn[int(c)](wide.raw(), l.x.raw(), l.outer, l.n, l.inner);
  return cast(wide, result);
}

}  // namespace

// g split equally over the marked positions: the axes where g has size 1 are the reduced ones.
template <>
Tensor shared<Tensor>(const Tensor& g, const Tensor& w) {
  Dims axes;
  for (int i = 0; i < w.ndim(); i++)
    if (g.shape()[i] == 1 && w.shape()[i] != 1) axes.push_back(i);
  Tensor count = axes.size() ? sum(w, axes, true) : w;
  return g * (w / count);
}

Tensor reduce_call(const ReduceOp& op, const Tensor& x, const Dims& axes, bool keepdims, bool all) {
  Profiled scope(op.name.data());
  Split s = split_of(x, all ? all_axes(x) : axes, keepdims, op.name.data());
  Tensor out = run(op, x, s, reduce_dtype(op, x.dtype()));
  if (!is_float(x.dtype()) || op.mask) return out;
  if (op.no_pull) {
    if (any_wants(x) || has_tangent(x))
      fail<GraphError>(op.name, "has no derivative of its own", "use the public function of that name", x);
    return out;
  }
  Shape kept = s.kept_shape, full = x.shape();
  Tensor n = scalar_weak(double(s.n));
  auto* row = &op;
  std::vector<Saved> saved;
  if (op.reads_x && any_wants(x)) saved = {Saved(x), Saved::output(out)};
  record(op.name.data(), {x}, out, std::move(saved), [row, kept, full, n](const Slots& s, const PullArgs& a) {
    Tensor g = reshape(a.g[0], kept);
    Tensor x = row->reads_x ? s[0] : g, y = row->reads_x ? reshape(s[1], kept) : g;
    a.gin[0] = broadcast_to(row->pull(g, x, y, n), full);
  });
  push_forward({x}, out, [&](const Tensor* p, const Tensor* t, const Tensor& y) {
    if (!op.reads_x) return reduce_call(op, t[0], axes, keepdims, all);
    Tensor w = op.pull(ones(kept, x.dtype(), x.device()), p[0], reshape(y, kept), n);
    return reduce_call(reduce_row<Sum>(), w * t[0], axes, keepdims, all);
  });
  return out;
}

Tensor sum(const Tensor& x, const Dims& axes, bool keepdims) {
  return reduce_call(reduce_row<Sum>(), x, axes, keepdims);
}
Tensor sum(const Tensor& x) { return reduce_call(reduce_row<Sum>(), x, {}, false, true); }
Tensor mean(const Tensor& x, const Dims& axes, bool keepdims) {
  return reduce_call(reduce_row<Mean>(), x, axes, keepdims);
}
Tensor mean(const Tensor& x) { return reduce_call(reduce_row<Mean>(), x, {}, false, true); }
Tensor max_over(const Tensor& x, const Dims& axes, bool keepdims) {
  return reduce_call(reduce_row<Max>(), x, axes, keepdims);
}
Tensor min_over(const Tensor& x, const Dims& axes, bool keepdims) {
  return reduce_call(reduce_row<Min>(), x, axes, keepdims);
}

Tensor rows_of(const Tensor& x, const Dims& axes) {
  Split s = split_of(x, axes, false, "rows");
  Dims order;
  Shape shape;
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < x.ndim(); i++)
      if (s.reduced[i] == pass) {
        order.push_back(i);
        if (!pass) shape.push_back(x.shape()[i]);
      }
  shape.push_back(s.n);
  return contiguous(reshape(permute(x, order), shape));
}

// Products of halves, so that every derivative exists, zeros or not; the kernel where no derivative is asked for.
Tensor prod(const Tensor& x, const Dims& axes, bool keepdims) {
  if (!any_wants(x) && !has_tangent(x)) return reduce_call(reduce_row<Prod>(), x, axes, keepdims);
  Split s = split_of(x, axes, keepdims, "prod");
  if (s.n == 0) return ones(s.out_shape, x.dtype(), x.device());
  Tensor r = rows_of(x, axes);
  int last = r.ndim() - 1;
  while (r.shape().back() > 1) {
    int64_t n = r.shape().back(), half = n / 2;
    Tensor folded = slice(r, last, 0, half) * slice(r, last, half, half);
    if (n & 1) {
      Tensor head = slice(folded, last, 0, 1) * slice(r, last, n - 1, 1);
      if (half == 1)
        folded = head;
      else {
        Tensor whole = with_copy(folded);
        assign(slice(whole, last, 0, 1), head, "prod");
        folded = whole;
      }
    }
    r = folded;
  }
  return reshape(r, s.out_shape);
}

Tensor var(const Tensor& x, const Dims& axes, double correction, bool keepdims) {
  Split s = split_of(x, axes, keepdims, "var");
  Tensor d = x - mean(x, axes, true);
  return sum(square(d), axes, keepdims) / scalar_weak(std::max(0.0, double(s.n) - correction));
}

Tensor std_dev(const Tensor& x, const Dims& axes, double correction, bool keepdims) {
  return sqrt(var(x, axes, correction, keepdims));
}

// The shift is a constant for the gradient; an infinite maximum shifts by 0 so that no inf - inf appears.
Tensor logsumexp(const Tensor& x, const Dims& axes, bool keepdims) {
  Split s = split_of(x, axes, keepdims, "logsumexp");
  if (s.n == 0) return full(s.out_shape, -std::numeric_limits<double>::infinity(), x.dtype(), x.device());
  Tensor m;
  {
    GradMode off(false);
    m = max_over(detach(x), axes, true);
    m = where(isfinite(m), m, Tensor(0.0));
  }
  Tensor r = log(sum(exp(x - m), axes, true)) + m;
  return reshape(r, s.out_shape);
}

Tensor norm(const Tensor& x, double ord, const Dims& axes, bool keepdims) {
  if (std::isinf(ord)) return ord > 0 ? max_over(abs(x), axes, keepdims) : min_over(abs(x), axes, keepdims);
  if (ord == 0) return sum(cast(x != Tensor(0.0), x.dtype()), axes, keepdims);
  if (ord == 1) return sum(abs(x), axes, keepdims);
  // The root's slope at 0 is infinite; the norm's gradient there is 0, so the argument steps aside.
  Tensor s = ord == 2 ? sum(square(x), axes, keepdims) : sum(pow(abs(x), Tensor(ord)), axes, keepdims);
  Tensor zero = s == Tensor(0.0);
  Tensor safe = where(zero, Tensor(1.0), s);
  Tensor root = ord == 2 ? sqrt(safe) : pow(safe, Tensor(1 / ord));
  return where(zero, Tensor(0.0), root);
}

}  // namespace pb
