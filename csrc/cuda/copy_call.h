// Copies, fills and single values of device tensors, outside the graph.
#pragma once
#include "tensor/tensor.h"

namespace pb::cuda {

// dst = src with cast; either may lie on the CPU or on another device. src has dst's shape or broadcasts to it.
void copy_tensor(const Tensor& dst, const Tensor& src);
void fill_tensor(const Tensor& t, const void* value, Compute c);
// The first element; waits for the work that is queued on the current stream.
void read_value(const Tensor& t, void* value, Compute c);
// Codes of `bits` bits, a byte each, to words and back; the values of up to 16 codes as floats.
void pack_tensor(const Tensor& words, const Tensor& codes, int bits);
void unpack_tensor(const Tensor& codes, const Tensor& words, int bits);
void unpack_levels(const Tensor& out, const Tensor& words, int bits, const float* level);
// Copies plain bytes and waits for them.
void read_bytes(void* to, const void* from, size_t bytes, Device device, const char* op);

}  // namespace pb::cuda
