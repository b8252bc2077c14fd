// The Reduce family: axes, dtypes, tape and forward mode of every reduction.
#pragma once
#include "cpu/reduce_table.h"
#include "families/reduce_op.h"
#include "tape/node.h"
#include "value/tensor_value.h"

namespace pb {

struct ReduceOp {
  std::string_view name, doc, unit;
  bool integers, mask, keeps_dtype, needs_elements, reads_x, no_pull;
  // Arguments with the reduced axes kept as size 1; n is the number of elements of a slice.
  Tensor (*pull)(const Tensor& g, const Tensor& x, const Tensor& y, const Tensor& n) = nullptr;
  const ReduceKernels* kernels = nullptr;
  int index = -1;  // in its unit
};

const ReduceOp& find_reduce(std::string_view name);
template <class Op>
const ReduceOp& reduce_row() {  // looked up once
  static const ReduceOp& row = find_reduce(Op::name);
  return row;
}
const std::vector<const ReduceOp*>& reduce_ops();
void add_reduce(const ReduceOp& row);

// Empty `axes` with all = true means every axis.
Tensor reduce_call(const ReduceOp& op, const Tensor& x, const Dims& axes, bool keepdims, bool all = false);
Dims all_axes(const Tensor& x);

Tensor sum(const Tensor& x, const Dims& axes, bool keepdims = false);
Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x, const Dims& axes, bool keepdims = false);
Tensor mean(const Tensor& x);
Tensor max_over(const Tensor& x, const Dims& axes, bool keepdims = false);
Tensor min_over(const Tensor& x, const Dims& axes, bool keepdims = false);
Tensor prod(const Tensor& x, const Dims& axes, bool keepdims = false);
Tensor var(const Tensor& x, const Dims& axes, double correction = 0, bool keepdims = false);
Tensor std_dev(const Tensor& x, const Dims& axes, double correction = 0, bool keepdims = false);
Tensor logsumexp(const Tensor& x, const Dims& axes, bool keepdims = false);
// ord: 1, 2, inf, -inf, 0 or any p; the vector norm over the axes.
Tensor norm(const Tensor& x, double ord, const Dims& axes, bool keepdims = false);

// Moves the axes to the end as one contiguous axis: (kept..., n).
Tensor rows_of(const Tensor& x, const Dims& axes);

}  // namespace pb
