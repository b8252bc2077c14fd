// Creation functions: tensors that are filled by a rule.
#include <nanobind/stl/string.h>

#include <cmath>
#include <optional>

#include "bind/front.h"
#include "cuda/gather_call.h"
#include "families/map.h"
#include "families/view.h"
#include "tape/node.h"

namespace pb::py {

std::optional<DType> optional_dtype(nb::handle h);  // create.cpp
void bind_fill(nb::module_& m);

namespace {

Tensor range(double start, double stop, double step, DType dtype) {
  if (step == 0) fail<ValueError>("arange", "the step must not be 0", "use a positive or negative step");
  double n = std::ceil((stop - start) / step);
  if (!(n < 1e15))
    fail<ShapeError>("arange", "the number of elements overflows or is NaN", "check start, stop and step");
  Tensor i = cast(arange(n > 0 ? int64_t(n) : 0), is_float(dtype) ? DType::F64 : DType::I64);
  GradMode off(false);
  Tensor r =
      is_float(dtype) ? i * Tensor(step) + Tensor(start) : i * scalar_weak(int64_t(step)) + scalar_weak(int64_t(start));
  return cast(r, dtype);
}

// The last value is `stop` itself, not start plus rounded steps.
Tensor linspace(double start, double stop, int64_t n, bool endpoint, DType dtype) {
  if (n < 0) fail<ShapeError>("linspace", "the number of values is " + std::to_string(n), "it must be at least 0");
  Tensor t = empty({n}, DType::F64);
  auto* p = t.data<double>();
  double step = (stop - start) / double(std::max<int64_t>(1, endpoint ? n - 1 : n));
  for (int64_t i = 0; i < n; i++) p[i] = start + double(i) * step;
  if (endpoint && n > 1) p[n - 1] = stop;
  return cast(t, dtype);
}

Tensor eye(int64_t rows, int64_t columns, int64_t k, DType dtype, Device device) {
  Tensor t = zeros({rows, columns}, dtype, device);
  int64_t from = k < 0 ? -k : 0;
  int64_t n = std::min(rows - from, columns - (k > 0 ? k : 0));
  if (n > 0) copy_into(alias(t, {n}, {columns + 1}, from * columns + (k > 0 ? k : 0)), ones({}, dtype, device));
  return t;
}

// Keeps the elements whose column minus row is at most k (lower) or at least k (upper).
Tensor triangle(const Tensor& x, int64_t k, bool lower) {
  const char* op = lower ? "tril" : "triu";
  if (x.ndim() < 2) fail<ShapeError>(op, "needs at least 2 dimensions", "use expand_dims", x);
  int64_t rows = x.shape()[x.ndim() - 2], columns = x.shape().back();
  if (on_cuda(x)) return where(cuda::triangle(rows, columns, k, lower, x.device()), x, zeros({}, x.dtype(), x.device()));
  Tensor keep = empty({rows, columns}, DType::Bool);
  bool* p = keep.data<bool>();
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) *p++ = lower ? j - i <= k : j - i >= k;
  return where(to_device(keep, x.device()), x, zeros({}, x.dtype(), x.device()));
}

nb::list meshgrid(const nb::args& arrays, const std::string& indexing) {
  if (indexing != "xy" && indexing != "ij")
    fail<ValueError>("meshgrid", "unknown indexing '" + indexing + "'", "indexing is \"xy\" or \"ij\"");
  std::vector<Tensor> in;
  Shape shape;
  for (nb::handle h : arrays) {
    in.push_back(to_tensor(h.ptr()));
    if (in.back().ndim() > 1)
      fail<ShapeError>("meshgrid", "takes 1-d tensors", "reshape it to one dimension", in.back());
    shape.push_back(in.back().size());
  }
  int n = shape.size();
  auto axis_of = [&](int i) { return indexing == "xy" && i < 2 && n > 1 ? 1 - i : i; };
  if (indexing == "xy" && n > 1) std::swap(shape[0], shape[1]);
  nb::list out;
  for (int i = 0; i < n; i++) {
    Shape s(n, 1);
    s[axis_of(i)] = in[size_t(i)].size();
    out.append(broadcast_to(reshape(in[size_t(i)], s), shape));
  }
  return out;
}

// copy_into trusts its shapes.
void fill_with(const Tensor& out, const Tensor& value, const char* op) {
  if (!(broadcast(value.shape(), out.shape(), op) == out.shape()))
    fail<ShapeError>(op, "the fill value does not broadcast to the shape", "pass a number or a smaller tensor", out,
                     value);
  copy_into(out, value);
}

Device device_like(nb::handle h, const Tensor& x, const char* op) {
  return h.is_none() ? x.device() : device_at(h, op);
}

double number(nb::handle h) { return nb::cast<double>(nb::float_(h)); }

}  // namespace

