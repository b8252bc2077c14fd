// The optimizer step on the device (optim/driver.h).
#pragma once
#include <span>
#include <vector>

#include "cuda/api.h"
#include "tensor/tensor.h"

namespace pb::cuda {

// What a driver keeps on the device between steps.
struct OptimTable {
  std::vector<OptimChunk> chunks;  // as uploaded
  std::vector<float> steps;
  Tensor chunk_memory, step_memory, control, partial;
};

// Writes host data where kernels on the current stream will find it.
void upload(Tensor& memory, const void* data, size_t bytes, Device device);
// sqrt of the sum of squares of tensors on one device.
double device_norm(std::span<const Tensor> tensors, bool* finite);

}  // namespace pb::cuda
