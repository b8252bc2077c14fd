// Takes and returns tensors through DLPack: the memory is looked at, never copied.
#include <extend/dlpack.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <stdexcept>
#include <vector>

namespace py = pybind11;
namespace dl = pb::dl;

namespace {

int alive = 0;  // arrays that this module keeps for somebody

// A tensor of somebody else, held through its DLPack structure.
class Imported {
 public:
  explicit Imported(const py::object& x) {
    py::object capsule = x.attr("__dlpack__")(py::arg("max_version") = py::make_tuple(1, 0));
    managed_ = static_cast<dl::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), dl::kNameVersioned));
    if (!managed_) throw py::error_already_set();
    PyCapsule_SetName(capsule.ptr(), dl::kUsedVersioned);
    alive++;
  }
  Imported(const Imported&) = delete;
  Imported& operator=(const Imported&) = delete;
  ~Imported() {
    if (managed_->deleter) managed_->deleter(managed_);
    alive--;
  }
  const dl::Array& array() const { return managed_->array; }

 private:
  dl::ManagedVersioned* managed_;
};

// What a returned tensor points at; `owner` lives as long as the tensor.
template <class Owner>
struct Exported {
  dl::ManagedVersioned managed;
  std::unique_ptr<Owner> owner;
  std::vector<int64_t> shape, strides;
};

template <class Owner>
py::object tensor_of(std::unique_ptr<Owner> owner, void* data, std::vector<int64_t> shape,
                     std::vector<int64_t> strides) {
  auto* e = new Exported<Owner>{{}, std::move(owner), std::move(shape), std::move(strides)};
  e->managed.version = {1, 0};
  e->managed.context = e;
  e->managed.deleter = [](dl::ManagedVersioned* m) { delete static_cast<Exported<Owner>*>(m->context); };
  e->managed.array = {
      data, {dl::kCpu, 0}, int32_t(e->shape.size()), {dl::kFloat, 32, 1}, e->shape.data(), e->strides.data(), 0};
  py::capsule capsule(&e->managed, dl::kNameVersioned, [](PyObject* c) {
    if (!PyCapsule_IsValid(c, dl::kNameVersioned)) return;  // consumed
    auto* m = static_cast<dl::ManagedVersioned*>(PyCapsule_GetPointer(c, dl::kNameVersioned));
    m->deleter(m);
  });
  return py::module_::import("pullback").attr("from_dlpack")(capsule);
}

const float* data_of(const dl::Array& a) {
  if (a.dtype.code != dl::kFloat || a.dtype.bits != 32) throw std::invalid_argument("float32 expected");
  return reinterpret_cast<const float*>(static_cast<const char*>(a.data) + a.byte_offset);
}

uintptr_t address(const py::object& x) {
  Imported in(x);
  return reinterpret_cast<uintptr_t>(data_of(in.array()));
}

// Every second row of a matrix, as a tensor over the same memory.
py::object even_rows(const py::object& x) {
  auto in = std::make_unique<Imported>(x);
  const dl::Array& a = in->array();
  if (a.ndim != 2) throw std::invalid_argument("a matrix is expected");
  int64_t row = a.strides ? a.strides[0] : a.shape[1], column = a.strides ? a.strides[1] : 1;
  auto* data = const_cast<float*>(data_of(a));
  std::vector<int64_t> shape{(a.shape[0] + 1) / 2, a.shape[1]}, strides{2 * row, column};
  return tensor_of(std::move(in), data, std::move(shape), std::move(strides));
}

struct Buffer {
  std::vector<float> values;
  Buffer() { alive++; }
  ~Buffer() { alive--; }
};

// 0, 1, .. n - 1 in memory of this module, and its address.
py::tuple counted(int64_t n) {
  auto own = std::make_unique<Buffer>();
  for (int64_t i = 0; i < n; i++) own->values.push_back(float(i));
  float* data = own->values.data();
  return py::make_tuple(tensor_of(std::move(own), data, {n}, {1}), reinterpret_cast<uintptr_t>(data));
}

}  // namespace

PYBIND11_MODULE(dlpack_views, m) {
  m.def("address", &address);
  m.def("even_rows", &even_rows);
  m.def("counted", &counted);
  m.def("alive", [] { return alive; });
}