void bind_fill(nb::module_& m) {
  auto none = nb::none();
  auto dtype_or = [](nb::handle h, DType d) { return optional_dtype(h).value_or(d); };
  m.def(
      "empty",
      [=](const Dims& s, nb::handle d, nb::handle dev) {
        return empty(s, dtype_or(d, DType::F32), device_at(dev, "empty"));
      },
      nb::arg("shape"), nb::kw_only(), nb::arg("dtype").none() = nb::none(), nb::arg("device").none() = nb::none(),
      "A tensor whose values are not set; dtype float32 unless given.");
  m.def(
      "zeros",
      [=](const Dims& s, nb::handle d, nb::handle dev) {
        return zeros(s, dtype_or(d, DType::F32), device_at(dev, "zeros"));
      },
      nb::arg("shape"), nb::kw_only(), nb::arg("dtype").none() = nb::none(), nb::arg("device").none() = nb::none(),
      "Zeros; dtype float32 unless given.\n\nExample:\n    >>> pb.zeros((2,)).tolist()\n    [0.0, 0.0]");
  m.def(
      "ones",
      [=](const Dims& s, nb::handle d, nb::handle dev) {
        return ones(s, dtype_or(d, DType::F32), device_at(dev, "ones"));
      },
      nb::arg("shape"), nb::kw_only(), nb::arg("dtype").none() = nb::none(), nb::arg("device").none() = nb::none(),
      "Ones; dtype float32 unless given.\n\nExample:\n    >>> pb.ones(2, dtype=pb.int8).tolist()\n    [1, 1]");
  m.def(
      "full",
      [=](const Dims& s, const Operand& v, nb::handle d, nb::handle dev) {
        DType t = dtype_or(d, v.t.weak() && is_float(v.t.dtype()) ? DType::F32 : v.t.dtype());
        Tensor out = empty(s, t, device_at(dev, "full"));
        fill_with(out, v.t, "full");
        return out;
      },
      nb::arg("shape"), nb::arg("fill_value"), nb::kw_only(), nb::arg("dtype").none() = nb::none(),
      nb::arg("device").none() = nb::none(),
      "One value everywhere; its dtype unless given (float32 for a Python float).\n\nExample:\n    >>> pb.full((2,), "
      "7).tolist()\n    [7, 7]");
  m.def(
      "arange",
      [=](nb::handle start, nb::handle stop, nb::handle step, nb::handle dtype, nb::handle dev) {
        Device device = device_at(dev, "arange");
        bool floats = PyFloat_Check(start.ptr()) || PyFloat_Check(stop.ptr()) || PyFloat_Check(step.ptr());
        double a = stop.is_none() ? 0 : nb::cast<double>(nb::float_(start));
        double b = nb::cast<double>(nb::float_(stop.is_none() ? start : stop));
        DType d = dtype_or(dtype, floats ? DType::F32 : DType::I64);
        return to_device(range(a, b, nb::cast<double>(nb::float_(step)), d), device);
      },
      nb::arg("start"), nb::arg("stop").none() = nb::none(), nb::arg("step") = nb::int_(1), nb::kw_only(),
      nb::arg("dtype").none() = nb::none(), nb::arg("device").none() = nb::none(),
      "Values from start (0 if only one is given) up to, without, stop in steps; int64, or float32 for floats.\n\n"
      "Example:\n    >>> pb.arange(1, 7, 2).tolist()\n    [1, 3, 5]");
  m.def(
      "linspace",
      [=](nb::handle start, nb::handle stop, int64_t num, nb::handle d, nb::handle dev, bool endpoint) {
        Device device = device_at(dev, "linspace");
        return to_device(linspace(number(start), number(stop), num, endpoint, dtype_or(d, DType::F32)), device);
      },
      nb::arg("start"), nb::arg("stop"), nb::arg("num"), nb::kw_only(), nb::arg("dtype").none() = none,
      nb::arg("device").none() = none, nb::arg("endpoint") = true,
      "num evenly spaced values from start to stop.\n\nExample:\n    >>> pb.linspace(0, 1, 3).tolist()\n    [0.0, 0.5, "
      "1.0]");
  m.def(
      "eye",
      [=](int64_t rows, nb::handle columns, int64_t k, nb::handle d, nb::handle dev) {
        int64_t n = columns.is_none() ? rows : nb::cast<int64_t>(columns);
        return eye(rows, n, k, dtype_or(d, DType::F32), device_at(dev, "eye"));
      },
      nb::arg("n_rows"), nb::arg("n_cols").none() = none, nb::kw_only(), nb::arg("k") = 0,
      nb::arg("dtype").none() = none, nb::arg("device").none() = none, "A matrix with ones on its k-th diagonal.");
  def_op(
      m,
      {"tril", "Linear", "tril(x, *, k=0)",
       "The elements on and below the k-th diagonal of the last two axes, else 0."},
      [](const Operand& x, int64_t k) { return triangle(x.t, k, true); }, nb::arg("x"), nb::kw_only(),
      nb::arg("k") = 0);
  def_op(
      m,
      {"triu", "Linear", "triu(x, *, k=0)",
       "The elements on and above the k-th diagonal of the last two axes, else 0."},
      [](const Operand& x, int64_t k) { return triangle(x.t, k, false); }, nb::arg("x"), nb::kw_only(),
      nb::arg("k") = 0);
  auto like = [&](const char* name, double value, const char* doc) {
    m.def(
        name,
        [=](const Operand& x, nb::handle d, nb::handle dev) {
          return full(x.t.shape(), value, dtype_or(d, x.t.dtype()), device_like(dev, x.t, name));
        },
        nb::arg("x"), nb::kw_only(), nb::arg("dtype").none() = none, nb::arg("device").none() = none, doc);
  };
  like("zeros_like", 0, "Zeros with the shape and dtype of x.");
  like("ones_like", 1, "Ones with the shape and dtype of x.");
  m.def(
      "empty_like",
      [=](const Operand& x, nb::handle d, nb::handle dev) {
        return empty(x.t.shape(), dtype_or(d, x.t.dtype()), device_like(dev, x.t, "empty_like"));
      },
      nb::arg("x"), nb::kw_only(), nb::arg("dtype").none() = none, nb::arg("device").none() = none,
      "A tensor with the shape and dtype of x whose values are not set.");
  m.def(
      "full_like",
      [=](const Operand& x, const Operand& value, nb::handle d, nb::handle dev) {
        Tensor out = empty(x.t.shape(), dtype_or(d, x.t.dtype()), device_like(dev, x.t, "full_like"));
        fill_with(out, value.t, "full_like");
        return out;
      },
      nb::arg("x"), nb::arg("fill_value"), nb::kw_only(), nb::arg("dtype").none() = none,
      nb::arg("device").none() = none, "One value everywhere, with the shape and dtype of x.");
  // nb::args takes no positional names in def_op's order, so the row stands alone.
  add_info(
      {"meshgrid", "View", "meshgrid(*arrays, indexing='xy')", "Coordinate tensors of a grid, one per 1-d input."});
  m.def("meshgrid", &meshgrid, nb::arg("arrays"), nb::kw_only(), nb::arg("indexing") = "xy",
        "Coordinate tensors of a grid, one view per 1-d input; indexing is 'xy' or 'ij'.\n\nExample:\n"
        "    >>> [g.tolist() for g in pb.meshgrid(pb.arange(2), pb.arange(2))]\n"
        "    [[[0, 1], [0, 1]], [[0, 0], [1, 1]]]");
}

}  // namespace pb::py
