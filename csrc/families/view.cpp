#include "families/view.h"

#include <algorithm>

#include "families/gather.h"
#include "families/map.h"
#include "families/reduce.h"
#include "tensor/profile.h"

namespace pb {

Geometry geometry(const Tensor& t) { return {t.shape(), t.strides(), t->offset}; }

namespace {

// Lowest and one past highest element offset of a non-empty window.
std::pair<int64_t, int64_t> span_of(const Geometry& g) {
  int64_t lo = g.offset, hi = g.offset;
  for (int i = 0; i < g.shape.size(); i++) {
    int64_t reach = (g.shape[i] - 1) * g.strides[i];
    (reach < 0 ? lo : hi) += reach;
  }
  return {lo, hi + 1};
}

Tensor take_view(const Tensor& x, const Geometry& base, const Geometry& view);
Tensor mapped_view(const Tensor& t, const Geometry& memory, const Geometry& base, const Geometry& v, const char* op);

// Whether no two elements of a window, made by slices and broadcasting, share an address.
bool apart(const Geometry& v) {
  for (int i = 0; i < v.shape.size(); i++)
    if (v.strides[i] == 0 && v.shape[i] > 1) return false;
  return true;
}

// The same outside the graph, for a dense base.
bool place_plain(const Tensor& g, const Geometry& base, const Geometry& v, Tensor& out) {
  if (base.offset || !apart(v) || !is_contiguous(base.shape, base.strides)) return false;
  out = zeros(base.shape, g.dtype(), g.device());
  if (g.size()) copy_into(alias(out, v.shape, v.strides, v.offset), g);
  return true;
}

// Zeros of the base's shape with g at the window: the adjoint of the view.
Tensor place(const Tensor& g0, const Geometry& base, const Geometry& v) {
  Tensor g = g0, out;
  if (is_constant(g0) && place_plain(g0, base, v, out)) return out;
  Geometry w = v;
  if (count(v.shape) == 0) {
    out = zeros(base.shape, g.dtype(), g.device());
  } else {
    for (int i = 0; i < w.shape.size(); i++)
      if (w.strides[i] == 0 && w.shape[i] > 1) {
        g = sum(g, {i}, true);
        w.shape[i] = 1;
      }
    auto [lo, hi] = span_of(base);
    auto [vlo, vhi] = span_of(w);
    if (vlo < lo) lo = vlo;
    if (vhi > hi) hi = vhi;
    Tensor buffer = zeros({hi - lo}, g.dtype(), g.device());
    copy_into(alias(buffer, w.shape, w.strides, w.offset - lo), g);
    out = alias(buffer, base.shape, base.strides, base.offset - lo);
  }
  record("place", {g0}, out, [base, v](const PullArgs& a) { a.gin[0] = take_view(a.g[0], base, v); });
  push_forward({g0}, out, [&](const Tensor*, const Tensor* t, const Tensor&) { return place(t[0], base, v); });
  return out;
}

// The window of a tensor that has the base's shape but its own memory.
Tensor take_view(const Tensor& x, const Geometry& base, const Geometry& v) {
  if (x.strides() == base.strides) {
    Geometry moved = v;
    moved.offset += x->offset - base.offset;
    return mapped_view(x, moved, base, v, "view");
  }
  Tensor out;
  if (count(v.shape) == 0) {
    out = empty(v.shape, x.dtype(), x.device());
  } else {
    auto [lo, hi] = span_of(base);
    Tensor buffer = zeros({hi - lo}, x.dtype(), x.device());
    copy_into(alias(buffer, base.shape, base.strides, base.offset - lo), x);
    out = alias(buffer, v.shape, v.strides, v.offset - lo);
  }
  record("take_view", {x}, out, [base, v](const PullArgs& a) { a.gin[0] = place(a.g[0], base, v); });
  push_forward({x}, out, [&](const Tensor*, const Tensor* t, const Tensor&) { return take_view(t[0], base, v); });
  return out;
}

// x with zeros in the window: the part of a cotangent that a write lets pass. Not x - place(take_view(x)), which
// leaves rounding errors, and NaN where x is infinite.
Tensor outside(const Tensor& x, const Geometry& base, const Geometry& v) {
  Tensor out;
  if (count(base.shape) == 0) {
    out = zeros(base.shape, x.dtype(), x.device());
  } else {
    auto [lo, hi] = span_of(base);
    Tensor buffer = empty({hi - lo}, x.dtype(), x.device());
    out = alias(buffer, base.shape, base.strides, base.offset - lo);
    copy_into(out, x);
    if (count(v.shape)) copy_into(alias(buffer, v.shape, v.strides, v.offset - lo), zeros({}, x.dtype(), x.device()));
  }
  if (any_wants(x)) record("outside", {x}, out, [base, v](const PullArgs& a) { a.gin[0] = outside(a.g[0], base, v); });
  push_forward({x}, out, [&](const Tensor*, const Tensor* t, const Tensor&) { return outside(t[0], base, v); });
  return out;
}

Tensor window(const Tensor& t, const Geometry& v) {
  Tensor out = alias(t, v.shape, v.strides, v.offset);
  Meta& meta = out->need_meta();
  meta.base = t->meta && t->meta->base ? t->meta->base : t;
  meta.base_generation = meta.base->generation;
  return out;
}

// Records `out` as a view of t with its own pull; tangents go through the same map.
template <class Pull, class Again>
Tensor finish(const char* op, const Tensor& t, Tensor out, Pull pull, Again again) {
  if (any_wants(t)) record(op, {t}, out, [pull](const PullArgs& a) { a.gin[0] = pull(a.g[0]); });
  push_forward({t}, out, [&](const Tensor*, const Tensor* d, const Tensor&) { return again(d[0]); });
  return out;
}

// The node of a window v on a tensor laid out as `base`.
struct WindowNode final : Node, alloc::Recycled<WindowNode> {
  const char* op;
  Geometry base, v;
  WindowNode(const char* name, const Geometry& b, const Geometry& w) : op(name), base(b), v(w) {
    if (base.offset == 0 && apart(v) && is_contiguous(base.shape, base.strides)) late = kAddsInto;
  }
  const char* name() const override { return op; }
  void pull(const PullArgs& a) override { a.gin[0] = place(a.g[0], base, v); }
  void release() override {}
  bool add_into(const Tensor& sum, const Tensor& g) override {
    if (!(sum.shape() == base.shape)) return false;
    if (g.size()) map_add_into(alias(sum, v.shape, v.strides, sum->offset + v.offset), g);
    return true;
  }
};

// The window `memory` of t's storage, whose map is that of the window v on a tensor laid out as `base`.
Tensor mapped_view(const Tensor& t, const Geometry& memory, const Geometry& base, const Geometry& v, const char* op) {
  Tensor out = window(t, memory);
  if (any_wants(t)) connect(new WindowNode(op, base, v), {&t, 1}, {&out, 1});
  push_forward({t}, out, [&](const Tensor*, const Tensor* d, const Tensor&) { return take_view(d[0], base, v); });
  return out;
}

}  // namespace

Geometry dense(const Tensor& t) { return {t.shape(), contiguous_strides(t.shape()), 0}; }

Tensor view(const Tensor& t, const Geometry& memory, const Geometry& index, const char* op) {
  return traced(t) ? mapped_view(t, memory, dense(t), index, op) : window(t, memory);
}

void refresh_view(const Tensor& t) {
  if (!t->meta || !t->meta->base) return;
  const Tensor& base = t->meta->base;
  if (base->generation == t->meta->base_generation) return;
  t->meta->base_generation = base->generation;
  Geometry b = geometry(base), v = geometry(t);
  Tensor fresh = alias(t, v.shape, v.strides, v.offset);
  GradMode on(true);
  record("view", {base}, fresh, [b, v](const PullArgs& a) { a.gin[0] = place(a.g[0], b, v); });
  if (fresh->node)
    attach(t, fresh->node, 0);
  else
    drop(std::exchange(t->node, nullptr));
  t->meta->tangents.clear();
  push_forward({base}, t, [&](const Tensor*, const Tensor* d, const Tensor&) { return take_view(d[0], b, v); });
}

// ---- shapes

namespace {

Shape infer(const Tensor& t, Shape shape) {
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < shape.size(); i++) {
    if (shape[i] == -1) {
      if (unknown >= 0)
        fail<ShapeError>("reshape", "at most one size may be -1, got " + to_string(shape), "give all sizes but one", t);
      unknown = i;
    } else if (shape[i] < 0) {
      fail<ShapeError>("reshape", "negative size in " + to_string(shape), "use -1 once for the size to infer", t);
    } else if (__builtin_mul_overflow(known, shape[i], &known)) {
      fail<ShapeError>("reshape", "the number of elements of " + to_string(shape) + " overflows", "check the sizes", t);
    }
  }
  if (unknown >= 0) {
    if (known == 0 || t.size() % known)
      fail<ShapeError>("reshape", std::to_string(t.size()) + " elements do not fit " + to_string(shape),
                       "the known sizes must divide the number of elements", t);
    shape[unknown] = t.size() / known;
  } else if (known != t.size()) {
    fail<ShapeError>("reshape", std::to_string(t.size()) + " elements do not fit " + to_string(shape),
                     "the product of the sizes must stay the same", t);
  }
  return shape;
}

// Strides that show t as `shape` without a copy, if there are any.
bool view_strides(const Tensor& t, const Shape& shape, Strides& out) {
  out = contiguous_strides(shape);
  if (t.contiguous() || t.size() == 0) return true;
  // Match groups of old and new dimensions with equal products; each group must be contiguous within itself.
  int i = 0, j = 0, nd = t.ndim();
  while (i < nd || j < shape.size()) {
    int i0 = i, j0 = j;
    int64_t a = i < nd ? t.shape()[i++] : 1, b = j < shape.size() ? shape[j++] : 1;
    while (a != b)
      if (a < b)
        a *= t.shape()[i++];
      else
        b *= shape[j++];
    int64_t stride = 1;
    bool first = true;
    for (int d = i - 1; d >= i0; d--) {
      if (t.shape()[d] == 1) continue;
      if (first)
        stride = t.strides()[d], first = false;
      else if (t.strides()[d] != stride)
        return false;
      stride = t.strides()[d] * t.shape()[d];
    }
    int64_t step = 1;
    for (int d = i - 1; d >= i0; d--)
      if (t.shape()[d] != 1) {
        step = t.strides()[d];
        break;
      }
    for (int d = j - 1; d >= j0; d--) {
      out[d] = step;
      step *= shape[d];
    }
  }
  return true;
}

}  // namespace

