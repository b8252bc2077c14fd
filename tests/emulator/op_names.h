// Names and inputs of the ops of one unit, in its order.
#pragma once
#include <utility>
#include <vector>

#include "families/op.h"

namespace emulator {

struct OpName {
  std::string_view name;
  int inputs;
  bool random, mask;
  unsigned uses[3];  // of each input's pull: bit j: input j, bit 7: the output
};
using OpNames = std::vector<OpName>;

template <class Op, int I>
constexpr unsigned uses_of() {
  if constexpr (I < Op::inputs)
    return pb::uses<Op, I>();
  else
    return 0;
}
template <class Unit, size_t... I>
OpNames names_of(std::index_sequence<I...>) {
  return {[] {
    using Op = typename pb::OpAt<Unit, int(I)>::type;
    return OpName{Op::name, Op::inputs, Op::random, pb::kMask<Op>, {uses_of<Op, 0>(), uses_of<Op, 1>(), uses_of<Op, 2>()}};
  }()...};
}

}  // namespace emulator
