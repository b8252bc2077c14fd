// Pooling over the last two axes of (n, c, h, w) or (c, h, w).
#pragma once
#include "families/conv.h"

namespace pb {

// The largest cell of each window; padding counts as -inf, NaN propagates, the first of equal cells takes the gradient.
Tensor max_pool2d(const Tensor& x, Pair size, Pair stride, Pair padding);
// The mean of each window; padding counts as zeros.
Tensor avg_pool2d(const Tensor& x, Pair size, Pair stride, Pair padding);
// The mean of windows that cut the plane into size[0] x size[1] nearly equal, possibly overlapping parts.
Tensor adaptive_avg_pool2d(const Tensor& x, Pair size);

}  // namespace pb
