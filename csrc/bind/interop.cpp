// Memory shared with other libraries: the buffer protocol (NumPy), DLPack (NumPy, PyTorch, JAX, CuPy).
//
// Note [Foreign memory]
// A tensor made of foreign memory owns what the producer gave (a Py_buffer or a DLPack struct) and gives it back once,
// under the interpreter lock, when the last handle goes. If anything fails before that, the producer still owns it.
#include <nanobind/stl/string.h>

#include <bit>
#include <cstring>

#include "bind/caster.h"
#include "cuda/api_memory.h"
#include "cuda/engine.h"
#include "cuda/streams.h"
#include "extend/dlpack.h"
#include "families/map.h"
#include "families/view.h"

namespace pb::py {

Tensor from_buffer(PyObject* o, bool& ok);
Tensor from_dlpack(PyObject* o);
int get_buffer(PyObject* self, Py_buffer* view, int flags);
void release_buffer(PyObject* self, Py_buffer* view);

namespace {

// ---- the buffer protocol, towards us

bool integer_of(char c, int bytes, DType& t) {
  static const DType with_sign[] = {DType::I8, DType::I16, DType::I32, DType::I64};
  static const DType without[] = {DType::U8, DType::U16, DType::U32, DType::U64};
  int log = bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : bytes == 8 ? 3 : -1;
  if (log < 0) return false;
  if (std::strchr("bhilqn", c))
    t = with_sign[log];
  else if (std::strchr("BHILQNc", c))
    t = without[log];
  else
    return false;
  return true;
}

bool dtype_of_format(const char* f, Py_ssize_t item, DType& t) {
  if (!f) f = "B";
  bool foreign_order = *f == (std::endian::native == std::endian::little ? '>' : '<') || *f == '!';
  if (*f && std::strchr("@=<>!", *f)) f++;
  if (!f[0] || f[1] || (foreign_order && item > 1)) return false;
  if (f[0] == '?' && item == 1)
    t = DType::Bool;
  else if (f[0] == 'e' && item == 2)
    t = DType::F16;
  else if (f[0] == 'f' && item == 4)
    t = DType::F32;
  else if (f[0] == 'd' && item == 8)
    t = DType::F64;
  else
    return integer_of(f[0], int(item), t);
  return true;
}

void free_buffer(void* owner) {
  if (!Py_IsInitialized()) return;
  nb::gil_scoped_acquire lock;
  auto* view = static_cast<Py_buffer*>(owner);
  PyBuffer_Release(view);
  delete view;
}

std::string name_of(PyObject* o) {
  nb::object dtype = nb::steal(PyObject_GetAttrString(o, "dtype"));
  if (!dtype.is_valid()) {
    PyErr_Clear();
    return Py_TYPE(o)->tp_name;
  }
  return std::string("an array of ") + nb::str(dtype).c_str();
}

[[noreturn]] void no_such_dtype(PyObject* o) {
  fail<DTypeError>("asarray", name_of(o) + " has no dtype of pullback's",
                   "convert it first, for example array.astype(\"float32\"); complex, object, text, structured and "
                   "byte-swapped arrays are not taken");
}

// NumPy has no buffer for ml_dtypes.bfloat16: share it as uint16 and rename.
Tensor from_numpy_bfloat16(PyObject* o, bool& ok) {
  ok = false;
  if (!PyObject_HasAttrString(o, "__array_interface__")) return Tensor();
  nb::object dtype = nb::borrow(o).attr("dtype");
  if (std::strcmp(nb::str(dtype).c_str(), "bfloat16") != 0) no_such_dtype(o);
  nb::object bits = nb::borrow(o).attr("view")("uint16");
  Tensor t = from_buffer(bits.ptr(), ok);
  if (ok) t->dtype = DType::BF16;
  return t;
}

// What a Py_buffer describes; the strides of elements, or a copy when they are not whole elements.
Tensor wrap_buffer(Py_buffer* view, DType dtype) {
  int n = view->ndim;
  Shape shape;
  Strides strides;
  bool whole = reinterpret_cast<uintptr_t>(view->buf) % size_t(view->itemsize) == 0;
  for (int i = 0; i < n; i++) {
    shape.push_back(view->shape[i]);
    strides.push_back(view->strides[i] / view->itemsize);
    whole = whole && view->strides[i] % view->itemsize == 0;
  }
  count(shape, "asarray");
  if (whole && !view->suboffsets)
    return from_foreign(view->buf, shape, strides, dtype, view->readonly, &free_buffer, view);
  Tensor t = empty(shape, dtype);
  if (PyBuffer_ToContiguous(t.raw(), view, view->len, 'C')) nb::raise_python_error();
  free_buffer(view);
  return t;
}

}  // namespace

Tensor from_buffer(PyObject* o, bool& ok) {
  ok = false;
  if (!PyObject_CheckBuffer(o)) return Tensor();
  if (PyBytes_Check(o) || PyByteArray_Check(o))
    fail<DTypeError>("asarray", "raw bytes have no dtype", "pb.asarray(memoryview(data)) gives uint8");
  auto view = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(o, view.get(), PyBUF_FULL_RO)) {
    PyErr_Clear();
    return from_numpy_bfloat16(o, ok);
  }
  DType dtype;
  if (!dtype_of_format(view->format, view->itemsize, dtype)) {
    PyBuffer_Release(view.get());
    no_such_dtype(o);
  }
  try {
    Tensor t = wrap_buffer(view.get(), dtype);
    view.release();  // owned by the tensor, or given back already
    ok = true;
    return t;
  } catch (...) {
    PyBuffer_Release(view.get());
    throw;
  }
}

