// Views, joining and indexing functions.
#include <nanobind/stl/string.h>

#include "bind/front.h"
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
    fail<ShapeError>("moveaxis", "source and destination name different numbers of axes", "give one target per axis",
                     x);
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
      fail<ShapeError>("pad", "a pair of widths has " + std::to_string(d.size()) + " numbers",
                       "give (before, after) per axis", x);
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
      if (mode == "edge")
        at = i < 0 ? 0 : i >= n ? n - 1 : i;
      else if (mode == "wrap")
        at = wrapped(i, n);
      else if (mode == "symmetric")
        at = (at = wrapped(i, 2 * n)) < n ? at : 2 * n - 1 - at;
      else if (n == 1)
        at = 0;
      else
        at = (at = wrapped(i, 2 * n - 2)) < n ? at : 2 * n - 2 - at;
      index.data<int64_t>()[i + before] = at;
    }
    x = take_rows(x, to_device(index, x.device()), axis);
  }
  return x;
}

Tensor repeat(const Tensor& x, const Tensor& repeats, int64_t axis) {
  int a = normalize_axis(axis, x.ndim(), "repeat");
  int64_t n = x.shape()[a], total = 0;
  if (!is_integer(repeats.dtype())) fail<DTypeError>("repeat", "the counts must be integers", "cast them", x, repeats);
  if (repeats.ndim() > 1 || (repeats.size() != 1 && repeats.size() != n))
    fail<ShapeError>("repeat", "there must be one count, or one per element of the axis", "give an int", x, repeats);
  Tensor counts = to_device(contiguous(cast(broadcast_to(detach(repeats), {n}), DType::I64)), {});
  for (int64_t i = 0; i < n; i++) {
    int64_t c = counts.data<int64_t>()[i];
    if (c < 0 || __builtin_add_overflow(total, c, &total))
      fail<ValueError>("repeat", "a count is negative or the sum overflows", "counts are at least 0", x);
  }
  Tensor index = empty({total}, DType::I64);
  int64_t* p = index.data<int64_t>();
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = counts.data<int64_t>()[i]; c > 0; c--) *p++ = i;
  return take_rows(x, to_device(index, x.device()), a);
}

Tensor roll_axes(Tensor x, const Dims& shift, const Dims& axes) {
  if (shift.size() != axes.size() && shift.size() != 1)
    fail<ShapeError>("roll", std::to_string(shift.size()) + " shifts for " + std::to_string(axes.size()) + " axes",
                     "give one shift, or one per axis", x);
  for (int i = 0; i < axes.size(); i++)
    x = roll(x, shift[shift.size() == 1 ? 0 : i], normalize_axis(axes[i], x.ndim(), "roll"));
  return x;
}

std::vector<Tensor> tensors_of(nb::handle list, const char* op) {
  if (!PySequence_Check(list.ptr()))
    fail<DTypeError>(op, std::string("takes a sequence of tensors, got ") + Py_TYPE(list.ptr())->tp_name,
                     "put the tensors in a list or tuple");
  std::vector<Tensor> v;
  for (nb::handle h : nb::cast<nb::sequence>(list)) v.push_back(to_tensor(h.ptr()));
  return v;
}

int64_t to_axis(nb::handle h, const char* op) {
  Dims d = to_dims(h.ptr(), op);
  if (d.size() != 1) fail<ShapeError>(op, "takes one axis, got " + std::to_string(d.size()), "pass an int");
  return d[0];
}

Tensor flatten(const Tensor& x, int64_t start) {
  int from = x.ndim() ? normalize_axis(start, x.ndim(), "flatten") : 0;
  Shape s;
  int64_t rest = 1;
  for (int i = 0; i < x.ndim(); i++)
    if (i < from)
      s.push_back(x.shape()[i]);
    else
      rest *= x.shape()[i];
  s.push_back(rest);
  return reshape(x, s);
}

nb::list split(const Tensor& x, nb::handle sections, int64_t axis) {
  int a = normalize_axis(axis, x.ndim(), "split");
  int64_t size = x.shape()[a];
  std::vector<int64_t> cuts;
  if (PyLong_Check(sections.ptr())) {
    int64_t n = nb::cast<int64_t>(sections);
    if (n <= 0 || size % n)
      fail<ShapeError>("split",
                       std::to_string(size) + " elements do not split into " + std::to_string(n) + " equal parts",
                       "pass a list of cut positions for unequal parts", x);
    for (int64_t i = 1; i < n; i++) cuts.push_back(i * (size / n));
  } else {
    for (int64_t c : to_dims(sections.ptr(), "split")) {
      int64_t at = c < 0 ? c + size : c;
      cuts.push_back(at < 0 ? 0 : at > size ? size : at);
    }
  }
  cuts.push_back(size);
  nb::list out;
  int64_t from = 0;
  for (int64_t c : cuts) {
    out.append(slice(x, a, from < size ? from : 0, c > from ? c - from : 0));
    from = c;
  }
  return out;
}

