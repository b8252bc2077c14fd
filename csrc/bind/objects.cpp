// Tensor as a Python object: iteration, copies, pickling, formatting, and the methods that mirror functions.
#include <nanobind/stl/string.h>

#include "bind/caster.h"
#include "families/map.h"
#include "families/reduce.h"
#include "families/view.h"

namespace pb::py {

std::string repr_of(const Tensor& x);  // repr.cpp

namespace {

struct Rows {
  Tensor x;
  int64_t next = 0;
};

// A Python object of class `type` (Tensor or a subclass of it) for a handle that has none yet.
nb::object wrap_as(nb::handle type, const Tensor& t) {
  nb::object o = nb::inst_alloc(type);
  new (nb::inst_ptr<PyTensor>(o)) PyTensor(t);
  nb::inst_mark_ready(o);
  t->py = o.ptr();
  return o;
}

nb::object attributes(nb::handle self) {
  return PyObject_HasAttrString(self.ptr(), "__dict__") ? nb::object(self.attr("__dict__")) : nb::object(nb::dict());
}
void set_attributes(nb::handle self, nb::handle state) {
  if (nb::len(state)) self.attr("__dict__").attr("update")(state);
}

nb::object rebuild(nb::handle type, nb::bytes data, DType dtype, const Dims& shape, bool requires_grad,
                   nb::handle device) {
  Device there = device_at(device, "pickle");
  Tensor t = empty(shape, dtype);
  size_t bytes = size_t(t.size()) * size_t(itemsize(dtype));
  if (data.size() != bytes)
    fail<ValueError>("pickle", std::to_string(data.size()) + " bytes do not fill shape " + to_string(shape),
                     "the file is damaged", t);
  std::memcpy(t.raw(), data.c_str(), bytes);
  t = to_device(t, there);
  t->wants_grad = requires_grad;
  return wrap_as(type, t);
}

nb::tuple reduce(nb::handle self) {
  const Tensor& x = unwrap(self.ptr());
  nb::object make = nb::module_::import_("pullback._functions").attr("_rebuild");  // pickle wants a Python function
  nb::object data = self.attr("tobytes")();
  nb::object args =
      on_cuda(x) ? nb::make_tuple(self.type(), data, x.dtype(), shape_tuple(x.shape()), x->wants_grad,
                                  device_name(x.device()))
                 : nb::make_tuple(self.type(), data, x.dtype(), shape_tuple(x.shape()), x->wants_grad);
  nb::object state = attributes(self);
  if (!nb::len(state)) return nb::make_tuple(make, args);
  return nb::make_tuple(make, args, state);
}

// Another object on the same memory: a leaf stays a leaf, a result stays in its graph.
nb::object shallow_copy(nb::handle self) {
  const Tensor& x = unwrap(self.ptr());
  Tensor t = x.requires_grad() && !x->wants_grad ? view(x, geometry(x), dense(x), "copy") : detach(x);
  t->wants_grad = x->wants_grad;
  nb::object o = wrap_as(self.type(), t);
  set_attributes(o, attributes(self));
  return o;
}

nb::object deep_copy(nb::handle self, nb::handle memo) {
  const Tensor& x = unwrap(self.ptr());
  if (x.requires_grad() && !x->wants_grad)
    fail<GraphError>("deepcopy", "the result of a recorded op cannot be copied with its graph", "copy x.detach()", x);
  Tensor t = clone(x);
  t->wants_grad = x->wants_grad;
  nb::object o = wrap_as(self.type(), t);
  nb::object key = nb::steal(PyLong_FromVoidPtr(self.ptr()));
  memo[key] = o;
  nb::object deepcopy = nb::module_::import_("copy").attr("deepcopy");
  if (x->meta && x->meta->grad) {
    nb::object grad = deepcopy(nb::steal(wrap(x->meta->grad)), memo);
    t->need_meta().grad = unwrap(grad.ptr());
  }
  set_attributes(o, deepcopy(attributes(self), memo));
  return o;
}

nb::object format(nb::handle self, nb::str spec) {
  const Tensor& x = unwrap(self.ptr());
  if (nb::len(spec) == 0) return nb::str(self);
  if (x.size() != 1)
    fail<DTypeError>("format", "only a tensor of one element takes the format '" + std::string(spec.c_str()) + "'",
                     "use x.tolist()", x);
  return nb::steal(PyObject_Format(nb::object(self.attr("item")()).ptr(), spec.ptr()));
}

// Sizes given one by one or as one sequence.
Dims sizes_of(const nb::args& args, const char* op) {
  if (args.size() == 1 && (PyTuple_Check(nb::object(args[0]).ptr()) || PyList_Check(nb::object(args[0]).ptr())))
    return to_dims(nb::object(args[0]).ptr(), op);
  return to_dims(args.ptr(), op);
}

}  // namespace

void bind_objects(nb::module_& m) {
  nb::object cls = nb::borrow(reinterpret_cast<PyObject*>(tensor_type));
  auto& c = static_cast<nb::class_<PyTensor>&>(cls);
  nb::class_<Rows>(m, "_Rows")
      .def("__iter__", [](nb::handle self) { return nb::borrow(self); })
      .def("__next__",
           [](Rows& r) {
             if (r.next >= r.x.shape()[0]) throw nb::stop_iteration();
             return select(r.x, 0, r.next++);
           })
      .def("__length_hint__", [](const Rows& r) { return r.x.shape()[0] - r.next; });
  c.def("__iter__",
        [](const PyTensor& x) {
          if (x.t.ndim() == 0) fail<DTypeError>("iter", "a 0-d tensor cannot be iterated over", "use x.item()", x.t);
          return Rows{x.t};
        })
      .def(
          "__contains__",
          [](const PyTensor& x, const Operand& v) {
            Tensor hits = x.t == v.t;
            return item_int(reduce_call(find_reduce("any"), hits, {}, false, true)) != 0;
          },
          nb::arg("value"))
      .def("__repr__", [](const PyTensor& x) { return repr_of(x.t); })
      .def("__format__", &format)
      .def("__reduce__", &reduce)
      .def("__copy__", &shallow_copy)
      .def("__deepcopy__", &deep_copy, nb::arg("memo"))
      .def(
          "__array_namespace__",
          [](nb::handle, nb::handle version) {
            if (!version.is_none()) {
              std::string v = nb::str(version).c_str();
              if (v != "2021.12" && v != "2022.12" && v != "2023.12" && v != "2024.12")
                fail<ValueError>("__array_namespace__", "version " + v + " of the array API is not provided",
                                 "use \"2024.12\"");
            }
            return nb::module_::import_("pullback");
          },
          nb::kw_only(), nb::arg("api_version").none() = nb::none())
      .def(
          "reshape", [](const PyTensor& x, const nb::args& shape) { return reshape(x.t, sizes_of(shape, "shape")); },
          "The same elements in another shape, given as sizes or as one tuple.")
      .def(
          "permute_dims", [](const PyTensor& x, const nb::args& axes) { return permute(x.t, sizes_of(axes, "axes")); },
          "The axes in another order, given one by one or as one tuple.");
  c.attr("__array_priority__") = 1000;  // array + tensor is a tensor
  m.def("_rebuild", &rebuild, nb::arg("type"), nb::arg("data"), nb::arg("dtype"), nb::arg("shape"),
        nb::arg("requires_grad"), nb::arg("device").none() = nb::none());
}

}  // namespace pb::py
