// Between Python objects and handles. A handle has at most one Python object, so `x.grad is x.grad` while it lives.
#pragma once
#include <nanobind/nanobind.h>

#include "families/registry.h"
#include "tensor/tensor.h"

namespace nb = nanobind;

namespace pb::py {

struct PyTensor {
  Tensor t;
  explicit PyTensor(Tensor v) : t(std::move(v)) {}
  PyTensor(const PyTensor&) = delete;
  PyTensor& operator=(const PyTensor&) = delete;
  ~PyTensor() {
    if (t) t->py = nullptr;
  }
};

extern PyTypeObject* tensor_type;
inline bool is_tensor(PyObject* o) { return Py_TYPE(o) == tensor_type || PyType_IsSubtype(Py_TYPE(o), tensor_type); }
inline const Tensor& unwrap(PyObject* o) { return nb::inst_ptr<PyTensor>(nb::handle(o))->t; }
// The same for an object that may be anything.
inline const Tensor& checked_tensor(nb::handle h, const char* op) {
  if (!is_tensor(h.ptr()))
    fail<DTypeError>(op, std::string("takes tensors, got ") + Py_TYPE(h.ptr())->tp_name, "make one with pb.asarray");
  return unwrap(h.ptr());
}
PyObject* wrap(const Tensor& t);  // new reference; None for no tensor

// A tensor, a Python scalar (weak) or anything asarray takes.
Tensor to_tensor(PyObject* o);
Tensor asarray(PyObject* o, bool share);  // without a dtype wish
nb::object dtype_object(DType t);
bool to_dtype(PyObject* o, DType& t);
Device device_at(nb::handle h, const char* op);  // None: the CPU; DeviceError for one that is not there
Dims to_dims(PyObject* o, const char* op);  // an int or a sequence of ints
nb::tuple shape_tuple(const Dims& d);
// Sets the Python error for the exception in flight.
void set_error();

template <class F>
PyObject* guarded(F f) {
  try {
    return f();
  } catch (...) {
    set_error();
    return nullptr;
  }
}

// Axes given as None, an int or a tuple.
struct Axes {
  Dims axes;
  bool all = true;
};

void bind_tensor(nb::module_& m);
void bind_create(nb::module_& m);
void bind_ops(nb::module_& m);
void bind_shapes(nb::module_& m);
void bind_autograd(nb::module_& m);
void bind_codes(nb::module_& m);
void bind_fused(nb::module_& m);
void bind_saving(nb::module_& m);
void bind_random(nb::module_& m);
void bind_interop(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_conv(nb::module_& m);
void bind_rows(nb::module_& m);
void bind_optim(nb::module_& m);
int block_bits(const char* op, nb::handle saved);  // 4, 8; -1 for "input", 0 for None; codes.cpp
Tensor get_item(const Tensor& x, PyObject* key);
void set_item(const Tensor& x, PyObject* key, const Tensor& value);

}  // namespace pb::py

namespace nanobind::detail {

template <>
struct type_caster<pb::Tensor> {
  NB_TYPE_CASTER(pb::Tensor, const_name("Tensor"))
  bool from_python(handle src, uint8_t, cleanup_list*) noexcept {
    if (!pb::py::is_tensor(src.ptr())) return false;
    value = pb::py::unwrap(src.ptr());
    return bool(value);
  }
  static handle from_cpp(const pb::Tensor& t, rv_policy, cleanup_list*) noexcept { return pb::py::wrap(t); }
};

template <>
struct type_caster<pb::DType> {
  NB_TYPE_CASTER(pb::DType, const_name("dtype"))
  bool from_python(handle src, uint8_t, cleanup_list*) noexcept { return pb::py::to_dtype(src.ptr(), value); }
  static handle from_cpp(pb::DType t, rv_policy, cleanup_list*) noexcept { return pb::py::dtype_object(t).release(); }
};

template <>
struct type_caster<pb::py::Axes> {
  NB_TYPE_CASTER(pb::py::Axes, const_name("int | tuple[int, ...] | None"))
  bool from_python(handle src, uint8_t, cleanup_list*) {
    value.all = src.is_none();
    if (!value.all) value.axes = pb::py::to_dims(src.ptr(), "axis");
    return true;
  }
  static handle from_cpp(const pb::py::Axes&, rv_policy, cleanup_list*) noexcept { return handle(); }
};

// A shape: an int or a sequence of ints.
template <>
struct type_caster<pb::Dims> {
  NB_TYPE_CASTER(pb::Dims, const_name("int | tuple[int, ...]"))
  bool from_python(handle src, uint8_t, cleanup_list*) {
    if (!PyLong_Check(src.ptr()) && !PySequence_Check(src.ptr())) return false;
    value = pb::py::to_dims(src.ptr(), "shape");
    return true;
  }
  static handle from_cpp(const pb::Dims& d, rv_policy, cleanup_list*) { return pb::py::shape_tuple(d).release(); }
};

}  // namespace nanobind::detail

namespace pb::py {
// An argument that may be a tensor, a scalar or an array.
struct Operand {
  Tensor t;
};
}  // namespace pb::py
namespace nanobind::detail {
template <>
struct type_caster<pb::py::Operand> {
  NB_TYPE_CASTER(pb::py::Operand, const_name("Tensor | complex | object"))
  bool from_python(handle src, uint8_t, cleanup_list*) {
    value.t = pb::py::to_tensor(src.ptr());
    return bool(value.t);
  }
  static handle from_cpp(const pb::py::Operand& o, rv_policy, cleanup_list*) noexcept { return pb::py::wrap(o.t); }
};
}  // namespace nanobind::detail
