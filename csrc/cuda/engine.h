// What the families' host code uses of CUDA: the table, the current stream, memory, errors. No CUDA header is needed.
#pragma once
#include "cuda/api.h"
#include "tensor/tensor.h"

namespace pb::cuda {

// The library's table; DeviceError saying what is missing where there is none. `op` is named in the message.
const Table& need_table(const char* op);
// The current stream of this thread on the device, to launch on. Makes the device the thread's current one.
void* stream_of(Device device);
// DeviceError for anything but success. A launch reports the errors of earlier asynchronous work, too.
void check(int error, const char* op);
// Uninitialised device memory for the time of a call, a uint8 tensor; freed in the stream's order.
Tensor scratch(int64_t bytes, Device device);

// Of the caching allocator (cuda/allocator.h).
void* get(size_t bytes, Device device);
void put(void* p, Device device);

// The op refuses device tensors: DeviceError naming it. For ops without a device kernel, before they touch memory.
[[noreturn]] void no_kernel(const char* op, const Tensor& t);

}  // namespace pb::cuda
