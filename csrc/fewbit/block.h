// Block-quantised tensors: what Linear, Conv and attention may keep of their inputs (Note [Blocks], cpu/code_table.h).
#pragma once
#include "tape/node.h"

namespace pb {

// x rounded without bias to 8 or 4 bits: uint8 words, and back. Outside the graph.
Tensor block_quantise(const Tensor& x, int bits);
Tensor block_restore(const Tensor& words, const Shape& shape, DType dtype, int bits);

// A slot for `x`: packed at `bits` 8 or 4, or as product operands are held at 0. Several consumers of one tensor share
// the words. float64 and what carries tangents are held as they are.
Saved saved_operand(const Tensor& x, int bits);
// Bits of a call: its own (-1: exactly), or for 0 what pb.saving(inputs=) says. ValueError unless they are 0, 4 or 8.
int operand_bits(const char* op, int of_call);

}  // namespace pb