// ---- DLPack, towards us

namespace {

template <class M>
void free_managed(void* owner) {
  if (!Py_IsInitialized()) return;
  nb::gil_scoped_acquire lock;
  auto* m = static_cast<M*>(owner);
  if (m->deleter) m->deleter(m);
}

DType dtype_of(const dl::DataType& d) {
  static const DType ints[] = {DType::I8, DType::I16, DType::I32, DType::I64};
  static const DType uints[] = {DType::U8, DType::U16, DType::U32, DType::U64};
  int log = d.bits == 8 ? 0 : d.bits == 16 ? 1 : d.bits == 32 ? 2 : d.bits == 64 ? 3 : -1;
  if (d.lanes == 1 && log >= 0) {
    if (d.code == dl::kInt) return ints[log];
    if (d.code == dl::kUInt) return uints[log];
    if (d.code == dl::kFloat && log >= 1) return log == 1 ? DType::F16 : log == 2 ? DType::F32 : DType::F64;
    if (d.code == dl::kBfloat && log == 1) return DType::BF16;
    if (d.code == dl::kBool && log == 0) return DType::Bool;
  }
  fail<DTypeError>("from_dlpack",
                   "DLPack type code " + std::to_string(d.code) + " with " + std::to_string(d.bits) + " bits and " +
                       std::to_string(d.lanes) + " lanes has no dtype of pullback's",
                   "convert the array first; complex and sub-byte types are not taken");
}

// Where data of a DLPack device lies; DeviceError for devices other than CPUs and NVIDIA GPUs.
Device device_of(int type, int id) {
  if (type == dl::kCpu || type == dl::kCudaHost) return {};
  if (type != dl::kCuda || id < 0 || id >= cuda::kMaxDevices)
    fail<DeviceError>("from_dlpack",
                      "the data lies on DLPack device type " + std::to_string(type) + ", not on the CPU or a CUDA device",
                      "move it to the CPU first");
  Device d{Device::CUDA, int8_t(id)};
  cuda::need_device(d, "from_dlpack");
  return d;
}

Tensor wrap_managed(const dl::Array& a, bool readonly, void (*release)(void*), void* owner) {
  Device device = device_of(a.device.type, a.device.id);
  DType dtype = dtype_of(a.dtype);
  Shape shape;
  for (int i = 0; i < a.ndim; i++) shape.push_back(a.shape[i]);
  count(shape, "from_dlpack");
  Strides strides = contiguous_strides(shape);
  if (a.strides)
    for (int i = 0; i < a.ndim; i++) strides[i] = a.strides[i];
  return from_foreign(static_cast<char*>(a.data) + a.byte_offset, shape, strides, dtype, readonly, release, owner,
                      device);
}

nb::object capsule_of(PyObject* o) {
  nb::object producer = nb::borrow(o);
  if (!nb::hasattr(producer, "__dlpack_device__") || !nb::hasattr(producer, "__dlpack__"))
    fail<DTypeError>("from_dlpack", std::string("an object of type ") + Py_TYPE(o)->tp_name + " does not speak DLPack",
                     "pass an array that has __dlpack__ and __dlpack_device__; pb.asarray takes other data");
  nb::object device = producer.attr("__dlpack_device__")();
  Device there = device_of(nb::cast<int>(nb::int_(device[0])), nb::cast<int>(nb::int_(device[1])));
  nb::object method = producer.attr("__dlpack__");
  if (there.kind == Device::CUDA) {  // the producer makes its work visible on this stream; 1 is the default one
    auto stream = reinterpret_cast<uintptr_t>(cuda::stream_of(there));
    nb::int_ handle(stream ? stream : 1);
    try {
      return method(nb::arg("stream") = handle, nb::arg("max_version") = nb::make_tuple(1, 0));
    } catch (nb::python_error& e) {
      if (!e.matches(PyExc_TypeError)) throw;
    }
    return method(nb::arg("stream") = handle);
  }
  try {
    return method(nb::arg("max_version") = nb::make_tuple(1, 0));
  } catch (nb::python_error& e) {
    if (!e.matches(PyExc_TypeError)) throw;
  }
  return method();  // a producer from before version 1.0
}

}  // namespace

