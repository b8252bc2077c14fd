// The Python class Tensor: number and mapping slots go straight to the ops.
#include <nanobind/stl/function.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bind/caster.h"
#include "families/autocast.h"
#include "families/linear.h"
#include "families/map.h"
#include "families/view.h"
#include "ops/arithmetic.h"
#include "ops/transcendental.h"

namespace pb::py {

int get_buffer(PyObject* self, Py_buffer* view, int flags);  // interop.cpp
void release_buffer(PyObject* self, Py_buffer* view);

namespace {

// A right-hand side that is no number, tensor or array: let Python try the other operand.
bool number_like(PyObject* o) {
  return is_tensor(o) || PyFloat_Check(o) || PyLong_Check(o) || PyObject_CheckBuffer(o) ||
         PyObject_HasAttrString(o, "__dlpack__");
}

template <const MapOp& (*Row)()>
PyObject* binary(PyObject* a, PyObject* b) {
  if (!number_like(a) || !number_like(b)) Py_RETURN_NOTIMPLEMENTED;
  return guarded([&] {
    Tensor in[] = {to_tensor(a), to_tensor(b)};
    if (autocasting())
      for (Tensor& t : in) t = autocast(Row().name, t);
    return wrap(map_call(Row(), in));
  });
}
template <const MapOp& (*Row)()>
PyObject* unary(PyObject* a) {
  return guarded([&] {
    const Tensor& x = unwrap(a);
    const Tensor in[] = {autocasting() ? autocast(Row().name, x) : x};
    return wrap(map_call(Row(), in));
  });
}
template <const MapOp& (*Row)()>
PyObject* inplace(PyObject* a, PyObject* b) {
  if (!number_like(b)) Py_RETURN_NOTIMPLEMENTED;
  return guarded([&] {
    const Tensor in[] = {unwrap(a), to_tensor(b)};
    map_call_into(Row(), in[0], in);
    Py_INCREF(a);
    return a;
  });
}

bool is_two(PyObject* o) {
  return (PyLong_CheckExact(o) && PyLong_AsLong(o) == 2) || (PyFloat_CheckExact(o) && PyFloat_AS_DOUBLE(o) == 2.0);
}
PyObject* power(PyObject* a, PyObject* b, PyObject*) {
  if (is_tensor(a) && is_two(b)) return unary<map_row<Square>>(a);
  PyErr_Clear();
  return binary<map_row<Pow>>(a, b);
}
PyObject* inplace_power(PyObject* a, PyObject* b, PyObject*) { return inplace<map_row<Pow>>(a, b); }

PyObject* matmul_slot(PyObject* a, PyObject* b) {
  if (!number_like(a) || !number_like(b)) Py_RETURN_NOTIMPLEMENTED;
  return guarded([&] {
    Tensor x = to_tensor(a), y = to_tensor(b);
    if (autocasting()) x = autocast("matmul", x), y = autocast("matmul", y);
    return wrap(matmul(x, y));
  });
}

PyObject* invert(PyObject* a) {
  return guarded([&] {
    const Tensor& x = unwrap(a);
    if (x.dtype() == DType::Bool) return wrap(map_call_of<LogicalNot>(x));
    if (is_float(x.dtype())) fail<DTypeError>("invert", "needs integers or bools", "use pb.logical_not", x);
    return wrap(map_call_of<Subtract>(scalar_weak(int64_t(-1)), x));
  });
}

int truth(PyObject* a) {
  const Tensor& x = unwrap(a);
  if (x.size() != 1) {
    PyErr_SetString(PyExc_ValueError, ("bool: the truth of a tensor with " + std::to_string(x.size()) +
                                       " elements is ambiguous\nhelp: use pb.any(x) or pb.all(x)")
                                          .c_str());
    return -1;
  }
  try {
    return item_double(x) != 0;
  } catch (...) {  // the device failed
    set_error();
    return -1;
  }
}

PyObject* item_object(const Tensor& x) {
  if (x.dtype() == DType::Bool) return PyBool_FromLong(item_int(x) != 0);
  if (is_float(x.dtype())) return PyFloat_FromDouble(item_double(x));
  if (x.dtype() == DType::U64) return PyLong_FromUnsignedLongLong(uint64_t(item_int(x)));
  return PyLong_FromLongLong(item_int(x));
}
PyObject* to_float(PyObject* a) {
  return guarded([&] { return PyFloat_FromDouble(item_double(unwrap(a))); });
}
PyObject* to_long(PyObject* a) {
  return guarded([&]() -> PyObject* {
    const Tensor& x = unwrap(a);
    if (!is_float(x.dtype())) return item_object(x);
    return PyLong_FromDouble(item_double(x));
  });
}
PyObject* to_index(PyObject* a) {
  return guarded([&]() -> PyObject* {
    const Tensor& x = unwrap(a);
    if (!is_integer(x.dtype()) || x.size() != 1)
      fail<DTypeError>("index", "only an integer tensor of one element is an index", "use x.item()", x);
    return item_object(x);
  });
}

PyObject* compare(PyObject* a, PyObject* b, int op) {
  if (!number_like(b)) Py_RETURN_NOTIMPLEMENTED;
  switch (op) {
    case Py_LT:
      return binary<map_row<Less>>(a, b);
    case Py_LE:
      return binary<map_row<LessEqual>>(a, b);
    case Py_GT:
      return binary<map_row<Greater>>(a, b);
    case Py_GE:
      return binary<map_row<GreaterEqual>>(a, b);
    case Py_EQ:
      return binary<map_row<Equal>>(a, b);
    default:
      return binary<map_row<NotEqual>>(a, b);
  }
}

PyObject* subscript(PyObject* a, PyObject* key) {
  return guarded([&] { return wrap(get_item(unwrap(a), key)); });
}
int assign_subscript(PyObject* a, PyObject* key, PyObject* value) {
  if (!value) {
    PyErr_SetString(PyExc_TypeError, "del: elements of a tensor cannot be deleted\nhelp: index what you want to keep");
    return -1;
  }
  PyObject* r = guarded([&]() -> PyObject* {
    set_item(unwrap(a), key, to_tensor(value));
    Py_RETURN_NONE;
  });
  if (!r) return -1;
  Py_DECREF(r);
  return 0;
}
Py_ssize_t length(PyObject* a) {
  const Tensor& x = unwrap(a);
  if (x.ndim() == 0) {
    PyErr_SetString(PyExc_TypeError, "len: a 0-d tensor has no length\nhelp: use x.size");
    return -1;
  }
  return Py_ssize_t(x.shape()[0]);
}

// Equality gives a tensor, so hashing goes by identity.
Py_hash_t hash_pointer(PyObject* o) { return Py_hash_t(reinterpret_cast<uintptr_t>(o) >> 4); }

PyType_Slot tensor_slots[] = {{Py_nb_add, reinterpret_cast<void*>(&binary<map_row<Add>>)},
                              {Py_nb_subtract, reinterpret_cast<void*>(&binary<map_row<Subtract>>)},
                              {Py_nb_multiply, reinterpret_cast<void*>(&binary<map_row<Multiply>>)},
                              {Py_nb_true_divide, reinterpret_cast<void*>(&binary<map_row<Divide>>)},
                              {Py_nb_floor_divide, reinterpret_cast<void*>(&binary<map_row<FloorDivide>>)},
                              {Py_nb_remainder, reinterpret_cast<void*>(&binary<map_row<Remainder>>)},
                              {Py_nb_power, reinterpret_cast<void*>(&power)},
                              {Py_nb_matrix_multiply, reinterpret_cast<void*>(&matmul_slot)},
                              {Py_nb_and, reinterpret_cast<void*>(&binary<map_row<BitwiseAnd>>)},
                              {Py_nb_or, reinterpret_cast<void*>(&binary<map_row<BitwiseOr>>)},
                              {Py_nb_xor, reinterpret_cast<void*>(&binary<map_row<BitwiseXor>>)},
                              {Py_nb_negative, reinterpret_cast<void*>(&unary<map_row<Negative>>)},
                              {Py_nb_positive, reinterpret_cast<void*>(&unary<map_row<Positive>>)},
                              {Py_nb_absolute, reinterpret_cast<void*>(&unary<map_row<Abs>>)},
                              {Py_nb_invert, reinterpret_cast<void*>(&invert)},
                              {Py_nb_inplace_add, reinterpret_cast<void*>(&inplace<map_row<Add>>)},
                              {Py_nb_inplace_subtract, reinterpret_cast<void*>(&inplace<map_row<Subtract>>)},
                              {Py_nb_inplace_multiply, reinterpret_cast<void*>(&inplace<map_row<Multiply>>)},
                              {Py_nb_inplace_true_divide, reinterpret_cast<void*>(&inplace<map_row<Divide>>)},
                              {Py_nb_inplace_floor_divide, reinterpret_cast<void*>(&inplace<map_row<FloorDivide>>)},
                              {Py_nb_inplace_remainder, reinterpret_cast<void*>(&inplace<map_row<Remainder>>)},
                              {Py_nb_inplace_power, reinterpret_cast<void*>(&inplace_power)},
                              {Py_nb_bool, reinterpret_cast<void*>(&truth)},
                              {Py_nb_float, reinterpret_cast<void*>(&to_float)},
                              {Py_nb_int, reinterpret_cast<void*>(&to_long)},
                              {Py_nb_index, reinterpret_cast<void*>(&to_index)},
                              {Py_tp_richcompare, reinterpret_cast<void*>(&compare)},
                              {Py_tp_hash, reinterpret_cast<void*>(&hash_pointer)},
                              {Py_mp_subscript, reinterpret_cast<void*>(&subscript)},
                              {Py_mp_ass_subscript, reinterpret_cast<void*>(&assign_subscript)},
                              {Py_mp_length, reinterpret_cast<void*>(&length)},
                              {Py_bf_getbuffer, reinterpret_cast<void*>(&get_buffer)},
                              {Py_bf_releasebuffer, reinterpret_cast<void*>(&release_buffer)},
                              {0, nullptr}};

PyObject* nested_list(const Tensor& x, int axis, int64_t offset) {
  if (axis == x.ndim()) return item_object(alias(x, {}, {}, offset));
  PyObject* list = PyList_New(Py_ssize_t(x.shape()[axis]));
  for (int64_t i = 0; i < x.shape()[axis]; i++)
    PyList_SET_ITEM(list, Py_ssize_t(i), nested_list(x, axis + 1, offset + i * x.strides()[axis]));
  return list;
}

void set_requires_grad(PyTensor& self, bool on) {
  if (on && !is_float(self.t.dtype()))
    fail<DTypeError>("requires_grad", "only floating tensors can require grad", "cast with .astype(pb.float32)",
                     self.t);
  if (self.t->node) {
    if (on) return;
    fail<GraphError>("requires_grad", "a result of a recorded op always requires grad", "use x.detach()", self.t);
  }
  self.t->wants_grad = on;
}

Tensor to_target(const Tensor& x, nb::handle target) {
  DType d;
  if (to_dtype(target.ptr(), d)) return cast(x, d);
  if (PyUnicode_Check(target.ptr())) return moved(x, device_at(target, "to"));
  fail<DTypeError>("to", "the target must be a dtype or a device name", "use x.to(pb.float64) or x.to(\"cpu\")", x);
}

}  // namespace

void bind_tensor(nb::module_& m) {
  auto cls = nb::class_<PyTensor>(m, "Tensor", nb::type_slots(tensor_slots), nb::is_weak_referenceable(),
                                  "An array of numbers with a place in the graph.");
  tensor_type = reinterpret_cast<PyTypeObject*>(cls.ptr());
  cls.def(
         "__init__",
         [](nb::pointer_and_handle<PyTensor> self, nb::handle data, bool requires_grad) {
           Tensor t = is_tensor(data.ptr()) ? detach(unwrap(data.ptr())) : asarray(data.ptr(), false);
           new (self.p) PyTensor(t);
           t->py = self.h.ptr();
           set_requires_grad(*self.p, requires_grad);
         },
         nb::arg("data"), nb::arg("requires_grad") = false)
      .def_prop_ro(
          "shape", [](const PyTensor& x) { return shape_tuple(x.t.shape()); }, "The sizes of the axes.")
      .def_prop_ro(
          "strides", [](const PyTensor& x) { return shape_tuple(x.t.strides()); }, "In elements.")
      .def_prop_ro(
          "ndim", [](const PyTensor& x) { return x.t.ndim(); }, "The number of axes.")
      .def_prop_ro(
          "size", [](const PyTensor& x) { return x.t.size(); }, "The number of elements.")
      .def_prop_ro(
          "dtype", [](const PyTensor& x) { return x.t.dtype(); }, "The type of the elements.")
      .def_prop_ro(
          "device", [](const PyTensor& x) { return device_name(x.t.device()); },
          "The name of the device: \"cpu\", \"cuda:0\", ...")
      .def_prop_ro(
          "nbytes", [](const PyTensor& x) { return x.t.size() * itemsize(x.t.dtype()); }, "Bytes of the elements.")
      .def_prop_ro(
          "mT", [](const PyTensor& x) { return swap_axes(x.t, -1, -2); }, "The last two axes exchanged, as a view.")
      .def_prop_ro(
          "T",
          [](const PyTensor& x) {
            Dims d(x.t.ndim());
            for (int i = 0; i < d.size(); i++) d[i] = d.size() - 1 - i;
            return permute(x.t, d);
          },
          "The axes in reverse order, as a view.")
      .def_prop_rw(
          "requires_grad",
          [](const PyTensor& x) {
            refresh_view(x.t);
            return x.t.requires_grad();
          },
          &set_requires_grad, "Whether backward computes a gradient; can be set on a leaf of floats.")
      .def_prop_rw(
          "grad",
          [](const PyTensor& x) {
            if (!x.t->meta) return Tensor();
            return x.t->meta->retained ? *x.t->meta->retained : x.t->meta->grad;
          },
          [](PyTensor& x, nb::handle g) {
            if (g.is_none()) {
              if (x.t->meta) x.t->meta->grad = Tensor();
              if (x.t->meta && x.t->meta->retained) *x.t->meta->retained = Tensor();
            } else {
              Tensor t = nb::cast<Tensor>(g);
              if (!(t.shape() == x.t.shape()))
                fail<ShapeError>("grad", "a gradient has the shape of its tensor", "reshape it", x.t, t);
              x.t->need_meta().grad = t;
            }
          },
          nb::arg().none(), "The gradient that backward added up, or None.")
      .def_prop_ro(
          "is_leaf", [](const PyTensor& x) { return !x.t->node; }, "Whether no recorded op made it.")
      .def_prop_ro("_version", [](const PyTensor& x) { return x.t->storage->version; })
      .def_prop_ro("_address", [](const PyTensor& x) { return reinterpret_cast<uintptr_t>(x.t.raw()); })
      .def_prop_ro("_readonly", [](const PyTensor& x) { return x.t->storage->readonly; })
      .def("_data_as",
           [](const PyTensor& x, const Tensor& y) {  // replaces storage; used by load_state_dict and .to
             y->storage->refs++;
             drop(std::exchange(x.t->storage, y->storage));
             x.t->offset = y->offset;
             x.t->dtype = y->dtype;
             x.t->shape = y.shape();
             x.t->strides = y.strides();
             x.t->size = y.size();
             x.t->contiguous = y.contiguous();
           })
      .def(
          "detach", [](const PyTensor& x) { return detach(x.t); }, "The same memory outside the graph.")
      .def(
          "item",
          [](const PyTensor& x) {
            if (x.t.size() != 1) item_double(x.t);
            return nb::steal(item_object(x.t));
          },
          "The value of a one-element tensor as a Python number.")
      .def(
          "tolist",
          [](const PyTensor& x) {
            Tensor here = to_device(x.t, {});
            return nb::steal(nested_list(here, 0, here->offset));
          },
          "Nested lists of Python numbers; a number for a 0-d tensor.")
      .def(
          "tobytes",
          [](const PyTensor& x) {
            GradMode off(false);
            Tensor c = contiguous(to_device(detach(x.t), {}));
            return nb::bytes(c.raw(), size_t(c.size()) * size_t(itemsize(c.dtype())));
          },
          "The elements in C order.")
      .def(
          "astype", [](const PyTensor& x, DType d) { return cast(x.t, d); }, nb::arg("dtype"),
          "The elements in another dtype; the tensor itself if it has that dtype.\n\nExample:\n    >>> "
          "pb.asarray([1.5]).astype(pb.int64).tolist()\n    [1]")
      .def(
          "to", [](const PyTensor& x, nb::handle target) { return to_target(x.t, target); }, nb::arg("target"),
          "In another dtype, or on the named device.")
      .def(
          "clone", [](const PyTensor& x) { return with_copy(x.t); }, "A copy, differentiable.")
      .def(
          "contiguous", [](const PyTensor& x) { return contiguous(x.t); }, "In C order: itself or a copy.")
      .def(
          "requires_grad_",
          [](nb::handle self, bool on) {
            set_requires_grad(*nb::inst_ptr<PyTensor>(self), on);
            return nb::borrow(self);
          },
          nb::arg("requires_grad") = true, "Sets requires_grad and returns the tensor.");
}

}  // namespace pb::py
