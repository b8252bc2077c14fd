// unstack: all slices along an axis as one op, so that backward joins their cotangents in one pass. Slicing one after
// the other would fill a whole array per slice.
#include "bind/caster.h"
#include "families/gather.h"
#include "families/view.h"

namespace pb::py {

namespace {

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
  record_n("unstack", {&x, 1}, outs, {}, [a, n, part, dtype](const Slots&, const PullArgs& p) {
    std::vector<Tensor> parts;
    for (int64_t i = 0; i < n; i++) parts.push_back(expand_dims(p.g[i] ? p.g[i] : zeros(part, dtype), a));
    p.gin[0] = concat(parts, a);
  });
  for (int64_t i = 0; i < n; i++)
    push_forward({x}, outs[size_t(i)],
                 [a, i](const Tensor*, const Tensor* t, const Tensor&) { return with_copy(select(t[0], a, i)); });
  return outs;
}

}  // namespace

void bind_unstack(nb::module_& m) {
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
}

}  // namespace pb::py