Tensor from_dlpack(PyObject* o) {
  nb::object capsule = PyCapsule_CheckExact(o) ? nb::borrow(o) : capsule_of(o);
  PyObject* c = capsule.ptr();
  if (PyCapsule_IsValid(c, dl::kNameVersioned)) {
    auto* m = static_cast<dl::ManagedVersioned*>(PyCapsule_GetPointer(c, dl::kNameVersioned));
    if (m->version.major != 1)
      fail<DTypeError>("from_dlpack", "DLPack version " + std::to_string(m->version.major) + " is not known here",
                       "this build reads version 1");
    Tensor t = wrap_managed(m->array, m->flags & dl::kReadOnly, &free_managed<dl::ManagedVersioned>, m);
    PyCapsule_SetName(c, dl::kUsedVersioned);
    return t;
  }
  if (PyCapsule_IsValid(c, dl::kName)) {
    auto* m = static_cast<dl::Managed*>(PyCapsule_GetPointer(c, dl::kName));
    Tensor t = wrap_managed(m->array, false, &free_managed<dl::Managed>, m);
    PyCapsule_SetName(c, dl::kUsed);
    return t;
  }
  fail<ValueError>("from_dlpack", "this is no DLPack capsule, or one that was consumed already",
                   "pass the array itself; a capsule can be read once");
}

// ---- the buffer protocol, from us

namespace {

const char* format_of(DType t) {
  static const char* const formats[kDTypes] = {"?", "b", "h", "i", "q", "B", "H", "I", "Q", "e", nullptr, "f", "d"};
  return formats[int(t)];
}

struct Exported {
  Tensor t;
  Py_ssize_t shape[kMaxDims], strides[kMaxDims];
};

bool fortran(const Tensor& t) {
  int64_t step = 1;
  for (int i = 0; i < t.ndim(); i++) {
    if (t.shape()[i] != 1 && t.strides()[i] != step) return t.size() == 0;
    step *= t.shape()[i];
  }
  return true;
}

const char* refusal(const Tensor& t, int flags) {
  if (on_cuda(t)) return "this tensor lies on a CUDA device\nhelp: copy it with x.to(\"cpu\")";
  if (t.dtype() == DType::BF16)
    return "bfloat16 has no buffer format\nhelp: cast with x.astype(pb.float32), or use DLPack";
  if ((flags & PyBUF_WRITABLE) && t->storage->readonly)
    return "this tensor is read-only\nhelp: ask for a read-only buffer";
  bool c = t.contiguous(), f = fortran(t);
  bool strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES;
  if ((!strides && !c) || ((flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS && !c) ||
      ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && !f) ||
      ((flags & PyBUF_ANY_CONTIGUOUS) == PyBUF_ANY_CONTIGUOUS && !c && !f))
    return "this tensor is not contiguous\nhelp: use x.contiguous()";
  return nullptr;
}

}  // namespace

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  const Tensor& t = unwrap(self);
  view->obj = nullptr;
  if (const char* why = refusal(t, flags)) {
    PyErr_SetString(PyExc_BufferError, why);
    return -1;
  }
  auto* e = new Exported{detach(t), {}, {}};
  int item = itemsize(t.dtype());
  for (int i = 0; i < t.ndim(); i++) {
    e->shape[i] = Py_ssize_t(t.shape()[i]);
    e->strides[i] = Py_ssize_t(t.strides()[i] * item);
  }
  Py_INCREF(self);
  view->obj = self;
  view->buf = t.raw();
  view->len = Py_ssize_t(t.size() * item);
  view->itemsize = item;
  view->readonly = t->storage->readonly;
  view->ndim = t.ndim();
  view->format = flags & PyBUF_FORMAT ? const_cast<char*>(format_of(t.dtype())) : nullptr;
  view->shape = flags & PyBUF_ND ? e->shape : nullptr;
  view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? e->strides : nullptr;
  view->suboffsets = nullptr;
  view->internal = e;
  return 0;
}

