// Devices as Python names them, streams, events and the figures of device memory.
#include <nanobind/stl/string.h>

#include <string>

#include "bind/caster.h"
#include "cuda/allocator.h"
#include "cuda/api_memory.h"
#include "cuda/engine.h"
#include "cuda/streams.h"

namespace pb::py {

namespace {

using cuda::check;
using cuda::need_table;

[[noreturn]] void no_such(const char* op, const std::string& name) {
  fail<DeviceError>(op, "'" + name + "' is no device", "devices are named cpu, cuda and cuda:0, cuda:1, ...");
}

Device parse(const std::string& name, const char* op) {
  if (name == "cpu") return {};
  if (name.rfind("cuda", 0) != 0) no_such(op, name);
  int index = 0;
  if (name.size() > 4) {
    if (name[4] != ':' || name.size() < 6 || name.size() > 8) no_such(op, name);
    for (size_t i = 5; i < name.size(); i++) {
      if (name[i] < '0' || name[i] > '9') no_such(op, name);
      index = 10 * index + (name[i] - '0');
    }
  }
  if (index >= cuda::kMaxDevices) no_such(op, name);
  Device d{Device::CUDA, int8_t(index)};
  cuda::need_device(d, op, name);
  return d;
}

Device cuda_device(int index) {
  Device d{Device::CUDA, int8_t(index < 0 || index >= cuda::kMaxDevices ? -1 : index)};
  cuda::need_device(d, "cuda");
  return d;
}

const cuda::MemoryApi& api() { return *need_table("cuda").memory; }

// A stream of our own, or for `null` the default stream of the device.
struct Stream {
  Device device;
  void* handle = nullptr;
  bool own = false;

  Stream(int index, bool null) : device(cuda_device(index)) {
    if (null) return;
    cuda::stream_of(device);  // makes the device current
    check(api().stream_create(&handle), "Stream");
    own = true;
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  // Never destroyed: cached blocks and their owners may still name it.
  void synchronize() {
    cuda::stream_of(device);
    check(need_table("Stream").synchronize(handle), "Stream.synchronize");
  }
  bool done() {
    cuda::stream_of(device);
    int e = api().stream_query(handle);
    if (e == cuda::kNotReady) {
      api().clear_error();
      return false;
    }
    check(e, "Stream.query");
    return true;
  }
};

struct Event {
  void* handle = nullptr;
  Device device;
  bool timing, recorded = false;

