// Views, joining and indexing functions.
#include <nanobind/stl/string.h>

#include "bind/caster.h"
#include "families/gather.h"
#include "families/map.h"
#include "families/view.h"
#include "ops/transcendental.h"

namespace pb::py {

namespace {

// min and max may be numbers or tensors; with numbers it is one op, derivative 1 at the bounds either way.
Tensor clip(const Tensor& x, nb::handle lo, nb::handle hi) {
  auto number = [](nb::handle h) { return h.is_none() || PyFloat_CheckExact(h.ptr()) || PyLong_CheckExact(h.ptr()); };
  if (number(lo) && number(hi) && is_float(x.dtype())) {
    double inf = std::numeric_limits<double>::infinity();
    const double params[] = {lo.is_none() ? -inf : nb::cast<double>(nb::float_(lo)),
                             hi.is_none() ? inf : nb::cast<double>(nb::float_(hi))};
    const Tensor in[] = {x};
    return map_call(map_row<Clip>(), in, params);
  }
  Tensor y = x;
  if (!lo.is_none()) {
    Tensor b = to_tensor(lo.ptr());
    y = where(y < b, b, y);
  }
  if (!hi.is_none()) {
    Tensor b = to_tensor(hi.ptr());
    y = where(y > b, b, y);
  }
  return y;
}

Dims axes_of(const Tensor& x, const Axes& a) {
  if (!a.all) return a.axes;
  Dims d;
  for (int i = 0; i < x.ndim(); i++) d.push_back(i);
  return d;
}

Tensor moveaxis(const Tensor& x, const Dims& from, const Dims& to) {
  int n = x.ndim();
  if (from.size() != to.size())
    fail<ShapeError>("moveaxis", "source and destination name different numbers of axes", "give one target per axis", x);
  Dims order(n, -1), used(n, 0);
  for (int i = 0; i < from.size(); i++) {
    int f = normalize_axis(from[i], n, "moveaxis"), t = normalize_axis(to[i], n, "moveaxis");
    if (used[f] || order[t] >= 0) fail<ShapeError>("moveaxis", "an axis is named twice", "name each axis once", x);
    order[t] = f;
    used[f] = 1;
  }
  int next = 0;
  for (int i = 0; i < n; i++) {
    if (order[i] >= 0) continue;
    while (used[next]) next++;
    order[i] = next++;
  }
  return permute(x, order);
}

using Widths = std::vector<std::pair<int64_t, int64_t>>;

// NumPy's forms: n, (before, after), ((before, after),), or one pair per axis.
Widths widths_of(nb::handle h, const Tensor& x) {
  Widths w;
  if (PyLong_Check(h.ptr())) {
    int64_t n = nb::cast<int64_t>(h);
    return Widths(size_t(x.ndim()), {n, n});
  }
  auto pair_of = [&](const Dims& d) {
    if (d.size() < 1 || d.size() > 2)
      fail<ShapeError>("pad", "a pair of widths has " + std::to_string(d.size()) + " numbers", "give (before, after) per axis", x);
    return std::pair{d[0], d.back()};
  };
  bool flat = nb::len(h) > 0;
  nb::object list = nb::steal(PySequence_List(h.ptr()));
  if (!list.is_valid()) nb::raise_python_error();
  for (nb::handle e : list) flat = flat && PyLong_Check(e.ptr());
  if (flat) return Widths(size_t(x.ndim()), pair_of(to_dims(list.ptr(), "pad")));
  for (nb::handle e : list) w.push_back(pair_of(to_dims(e.ptr(), "pad")));
  if (w.size() == 1) w.resize(size_t(x.ndim()), w[0]);
  return w;
}

int64_t wrapped(int64_t i, int64_t period) { return ((i % period) + period) % period; }

// The borders repeat elements of x, so padding is a take per axis.
Tensor pad_by_index(Tensor x, const Widths& w, const std::string& mode) {
  if (mode != "edge" && mode != "reflect" && mode != "symmetric" && mode != "wrap")
    fail<ValueError>("pad", "unknown mode '" + mode + "'", "modes: constant, edge, reflect, symmetric, wrap", x);
  pad(zeros(Shape(x.ndim(), 0), DType::Bool), w, 0);  // the checks of the widths
  for (int axis = 0; axis < x.ndim(); axis++) {
    auto [before, after] = w[size_t(axis)];
    int64_t n = x.shape()[axis];
    if (before + after == 0) continue;
    if (n == 0) fail<ShapeError>("pad", "an empty axis has no elements to repeat", "use mode=\"constant\"", x);
    Tensor index = empty({before + n + after}, DType::I64);
    for (int64_t i = -before; i < n + after; i++) {
      int64_t at = i;
      if (mode == "edge") at = i < 0 ? 0 : i >= n ? n - 1 : i;
      else if (mode == "wrap") at = wrapped(i, n);
      else if (mode == "symmetric") at = (at = wrapped(i, 2 * n)) < n ? at : 2 * n - 1 - at;
      else if (n == 1) at = 0;
      else at = (at = wrapped(i, 2 * n - 2)) < n ? at : 2 * n - 2 - at;
      index.data<int64_t>()[i + before] = at;
    }
    x = take_rows(x, index, axis);
  }
  return x;
}

Tensor repeat(const Tensor& x, const Tensor& repeats, int64_t axis) {
  int a = normalize_axis(axis, x.ndim(), "repeat");
  int64_t n = x.shape()[a], total = 0;
  if (!is_integer(repeats.dtype())) fail<DTypeError>("repeat", "the counts must be integers", "cast them", x, repeats);
  if (repeats.ndim() > 1 || (repeats.size() != 1 && repeats.size() != n))
    fail<ShapeError>("repeat", "there must be one count, or one per element of the axis", "give an int", x, repeats);
  Tensor counts = contiguous(cast(broadcast_to(detach(repeats), {n}), DType::I64));
  for (int64_t i = 0; i < n; i++) {
    int64_t c = counts.data<int64_t>()[i];
    if (c < 0 || __builtin_add_overflow(total, c, &total))
      fail<ValueError>("repeat", "a count is negative or the sum overflows", "counts are at least 0", x);
  }
  Tensor index = empty({total}, DType::I64);
  int64_t* p = index.data<int64_t>();
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = counts.data<int64_t>()[i]; c > 0; c--) *p++ = i;
  return take_rows(x, index, a);
}

Tensor roll_axes(Tensor x, const Dims& shift, const Dims& axes) {
  if (shift.size() != axes.size() && shift.size() != 1)
    fail<ShapeError>("roll", std::to_string(shift.size()) + " shifts for " + std::to_string(axes.size()) + " axes",
                     "give one shift, or one per axis", x);
  for (int i = 0; i < axes.size(); i++)
    x = roll(x, shift[shift.size() == 1 ? 0 : i], normalize_axis(axes[i], x.ndim(), "roll"));
  return x;
}

std::vector<Tensor> tensors_of(nb::handle list) {
  std::vector<Tensor> v;
  for (nb::handle h : nb::cast<nb::sequence>(list)) v.push_back(to_tensor(h.ptr()));
  return v;
}

}  // namespace

