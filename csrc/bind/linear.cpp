// Products of matrices and tensors.
#include "families/linear.h"

#include <nanobind/stl/string.h>

#include "bind/front.h"

namespace pb::py {

namespace {

// axes: how many of the last axes of a meet the first of b, or a pair of axes.
Tensor tensordot_axes(const Tensor& a, const Tensor& b, nb::handle axes) {
  Dims left, right;
  if (PyLong_Check(axes.ptr())) {
    auto n = nb::cast<int64_t>(axes);
    if (n < 0 || n > a.ndim() || n > b.ndim())
      fail<ShapeError>("tensordot", "cannot sum over " + std::to_string(n) + " axes",
                       "axes is at most the smaller ndim", a, b);
    for (int64_t i = 0; i < n; i++) left.push_back(a.ndim() - n + i), right.push_back(i);
    return tensordot(a, b, left, right);
  }
  if (!PySequence_Check(axes.ptr()) || PySequence_Size(axes.ptr()) != 2)
    fail<ShapeError>("tensordot", "axes must be an int or a pair", "for example axes=([1, 0], [0, 1])", a, b);
  nb::object first = nb::steal(PySequence_GetItem(axes.ptr(), 0)),
             second = nb::steal(PySequence_GetItem(axes.ptr(), 1));
  return tensordot(a, b, to_dims(first.ptr(), "tensordot"), to_dims(second.ptr(), "tensordot"));
}

}  // namespace

void bind_linear(nb::module_& m) {
  def_op(
      m,
      {"matmul", "Linear", "matmul(x1, x2, /)",
       "Matrix product (..., m, k) @ (..., k, n) -> (..., m, n).\n\nLeading axes broadcast; a 1-d operand is a row "
       "(first) "
       "or a column (second) whose axis is\ndropped again. Integers are exact modulo their width; 16-bit floats are "
       "summed in "
       "float32.\nRaises ShapeError when the inner sizes differ.\n\nExample:\n    >>> pb.matmul(pb.ones((2, 3)), "
       "pb.ones((3, 4))).shape\n    (2, 4)"},
      [](const Operand& a, const Operand& b) { return matmul(a.t, b.t); }, nb::arg("x1"), nb::arg("x2"));
  def_op(
      m,
      {"linear", "Linear", "linear(x, weight, bias=None, *, saved=None)",
       "x @ weight.mT + bias: x (..., in), weight (out, in), bias (out,) -> (..., out).\n\nsaved: 4 or 8 keeps x for "
       "backward in "
       "blocks of that many bits, rounded without bias.\nRaises ShapeError when the sizes do not fit, ValueError for "
       "another saved.\n\nExample:\n    >>> pb.linear(pb.ones((5, 3)), pb.ones((2, 3)), pb.zeros(2)).shape\n    (5, "
       "2)"},
      [](const Operand& x, const Operand& weight, nb::handle bias, nb::handle saved) {
        return linear(x.t, weight.t, bias.is_none() ? Tensor() : to_tensor(bias.ptr()), block_bits("linear", saved));
      },
      nb::arg("x"), nb::arg("weight"), nb::arg("bias").none() = nb::none(), nb::kw_only(),
      nb::arg("saved").none() = nb::none());
  def_op(
      m,
      {"tensordot", "Linear", "tensordot(x1, x2, /, *, axes=2)",
       "Sum of products over pairs of axes.\n\naxes: an int n pairs the last n axes of x1 with the first n of x2; a "
       "pair of "
       "sequences names them.\nThe result has the other axes of x1, then those of x2.\n\nExample:\n    >>> "
       "pb.tensordot(pb.ones((2, 3, 4)), pb.ones((3, 4, 5)), axes=2).shape\n    (2, 5)"},
      [](const Operand& a, const Operand& b, nb::handle axes) { return tensordot_axes(a.t, b.t, axes); }, nb::arg("x1"),
      nb::arg("x2"), nb::kw_only(), nb::arg("axes") = 2);
  def_op(
      m,
      {"vecdot", "Linear", "vecdot(x1, x2, /, *, axis=-1)",
       "Sum of products over one axis; the other axes broadcast.\n\nExample:\n    >>> pb.vecdot(pb.ones((2, 3)), "
       "pb.ones(3)).tolist()\n    [3.0, 3.0]"},
      [](const Operand& a, const Operand& b, int64_t axis) { return vecdot(a.t, b.t, axis); }, nb::arg("x1"),
      nb::arg("x2"), nb::kw_only(), nb::arg("axis") = -1);
  def_op(
      m,
      {"outer", "Linear", "outer(x1, x2, /)",
       "All products of two 1-d tensors: (m,), (n,) -> (m, n).\n\nExample:\n    >>> pb.outer(pb.ones(2), "
       "pb.ones(3)).shape\n    (2, 3)"},
      [](const Operand& a, const Operand& b) { return outer(a.t, b.t); }, nb::arg("x1"), nb::arg("x2"));
  add_info({"einsum", "Linear", "einsum(subscripts, *operands)", "Sums of products by index letters."});
  m.def(
      "einsum",
      behind_front("einsum",
                   [](const std::string& subscripts, const nb::args& operands) {
                     std::vector<Tensor> list;
                     for (nb::handle h : operands) list.push_back(to_tensor(h.ptr()));
                     return einsum(subscripts, list);
                   }),
      nb::arg("subscripts"), nb::arg("operands"),
      "Sums of products by index letters, as NumPy's einsum.\n\nsubscripts: one term per operand, letters name axes, a "
      "letter "
      "twice in a term takes the diagonal, '...'\nstands for leading axes that broadcast; '->' gives the output axes, "
      "else "
      "those are the letters that occur\nonce, sorted. Raises ShapeError for sizes that differ, ValueError for a "
      "malformed "
      "string.\n\nExample:\n    >>> pb.einsum('bij,bjk->bik', pb.ones((4, 2, 3)), pb.ones((4, 3, 5))).shape\n    (4, "
      "2, 5)");
}

}  // namespace pb::py
