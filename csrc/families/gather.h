// Linear ops by an index map: joining, padding, taking and placing. The pullback of each is another of them, so every
// order exists and forward mode is the op itself.
//
// Note [Owner computes]
// Sums into repeated positions are cut by destination, never by source: each destination adds its terms in the order
// of the indices, so the bits do not depend on the number of threads.
#pragma once
#include <vector>

#include "tensor/tensor.h"

namespace pb {

Tensor concat(const std::vector<Tensor>& parts, int64_t axis);
// The views [0, ends[0]), [ends[0], ends[1]), ... along an axis; empty where the ends fall.
std::vector<Tensor> split(const Tensor& t, int axis, const std::vector<int64_t>& ends);
// widths[i] elements before and after axis i, filled with `value`.
Tensor pad(const Tensor& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value);
Tensor tile(const Tensor& x, const Dims& times);
Tensor roll(const Tensor& x, int64_t shift, int axis);
// All slices along an axis, copied, as one op: backward joins their cotangents in one pass, where slicing one after the
// other would fill a whole array per slice.
std::vector<Tensor> unstack(const Tensor& x, int64_t axis);

// x[..., indices, ...] at `axis`: the shape of the indices replaces the axis. Negative indices count from the end.
Tensor take(const Tensor& x, const Tensor& indices, int64_t axis);
// out[.., i, ..] = x[.., indices[.., i, ..], ..]; the other axes broadcast.
Tensor take_along_axis(const Tensor& x, const Tensor& indices, int64_t axis);
// A copy of x with values added at the places that take_along_axis reads.
Tensor scatter_add(const Tensor& x, const Tensor& indices, const Tensor& values, int64_t axis);

// ---- with indices that index_rows has checked: contiguous int64 in [0, n) on the device of x. Indices from the CPU
// are checked at once, those on a device there (Note [Faults found on the device], cuda/faults.h).
Tensor index_rows(const Tensor& indices, int64_t n, int axis, const char* op, Device device);
Tensor take_rows(const Tensor& x, const Tensor& index, int axis);
Tensor add_rows(const Tensor& values, const Tensor& index, int axis, int64_t n);  // adjoint of take_rows
// A copy of x whose rows `index` are `values`; the last of equal indices wins, and only it gets a gradient.
Tensor put_rows(const Tensor& x, const Tensor& index, const Tensor& values, int axis);
// The cotangent of the values of put_rows.
Tensor pull_put_values(const Tensor& g, const Tensor& index, int axis);
// The same write into contiguous memory, outside the graph.
void write_rows(const Tensor& x, const Tensor& index, const Tensor& values, int axis);

}  // namespace pb