void bind_shapes(nb::module_& m) {
  m.def("reshape", [](const Operand& x, const Dims& shape) { return reshape(x.t, shape); }, nb::arg("x"), nb::arg("shape"),
        "The same elements in another shape; one size may be -1. A view where strides allow.");
  m.def("permute_dims", [](const Operand& x, const Dims& axes) { return permute(x.t, axes); }, nb::arg("x"), nb::arg("axes"));
  m.def("matrix_transpose", [](const Operand& x) { return swap_axes(x.t, -1, -2); }, nb::arg("x"));
  m.def("expand_dims", [](const Operand& x, int64_t axis) { return expand_dims(x.t, axis); }, nb::arg("x"), nb::arg("axis") = 0);
  m.def("squeeze", [](const Operand& x, const Axes& axis) {
    Dims axes = axis.axes;
    if (axis.all)
      for (int i = 0; i < x.t.ndim(); i++)
        if (x.t.shape()[i] == 1) axes.push_back(i);
    return squeeze(x.t, axes);
  }, nb::arg("x"), nb::arg("axis") = nb::none());
  m.def("broadcast_to", [](const Operand& x, const Dims& shape) { return broadcast_to(x.t, shape); }, nb::arg("x"), nb::arg("shape"));
  m.def("_broadcast_shapes", [](const Dims& a, const Dims& b) { return broadcast(a, b, "broadcast_arrays"); }, nb::arg("a"),
        nb::arg("b"));
  m.def("flip", [](const Operand& x, const Axes& axis) { return flip(x.t, axes_of(x.t, axis)); }, nb::arg("x"),
        nb::arg("axis") = nb::none());
  m.def("moveaxis", [](const Operand& x, const Dims& a, const Dims& b) { return moveaxis(x.t, a, b); }, nb::arg("x"),
        nb::arg("source"), nb::arg("destination"));
  m.def("flatten", [](const Operand& x, int start) {
    Shape s;
    int64_t rest = 1;
    for (int i = 0; i < x.t.ndim(); i++)
      if (i < start) s.push_back(x.t.shape()[i]);
      else rest *= x.t.shape()[i];
    s.push_back(rest);
    return reshape(x.t, s);
  }, nb::arg("x"), nb::arg("start_axis") = 0);
  m.def("clip", [](const Operand& x, nb::handle lo, nb::handle hi) { return clip(x.t, lo, hi); }, nb::arg("x"),
        nb::arg("min").none() = nb::none(), nb::arg("max").none() = nb::none(),
        "x limited to [min, max]; derivative 1 at the bounds.");
  m.def("concat", [](nb::handle list, nb::handle axis) {
    auto v = tensors_of(list);
    if (axis.is_none()) {
      for (Tensor& t : v) t = reshape(t, {-1});
      return concat(v, 0);
    }
    return concat(v, nb::cast<int64_t>(axis));
  }, nb::arg("arrays"), nb::arg("axis").none() = 0);
  m.def("stack", [](nb::handle list, int64_t axis) {
    auto v = tensors_of(list);
    for (Tensor& t : v) t = expand_dims(t, axis);
    if (!v.empty() && axis < 0) axis = normalize_axis(axis, v[0].ndim(), "stack");
    return concat(v, axis);
  }, nb::arg("arrays"), nb::arg("axis") = 0);
  m.def("split", [](const Operand& x, nb::handle sections, int64_t axis) {
    int a = normalize_axis(axis, x.t.ndim(), "split");
    int64_t size = x.t.shape()[a];
    std::vector<int64_t> cuts;
    if (PyLong_Check(sections.ptr())) {
      int64_t n = nb::cast<int64_t>(sections);
      if (n <= 0 || size % n)
        fail<ShapeError>("split", std::to_string(size) + " elements do not split into " + std::to_string(n) + " equal parts",
                         "pass a list of cut positions for unequal parts", x.t);
      for (int64_t i = 1; i < n; i++) cuts.push_back(i * (size / n));
    } else {
      for (int64_t c : to_dims(sections.ptr(), "split")) cuts.push_back(c < 0 ? 0 : c > size ? size : c);
    }
    cuts.push_back(size);
    nb::list out;
    int64_t from = 0;
    for (int64_t c : cuts) {
      out.append(slice(x.t, a, from, c > from ? c - from : 0));
      from = c;
    }
    return out;
  }, nb::arg("x"), nb::arg("sections"), nb::arg("axis") = 0, "Equal parts (an int) or parts between cut positions.");
  m.def("pad", [](const Operand& x, nb::handle widths, const std::string& mode, double value) {
    Widths w = widths_of(widths, x.t);
    return mode == "constant" ? pad(x.t, w, value) : pad_by_index(x.t, w, mode);
  }, nb::arg("x"), nb::arg("widths"), nb::kw_only(), nb::arg("mode") = "constant", nb::arg("value") = 0.0,
        "x with more elements at its borders. widths: an int, (before, after), or one such pair per axis. mode: constant,\n"
        "edge, reflect, symmetric or wrap, as numpy.pad.\n\nExample:\n"
        "    >>> pb.pad(pb.asarray([1, 2]), (1, 2)).tolist()\n    [0, 1, 2, 0, 0]");
  m.def("tile", [](const Operand& x, const Dims& times) { return tile(x.t, times); }, nb::arg("x"), nb::arg("repetitions"),
        "x side by side, repetitions[i] times along axis i.");
  m.def("repeat", [](const Operand& x, const Operand& repeats, nb::handle axis) {
    if (axis.is_none()) return repeat(reshape(x.t, {-1}), repeats.t, 0);
    return repeat(x.t, repeats.t, nb::cast<int64_t>(axis));
  }, nb::arg("x"), nb::arg("repeats"), nb::kw_only(), nb::arg("axis").none() = nb::none(),
        "Each element several times; repeats is one count or one per element of the axis (None: of flat x).");
  m.def("roll", [](const Operand& x, const Dims& shift, const Axes& axis) {
    if (axis.all) return reshape(roll_axes(reshape(x.t, {-1}), shift, {0}), x.t.shape());
    return roll_axes(x.t, shift, axis.axes);
  }, nb::arg("x"), nb::arg("shift"), nb::kw_only(), nb::arg("axis") = nb::none(),
        "Elements moved by `shift` places, those that fall off come in again at the start.");
  m.def("unstack", [](const Operand& x, int64_t axis) {
    int a = normalize_axis(axis, x.t.ndim(), "unstack");
    nb::list out;
    for (int64_t i = 0; i < x.t.shape()[a]; i++) out.append(select(x.t, a, i));
    return nb::tuple(out);
  }, nb::arg("x"), nb::kw_only(), nb::arg("axis") = 0, "The slices along an axis, as a tuple of views.");
  m.def("take", [](const Operand& x, const Operand& indices, nb::handle axis) {
    if (axis.is_none()) return take(reshape(x.t, {-1}), indices.t, 0);
    return take(x.t, indices.t, nb::cast<int64_t>(axis));
  }, nb::arg("x"), nb::arg("indices"), nb::kw_only(), nb::arg("axis").none() = nb::none());
  m.def("embedding", [](const Operand& indices, const Tensor& weight) { return take(weight, indices.t, 0); }, nb::arg("indices"),
        nb::arg("weight"), "Rows of weight (n, width) by integer indices.");
  m.def("take_along_axis", [](const Operand& x, const Operand& indices, int64_t axis) { return take_along_axis(x.t, indices.t, axis); },
        nb::arg("x"), nb::arg("indices"), nb::arg("axis") = -1);
  m.def("scatter_add", [](const Operand& x, const Operand& indices, const Operand& values, int64_t axis) {
    return scatter_add(x.t, indices.t, values.t, axis);
  }, nb::arg("x"), nb::arg("indices"), nb::arg("values"), nb::kw_only(), nb::arg("axis"));
}

}  // namespace pb::py
