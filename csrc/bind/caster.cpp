#include "bind/caster.h"

#include <nanobind/stl/string.h>

#include <string>

namespace pb::py {

PyTypeObject* tensor_type = nullptr;

PyObject* wrap(const Tensor& t) {
  if (!t) Py_RETURN_NONE;
  if (t->py) {
    auto* o = static_cast<PyObject*>(t->py);
    Py_INCREF(o);
    return o;
  }
  nb::object inst = nb::inst_alloc(nb::handle(reinterpret_cast<PyObject*>(tensor_type)));
  new (nb::inst_ptr<PyTensor>(inst)) PyTensor(t);
  nb::inst_mark_ready(inst);
  t->py = inst.ptr();
  return inst.release().ptr();
}

namespace {

struct PyDType {
  DType t;
};
PyObject* dtype_objects[kDTypes];

int64_t to_int(PyObject* o, const char* op) {
  nb::object index = nb::steal(PyNumber_Index(o));
  if (!index.is_valid()) nb::raise_python_error();
  int overflow = 0;
  int64_t v = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow) fail<ShapeError>(op, "an integer is out of the range of int64", "use a smaller number");
  return v;
}

}  // namespace

nb::object dtype_object(DType t) { return nb::borrow(dtype_objects[int(t)]); }

bool to_dtype(PyObject* o, DType& t) {
  if (!nb::isinstance<PyDType>(nb::handle(o))) return false;
  t = nb::inst_ptr<PyDType>(nb::handle(o))->t;
  return true;
}

void bind_dtypes(nb::module_& m) {
  nb::class_<PyDType>(m, "dtype", "Element type of a tensor, such as pb.float32.")
      .def(
          "__init__",
          [](PyDType* self, const std::string& name) {
            for (int i = 0; i < kDTypes; i++)
              if (name == dtype_name(DType(i))) {
                new (self) PyDType{DType(i)};
                return;
              }
            fail<DTypeError>("dtype", "unknown dtype '" + name + "'", "names are float32, int64, bool, ...");
          },
          nb::arg("name"))
      .def_prop_ro(
          "name", [](const PyDType& d) { return dtype_name(d.t); }, "Its name, such as float32.")
      .def_prop_ro(
          "itemsize", [](const PyDType& d) { return itemsize(d.t); }, "Bytes of an element.")
      .def_prop_ro(
          "is_floating", [](const PyDType& d) { return is_float(d.t); }, "Whether it is a floating dtype.")
      .def("__repr__", [](const PyDType& d) { return std::string("pullback.") + dtype_name(d.t); })
      .def("__hash__", [](const PyDType& d) { return 7919 + int(d.t); })
      .def(
          "__eq__",
          [](const PyDType& a, nb::handle b) {
            return nb::isinstance<PyDType>(b) && nb::inst_ptr<PyDType>(b)->t == a.t;
          },
          nb::arg().none())
      .def(
          "__ne__",
          [](const PyDType& a, nb::handle b) {
            return !(nb::isinstance<PyDType>(b) && nb::inst_ptr<PyDType>(b)->t == a.t);
          },
          nb::arg().none())
      .def("__reduce__",
           [](const PyDType& d) { return nb::make_tuple(nb::type<PyDType>(), nb::make_tuple(dtype_name(d.t))); });
  for (int i = 0; i < kDTypes; i++) {
    nb::object o = nb::cast(PyDType{DType(i)});
    m.attr(dtype_name(DType(i))) = o;
    dtype_objects[i] = o.release().ptr();
  }
}

Dims to_dims(PyObject* o, const char* op) {
  Dims d;
  if (PyLong_Check(o) || !PySequence_Check(o)) {
    d.push_back(to_int(o, op));
    return d;
  }
  Py_ssize_t n = PySequence_Size(o);
  if (n < 0) nb::raise_python_error();
  for (Py_ssize_t i = 0; i < n; i++) {
    nb::object v = nb::steal(PySequence_GetItem(o, i));
    if (!v.is_valid()) nb::raise_python_error();
    d.push_back(to_int(v.ptr(), op));
  }
  return d;
}

nb::tuple shape_tuple(const Dims& d) {
  nb::object t = nb::steal(PyTuple_New(d.size()));
  for (int i = 0; i < d.size(); i++) PyTuple_SET_ITEM(t.ptr(), i, PyLong_FromLongLong(d[i]));
  return nb::borrow<nb::tuple>(t);
}

Tensor to_tensor(PyObject* o) {
  if (is_tensor(o)) return unwrap(o);
  if (PyFloat_Check(o)) return scalar_weak(PyFloat_AS_DOUBLE(o));  // numpy.float64 is a float: its value stays whole
  if (PyBool_Check(o)) return scalar_weak(o == Py_True);
  if (PyLong_CheckExact(o)) {
    int overflow = 0;
    int64_t v = PyLong_AsLongLongAndOverflow(o, &overflow);
    if (!overflow) return scalar_weak(v);
    if (overflow > 0) {
      uint64_t u = PyLong_AsUnsignedLongLong(o);
      if (!PyErr_Occurred()) return full_int({}, int64_t(u), DType::U64);
      PyErr_Clear();
    }
    fail<DTypeError>("asarray", "a Python int is out of the range of 64-bit integers", "use a float");
  }
  return asarray(o, true);
}

// ---- errors

namespace {
PyObject* error_types[5];
}

void set_error() {
  try {
    throw;
  } catch (const ShapeError& e) {
    PyErr_SetString(error_types[0], e.what());
  } catch (const DTypeError& e) {
    PyErr_SetString(error_types[1], e.what());
  } catch (const DeviceError& e) {
    PyErr_SetString(error_types[2], e.what());
  } catch (const GraphError& e) {
    PyErr_SetString(error_types[3], e.what());
  } catch (const IndexError& e) {
    PyErr_SetString(PyExc_IndexError, e.what());
  } catch (const ValueError& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const MemoryError& e) {
    PyErr_SetString(PyExc_MemoryError, e.what());
  } catch (nb::python_error& e) {
    e.restore();
  } catch (nb::builtin_exception& e) {
    PyErr_SetString(e.type() == nb::exception_type::value_error ? PyExc_ValueError : PyExc_TypeError, e.what());
  } catch (const nb::cast_error&) {
    PyErr_SetString(error_types[1], "an argument has a wrong type\nhelp: see help() of the function");
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

void bind_errors(nb::module_& m) {
  auto make = [&](const char* name, PyObject* base, const char* doc) {
    std::string full = std::string("pullback.") + name;
    PyObject* t = PyErr_NewExceptionWithDoc(full.c_str(), doc, base, nullptr);
    m.attr(name) = nb::borrow(t);
    return t;
  };
  error_types[0] = make("ShapeError", PyExc_ValueError, "Shapes, sizes or axes do not fit.");
  error_types[1] = make("DTypeError", PyExc_TypeError, "An element type does not fit.");
  error_types[2] = make("DeviceError", PyExc_RuntimeError, "A device is missing or differs.");
  error_types[3] = make("GraphError", PyExc_RuntimeError, "A gradient does not exist or its graph is gone.");
  error_types[4] = make("CheckpointError", PyExc_RuntimeError, "A file cannot be read as what it should be.");
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const Error&) {
      set_error();
    } catch (const nb::cast_error&) {
      PyErr_SetString(error_types[1], "an argument has a wrong type\nhelp: see help() of the function");
    }
  });
}

}  // namespace pb::py
