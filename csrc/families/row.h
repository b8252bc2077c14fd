// The Row family: ops whose every output row depends on the whole input row.
#pragma once
#include <utility>

#include "tensor/tensor.h"

namespace pb {

Tensor softmax(const Tensor& x, int64_t axis = -1);
Tensor log_softmax(const Tensor& x, int64_t axis = -1);

// `axes` are the last ones; weight and bias have their shape or are undefined.
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Dims& axes, double eps);
Tensor rms_norm(const Tensor& x, const Tensor& weight, const Dims& axes, double eps);
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps);
// The same for checked operands without tangents and channels of many elements each.
Tensor group_norm_segments(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps,
                           DType result);
// x: (N, C, ...). In training the batch's statistics are used and the running ones are written (momentum * new).
Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight,
                  const Tensor& bias, bool training, double momentum, double eps);

struct CrossEntropyOptions {
  int64_t axis = -1;
  bool has_ignored = false;
  int64_t ignored = 0;
  double smoothing = 0;
  enum Reduction { None, Sum, Mean } reduction = Mean;
};
// target: integers of x's shape without the axis, or probabilities of x's shape. weight: (classes) or undefined.
Tensor cross_entropy(const Tensor& x, const Tensor& target, const Tensor& weight, const CrossEntropyOptions& o);
// The same from log-probabilities; smoothing is not used.
Tensor nll(const Tensor& x, const Tensor& target, const Tensor& weight, const CrossEntropyOptions& o);

// axis by pointer: null means the flattened tensor.
Tensor arg_extreme(const Tensor& x, const int64_t* axis, bool keepdims, bool largest);
// ints sum in 64 bits; `initial` puts a 0 in front.
Tensor cumulative_sum(const Tensor& x, const int64_t* axis, bool initial = false);
Tensor argsort(const Tensor& x, int64_t axis, bool descending);
Tensor sort(const Tensor& x, int64_t axis, bool descending);
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k, int64_t axis);

}  // namespace pb
