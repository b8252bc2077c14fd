// Losses on the device: raw launches, outside the graph. float32 and 16-bit floats.
#pragma once
#include "tensor/tensor.h"

namespace pb::cuda {

// Classes as int64 on `device`, -1 where the row does not count, and the sum of the weights (or 1) of those that do, a
// 0-d float32. Classes that lie on the device are checked there (Note [Faults found on the device]).
struct Targets {
  Tensor classes, total;
};
Targets targets_of(const char* op, const Tensor& target, int64_t classes, const int64_t* ignored, const Tensor& weight,
                   Device device);

// loss (rows), and, where wanted, the derivative of each by its row in x's type.
struct Losses {
  Tensor loss, slope;
};
Losses cross_entropy(const Tensor& x, const Tensor& classes, const Tensor& weight, double hit, double even,
                     bool want_slope);

// x[rows, n] times the rows' float32 numbers g, in x's type.
Tensor scale_rows(const Tensor& x, const Tensor& g);

}  // namespace pb::cuda
