// Builds the registry row of a reduction: the same struct, now with V = Tensor.
#pragma once
#include "cpu/dispatch.h"
#include "families/reduce.h"

namespace pb {

template <>
Tensor shared<Tensor>(const Tensor& g, const Tensor& w);

template <class Op>
Tensor reduce_pull(const Tensor& g, const Tensor& x, const Tensor& y, const Tensor& n) {
  return Op::template pull<Tensor>(g, x, y, n);
}

template <class Op>
ReduceOp reduce_row_of(const char* unit) {
  ReduceOp r{Op::name,           Op::doc,     unit,       Op::integers, Op::mask, Op::keeps_dtype,
             Op::needs_elements, Op::reads_x, Op::no_pull};
  if constexpr (!Op::no_pull && !Op::mask) r.pull = &reduce_pull<Op>;
  return r;
}
template <class Unit, size_t... I>
std::vector<ReduceOp> reduce_rows_of(const char* unit, std::index_sequence<I...>) {
  return {reduce_row_of<typename OpAt<Unit, int(I)>::type>(unit)...};
}

}  // namespace pb
