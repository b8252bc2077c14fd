#include "families/conv.h"

#include "cpu/conv_table.h"
#include "cpu/dispatch.h"
#include "cuda/calls.h"
#include "families/map.h"
#include "families/reduce.h"
#include "families/view.h"
#include "fewbit/block.h"
#include "tensor/profile.h"

namespace pb {

namespace {

const ConvKernels& kernels() {
  static const ConvKernels& k = *static_cast<const ConvKernels*>(isa_table("conv"));
  return k;
}

constexpr int64_t kLargest = int64_t(1) << 30;  // of a parameter: products of two stay far from overflow

std::string text(Pair p) { return std::to_string(p[0]) + "x" + std::to_string(p[1]); }

void check_options(const char* op, const ConvOptions& o) {
  auto each = [&](const char* name, Pair p, int64_t least) {
    for (int64_t v : p)
      if (v < least || v > kLargest)
        fail<ValueError>(op,
                         std::string(name) + " must be at least " + std::to_string(least) + " and at most 2**30, got " +
                             std::to_string(v),
                         std::string("give ") + name + " as an int or a pair of ints (height, width)");
  };
  each("stride", o.stride, 1);
  each("padding", o.padding, 0);
  each("dilation", o.dilation, 1);
  if (o.groups < 1)
    fail<ValueError>(op, "groups must be at least 1, got " + std::to_string(o.groups),
                     "groups=1 is the plain convolution");
}

void check_tensors(const char* op, const Tensor& x, const Tensor& w, const Tensor& bias, int64_t groups,
                   int64_t outputs) {
  if (x.ndim() != 4)
    fail<ShapeError>(op, "the input must have 4 dimensions (batch, channels, height, width)",
                     "add a batch axis with expand_dims, or reshape", x, w);
  if (w.ndim() != 4)
    fail<ShapeError>(op, "the weight must have 4 dimensions, the last two of the kernel", "reshape the weight", x, w);
  if (w.shape()[2] < 1 || w.shape()[3] < 1)
    fail<ShapeError>(op, "the kernel is empty", "a kernel has at least one cell", x, w);
  if (w.shape()[0] % groups)
    fail<ShapeError>(op, "groups = " + std::to_string(groups) + " does not divide the first axis of the weight",
                     "choose groups that divide both channel counts", x, w);
  if (bias && (bias.ndim() != 1 || bias.shape()[0] != outputs))
    fail<ShapeError>(op, "the bias must have one value per output channel, " + std::to_string(outputs),
                     "give a bias of shape (" + std::to_string(outputs) + ",)", x, w, bias);
}

// The common float dtype of the operands.
DType float_dtype(const char* op, const Tensor& x, const Tensor& w, const Tensor& bias) {
  const Tensor all[] = {x, w, bias};
  DType t = result_dtype({all, size_t(bias ? 3 : 2)}, op);
  if (!is_float(t))
    fail<DTypeError>(op, "the operands must be floats", "cast the input with .astype(pb.float32)", x, w);
  return t;
}

// Output sizes for an input of h x w; 0 or less: the kernel does not fit.
Pair output_size(Pair in, Pair kernel, const ConvOptions& o) {
  Pair out;
  for (int i = 0; i < 2; i++) {
    int64_t reach = o.dilation[i] * (kernel[i] - 1) + 1, room = in[i] + 2 * o.padding[i] - reach;
    out[i] = room < 0 ? 0 : room / o.stride[i] + 1;
  }
  return out;
}
Pair spatial(const Tensor& t) { return {t.shape()[2], t.shape()[3]}; }

// x has the shape of the input, g of the output; either may be missing.
ConvShape shape_of(int64_t n, int64_t channels, int64_t outputs, Pair in, Pair out, Pair kernel, const ConvOptions& o) {
  ConvShape s;
  s.n = n, s.groups = o.groups, s.c = channels / o.groups, s.o = outputs / o.groups;
  s.h = in[0], s.w = in[1], s.oh = out[0], s.ow = out[1], s.kh = kernel[0], s.kw = kernel[1];
  s.sh = o.stride[0], s.sw = o.stride[1], s.ph = o.padding[0], s.pw = o.padding[1];
  s.dh = o.dilation[0], s.dw = o.dilation[1];
  return s;
}

// Contiguous in the compute type, outside the graph. Call with grad mode off.
Tensor staged(const Tensor& t, Compute c) { return t ? contiguous(cast(detach(t), dtype_of(c))) : t; }
const void* raw_or_null(const Tensor& t) { return t ? t.raw() : nullptr; }

Tensor whole(const Tensor& g, const Shape& shape, DType t) { return cast(broadcast_to(g, shape), t); }

Tensor run_forward(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& o) {
  GradMode off(false);
  Compute c = compute_of(x.dtype());
  ConvShape s = shape_of(x.shape()[0], x.shape()[1], w.shape()[0], spatial(x), output_size(spatial(x), spatial(w), o),
                         spatial(w), o);
  if (on_cuda(x) || on_cuda(w)) return cuda::conv_forward(x, w, bias, s);
  Tensor y = empty({s.n, w.shape()[0], s.oh, s.ow}, dtype_of(c));
  Tensor xs = staged(x, c), ws = staged(w, c), bs = staged(bias, c);
  if (y.size()) kernels().forward[int(c)](y.raw(), xs.raw(), ws.raw(), raw_or_null(bs), s);
  return cast(y, x.dtype());
}

Tensor run_input_grad(const Tensor& g, const Tensor& w, const ConvOptions& o, Pair in) {
  GradMode off(false);
  Compute c = compute_of(g.dtype());
  int64_t channels = w.shape()[1] * o.groups;
  ConvShape s = shape_of(g.shape()[0], channels, w.shape()[0], in, spatial(g), spatial(w), o);
  if (on_cuda(g) || on_cuda(w)) return cuda::conv_input_grad(g, w, s);
  Tensor dx = empty({s.n, channels, s.h, s.w}, dtype_of(c));
  Tensor gs = staged(g, c), ws = staged(w, c);
  if (dx.size()) kernels().input_grad[int(c)](dx.raw(), gs.raw(), ws.raw(), s);
  return cast(dx, g.dtype());
}

struct WeightGrads {
  Tensor weight, bias;
};
Tensor bias_grad(const Tensor& g) {
  const Shape& s = g.shape();
  return sum(sum(reshape(g, {s[0], s[1], s[2] * s[3]}), {2}), {0});
}

WeightGrads run_weight_grad(const Tensor& x, const Tensor& g, const ConvOptions& o, Pair kernel, bool with_bias) {
  GradMode off(false);
  Compute c = compute_of(x.dtype());
  ConvShape s = shape_of(x.shape()[0], x.shape()[1], g.shape()[1], spatial(x), spatial(g), kernel, o);
  if (on_cuda(x) || on_cuda(g)) return {cuda::conv_weight_grad(x, g, s), with_bias ? bias_grad(g) : Tensor()};
  Shape shape{g.shape()[1], s.c, s.kh, s.kw};
  Tensor xs = staged(x, c), gs = staged(g, c);
  bool nothing = s.n == 0 || s.o == 0;
  Tensor dw = nothing ? zeros(shape, dtype_of(c)) : empty(shape, dtype_of(c));
  Tensor db = !with_bias ? Tensor() : nothing ? zeros({shape[0]}, dtype_of(c)) : empty({shape[0]}, dtype_of(c));
  if (!nothing) kernels().weight_grad[int(c)](dw.raw(), db ? db.raw() : nullptr, xs.raw(), gs.raw(), s);
  return {cast(dw, x.dtype()), db ? cast(db, x.dtype()) : db};
}

Tensor add_tangent(const Tensor& a, const Tensor& b) { return !a ? b : !b ? a : a + b; }

// conv2d of operands of one float dtype that were checked.
Tensor forward(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& o) {
  Tensor y = run_forward(x, w, bias, o);
  if (any_wants(x, w, bias)) {
    Pair in = spatial(x), kernel = spatial(w);
    Shape shape = y.shape();
    std::vector<Saved> saved{wants_node(w) ? saved_operand(x, operand_bits("conv2d", o.saved)) : Saved(),
                             wants_node(x) ? Saved(w) : Saved()};
    record("conv2d", {x, w, bias}, y, std::move(saved), [o, in, kernel, shape](const Slots& s, const PullArgs& a) {
      Tensor g = whole(a.g[0], shape, a.g[0].dtype());
      if (a.need(0)) a.gin[0] = conv2d_input_grad(g, s[1], o, in);
      if (a.need(1) && a.need(2) && !mode().grad && !mode().levels) {  // one pass over g gives both
        WeightGrads d = run_weight_grad(s[0], g, o, kernel, true);
        a.gin[1] = d.weight;
        a.gin[2] = d.bias;
        return;
      }
      if (a.need(1)) a.gin[1] = conv2d_weight_grad(s[0], g, o, kernel);
      if (a.need(2)) a.gin[2] = bias_grad(g);
    });
  }
  push_forward({x, w, bias}, y, [&](const Tensor* p, const Tensor* t, const Tensor& out) {
    Tensor d = t[0] ? forward(t[0], p[1], t[2], o) : Tensor();
    if (t[1]) d = add_tangent(d, forward(p[0], t[1], t[0] ? Tensor() : t[2], o));
    if (!d) d = broadcast_to(reshape(t[2], {1, t[2].size(), 1, 1}), out.shape());
    return d;
  });
  return y;
}

}  // namespace

Tensor conv2d_input_grad(const Tensor& g0, const Tensor& w0, const ConvOptions& o, Pair in) {
  DType dtype = float_dtype("conv2d_input_grad", g0, w0, Tensor());
  Tensor g = cast(g0, dtype), w = cast(w0, dtype);
  Tensor dx = run_input_grad(g, w, o, in);
  if (any_wants(g, w)) {
    Pair kernel = spatial(w);
    Shape shape = dx.shape();
    std::vector<Saved> saved{wants_node(w) ? Saved(g) : Saved(), wants_node(g) ? Saved(w) : Saved()};
    record("conv2d_input_grad", {g, w}, dx, std::move(saved),
           [o, kernel, shape, dtype](const Slots& s, const PullArgs& a) {
             Tensor h = whole(a.g[0], shape, dtype);
             if (a.need(0)) a.gin[0] = forward(h, s[1], Tensor(), o);
             if (a.need(1)) a.gin[1] = conv2d_weight_grad(h, s[0], o, kernel);
           });
  }
  push_forward({g, w}, dx, [&](const Tensor* p, const Tensor* t, const Tensor&) {
    return add_tangent(t[0] ? conv2d_input_grad(t[0], p[1], o, in) : Tensor(),
                       t[1] ? conv2d_input_grad(p[0], t[1], o, in) : Tensor());
  });
  return dx;
}

Tensor conv2d_weight_grad(const Tensor& x0, const Tensor& g0, const ConvOptions& o, Pair kernel) {
  DType dtype = float_dtype("conv2d_weight_grad", x0, g0, Tensor());
  Tensor x = cast(x0, dtype), g = cast(g0, dtype);
  Tensor dw = run_weight_grad(x, g, o, kernel, false).weight;
  if (any_wants(x, g)) {
    Pair in = spatial(x);
    Shape shape = dw.shape();
    std::vector<Saved> saved{wants_node(g) ? Saved(x) : Saved(), wants_node(x) ? Saved(g) : Saved()};
    record("conv2d_weight_grad", {x, g}, dw, std::move(saved),
           [o, in, shape, dtype](const Slots& s, const PullArgs& a) {
             Tensor h = whole(a.g[0], shape, dtype);
             if (a.need(0)) a.gin[0] = conv2d_input_grad(s[1], h, o, in);
             if (a.need(1)) a.gin[1] = forward(s[0], h, Tensor(), o);
           });
  }
  push_forward({x, g}, dw, [&](const Tensor* p, const Tensor* t, const Tensor&) {
    return add_tangent(t[0] ? conv2d_weight_grad(t[0], p[1], o, kernel) : Tensor(),
                       t[1] ? conv2d_weight_grad(p[0], t[1], o, kernel) : Tensor());
  });
  return dw;
}

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& o) {
  Profiled scope("conv2d");
  const char* op = "conv2d";
  check_options(op, o);
  check_tensors(op, x, w, bias, o.groups, w.ndim() ? w.shape()[0] : 0);
  if (x.shape()[1] != w.shape()[1] * o.groups)
    fail<ShapeError>(op,
                     "the input has " + std::to_string(x.shape()[1]) + " channels, the weight takes " +
                         std::to_string(w.shape()[1]) + " in each of " + std::to_string(o.groups) + " groups",
                     "the weight's shape is (out channels, in channels / groups, height, width)", x, w);
  Pair out = output_size(spatial(x), spatial(w), o);
  if (out[0] < 1 || out[1] < 1)
    fail<ShapeError>(op, "the kernel " + text(spatial(w)) + " is larger than the padded input",
                     "use more padding or a smaller kernel", x, w);
  DType t = float_dtype(op, x, w, bias);
  return forward(cast(x, t), cast(w, t), bias ? cast(bias, t) : bias, o);
}

Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& o) {
  if (x.ndim() != 3 || w.ndim() != 3)
    fail<ShapeError>("conv1d", "the input and the weight must have 3 dimensions (batch, channels, length)",
                     "add a batch axis with expand_dims, or reshape", x, w);
  Tensor y = conv2d(expand_dims(x, 2), expand_dims(w, 2), bias, o);
  return squeeze(y, {2});
}

Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& bias, const ConvOptions& o,
                        Pair output_padding) {
  Profiled scope("conv_transpose2d");
  const char* op = "conv_transpose2d";
  check_options(op, o);
  int64_t outputs = w.ndim() == 4 ? w.shape()[1] * o.groups : 0;
  check_tensors(op, x, w, bias, o.groups, outputs);
  if (x.shape()[1] != w.shape()[0])
    fail<ShapeError>(
        op,
        "the input has " + std::to_string(x.shape()[1]) + " channels, the weight takes " + std::to_string(w.shape()[0]),
        "the weight's shape is (in channels, out channels / groups, height, width)", x, w);
  Pair size;
  for (int i = 0; i < 2; i++) {
    if (output_padding[i] < 0 || output_padding[i] >= o.stride[i])
      fail<ValueError>(
          op, "output_padding must be at least 0 and smaller than the stride, got " + std::to_string(output_padding[i]),
          "it chooses among the stride many input sizes that give one output size", x, w);
    int64_t in = x.shape()[2 + i], reach = o.dilation[i] * (w.shape()[2 + i] - 1) + 1;
    if (in < 1 || __builtin_mul_overflow(in - 1, o.stride[i], &size[i]))
      fail<ShapeError>(op, "the input is empty or too large", "height and width are at least 1", x, w);
    size[i] += reach + output_padding[i] - 2 * o.padding[i];
    if (size[i] < 1)
      fail<ShapeError>(op, "the padding " + text(o.padding) + " removes the whole result", "use less padding", x, w);
  }
  DType t = float_dtype(op, x, w, bias);
  Tensor y = conv2d_input_grad(cast(x, t), cast(w, t), o, size);
  return bias ? y + reshape(cast(bias, t), {1, outputs, 1, 1}) : y;
}

}  // namespace pb
