// The tensor handle: storage, shape, strides, dtype and its place in the graph.
//
// Note [Handles live under the interpreter lock]
// Tensor, Node and Storage count references without atomics: they are created, copied and dropped only by a thread
// that holds the interpreter lock. Kernels work on raw pointers and may run without it.
#pragma once
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "tensor/alloc.h"
#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/error.h"
#include "tensor/shape.h"

namespace pb {

struct Node;
struct Late;  // tape/node.h
struct TensorImpl;
class Tensor;

// Memory with a version: every write through the engine raises `version`, saved slots compare it.
struct Storage : alloc::Recycled<Storage> {
  uint32_t refs = 1;
  uint32_t version = 0;
  void* data = nullptr;
  size_t bytes = 0;
  bool readonly = false;
  Device device;  // of `data`; memory of a device is of its allocator (cuda/allocator.h) unless `release` is set
  void (*release)(void*) = nullptr;  // foreign memory: called with owner; null: memory of our allocator
  void* owner = nullptr;
  std::weak_ptr<const void> packed;  // a block-quantised form of it that slots keep (fewbit/block.cpp)
  int64_t number = 0;                // the memory of a Python number
};
void drop(Storage* s);

class Tensor {
 public:
  Tensor() = default;
  Tensor(double scalar);                          // a weak 0-d constant, so that formulas can write V(0.5)
  Tensor(int scalar) : Tensor(double(scalar)) {}  // else V(0) could mean a null pointer
  explicit Tensor(TensorImpl* adopt) : impl_(adopt) {}
  Tensor(const Tensor& o);
  Tensor(Tensor&& o) noexcept : impl_(std::exchange(o.impl_, nullptr)) {}
  Tensor& operator=(const Tensor& o) {
    Tensor copy(o);
    std::swap(impl_, copy.impl_);
    return *this;
  }
  Tensor& operator=(Tensor&& o) noexcept {
    std::swap(impl_, o.impl_);
    return *this;
  }
  ~Tensor();

  explicit operator bool() const { return impl_ != nullptr; }
  TensorImpl* impl() const { return impl_; }
  TensorImpl* operator->() const { return impl_; }
  TensorImpl* take() { return std::exchange(impl_, nullptr); }
  bool is(const Tensor& o) const { return impl_ == o.impl_; }

  inline const Shape& shape() const;
  inline const Strides& strides() const;
  inline int64_t size() const;
  inline int ndim() const;
  inline DType dtype() const;
  inline bool contiguous() const;
  inline bool weak() const;
  inline Device device() const;
  inline void* raw() const;  // address of the first element
  template <class T>
  T* data() const {
    return static_cast<T*>(raw());
  }
  bool requires_grad() const;  // a leaf that asks for it, or a result with a node

 private:
  TensorImpl* impl_ = nullptr;
};

// A derivative carried forward: the tangent of this tensor at one nesting level of jvp.
struct Tangent {
  int level;
  Tensor value;
};

// What most tensors never need, allocated at the first use.
struct Meta {
  Tensor grad;
  Tensor base;                    // set for a view
  uint32_t base_generation = 0;   // of the base when this view's node was made
  bool view_tracks = true;        // false: multi-output or overlapping views refuse in-place writes under autodiff
  std::vector<Tangent> tangents;  // ascending level
  std::vector<std::pair<int64_t, std::function<Tensor(const Tensor&)>>> hooks;
  std::shared_ptr<Tensor> retained;  // gradient of a result, filled by its node's hook
  std::shared_ptr<const Late> late;  // of a saved slot's handle: how its words are read
};

struct TensorImpl : alloc::Recycled<TensorImpl> {
  uint32_t refs = 1;
  DType dtype = DType::F32;
  bool wants_grad = false;  // leaf flag
  bool weak = false;
  bool contiguous = true;
  uint32_t out_index = 0;
  uint32_t generation = 0;  // raised when an in-place write replaces the node of this base
  Storage* storage = nullptr;
  int64_t offset = 0;  // elements
  int64_t size = 0;
  Node* node = nullptr;  // owned
  void* py = nullptr;    // the Python object that wraps this, not owned
  std::unique_ptr<Meta> meta;
  Shape shape;
  Strides strides;