Tensor join(nb::handle list, nb::handle axis) {
  auto v = tensors_of(list, "concat");
  if (!axis.is_none()) return concat(v, to_axis(axis, "concat"));
  for (Tensor& t : v) t = reshape(t, {-1});
  return concat(v, 0);
}

Tensor stack(nb::handle list, int64_t axis) {
  auto v = tensors_of(list, "stack");
  for (const Tensor& t : v)
    if (!(t.shape() == v[0].shape()))
      fail<ShapeError>("stack", "shapes differ; all arrays must have one shape", "broadcast or reshape them first",
                       v[0], t);
  for (Tensor& t : v) t = expand_dims(t, axis);
  if (!v.empty()) axis = normalize_axis(axis, v[0].ndim(), "stack");
  return concat(v, axis);
}

void bind_layouts(nb::module_& m) {
  def_op(
      m,
      {"reshape", "View", "reshape(x, shape)",
       "The same elements in another shape; one size may be -1. A view where strides allow.\n\nExample:\n"
       "    >>> pb.reshape(pb.arange(6), (2, -1)).shape\n    (2, 3)"},
      [](const Operand& x, const Dims& shape) { return reshape(x.t, shape); }, nb::arg("x"), nb::arg("shape"));
  def_op(
      m,
      {"permute_dims", "View", "permute_dims(x, axes)",
       "The axes in another order, as a view: axis i of the result is axis axes[i] of x.\n\nExample:\n"
       "    >>> pb.permute_dims(pb.zeros((2, 3, 4)), (2, 0, 1)).shape\n    (4, 2, 3)"},
      [](const Operand& x, const Dims& axes) { return permute(x.t, axes); }, nb::arg("x"), nb::arg("axes"));
  def_op(
      m, {"matrix_transpose", "View", "matrix_transpose(x)", "The last two axes exchanged, as a view."},
      [](const Operand& x) { return swap_axes(x.t, -1, -2); }, nb::arg("x"));
  def_op(
      m,
      {"moveaxis", "View", "moveaxis(x, source, destination)",
       "Axes at other places, the others in their order; a view.\n\nExample:\n"
       "    >>> pb.moveaxis(pb.zeros((2, 3, 4)), 0, -1).shape\n    (3, 4, 2)"},
      [](const Operand& x, const Dims& a, const Dims& b) { return moveaxis(x.t, a, b); }, nb::arg("x"),
      nb::arg("source"), nb::arg("destination"));
  def_op(
      m,
      {"expand_dims", "View", "expand_dims(x, axis=0)",
       "A new axis of size 1 at `axis` of the result, as a view.\n\nExample:\n"
       "    >>> pb.expand_dims(pb.zeros(3), -1).shape\n    (3, 1)"},
      [](const Operand& x, int64_t axis) { return expand_dims(x.t, axis); }, nb::arg("x"), nb::arg("axis") = 0);
  def_op(
      m,
      {"squeeze", "View", "squeeze(x, axis=None)",
       "Without the named axes, which must have size 1 (None: every axis of size 1), as a view.\n\nExample:\n"
       "    >>> pb.squeeze(pb.zeros((1, 3, 1)), 0).shape\n    (3, 1)"},
      [](const Operand& x, const Axes& axis) {
        Dims axes = axis.axes;
        if (axis.all)
          for (int i = 0; i < x.t.ndim(); i++)
            if (x.t.shape()[i] == 1) axes.push_back(i);
        return squeeze(x.t, axes);
      },
      nb::arg("x"), nb::arg("axis") = nb::none());
  def_op(
      m,
      {"broadcast_to", "View", "broadcast_to(x, shape)",
       "x repeated to a shape by stride 0, as a view.\n\nExample:\n"
       "    >>> pb.broadcast_to(pb.asarray([1, 2]), (2, 2)).tolist()\n    [[1, 2], [1, 2]]"},
      [](const Operand& x, const Dims& shape) { return broadcast_to(x.t, shape); }, nb::arg("x"), nb::arg("shape"));
  def_op(
      m,
      {"flip", "View", "flip(x, axis=None)",
       "The elements along the axes (None: all) in reverse order, as a view.\n\nExample:\n"
       "    >>> pb.flip(pb.arange(3)).tolist()\n    [2, 1, 0]"},
      [](const Operand& x, const Axes& axis) { return flip(x.t, axes_of(x.t, axis)); }, nb::arg("x"),
      nb::arg("axis") = nb::none());
  def_op(
      m,
      {"flatten", "View", "flatten(x, start_axis=0)",
       "The axes from start_axis on as one.\n\nExample:\n    >>> pb.flatten(pb.zeros((2, 3, 4)), 1).shape\n    (2, "
       "12)"},
      [](const Operand& x, int64_t start) { return flatten(x.t, start); }, nb::arg("x"), nb::arg("start_axis") = 0);
  def_op(
      m,
      {"split", "View", "split(x, sections, axis=0)",
       "Views of equal parts (an int) or of the parts between cut positions (a list), as a list.\n\nExample:\n"
       "    >>> [p.tolist() for p in pb.split(pb.arange(5), [2, 3])]\n    [[0, 1], [2], [3, 4]]"},
      [](const Operand& x, nb::handle sections, int64_t axis) { return split(x.t, sections, axis); }, nb::arg("x"),
      nb::arg("sections"), nb::arg("axis") = 0);
}

