#include "cuda/engine.h"

#include <pthread.h>

#include <string>

#include "cuda/api_memory.h"
#include "cuda/streams.h"

namespace pb::cuda {

namespace {

// A forked child shares the parent's driver state but not its threads; nothing of it may be used or freed there.
bool child = false, used = false;

struct Current {
  void* stream[kMaxDevices] = {};
  int device = -1;
};
Current& current() {
  static thread_local Current c;
  return c;
}

}  // namespace

bool forked() { return child; }

const Table& need_table(const char* op) {
  const Table* t = table();
  if (child)
    fail<DeviceError>(op, "CUDA was in use before this process was forked and cannot be used in the child",
                      "start processes with the spawn method of multiprocessing");
  if (!t || !t->memory)
    fail<DeviceError>(op, "device 'cuda' is not available: " + missing(),
                      "devices here: cpu; see python -m pullback info");
  if (!used) {
    used = true;
    pthread_atfork(nullptr, nullptr, [] { child = true; });
  }
  return *t;
}

void* stream_of(Device device) {
  Current& c = current();
  if (c.device != device.index || child) {
    check(need_table("device").memory->set_device(device.index), "device");
    c.device = device.index;
  }
  return c.stream[int(device.index)];
}

void set_stream(Device device, void* stream) { current().stream[int(device.index)] = stream; }

void check(int error, const char* op) {
  if (error == 0) return;
  const Table& t = need_table(op);
  t.memory->clear_error();
  if (error == kOutOfMemory)
    fail<MemoryError>(op, "the CUDA driver is out of memory", "free tensors or use a smaller batch");
  bool fault = error >= 700 && error < 720;  // cudaErrorIllegalAddress and its kin: the device's state is lost
  fail<DeviceError>(op, std::string("CUDA error ") + std::to_string(error) + ": " + t.error_text(error),
                    fault ? "a kernel failed, perhaps of an earlier call; restart the process to use this device again"
                          : "see python -m pullback info");
}

Tensor scratch(int64_t bytes, Device device) { return empty({bytes}, DType::U8, device); }

void no_kernel(const char* op, const Tensor& t) {
  fail<DeviceError>(op, "has no CUDA kernel for this call", "move the tensor to the CPU: x.to(\"cpu\")", t);
}

void need_device(Device device, const char* op, std::string name) {
  if (name.empty()) name = device_name(device);
  const Table* t = table();
  int n = t && t->memory ? device_count() : 0;
  std::string help = n == 0   ? "cpu; see python -m pullback info"
                     : n == 1 ? "cpu, cuda:0"
                              : "cpu, cuda:0 to cuda:" + std::to_string(n - 1);
  if (device.index < 0 || device.index >= n)
    fail<DeviceError>(op, "device '" + name + "' is not available: " + (n ? "there is no such GPU" : missing()),
                      "devices here: " + help);
  need_table(op);
}

}  // namespace pb::cuda
