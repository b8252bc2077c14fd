// Convolutions and pooling.
#include "families/conv.h"

#include "bind/front.h"
#include "families/pool.h"

namespace pb::py {

namespace {

// An int stands for both axes.
Pair pair_of(const char* op, const char* name, const Dims& d) {
  if (d.size() == 1) return {d[0], d[0]};
  if (d.size() == 2) return {d[0], d[1]};
  fail<ValueError>(op, std::string(name) + " has " + std::to_string(d.size()) + " values",
                   "give an int or a pair of ints (height, width)");
}
int64_t one_of(const char* op, const char* name, const Dims& d) {
  if (d.size() == 1) return d[0];
  fail<ValueError>(op, std::string(name) + " has " + std::to_string(d.size()) + " values", "give an int");
}
Pair or_size(const char* op, const Axes& stride, Pair size) {
  return stride.all ? size : pair_of(op, "stride", stride.axes);
}
// Not std::optional<Operand>: its caster is noexcept, so an error of the conversion would end the process.
Tensor or_none(nb::handle t) { return t.is_none() ? Tensor() : to_tensor(t.ptr()); }

ConvOptions options(const char* op, const Dims& stride, const Dims& padding, const Dims& dilation, int64_t groups,
                    int saved = 0) {
  return {pair_of(op, "stride", stride), pair_of(op, "padding", padding), pair_of(op, "dilation", dilation), groups,
          saved};
}

void bind_pools(nb::module_& m) {
  def_op(
      m,
      {"max_pool2d", "Custom", "max_pool2d(x, size, *, stride=None, padding=0)",
       "The largest cell of each window of the last two axes. x: (..., h, w) with 3 or 4 axes; size, stride (default: "
       "size) and padding are ints or pairs. Padding counts as -inf, NaN propagates; of equal cells the first takes "
       "the gradient."},
      [](const Operand& x, const Dims& size, const Axes& stride, const Dims& padding) {
        Pair k = pair_of("max_pool2d", "size", size);
        return max_pool2d(x.t, k, or_size("max_pool2d", stride, k), pair_of("max_pool2d", "padding", padding));
      },
      nb::arg("x"), nb::arg("size"), nb::kw_only(), nb::arg("stride") = nb::none(), nb::arg("padding") = 0);
  def_op(
      m,
      {"avg_pool2d", "Custom", "avg_pool2d(x, size, *, stride=None, padding=0)",
       "The mean of each window of the last two axes; padding counts as zeros. Arguments as for max_pool2d."},
      [](const Operand& x, const Dims& size, const Axes& stride, const Dims& padding) {
        Pair k = pair_of("avg_pool2d", "size", size);
        return avg_pool2d(x.t, k, or_size("avg_pool2d", stride, k), pair_of("avg_pool2d", "padding", padding));
      },
      nb::arg("x"), nb::arg("size"), nb::kw_only(), nb::arg("stride") = nb::none(), nb::arg("padding") = 0);
  def_op(
      m,
      {"adaptive_avg_pool2d", "Custom", "adaptive_avg_pool2d(x, size)",
       "The means of size[0] x size[1] nearly equal parts of the last two axes (an int means a square)."},
      [](const Operand& x, const Dims& size) {
        return adaptive_avg_pool2d(x.t, pair_of("adaptive_avg_pool2d", "size", size));
      },
      nb::arg("x"), nb::arg("size"));
}

}  // namespace

void bind_conv(nb::module_& m) {
  def_op(
      m,
      {"conv2d", "Linear", "conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, saved=None)",
       "Cross-correlation of x (n, c, h, w) with weight (o, c / groups, kh, kw), plus bias (o). stride, padding and "
       "dilation are ints or pairs (height, width). The result has the shape (n, o, oh, ow) with "
       "oh = (h + 2 padding - dilation (kh - 1) - 1) // stride + 1. saved: 4 or 8 keeps x for backward in blocks of "
       "that "
       "many bits, rounded without bias."},
      [](const Operand& x, const Operand& w, nb::handle b, const Dims& stride, const Dims& padding,
         const Dims& dilation, int64_t groups, nb::handle saved) {
        int bits = block_bits("conv2d", saved);
        return conv2d(x.t, w.t, or_none(b), options("conv2d", stride, padding, dilation, groups, bits));
      },
      nb::arg("x"), nb::arg("weight"), nb::arg("bias").none() = nb::none(), nb::kw_only(), nb::arg("stride") = 1,
      nb::arg("padding") = 0, nb::arg("dilation") = 1, nb::arg("groups") = 1, nb::arg("saved").none() = nb::none());
  def_op(
      m,
      {"conv1d", "Linear", "conv1d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, saved=None)",
       "Cross-correlation of x (n, c, length) with weight (o, c / groups, k), plus bias (o)."},
      [](const Operand& x, const Operand& w, nb::handle b, const Dims& stride, const Dims& padding,
         const Dims& dilation, int64_t groups, nb::handle saved) {
        const char* op = "conv1d";
        ConvOptions o{{1, one_of(op, "stride", stride)},
                      {0, one_of(op, "padding", padding)},
                      {1, one_of(op, "dilation", dilation)},
                      groups,
                      block_bits(op, saved)};
        return conv1d(x.t, w.t, or_none(b), o);
      },
      nb::arg("x"), nb::arg("weight"), nb::arg("bias").none() = nb::none(), nb::kw_only(), nb::arg("stride") = 1,
      nb::arg("padding") = 0, nb::arg("dilation") = 1, nb::arg("groups") = 1, nb::arg("saved").none() = nb::none());
  def_op(
      m,
      {"conv_transpose2d", "Linear",
       "conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1)",
       "The transpose of conv2d in its input: x (n, c, h, w), weight (c, o / groups, kh, kw), bias (o). The result "
       "has the height (h - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1."},
      [](const Operand& x, const Operand& w, nb::handle b, const Dims& stride, const Dims& padding,
         const Dims& output_padding, const Dims& dilation, int64_t groups) {
        const char* op = "conv_transpose2d";
        return conv_transpose2d(x.t, w.t, or_none(b), options(op, stride, padding, dilation, groups),
                                pair_of(op, "output_padding", output_padding));
      },
      nb::arg("x"), nb::arg("weight"), nb::arg("bias").none() = nb::none(), nb::kw_only(), nb::arg("stride") = 1,
      nb::arg("padding") = 0, nb::arg("output_padding") = 0, nb::arg("dilation") = 1, nb::arg("groups") = 1);
  bind_pools(m);
}

}  // namespace pb::py
