// The Map and Reduce families on the device: raw launches, outside the graph.
#pragma once
#include "families/map_node.h"
#include "families/reduce.h"

namespace pb::cuda {

// out = op(in...); `params` null: the defaults. Numbers and tensors of out's device.
void map_forward(const MapOp& op, const Tensor& out, std::span<const Tensor> in, Compute compute, const double* params,
                 const RandomState* random);
// r = the pull of `call` by input i. What it does not read may be undefined.
void map_pull(const MapCall& call, int i, const Tensor& r, const Tensor& g, const Tensor* x, const Tensor& y);
// The code of each element (op.h), a byte.
void map_code(const MapCall& call, std::span<const Tensor> in, const Tensor& codes);
// out[o, i] over the middle axis of the contiguous x[outer, n, inner].
void reduce(const ReduceOp& op, const Tensor& out, const Tensor& x, int64_t outer, int64_t n, int64_t inner);

// Note [Draws of a replay]
// A captured graph draws from its generator's counter as it was at the capture, plus a number in device memory that
// each replay raises. While a capture runs this is its address; null otherwise.
const uint64_t* random_shift();
void set_random_shift(const uint64_t* p);

}  // namespace pb::cuda
