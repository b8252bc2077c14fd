#include "tensor/tensor.h"

#include <cmath>
#include <cstring>

#include "cuda/engine.h"
#include "families/map.h"
#include "tape/node.h"
#include "tensor/alloc.h"

namespace pb {

Mode& mode() {
  static thread_local Mode m;
  return m;
}

std::string device_name(Device d) { return d.kind == Device::CPU ? "cpu" : "cuda:" + std::to_string(d.index); }

std::string describe(const Tensor& t) {
  if (!t) return "no tensor";
  if (t.weak())
    return std::string("Python ") + (t.dtype() == DType::Bool ? "bool" : is_float(t.dtype()) ? "float" : "int");
  std::string text = dtype_name(t.dtype()) + to_string(t.shape());
  return on_cuda(t) ? text + " on " + device_name(t.device()) : text;
}

void drop(Storage* s) {
  if (!s || --s->refs) return;
  if (s->release)
    s->release(s->owner);
  else if (s->device.kind == Device::CUDA)
    cuda::put(s->data, s->device);
  else
    alloc::put(s->data, s->bytes);
  delete s;
}

int64_t tensors_alive() { return alloc::Recycled<TensorImpl>::alive; }

void drop(TensorImpl* t) {
  Node* node = std::exchange(t->node, nullptr);
  drop(std::exchange(t->storage, nullptr));
  delete t;
  if (node) drop(node);
}

namespace {
Tensor bare(const Shape& shape, int64_t size, DType dtype, Storage* storage) {
  auto* t = new TensorImpl;
  t->dtype = dtype;
  t->shape = shape;
  t->size = size;
  t->storage = storage;
  return Tensor(t);
}

Tensor make(const Shape& shape, int64_t size, DType dtype, Storage* storage) {
  Tensor t = bare(shape, size, dtype, storage);
  t->strides = contiguous_strides(shape);
  return t;
}
}  // namespace

Tensor empty(const Shape& shape, DType dtype, Device device) {
  int64_t size = count(shape);
  size_t bytes = size_t(size) * size_t(itemsize(dtype));
  auto* s = new Storage;
  try {
    s->data = device.kind == Device::CUDA ? cuda::get(bytes, device) : alloc::get(bytes);
  } catch (...) {
    delete s;
    throw;
  }
  s->bytes = bytes;
  s->device = device;
  return make(shape, size, dtype, s);
}

Tensor full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (device.kind == Device::CPU && value == 0 && !std::signbit(value))
    std::memset(t.raw(), 0, size_t(t.size()) * itemsize(dtype));
  else
    map_fill(t, &value, Compute::F64);
  return t;
}
Tensor full_int(const Shape& shape, int64_t value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  map_fill(t, &value, Compute::I64);
  return t;
}

Tensor arange(int64_t n, DType dtype) {
  Tensor t = empty({n}, DType::I64);
  for (int64_t i = 0; i < n; i++) t.data<int64_t>()[i] = i;
  return dtype == DType::I64 ? t : cast(t, dtype);
}

namespace {
// A Python number is no tensor data: it lies in the storage object itself.
template <class T>
Tensor weak_of(T v, DType dtype) {
  auto* s = new Storage;
  std::memcpy(&s->number, &v, sizeof v);
  s->data = &s->number;
  s->bytes = sizeof v;
  s->release = [](void*) {};
  Tensor t = make({}, 1, dtype, s);
  t->weak = true;
  return t;
}
}  // namespace
Tensor scalar_weak(double v) { return weak_of(v, DType::F64); }
Tensor scalar_weak(int64_t v) { return weak_of(v, DType::I64); }
Tensor scalar_weak(bool v) { return weak_of(v, DType::Bool); }
Tensor::Tensor(double v) : impl_(scalar_weak(v).take()) {}

Tensor from_foreign(void* data, const Shape& shape, const Strides& strides, DType dtype, bool readonly,
                    void (*release)(void*), void* owner, Device device) {
  auto* s = new Storage;
  s->data = data;
  int64_t size = count(shape);
  s->bytes = size_t(size) * size_t(itemsize(dtype));
  s->readonly = readonly;
  s->device = device;
  s->release = release;
  s->owner = owner;
  Tensor t = make(shape, size, dtype, s);
  t->strides = strides;
  t->contiguous = is_contiguous(shape, strides);
  return t;
}

Tensor alias(const Tensor& t, const Shape& shape, const Strides& strides, int64_t offset) {
  t->storage->refs++;
  bool same = &shape == &t.shape() && &strides == &t.strides();
  Tensor v = bare(shape, same ? t.size() : count(shape), t.dtype(), t->storage);
  v->strides = strides;
  v->offset = offset;
  v->contiguous = same ? t.contiguous() : is_contiguous(shape, strides);
  v->weak = t.weak();
  return v;
}

Tensor detach(const Tensor& t) { return alias(t, t.shape(), t.strides(), t->offset); }

Tensor clone(const Tensor& t) {
  Tensor c = empty(t.shape(), t.dtype(), t.device());
  copy_into(c, t);
  return c;
}

void mixed_devices(const char* op, const Tensor& a, const Tensor& b) {
  const Tensor& there = on_cuda(a) ? a : b;
  fail<DeviceError>(op, "the tensors lie on " + device_name(a.device()) + " and " + device_name(b.device()),
                    "move one: x.to(\"" + device_name(there.device()) + "\")", a, b);
}

Tensor to_device(const Tensor& t, Device device) {
  if (t.device() == device) return t;
  Tensor c = empty(t.shape(), t.dtype(), device);
  copy_into(c, t);
  return c;
}

void check_writable(const Tensor& t, const char* op) {
  if (t->storage->readonly)
    fail<ValueError>(op, "the memory of this tensor is read-only", "write to a copy: pb.tensor(x)", t);
}

double item_double(const Tensor& t) {
  if (t.size() != 1)
    fail<ShapeError>("item", "only a tensor of one element has a value", "reduce or index it first", t);
  double v;
  map_read(t, &v, Compute::F64);
  return v;
}
int64_t item_int(const Tensor& t) {
  if (t.size() != 1)
    fail<ShapeError>("item", "only a tensor of one element has a value", "reduce or index it first", t);
  int64_t v;
  map_read(t, &v, Compute::I64);
  return v;
}

}  // namespace pb
