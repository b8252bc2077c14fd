// Convolution: three linear maps of which each is the pullback of the other two.
//   y  = conv2d(x, weight)            linear in x and in weight
//   dx = conv2d_input_grad(g, weight)  its transpose in x; also the transposed convolution
//   dw = conv2d_weight_grad(x, g)      its transpose in weight
// The kernels are described in cpu/conv_kernels.h (Note [Convolution on a grid]).
#pragma once
#include <array>

#include "tape/node.h"

namespace pb {

using Pair = std::array<int64_t, 2>;  // height, width

struct ConvOptions {
  Pair stride{1, 1}, padding{0, 0}, dilation{1, 1};
  int64_t groups = 1;
  int saved = 0;  // bits of the x that backward keeps, 4 or 8; 0 as pb.saving says
};

// x (n, c, h, w), weight (o, c / groups, kh, kw), bias (o) or none.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvOptions& options);
// x (n, c, l), weight (o, c / groups, k); index 1 of the options counts.
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvOptions& options);
// x (n, c, h, w), weight (c, o / groups, kh, kw), bias (o) or none.
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvOptions& options,
                        Pair output_padding);

Tensor conv2d_input_grad(const Tensor& g, const Tensor& weight, const ConvOptions& options, Pair input_size);
Tensor conv2d_weight_grad(const Tensor& x, const Tensor& g, const ConvOptions& options, Pair kernel);

}  // namespace pb