void bind_joins(nb::module_& m) {
  def_op(
      m,
      {"unstack", "Linear", "unstack(x, *, axis=0)",
       "The slices of x along an axis, as a tuple of copies without that axis."},
      [](const Operand& x, int64_t axis) {
        nb::list parts;
        for (const Tensor& t : unstack(x.t, axis)) parts.append(t);
        return nb::tuple(parts);
      },
      nb::arg("x"), nb::kw_only(), nb::arg("axis") = 0);
  def_op(m,
         {"concat", "Linear", "concat(arrays, axis=0)",
          "The arrays one after the other along an existing axis (None: each flattened).\n\nExample:\n"
          "    >>> pb.concat([pb.zeros((1, 2)), pb.ones((2, 2))]).shape\n    (3, 2)"},
         &join, nb::arg("arrays"), nb::arg("axis").none() = 0);
  def_op(m,
         {"stack", "Linear", "stack(arrays, axis=0)",
          "Arrays of one shape along a new axis.\n\nExample:\n"
          "    >>> pb.stack([pb.zeros(2), pb.ones(2)], axis=1).tolist()\n    [[0.0, 1.0], [0.0, 1.0]]"},
         &stack, nb::arg("arrays"), nb::arg("axis") = 0);
  def_op(
      m,
      {"pad", "Linear", "pad(x, widths, *, mode='constant', value=0)",
       "x with more elements at its borders. widths: an int, (before, after), or one such pair per axis. mode: "
       "constant,\n"
       "edge, reflect, symmetric or wrap, as numpy.pad.\n\nExample:\n"
       "    >>> pb.pad(pb.asarray([1, 2]), (1, 2)).tolist()\n    [0, 1, 2, 0, 0]"},
      [](const Operand& x, nb::handle widths, const std::string& mode, double value) {
        Widths w = widths_of(widths, x.t);
        if (mode == "constant") return pad(x.t, w, value);
        return pad_by_index(autocasting() ? autocast("_pad_by_index", x.t) : x.t, w, mode);
      },
      nb::arg("x"), nb::arg("widths"), nb::kw_only(), nb::arg("mode") = "constant", nb::arg("value") = 0.0);
  def_op(
      m,
      {"tile", "Linear", "tile(x, repetitions)",
       "x side by side, repetitions[i] times along axis i.\n\nExample:\n"
       "    >>> pb.tile(pb.arange(2), 2).tolist()\n    [0, 1, 0, 1]"},
      [](const Operand& x, const Dims& times) { return tile(x.t, times); }, nb::arg("x"), nb::arg("repetitions"));
  def_op(
      m,
      {"repeat", "Linear", "repeat(x, repeats, *, axis=None)",
       "Each element several times; repeats is one count or one per element of the axis (None: of flat "
       "x).\n\nExample:\n"
       "    >>> pb.repeat(pb.arange(2), 2).tolist()\n    [0, 0, 1, 1]"},
      [](const Operand& x, const Operand& repeats, nb::handle axis) {
        if (axis.is_none()) return repeat(reshape(x.t, {-1}), repeats.t, 0);
        return repeat(x.t, repeats.t, to_axis(axis, "repeat"));
      },
      nb::arg("x"), nb::arg("repeats"), nb::kw_only(), nb::arg("axis").none() = nb::none());
  def_op(
      m,
      {"roll", "Linear", "roll(x, shift, *, axis=None)",
       "Elements moved by `shift` places (axis None: of flat x), those that fall off come in again at the start.\n\n"
       "Example:\n    >>> pb.roll(pb.arange(4), 1).tolist()\n    [3, 0, 1, 2]"},
      [](const Operand& x, const Dims& shift, const Axes& axis) {
        if (axis.all) return reshape(roll_axes(reshape(x.t, {-1}), shift, {0}), x.t.shape());
        return roll_axes(x.t, shift, axis.axes);
      },
      nb::arg("x"), nb::arg("shift"), nb::kw_only(), nb::arg("axis") = nb::none());
}