Tensor reshape(const Tensor& t, const Shape& wanted) {
  Shape shape = infer(t, wanted);
  Strides strides;
  Shape before = t.shape();
  if (!view_strides(t, shape, strides)) return reshape(contiguous(t), shape);
  return finish(
      "reshape", t, window(t, {shape, strides, t->offset}), [before](const Tensor& g) { return reshape(g, before); },
      [&](const Tensor& d) { return reshape(d, shape); });
}

Tensor permute(const Tensor& t, const Dims& axes) {
  int n = t.ndim();
  if (axes.size() != n)
    fail<ShapeError>("permute_dims", "axes " + to_string(axes) + " must name each of the dimensions once",
                     "give " + std::to_string(n) + " axes", t);
  Dims inverse(n, -1), order(n);
  Geometry v{Shape(n), Strides(n), t->offset};
  for (int i = 0; i < n; i++) {
    int a = normalize_axis(axes[i], n, "permute_dims");
    if (inverse[a] >= 0)
      fail<ShapeError>("permute_dims", "axis " + std::to_string(a) + " is named twice in " + to_string(axes),
                       "name each axis once", t);
    inverse[a] = i;
    order[i] = a;
    v.shape[i] = t.shape()[a];
    v.strides[i] = t.strides()[a];
  }
  return finish(
      "permute_dims", t, window(t, v), [inverse](const Tensor& g) { return permute(g, inverse); },
      [&](const Tensor& d) { return permute(d, order); });
}

