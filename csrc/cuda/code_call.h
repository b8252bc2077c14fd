// Derivative codes of device tensors, outside the graph.
#pragma once
#include "fewbit/codec.h"

namespace pb::cuda {

// The words of x's codes, as the CPU writes them.
void encode(const Tensor& x, const Code& code, const Tensor& words);
// out = g times the level of each code.
void decode(const Tensor& g, const Code& code, int order, const Tensor& words, const Tensor& out);

}  // namespace pb::cuda
