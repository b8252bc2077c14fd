// Kernels on memory of the caller, without a tape (pullback.fused).
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bind/caster.h"
#include "families/map.h"
#include "optim/driver.h"

namespace pb::py {

namespace {

// The driver works in the memory of these tensors.
void adopt_state(optim::Driver& d, const Tensor& p, int64_t t, const std::vector<Tensor>& slots,
                 const std::vector<double>& numbers) {
  if (t < 0) fail<ValueError>("fused", "a step count is negative", "start with an empty dict", p);
  optim::State s;
  s.param = p;
  s.t = t;
  for (size_t j = 0; j < slots.size() && j < size_t(optim::kMaxSlots); j++) {
    const Tensor& x = slots[j];
    if (!(x.shape() == p.shape()) || x.dtype() != optim::compute_dtype(p.dtype()) || !x.contiguous())
      fail<ShapeError>("fused",
                       "a state is a contiguous array of its parameter's shape, float64 beside float64, else "
                       "float32",
                       "start with an empty dict", p, x);
    check_writable(x, "fused");
    s.slots[j].data = x;
  }
  std::copy_n(numbers.begin(), std::min(numbers.size(), size_t(optim::kMaxScalars)), s.scalars);
  d.state(p) = std::move(s);
}

// out = op(x); out may be x, or must not overlap it.
void forward_into(const std::string& name, const Tensor& out, const Tensor& x, std::vector<double> constants) {
  const MapOp& op = find_map(name);
  if (op.inputs != 1 || constants.size() != size_t(op.nargs))
    fail<ValueError>(name, "takes one array and its constants", "see pullback.fused");
  if (!is_float(x.dtype())) fail<DTypeError>(name, "x must be floating", "cast it first", x);
  if (!(out.shape() == x.shape()) || out.dtype() != x.dtype())
    fail<ShapeError>(name, "out must have the shape and the dtype of x", "leave it out for a new array", out, x);
  GradMode off(false);
  const Tensor in = detach(x);
  map_call_into(op, detach(out), {&in, 1}, constants.data());
}

nb::list activations() {
  nb::list all;
  for (const MapOp* op : map_ops()) {
    if (op->unit != "activations" || op->inputs != 1 || op->random || op->name[0] == '_') continue;
    nb::dict constants;
    for (int i = 0; i < op->nargs; i++) constants[nb::str(op->args[i].name.data())] = op->args[i].value;
    all.append(nb::make_tuple(nb::str(op->name.data()), nb::str(op->doc.data()), constants));
  }
  return all;
}

}  // namespace

void bind_fused(nb::module_& m) {
  m.def("optim_adopt_state", &adopt_state, nb::arg("driver"), nb::arg("p"), nb::arg("t"), nb::arg("slots"),
        nb::arg("numbers"), "Makes tensors the state of p, without a copy.");
  m.def("_forward_into", &forward_into, nb::arg("name"), nb::arg("out"), nb::arg("x"), nb::arg("constants"),
        "Writes an element-wise function of x into out, without a tape.");
  m.def("_activations", &activations, "(name, text, constants) of the activations with one input.");
}

}  // namespace pb::py
