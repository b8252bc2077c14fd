// Gather and scatter on the device: raw launches, outside the graph.
#pragma once
#include <vector>

#include "tensor/tensor.h"

namespace pb::cuda {

// Indices as contiguous int64 in [0, n); checked on the device (Note [Faults found on the device]).
Tensor checked_index(const Tensor& indices, int64_t n, int axis, const char* op);

// Shapes as in api_gather.h: x[outer, n, inner], one axis of which `index` names. `along`: the index has an entry per
// element.
struct Axis {
  int64_t outer, n, inner;
};
void take(const Tensor& out, const Tensor& x, const Tensor& index, Axis a, bool along);
void add(const Tensor& out, const Tensor& values, const Tensor& index, Axis a, bool along);  // out: zeros
void put(const Tensor& out, const Tensor& values, const Tensor& index, Axis a);
Tensor winners(const Tensor& index, int64_t n);

// The positions of true elements, one array per axis. Waits for their number.
std::vector<Tensor> positions(const Tensor& mask);
// One index for several axes of these sizes; the indices are broadcast to `shape`.
Tensor joined(const std::vector<Tensor>& index, const std::vector<int64_t>& sizes, const Shape& shape);

Tensor counting(int64_t n, int64_t start, int64_t step, Device device);  // int64
Tensor triangle(int64_t rows, int64_t columns, int64_t k, bool lower, Device device);
Tensor integers(const Shape& shape, int64_t low, uint64_t range, uint64_t seed, uint64_t offset, Device device);

}  // namespace pb::cuda
