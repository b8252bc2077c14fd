// Functions that are several ops in one: fewer passes over memory, fewer tensors kept. Each equals the composition that
// its comment names, in value and in derivatives of any order.
#pragma once
#include "families/map.h"
#include "families/map_saved.h"
#include "families/row.h"

namespace pb {

// dropout(act(x + bias), p). `bias` may be none, else it broadcasts to x; `act` has one input. One pass forward, one
// back. Kept: the code where `saved` asks for one; the result where the derivative follows from it (relu; others
// without dropout); else x.
Tensor bias_act_dropout(const Tensor& x, const Tensor& bias, const MapOp& act, double p, Generator* rng,
                        const Saving* saved);
// act(linear(x, weight, bias)).
Tensor linear_act(const Tensor& x, const Tensor& weight, const Tensor& bias, const MapOp& act, const Saving* saved);
// op(a, b) of a gated product (silu_mul, gelu_mul). With bits 4 or 8 (-1: exactly, 0: as pb.saving says) both halves
// are kept in blocks.
Tensor gated(const MapOp& op, const Tensor& a, const Tensor& b, int bits);
// cross_entropy(linear(x, weight, bias), target, o) for classes as integers. The logits exist a block of rows at a
// time; the gradients are written in the forward pass and kept, unless o.reduction is None: then they are made in
// backward.
Tensor linear_cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& target,
                            const CrossEntropyOptions& o);

}  // namespace pb