Tensor swap_axes(const Tensor& t, int64_t a, int64_t b) {
  int n = t.ndim();
  Dims order(n);
  for (int i = 0; i < n; i++) order[i] = i;
  int i = normalize_axis(a, n, "swapaxes"), j = normalize_axis(b, n, "swapaxes");
  std::swap(order[i], order[j]);
  return permute(t, order);
}

Tensor expand_dims(const Tensor& t, int64_t axis) {
  Shape s = t.shape();
  s.insert(normalize_axis(axis, t.ndim() + 1, "expand_dims"), 1);
  return reshape(t, s);
}

Tensor squeeze(const Tensor& t, const Dims& axes) {
  Shape s;
  Dims drop_axis(t.ndim(), 0);
  for (int64_t a : axes) {
    int i = normalize_axis(a, t.ndim(), "squeeze");
    if (t.shape()[i] != 1)
      fail<ShapeError>("squeeze", "axis " + std::to_string(a) + " has size " + std::to_string(t.shape()[i]),
                       "only axes of size 1 can be squeezed", t);
    drop_axis[i] = 1;
  }
  for (int i = 0; i < t.ndim(); i++)
    if (!drop_axis[i]) s.push_back(t.shape()[i]);
  return reshape(t, s);
}

Tensor broadcast_to(const Tensor& t, const Shape& shape) {
  if (t.shape() == shape) return t;
  if (!(broadcast(t.shape(), shape, "broadcast_to") == shape))
    fail<ShapeError>("broadcast_to", "the target shape " + to_string(shape) + " is smaller than the tensor",
                     "only axes of size 1 can grow", t);
  Shape before = t.shape();
  Tensor out = window(t, {shape, broadcast_strides(t.shape(), t.strides(), shape), t->offset});
  out->weak = t.weak();
  return finish(
      "broadcast_to", t, out, [before](const Tensor& g) { return sum_to_shape(g, before); },
      [&](const Tensor& d) { return broadcast_to(d, shape); });
}