void bind_picks(nb::module_& m) {
  def_op(
      m,
      {"clip", "Custom", "clip(x, min=None, max=None)",
       "x limited to [min, max], numbers or tensors; derivative 1 at the bounds.\n\nExample:\n"
       "    >>> pb.clip(pb.asarray([-2.0, 0.5]), -1.0, 1.0).tolist()\n    [-1.0, 0.5]"},
      [](const Operand& x, nb::handle lo, nb::handle hi) { return clip(x.t, lo, hi); }, nb::arg("x"),
      nb::arg("min").none() = nb::none(), nb::arg("max").none() = nb::none());
  def_op(
      m,
      {"take", "Linear", "take(x, indices, *, axis=None)",
       "x[..., indices, ...] at `axis` (None: of flat x); negative indices count from the end.\n\nExample:\n"
       "    >>> pb.take(pb.asarray([5, 6, 7]), pb.asarray([2, 0])).tolist()\n    [7, 5]"},
      [](const Operand& x, const Operand& indices, nb::handle axis) {
        if (axis.is_none()) return take(reshape(x.t, {-1}), indices.t, 0);
        return take(x.t, indices.t, to_axis(axis, "take"));
      },
      nb::arg("x"), nb::arg("indices"), nb::kw_only(), nb::arg("axis").none() = nb::none());
  def_op(
      m,
      {"embedding", "Linear", "embedding(indices, weight)",
       "Rows of weight (n, width) by integer indices of any shape: the result has the shape (*indices.shape, "
       "width).\n\n"
       "Example:\n    >>> pb.embedding(pb.asarray([1, 1]), pb.asarray([[0.0], [2.0]])).tolist()\n    [[2.0], [2.0]]"},
      [](const Operand& indices, const Operand& weight) { return take(weight.t, indices.t, 0); }, nb::arg("indices"),
      nb::arg("weight"));
  def_op(
      m,
      {"take_along_axis", "Linear", "take_along_axis(x, indices, axis=-1)",
       "out[.., i, ..] = x[.., indices[.., i, ..], ..]; the other axes broadcast.\n\nExample:\n"
       "    >>> pb.take_along_axis(pb.asarray([[5, 6], [7, 8]]), pb.asarray([[1], [0]])).tolist()\n    [[6], [7]]"},
      [](const Operand& x, const Operand& indices, int64_t axis) { return take_along_axis(x.t, indices.t, axis); },
      nb::arg("x"), nb::arg("indices"), nb::arg("axis") = -1);
  def_op(
      m,
      {"scatter_add", "Linear", "scatter_add(x, indices, values, *, axis)",
       "A copy of x with values added at the places that take_along_axis reads; equal indices add up.\n\nExample:\n"
       "    >>> pb.scatter_add(pb.zeros(2), pb.asarray([1, 1]), pb.ones(2), axis=0).tolist()\n    [0.0, 2.0]"},
      [](const Operand& x, const Operand& indices, const Operand& values, int64_t axis) {
        return scatter_add(x.t, indices.t, values.t, axis);
      },
      nb::arg("x"), nb::arg("indices"), nb::arg("values"), nb::kw_only(), nb::arg("axis"));
}

}  // namespace

void bind_shapes(nb::module_& m) {
  bind_layouts(m);
  bind_joins(m);
  bind_picks(m);
  m.def(
      "_broadcast_shapes", [](const Dims& a, const Dims& b) { return broadcast(a, b, "broadcast_arrays"); },
      nb::arg("a"), nb::arg("b"));
  // Made in Python from the ops above.
  add_info({"astype", "Linear", "astype(x, dtype, /, *, copy=True, device=None)",
            "x in another dtype; derivative 1 between floats."});
  add_info({"dropout", "Custom", "dropout(x, p=0.5, *, training=True, rng=None)",
            "x / (1 - p) with probability 1 - p, else 0; x itself when not training."});
  add_info({"broadcast_arrays", "View", "broadcast_arrays(*arrays)", "Views of the arrays with their common shape."});
}

}  // namespace pb::py