void release_buffer(PyObject*, Py_buffer* view) { delete static_cast<Exported*>(view->internal); }

// ---- DLPack and NumPy, from us

namespace {

dl::DataType dl_type(DType t) {
  Category c = category(t);
  uint8_t code = t == DType::BF16        ? dl::kBfloat
                 : c == Category::Bool   ? dl::kBool
                 : c == Category::Float  ? dl::kFloat
                 : c == Category::Signed ? dl::kInt
                                         : dl::kUInt;
  return {code, uint8_t(8 * itemsize(t)), 1};
}

// The struct with what it points to in one block; the handle keeps the memory.
template <class M>
struct Holder {
  M managed{};
  Tensor t;
  int64_t shape[kMaxDims], strides[kMaxDims];
};

template <class M>
void delete_holder(M* m) {
  if (!Py_IsInitialized()) return;
  nb::gil_scoped_acquire lock;
  delete static_cast<Holder<M>*>(m->context);
}

template <class M>
M* hold(const Tensor& t) {
  auto* h = new Holder<M>;
  h->t = detach(t);
  for (int i = 0; i < t.ndim(); i++) {
    h->shape[i] = t.shape()[i];
    h->strides[i] = t.strides()[i];
  }
  Device d = t.device();
  dl::Device place{d.kind == Device::CUDA ? dl::kCuda : dl::kCpu, d.index};
  h->managed.array = {t.raw(), place, t.ndim(), dl_type(t.dtype()), h->shape, h->strides, 0};
  h->managed.context = h;
  h->managed.deleter = &delete_holder<M>;
  return &h->managed;
}

template <class M>
constexpr const char* kFreshName = dl::kName;
template <>
constexpr const char* kFreshName<dl::ManagedVersioned> = dl::kNameVersioned;

// A consumer renames the capsule; one that nobody read frees what it holds.
template <class M>
nb::object capsule(M* m) {
  PyObject* c = PyCapsule_New(m, kFreshName<M>, [](PyObject* c) {
    if (!PyCapsule_IsValid(c, kFreshName<M>)) return;
    auto* m = static_cast<M*>(PyCapsule_GetPointer(c, kFreshName<M>));
    m->deleter(m);
  });
  if (!c) {
    m->deleter(m);
    nb::raise_python_error();
  }
  return nb::steal(c);
}

[[noreturn]] void buffer_error(const char* text) {
  PyErr_SetString(PyExc_BufferError, text);
  nb::raise_python_error();
}

// Lets the consumer's stream wait for what is enqueued on ours. -1: it takes care itself; 0 is ambiguous.
void show_to_stream(const Tensor& x, nb::handle stream) {
  int64_t handle = stream.is_none() ? 1 : nb::cast<int64_t>(nb::int_(stream));
  if (handle == -1) return;
  if (handle == 0) fail<ValueError>("__dlpack__", "stream 0 is ambiguous", "pass 1 for the default stream", x);
  void* ours = cuda::stream_of(x.device());
  void* theirs = handle == 1 ? nullptr : reinterpret_cast<void*>(handle);
  if (theirs == ours) return;
  const cuda::MemoryApi& m = *cuda::need_table("__dlpack__").memory;
  void* event = nullptr;
  cuda::check(m.event_create(&event, false), "__dlpack__");
  cuda::check(m.event_record(event, ours), "__dlpack__");
  cuda::check(m.stream_wait(theirs, event), "__dlpack__");
  cuda::check(m.event_destroy(event), "__dlpack__");
}

nb::object to_dlpack(const Tensor& x, nb::handle stream, nb::handle max_version, nb::handle device, nb::handle copy) {
  if (on_cuda(x)) {
    if (!device.is_none() && (nb::cast<int>(nb::int_(device[0])) != dl::kCuda ||
                              nb::cast<int>(nb::int_(device[1])) != x.device().index))
      buffer_error("__dlpack__: the data lies on a CUDA device\nhelp: pass dl_device=None and move it afterwards");
    show_to_stream(x, stream);
  } else {
    if (!stream.is_none())
      fail<ValueError>("__dlpack__", "a stream was given for data on the CPU", "pass stream=None", x);
    if (!device.is_none() && nb::cast<int>(nb::int_(device[0])) != dl::kCpu)
      buffer_error("__dlpack__: the data lies on the CPU\nhelp: pass dl_device=None and move it afterwards");
  }
  bool versioned = !max_version.is_none() && nb::cast<int>(nb::int_(max_version[0])) >= 1;
  bool copied = copy.ptr() == Py_True;
  Tensor t = copied ? clone(x) : x;
  if (t->storage->readonly && !versioned)
    buffer_error(
        "__dlpack__: read-only memory can only be shared from DLPack 1.0 on\n"
        "help: pass max_version=(1, 0), or copy=True");
  if (!versioned) return capsule(hold<dl::Managed>(t));
  auto* m = hold<dl::ManagedVersioned>(t);
  m->version = {1, 0};
  m->flags = (t->storage->readonly ? dl::kReadOnly : 0) | (copied ? dl::kCopied : 0);
  return capsule(m);
}

nb::object to_numpy(nb::handle self, nb::handle dtype, nb::handle copy) {
  const Tensor& x = unwrap(self.ptr());
  if (on_cuda(x)) {
    if (copy.ptr() == Py_False)
      fail<ValueError>("__array__", "copy=False, but the tensor lies on a CUDA device", "use copy=None", x);
    nb::object here = nb::steal(wrap(to_device(detach(x), {})));
    return to_numpy(here, dtype, nb::none());
  }
  if (x.dtype() == DType::BF16)
    fail<DTypeError>("numpy", "NumPy has no bfloat16", "cast first: x.astype(pb.float32).numpy()", x);
  nb::module_ np = nb::module_::import_("numpy");
  nb::object view = nb::steal(PyMemoryView_FromObject(self.ptr()));
  if (!view.is_valid()) nb::raise_python_error();
  nb::object a = np.attr("asarray")(view);
  bool cast = !dtype.is_none() && !a.attr("dtype").equal(np.attr("dtype")(dtype));
  if (cast && copy.ptr() == Py_False)
    fail<ValueError>("__array__", "copy=False, but another dtype needs a copy", "use copy=None", x);
  if (cast) return a.attr("astype")(dtype);
  return copy.ptr() == Py_True ? a.attr("copy")() : a;
}

}  // namespace