Tensor sum_to_shape(const Tensor& t, const Shape& shape) {
  if (t.shape() == shape) return t;
  if (t.ndim() < shape.size()) return broadcast_to(t, shape);  // a weak constant stands for a whole cotangent
  Dims axes;
  int shift = t.ndim() - shape.size();
  bool grow = false;
  for (int i = 0; i < t.ndim(); i++) {
    if (i < shift || (shape[i - shift] == 1 && t.shape()[i] != 1))
      axes.push_back(i);
    else if (shape[i - shift] != t.shape()[i])
      grow = true;
  }
  if (grow) return broadcast_to(t, shape);
  return reshape(axes.size() ? sum(t, axes, true) : t, shape);
}

Tensor flip(const Tensor& t, const Dims& axes) {
  Geometry v = geometry(t);
  for (int64_t axis : axes) {
    int a = normalize_axis(axis, t.ndim(), "flip");
    if (v.shape[a] > 0) v.offset += (v.shape[a] - 1) * v.strides[a];
    v.strides[a] = -v.strides[a];
  }
  return finish(
      "flip", t, window(t, v), [axes](const Tensor& g) { return flip(g, axes); },
      [&](const Tensor& d) { return flip(d, axes); });
}

Tensor slice(const Tensor& t, int axis, int64_t start, int64_t length, int64_t step) {
  auto cut = [&](Geometry g) {
    if (length > 0) g.offset += start * g.strides[axis];
    g.shape[axis] = length;
    g.strides[axis] *= step;
    return g;
  };
  return view(t, cut(geometry(t)), traced(t) ? cut(dense(t)) : Geometry(), "slice");
}

