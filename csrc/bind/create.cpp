// Making tensors from Python data.
#include <nanobind/stl/string.h>

#include <cmath>
#include <cstring>
#include <optional>

#include "bind/caster.h"
#include "families/gather.h"
#include "families/map.h"
#include "families/view.h"
#include "tape/node.h"
#include "tensor/alloc.h"

namespace pb::py {

void bind_errors(nb::module_& m);
void bind_dtypes(nb::module_& m);
Tensor from_buffer(PyObject* o, bool& ok);  // interop.cpp
Tensor from_dlpack(PyObject* o);
std::optional<DType> optional_dtype(nb::handle h);
void bind_fill(nb::module_& m);  // fill.cpp

namespace {

// Shape and category of nested sequences; every level must have equal lengths.
struct Scan {
  Shape shape;
  Category category = Category::Bool;
  bool any = false;
  bool unsigned64 = false;
};

bool is_sequence(PyObject* o) { return PyList_Check(o) || PyTuple_Check(o) || PyRange_Check(o); }

void scan(PyObject* o, int depth, Scan& s) {
  if (is_tensor(o) && unwrap(o).ndim() > 0)
    fail<DTypeError>("asarray", "a list of tensors is not data", "use pb.stack", unwrap(o));
  if (is_sequence(o)) {
    Py_ssize_t n = PySequence_Size(o);
    if (s.shape.size() == depth && !s.any)
      s.shape.push_back(n);
    else if (depth >= s.shape.size() || s.shape[depth] != n)
      fail<ShapeError>("asarray", "nested sequences have different lengths at depth " + std::to_string(depth),
                       "every row must have the same length");
    for (Py_ssize_t i = 0; i < n; i++) {
      nb::object v = nb::steal(PySequence_GetItem(o, i));
      scan(v.ptr(), depth + 1, s);
    }
    return;
  }
  if (depth != s.shape.size())
    fail<ShapeError>("asarray", "numbers and sequences are mixed at depth " + std::to_string(depth),
                     "every row must have the same depth");
  s.any = true;
  Category c;
  if (PyBool_Check(o))
    c = Category::Bool;
  else if (PyLong_Check(o)) {
    c = Category::Signed;
    int overflow = 0;
    PyLong_AsLongLongAndOverflow(o, &overflow);
    s.unsigned64 = s.unsigned64 || overflow > 0;
  } else if (PyFloat_Check(o))
    c = Category::Float;
  else if (is_tensor(o))
    c = category(unwrap(o).dtype()) == Category::Unsigned ? Category::Signed : category(unwrap(o).dtype());
  else if (PyNumber_Check(o))
    c = PyIndex_Check(o) ? Category::Signed : Category::Float;
  else
    fail<DTypeError>("asarray", std::string("cannot make a tensor of ") + Py_TYPE(o)->tp_name,
                     "pass numbers, sequences or arrays");
  if (c > s.category) s.category = c;
}

template <class T, class F>
void fill(PyObject* o, T*& to, F get) {
  if (is_sequence(o)) {
    Py_ssize_t n = PySequence_Size(o);
    for (Py_ssize_t i = 0; i < n; i++) {
      nb::object v = nb::steal(PySequence_GetItem(o, i));
      fill(v.ptr(), to, get);
    }
  } else {
    *to++ = get(o);
    if (PyErr_Occurred()) nb::raise_python_error();
  }
}

// A list of arrays (not of numbers) is stacked.
bool holds_arrays(PyObject* o) {
  if (!PyList_Check(o) && !PyTuple_Check(o)) return false;
  if (PySequence_Size(o) == 0) return false;
  nb::object first = nb::steal(PySequence_GetItem(o, 0));
  if (is_tensor(first.ptr()) || !PyObject_CheckBuffer(first.ptr())) return false;
  bool sized = PyObject_Size(first.ptr()) >= 0;
  PyErr_Clear();
  return sized;
}
Tensor stack_arrays(PyObject* o) {
  std::vector<Tensor> parts;
  for (Py_ssize_t i = 0; i < PySequence_Size(o); i++) {
    nb::object v = nb::steal(PySequence_GetItem(o, i));
    parts.push_back(expand_dims(detach(asarray(v.ptr(), true)), 0));
  }
  return concat(parts, 0);
}

Tensor from_sequence(PyObject* o) {
  Scan s;
  scan(o, 0, s);
  DType d = !s.any                          ? DType::F32
            : s.category == Category::Float ? DType::F32
            : s.category == Category::Bool  ? DType::Bool
                                            : DType::I64;
  if (d == DType::F32) {
    Tensor wide = empty(s.shape, DType::F64);
    auto* p = wide.data<double>();
    fill(o, p, [](PyObject* v) { return PyFloat_AsDouble(v); });
    return wide;  // the caller narrows, to the wished dtype or to float32
  }
  if (d == DType::I64 && s.unsigned64) d = DType::U64;
  Tensor t = empty(s.shape, d);
  if (d == DType::U64) {
    auto* p = t.data<uint64_t>();
    fill(o, p, [](PyObject* v) {
      nb::object index = nb::steal(PyNumber_Index(v));
      return index.is_valid() ? uint64_t(PyLong_AsUnsignedLongLong(index.ptr())) : uint64_t(0);
    });
  } else if (d == DType::Bool) {
    auto* p = t.data<bool>();
    fill(o, p, [](PyObject* v) { return PyObject_IsTrue(v) != 0; });
  } else {
    auto* p = t.data<int64_t>();
    fill(o, p, [](PyObject* v) {
      nb::object index = nb::steal(PyNumber_Index(v));
      return index.is_valid() ? int64_t(PyLong_AsLongLong(index.ptr())) : int64_t(0);
    });
  }
  return t;
}

Tensor as_tensor(PyObject* o, std::optional<DType> dtype, bool share) {
  Tensor t;
  bool fresh = false;
  if (is_tensor(o)) {
    t = unwrap(o);
  } else if (holds_arrays(o)) {
    t = stack_arrays(o);
    fresh = true;
  } else if (is_sequence(o) || PyFloat_Check(o) || PyBool_Check(o) || PyLong_Check(o)) {
    t = from_sequence(o);
    if (!dtype && t.dtype() == DType::F64) t = cast(t, DType::F32);
    fresh = true;
  } else {
    bool ok = false;
    t = from_buffer(o, ok);
    if (!ok && PyObject_HasAttrString(o, "__dlpack__")) t = from_dlpack(o), ok = true;
    if (!ok && PyObject_HasAttrString(o, "__array__")) {
      nb::object array = nb::steal(PyObject_CallMethod(o, "__array__", nullptr));
      if (!array.is_valid()) nb::raise_python_error();
      t = from_buffer(array.ptr(), ok);
    }
    if (!ok && PyNumber_Check(o)) {
      t = cast(from_sequence(o), dtype.value_or(DType::F32));
      ok = fresh = true;
    }
    if (!ok)
      fail<DTypeError>("asarray", std::string("cannot make a tensor of ") + Py_TYPE(o)->tp_name,
                       "pass numbers, sequences, NumPy arrays or DLPack producers");
  }
  if (dtype && t.dtype() != *dtype) {
    t = cast(t, *dtype);
    fresh = true;
  }
  return share || fresh ? t : with_copy(t);
}

}  // namespace

std::optional<DType> optional_dtype(nb::handle h) {
  if (h.is_none()) return {};
  DType d;
  if (!to_dtype(h.ptr(), d))
    fail<DTypeError>("dtype", "the dtype must be one of pullback's, such as pb.float32", "pb.dtype('float32')");
  return d;
}

Tensor asarray(PyObject* o, bool share) { return as_tensor(o, {}, share); }

void bind_create(nb::module_& m) {
  m.def(
      "tensor",
      [](nb::handle data, nb::handle dtype, nb::handle device, bool requires_grad) {
        Device to = device_at(device, "tensor");
        Tensor t = detach(as_tensor(data.ptr(), optional_dtype(dtype), false));
        if (!device.is_none()) t = to_device(t, to);
        if (requires_grad && !is_float(t.dtype()))
          fail<DTypeError>("tensor", "only floating tensors can require grad", "pass dtype=pb.float32", t);
        t->wants_grad = requires_grad;
        return t;
      },
      nb::arg("data").none(), nb::kw_only(), nb::arg("dtype").none() = nb::none(),
      nb::arg("device").none() = nb::none(), nb::arg("requires_grad") = false,
      "A new tensor with a copy of the data; Python floats give float32.\n\nExample:\n    >>> pb.tensor([1.0, "
      "2.0]).tolist()\n    [1.0, 2.0]");
  m.def(
      "asarray",
      [](nb::handle obj, nb::handle dtype, nb::handle device, nb::handle copy) {
        Device to = device_at(device, "asarray");
        bool must_copy = copy.ptr() == Py_True;
        Tensor t = as_tensor(obj.ptr(), optional_dtype(dtype), !must_copy);
        if (!device.is_none()) t = moved(t, to);
        if (copy.ptr() == Py_False && (!is_tensor(obj.ptr()) ? !t->storage->release : !t.is(unwrap(obj.ptr()))))
          fail<ValueError>("asarray", "copy=False, but this needs a copy", "use copy=None", t);
        return t;
      },
      nb::arg("obj").none(), nb::kw_only(), nb::arg("dtype").none() = nb::none(), nb::arg("device").none() = nb::none(),
      nb::arg("copy").none() = nb::none(), "A tensor that shares memory with NumPy and DLPack producers where it can.");
  m.def(
      "frombuffer",
      [](nb::handle buffer, DType dtype, const Dims& shape) {
        Py_buffer view;
        if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_SIMPLE)) nb::raise_python_error();
        Tensor t = empty(shape, dtype);
        size_t bytes = size_t(t.size()) * size_t(itemsize(dtype));
        bool fits = size_t(view.len) == bytes;
        if (fits) std::memcpy(t.raw(), view.buf, bytes);
        size_t have = size_t(view.len);
        PyBuffer_Release(&view);
        if (!fits)
          fail<ShapeError>("frombuffer", std::to_string(have) + " bytes do not fill shape " + to_string(shape),
                           "check dtype and shape", t);
        return t;
      },
      nb::arg("buffer"), nb::arg("dtype"), nb::arg("shape"), "A tensor with a copy of raw bytes in C order.");
  bind_fill(m);
  m.def("promote_types", &promote, nb::arg("a"), nb::arg("b"),
        "The dtype that both are promoted to; see pb.result_type.");
  m.def(
      "memory_stats",
      [] {
        alloc::Stats s = alloc::stats();
        nb::dict d;
        d["current"] = s.current;
        d["peak"] = s.peak;
        d["reserved"] = s.reserved;
        d["allocations"] = s.allocations;
        d["system_calls"] = s.system_calls;
        d["tensors"] = tensors_alive();
        d["nodes"] = Node::alive();
        return d;
      },
      "Bytes in use, at most, reserved; numbers of allocations, system calls, tensors and nodes.");
  m.def("reset_peak_memory", &alloc::reset_peak, "Sets the peak of memory_stats to what is in use now.");
  m.def("empty_cache", &alloc::empty_cache, "Gives the free blocks that the allocator keeps back to the system.");
}

}  // namespace pb::py