void bind_objects(nb::module_& m);  // objects.cpp

void bind_interop(nb::module_& m) {
  nb::object cls = nb::borrow(reinterpret_cast<PyObject*>(tensor_type));
  auto& c = static_cast<nb::class_<PyTensor>&>(cls);  // the handle alone: a class_ has no data of its own
  auto none = nb::none();
  c.def(
       "__dlpack__",
       [](const PyTensor& x, nb::handle stream, nb::handle max_version, nb::handle device, nb::handle copy) {
         return to_dlpack(x.t, stream, max_version, device, copy);
       },
       nb::kw_only(), nb::arg("stream").none() = none, nb::arg("max_version").none() = none,
       nb::arg("dl_device").none() = none, nb::arg("copy").none() = none,
       "A DLPack capsule of this memory; writes made through it are not tracked.")
      .def("__dlpack_device__", [](const PyTensor& x) {
        Device d = x.t.device();
        return nb::make_tuple(int(d.kind == Device::CUDA ? dl::kCuda : dl::kCpu), int(d.index));
      })
      .def(
          "__array__", [](nb::handle self, nb::handle dtype, nb::handle copy) { return to_numpy(self, dtype, copy); },
          nb::arg("dtype").none() = none, nb::arg("copy").none() = none)
      .def(
          "numpy", [](nb::handle self) { return to_numpy(self, nb::none(), nb::none()); },
          "A NumPy array on the same memory, of a device tensor a copy. Writes through it are not tracked.\n\nExample:\n"
          "    >>> pb.arange(3).numpy().tolist()\n    [0, 1, 2]");
  m.def(
      "from_dlpack",
      [](nb::handle x, nb::handle device, nb::handle copy) {
        Device to = device_at(device, "from_dlpack");
        Tensor t = is_tensor(x.ptr()) ? detach(unwrap(x.ptr())) : from_dlpack(x.ptr());
        if (!device.is_none() && !(t.device() == to)) {
          if (copy.ptr() == Py_False)
            fail<ValueError>("from_dlpack", "copy=False, but another device needs a copy", "use copy=None", t);
          return to_device(t, to);
        }
        return copy.ptr() == Py_True ? clone(t) : t;
      },
      nb::arg("x"), nb::kw_only(), nb::arg("device").none() = none, nb::arg("copy").none() = none,
      "A tensor on the memory of any DLPack producer (NumPy, PyTorch, JAX), without a copy.\n\nExample:\n"
      "    >>> import numpy as np\n    >>> pb.from_dlpack(np.ones(2)).tolist()\n    [1.0, 1.0]");
  bind_objects(m);
}

}  // namespace pb::py