// Note [Parts]
// All parts of a split are outputs of one node, so their cotangents are joined by one pass over the whole; a slice each
// would fill and add a whole per part.
std::vector<Tensor> split(const Tensor& t, int axis, const std::vector<int64_t>& ends) {
  std::vector<Tensor> parts;
  int64_t from = 0;
  bool together = any_wants(t) && is_float(t.dtype()) && std::is_sorted(ends.begin(), ends.end());
  for (int64_t end : ends) {
    int64_t length = end > from ? end - from : 0;
    if (together) {
      Geometry g = geometry(t);
      if (length) g.offset += from * g.strides[axis];
      g.shape[axis] = length;
      parts.push_back(window(t, g));
    } else {
      parts.push_back(slice(t, axis, from < t.shape()[axis] ? from : 0, length, 1));
    }
    from = end;
  }
  if (!together) return parts;
  Shape shape = t.shape();
  record_n("split", {&t, 1}, parts, {}, [shape, axis, ends, device = t.device()](const Slots&, const PullArgs& a) {
    std::vector<Tensor> g;
    DType dtype = DType::F32;
    int64_t from = 0, count = int64_t(ends.size());
    for (int64_t i = 0; i < count; i++)
      if (a.g[i]) dtype = a.g[i].dtype();
    for (int64_t i = 0; i < count; from = ends[size_t(i++)]) {
      Shape part = shape;
      part[axis] = ends[size_t(i)] > from ? ends[size_t(i)] - from : 0;
      g.push_back(a.g[i] ? broadcast_to(a.g[i], part) : zeros(part, dtype, device));
    }
    a.gin[0] = concat(g, axis);
  });
  from = 0;
  for (size_t i = 0; i < ends.size(); from = ends[i++]) {
    int64_t length = ends[i] > from ? ends[i] - from : 0;
    push_forward({t}, parts[i], [&](const Tensor*, const Tensor* d, const Tensor&) {
      return slice(d[0], axis, length ? from : 0, length, 1);
    });
  }
  return parts;
}

Tensor select(const Tensor& t, int axis, int64_t index) {
  auto cut = [&](Geometry g) {
    g.offset += index * g.strides[axis];
    g.shape.erase(axis);
    g.strides.erase(axis);
    return g;
  };
  return view(t, cut(geometry(t)), traced(t) ? cut(dense(t)) : Geometry(), "slice");
}

// ---- copies and casts

Tensor with_copy(const Tensor& t) {
  Profiled scope("copy");
  Tensor out = clone(t);
  out->weak = t.weak();
  record("copy", {t}, out, [](const PullArgs& a) { a.gin[0] = a.g[0]; });
  push_forward({t}, out, [](const Tensor*, const Tensor* d, const Tensor&) { return d[0]; });
  return out;
}

Tensor moved(const Tensor& t, Device device) {
  if (t.device() == device) return t;
  Profiled scope("to");
  Tensor out = to_device(t, device);
  Device before = t.device();
  record("to", {t}, out, [before](const PullArgs& a) { a.gin[0] = moved(a.g[0], before); });
  push_forward({t}, out, [&](const Tensor*, const Tensor* d, const Tensor&) { return moved(d[0], device); });
  return out;
}

Tensor beside(const Tensor& t, const Tensor& target) {
  if (!t.weak() || !on_cuda(target)) return t;
  if (is_float(t.dtype())) return full({}, item_double(t), target.dtype(), target.device());
  return full_int({}, item_int(t), target.dtype(), target.device());
}

Tensor contiguous(const Tensor& t) { return t.contiguous() ? t : with_copy(t); }

Tensor cast(const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  Tensor out = empty(t.shape(), dtype, t.device());
  copy_into(out, t);
  DType before = t.dtype();
  record("cast", {t}, out, [before](const PullArgs& a) { a.gin[0] = cast(a.g[0], before); });
  push_forward({t}, out, [&](const Tensor*, const Tensor* d, const Tensor&) { return cast(d[0], dtype); });
  return out;
}

// ---- writing in place

