// The Row family on the device: raw launches, outside the graph. float32 and 16-bit floats.
#pragma once
#include <span>

#include "cpu/row_table.h"
#include "tensor/tensor.h"

namespace pb {
struct RowResult;  // families/row_call.h
}

namespace pb::cuda {

struct RowKind {
  const char* name;
  int op, stats, sums;  // its number in ops/rows.h; what it gives per row and per column
};
// See row_run. 16-bit x is read, and y written, as it is.
RowResult run_rows(const RowKind& kind, std::span<const Tensor> x, std::span<const Tensor> c,
                   std::span<const Tensor> given, double k, bool want_sums, DType result);

// 16-bit floats as they are, else in float32; contiguous, on a 16-byte boundary and outside the graph.
Tensor staged(const Tensor& t);
// Sums as call.sum says, to `out`; with `product` both sums of the pull, of g to `out` and of g (x - m) to `product`.
void channel_sums(const ChannelCall& call, const Tensor& x, const Tensor& g, const Tensor& out, const Tensor& product);
void channel_apply(const ChannelCall& call, const Tensor& x, const Tensor& g, const Tensor& out);
void group_norm(const GroupCall& call, const Tensor& x, const Tensor& g, const Tensor& out);

// x[outer, n, inner], contiguous in a compute type.
void extreme(const Tensor& out, const Tensor& x, int64_t outer, int64_t n, int64_t inner, bool largest);
void running_sum(const Tensor& out, const Tensor& x, int64_t outer, int64_t n, int64_t inner, int64_t lead);
// The first k indices that order each row of x[rows, n].
void order(const Tensor& out, const Tensor& x, int64_t n, int64_t k, bool descending);

}  // namespace pb::cuda