  Event(int index, bool time) : device(cuda_device(index)), timing(time) {
    cuda::stream_of(device);
    check(api().event_create(&handle, timing), "Event");
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() {
    if (handle && !cuda::forked()) api().event_destroy(handle);
  }
  void record(const Stream* s) {
    void* current = cuda::stream_of(device);
    check(api().event_record(handle, s ? s->handle : current), "Event.record");
    recorded = true;
  }
  void wait(const Stream* s) {
    void* current = cuda::stream_of(device);
    check(api().stream_wait(s ? s->handle : current, handle), "Event.wait");
  }
  void synchronize() { check(api().event_synchronize(handle), "Event.synchronize"); }
  bool done() {
    int e = api().event_query(handle);
    if (e == cuda::kNotReady) {
      api().clear_error();
      return false;
    }
    check(e, "Event.query");
    return true;
  }
  double elapsed(const Event& later) {
    if (!timing || !later.timing || !recorded || !later.recorded)
      fail<ValueError>("Event.elapsed", "both events must be recorded, and made with timing=True",
                       "pb.cuda.Event(timing=True)");
    float ms = 0;
    check(api().event_elapsed(&ms, handle, later.handle), "Event.elapsed");
    return double(ms) / 1000;
  }
};

nb::dict stats_of(const Device& d) {
  cuda::DeviceStats s = cuda::memory_stats(d.index);
  size_t free = 0, total = 0;
  cuda::stream_of(d);
  check(api().info(&free, &total), "memory_stats");
  nb::dict out;
  out["current"] = s.current;
  out["peak"] = s.peak;
  out["reserved"] = s.reserved;
  out["allocations"] = s.allocations;
  out["system_calls"] = s.system_calls;
  out["segments"] = s.segments;
  out["blocks"] = s.blocks;
  out["largest_free"] = s.largest_free;
  out["retries"] = s.retries;
  out["device_free"] = int64_t(free);
  out["device_total"] = int64_t(total);
  return out;
}

nb::tuple properties(int index) {
  Device d = cuda_device(index);
  char name[256] = {};
  int major = 0, minor = 0;
  check(api().device_name(d.index, name, sizeof name), "cuda");
  check(api().capability(d.index, &major, &minor), "cuda");
  return nb::make_tuple(std::string(name), major, minor);
}

void free_pinned(void* owner) {
  if (!cuda::forked()) api().host_release(owner);
}

// The same values in page-locked host memory, from which copies to a device do not wait.
Tensor pin(const Tensor& x) {
  if (on_cuda(x)) fail<DeviceError>("pin_memory", "the tensor lies on a device already", "pin tensors of the CPU", x);
  need_table("pin_memory");
  cuda::stream_of({Device::CUDA, 0});
  void* p = nullptr;
  size_t bytes = size_t(x.size()) * size_t(itemsize(x.dtype()));
  check(api().host_allocate(&p, bytes ? bytes : 1), "pin_memory");
  Tensor t = from_foreign(p, x.shape(), contiguous_strides(x.shape()), x.dtype(), false, &free_pinned, p);
  copy_into(t, x);
  return t;
}

}  // namespace

Device device_at(nb::handle h, const char* op) {
  if (h.is_none()) return {};
  if (!PyUnicode_Check(h.ptr())) no_such(op, nb::str(h).c_str());
  return parse(nb::cast<std::string>(h), op);
}

void bind_device(nb::module_& m) {
  m.def("_cuda_device_count", &cuda::device_count, "The number of CUDA devices that driver and library find.");
  m.def("_cuda_missing", &cuda::missing, "What is missing for a CUDA device to be there.");
  m.def("_cuda_properties", &properties, nb::arg("index"), "(name, major, minor) of a device.");
  m.def("_cuda_stats", [](int i) { return stats_of(cuda_device(i)); }, nb::arg("index"), "The allocator's figures.");
  m.def("_cuda_reset_peak", [](int i) { cuda::reset_peak(cuda_device(i).index); }, nb::arg("index"),
        "Sets the peak to what is in use now.");
  m.def("_cuda_empty_cache", [](int i) { cuda::empty_cache(cuda_device(i).index); }, nb::arg("index"),
        "Gives cached memory back to the device.");
  m.def(
      "_cuda_synchronize",
      [](int i) {
        cuda::stream_of(cuda_device(i));
        int e;
        {
          nb::gil_scoped_release unlocked;
          e = api().synchronize_device();
        }
        check(e, "synchronize");
      },
      nb::arg("index"), "Waits for all work on the device.");
  m.def("_pin", &pin, nb::arg("x"), "A copy in page-locked host memory.");
  m.def(
      "_used_on", [](const Tensor& x, const Stream& s) { cuda::used_on(x->storage->data, s.handle, x.device()); },
      nb::arg("x"), nb::arg("stream"), "Tells the allocator that work on the stream uses x.");
  nb::class_<Stream>(m, "_Stream")
      .def(nb::init<int, bool>(), nb::arg("index"), nb::arg("null") = false)
      .def_prop_ro("index", [](const Stream& s) { return int(s.device.index); })
      .def_prop_ro("handle", [](const Stream& s) { return reinterpret_cast<uintptr_t>(s.handle); })
      .def("synchronize", &Stream::synchronize)
      .def("query", &Stream::done);
  m.def(
      "_set_stream",
      [](const Stream& s) {
        void* before = cuda::stream_of(s.device);
        cuda::set_stream(s.device, s.handle);
        return reinterpret_cast<uintptr_t>(before);
      },
      nb::arg("stream"), "Makes the stream this thread's current one on its device; returns the handle before.");
  m.def(
      "_restore_stream",
      [](int index, uintptr_t handle) { cuda::set_stream(cuda_device(index), reinterpret_cast<void*>(handle)); },
      nb::arg("index"), nb::arg("handle"), "Undoes _set_stream.");
  nb::class_<Event>(m, "_Event")
      .def(nb::init<int, bool>(), nb::arg("index"), nb::arg("timing") = false)
      .def("record", &Event::record, nb::arg("stream").none() = nb::none())
      .def("wait", &Event::wait, nb::arg("stream").none() = nb::none())
      .def("synchronize", &Event::synchronize)
      .def("query", &Event::done)
      .def("elapsed", &Event::elapsed, nb::arg("later"));
}

}  // namespace pb::py