  Meta& need_meta() {
    if (!meta) meta = std::make_unique<Meta>();
    return *meta;
  }
};
void drop(TensorImpl* t);
int64_t tensors_alive();

inline Tensor::Tensor(const Tensor& o) : impl_(o.impl_) {
  if (impl_) impl_->refs++;
}
inline Tensor::~Tensor() {
  if (impl_ && --impl_->refs == 0) drop(impl_);
}
inline const Shape& Tensor::shape() const { return impl_->shape; }
inline const Strides& Tensor::strides() const { return impl_->strides; }
inline int64_t Tensor::size() const { return impl_->size; }
inline int Tensor::ndim() const { return impl_->shape.size(); }
inline DType Tensor::dtype() const { return impl_->dtype; }
inline bool Tensor::contiguous() const { return impl_->contiguous; }
inline bool Tensor::weak() const { return impl_->weak; }
inline Device Tensor::device() const { return impl_->storage->device; }
inline bool on_cuda(const Tensor& t) { return t.device().kind == Device::CUDA; }
inline void* Tensor::raw() const {
  return static_cast<char*>(impl_->storage->data) + impl_->offset * itemsize(impl_->dtype);
}
void refresh_view(const Tensor& t);  // families/view.h
// A view made before its base was written to learns here that the base got a node since.
inline bool Tensor::requires_grad() const {
  if (impl_->meta && impl_->meta->base) refresh_view(*this);
  return impl_->wants_grad || impl_->node;
}

// ---- making tensors (outside the graph)
Tensor empty(const Shape& shape, DType dtype, Device device = {});
Tensor full(const Shape& shape, double value, DType dtype, Device device = {});
Tensor full_int(const Shape& shape, int64_t value, DType dtype, Device device = {});
inline Tensor zeros(const Shape& shape, DType dtype, Device device = {}) { return full(shape, 0, dtype, device); }
inline Tensor ones(const Shape& shape, DType dtype, Device device = {}) { return full(shape, 1, dtype, device); }
Tensor arange(int64_t n, DType dtype = DType::I64);
Tensor scalar_weak(double v);
Tensor scalar_weak(int64_t v);
Tensor scalar_weak(bool v);
// Wraps memory that somebody else owns; release(owner) is called when the last handle goes.
Tensor from_foreign(void* data, const Shape& shape, const Strides& strides, DType dtype, bool readonly,
                    void (*release)(void*), void* owner, Device device = {});
// Another window on t's storage, outside the graph; `offset` in elements of t's storage.
Tensor alias(const Tensor& t, const Shape& shape, const Strides& strides, int64_t offset);
Tensor detach(const Tensor& t);  // shares storage, no node, no tangent
Tensor clone(const Tensor& t);   // contiguous copy, outside the graph
// Raw copy with cast, also between devices; src has dst's shape or broadcasts to it.
void copy_into(const Tensor& dst, const Tensor& src);
Tensor to_device(const Tensor& t,
                 Device device);  // a contiguous copy there, outside the graph; t itself if it is there
inline bool unique(const Tensor& t) { return t->refs == 1 && t->storage->refs == 1 && !t->storage->release; }
double item_double(const Tensor& t);  // value of a one-element tensor
int64_t item_int(const Tensor& t);
void check_writable(const Tensor& t, const char* op);

// The device where an op on these tensors runs; DeviceError when they lie on several. A Python number lies nowhere.
[[noreturn]] void mixed_devices(const char* op, const Tensor& a, const Tensor& b);
template <class List>
inline Device common_device(const char* op, const List& in) {
  const Tensor* first = nullptr;
  for (const Tensor& t : in) {
    if (!t || t.weak()) continue;
    if (!first)
      first = &t;
    else if (!(t.device() == first->device()))
      mixed_devices(op, *first, t);
  }
  return first ? first->device() : Device{};
}

// ---- modes of this thread
struct Mode {
  bool grad = true;
  bool anomaly = false;
  int levels = 0;       // active jvp levels
  int graph_depth = 0;  // enclosing gradient transforms that will differentiate again
};
Mode& mode();
struct GradMode {  // scope guard
  explicit GradMode(bool on) : before(mode().grad) { mode().grad = on; }
  ~GradMode() { mode().grad = before; }
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;
  bool before;
};

}  // namespace pb
