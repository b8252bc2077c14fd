// Block-quantised tensors: what Linear, Conv and attention may keep of their inputs (Note [Blocks], cpu/code_table.h).
#pragma once
#include "tape/node.h"

namespace pb {

// x rounded without bias to 8 or 4 bits: uint8 words, and back. Outside the graph.
Tensor block_quantise(const Tensor& x, int bits);
Tensor block_restore(const Tensor& words, const Shape& shape, DType dtype, int bits);

// A slot for `x`: in blocks of `bits` 8 or 4, or as product operands are held at 0 and where the producer makes x anew.
// Several consumers of one tensor share the words. float64, leaves that want a gradient and what carries tangents are
// held as they are.
Saved saved_operand(const Tensor& x, int bits);
// The same where nothing may be made anew (Saved::whole).
Saved saved_whole(const Tensor& x, int bits);
// The own output y, whose memory from its first element is dense in the shape `memory`: for pulls that only read its
// values. A consumer that keeps the memory in that shape shares the words.
Saved saved_result(const Tensor& y, const Shape& memory, int bits);
// The rows that a slot of a float32 tensor holds in blocks, for a reader that decodes them itself.
struct BlockRows {
  const uint8_t* words = nullptr;
  int bits = 0;
  int64_t rows = 0, length = 0;
};
BlockRows block_rows(const Saved& s);  // no words: the slot holds something else, or is read inside a graph
// Bits of a call: its own (-1: exactly), or for 0 what pb.saving(inputs=) says. ValueError unless they are 0, 4 or 8.
int operand_bits(const char* op, int of_call);

}  // namespace pb