InPlace::InPlace(const Tensor& target, const char* op) : target_(target), op_(op) {
  refresh_view(target);
  const Tensor& base = target->meta && target->meta->base ? target->meta->base : target;
  if (mode().grad && base->wants_grad)
    fail<GraphError>(op, "a leaf that requires grad cannot be written in place while gradients are recorded",
                     "write inside pb.no_grad(), or to a result computed from it", target);
  for (int i = 0; i < target.ndim(); i++)
    if (target.strides()[i] == 0 && target.shape()[i] > 1 && target.size() > 0)
      fail<ShapeError>(op, "several elements of this view share one address", "write to pb.tensor(x), a copy", target);
  before_ = strip(detach(target), 0);
  before_->weak = false;
  if (target->node) attach(before_, target->node, target->out_index);
  if (has_tangent(target)) before_->need_meta().tangents = target->meta->tangents;
}

bool InPlace::tracked(std::span<const Tensor> in) const {
  if (wants_node(before_)) return true;
  for (const Tensor& t : in)
    if (wants_node(t)) return true;
  return false;
}

void InPlace::done() { target_->storage->version++; }

void InPlace::replace(const Tensor& value) {
  Tensor base = target_->meta && target_->meta->base ? target_->meta->base : Tensor();
  bool tangents = has_tangent(value) || has_tangent(before_) || (base && has_tangent(base));
  if (!base) {
    if (mode().grad) {
      if (value->node)
        attach(target_, value->node, value->out_index);
      else
        drop(std::exchange(target_->node, nullptr));
    }
    if (tangents) target_->need_meta().tangents = value->meta ? value->meta->tangents : std::vector<Tangent>{};
    target_->generation++;
    return;
  }
  bool tracks = mode().grad && (value->node || base->node);
  if (!tracks && !tangents) return;
  Geometry b = geometry(base), v = geometry(target_);
  Tensor old = detach(base);
  if (base->node) attach(old, base->node, base->out_index);
  if (has_tangent(base)) old->need_meta().tangents = base->meta->tangents;
  Tensor fresh = detach(base);
  record("view_write", {old, value}, fresh, [b, v](const PullArgs& a) {
    if (a.need(0)) a.gin[0] = outside(a.g[0], b, v);
    if (a.need(1)) a.gin[1] = take_view(a.g[0], b, v);
  });
  push_forward({old, value}, fresh, [&](const Tensor*, const Tensor* d, const Tensor&) {
    Tensor t = d[0] ? outside(d[0], b, v) : zeros(b.shape, base.dtype(), base.device());
    return d[1] ? t + place(d[1], b, v) : t;
  });
  if (mode().grad) {
    if (fresh->node)
      attach(base, fresh->node, 0);
    else
      drop(std::exchange(base->node, nullptr));
  }
  if (tangents) base->need_meta().tangents = fresh->meta ? fresh->meta->tangents : std::vector<Tangent>{};
  base->generation++;
  refresh_view(target_);
}

void assign(const Tensor& target, const Tensor& source, const char* op) {
  check_writable(target, op);
  if (!(broadcast(source.shape(), target.shape(), op) == target.shape()))
    fail<ShapeError>(op, "the value does not fit the place it is written to", "its shape must broadcast to the target",
                     target, source);
  if (!source.weak() && category(source.dtype()) == Category::Float && !is_float(target.dtype()))
    fail<DTypeError>(op, "a float value cannot be written to an integer or bool tensor", "cast it with .astype", target,
                     source);
  if (!source.weak() && !(source.device() == target.device())) mixed_devices(op, target, source);
  InPlace write(target, op);
  Tensor value = cast(broadcast_to(beside(source, target), target.shape()), target.dtype());
  if (value->storage == target->storage) value = with_copy(value);
  copy_into(target, value);
  write.done();
  Tensor now = detach(target);
  record("assign", {value}, now, [](const PullArgs& a) { a.gin[0] = a.g[0]; });
  push_forward({value}, now, [](const Tensor*, const Tensor* d, const Tensor&) { return d[0]; });
  write.replace(now);
}

}  // namespace pb
