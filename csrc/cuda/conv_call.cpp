// The engine's side of convolution and pooling on a device.
#include "cuda/api_conv.h"
#include "cuda/api_pool.h"
#include "cuda/calls.h"
#include "families/map.h"

namespace pb::cuda {

namespace {

Tensor plain(const Tensor& t) { return t ? contiguous(detach(t)) : t; }

}  // namespace

Tensor conv_forward(const Tensor& x0, const Tensor& weight0, const Tensor& bias0, const ConvShape& s) {
  const char* op = "conv2d";
  Device device = common_device(op, {&x0, &weight0, &bias0});
  need_types(op, {&x0, &weight0, &bias0});
  Tensor y = empty({s.n, s.groups * s.o, s.oh, s.ow}, x0.dtype(), device);
  if (!y.size()) return y;
  Tensor x = plain(x0), weight = plain(weight0), bias = plain(bias0);
  ConvArgs a;
  a.s = s;
  a.out = y.raw(), a.out_type = y.dtype();
  a.x = x.raw(), a.x_type = x.dtype();
  a.weight = weight.raw(), a.weight_type = weight.dtype();
  if (bias) a.bias = bias.raw(), a.bias_type = bias.dtype();
  check(need_part(need_table(op).conv, op).forward(a, stream_of(device)), op);
  return y;
}

Tensor conv_input_grad(const Tensor& g0, const Tensor& weight0, const ConvShape& s) {
  const char* op = "conv2d_input_grad";
  Device device = common_device(op, {&g0, &weight0});
  need_types(op, {&g0, &weight0});
  Tensor dx = empty({s.n, s.groups * s.c, s.h, s.w}, g0.dtype(), device);
  if (!dx.size()) return dx;
  Tensor g = plain(g0), weight = plain(weight0);
  ConvArgs a;
  a.s = s;
  a.out = dx.raw(), a.out_type = dx.dtype();
  a.g = g.raw(), a.g_type = g.dtype();
  a.weight = weight.raw(), a.weight_type = weight.dtype();
  check(need_part(need_table(op).conv, op).input_grad(a, stream_of(device)), op);
  return dx;
}

Tensor conv_weight_grad(const Tensor& x0, const Tensor& g0, const ConvShape& s) {
  const char* op = "conv2d_weight_grad";
  Device device = common_device(op, {&x0, &g0});
  need_types(op, {&x0, &g0});
  Tensor dw = empty({s.groups * s.o, s.c, s.kh, s.kw}, x0.dtype(), device);
  if (!dw.size()) return dw;
  Tensor x = plain(x0), g = plain(g0), space;
  ConvArgs a;
  a.s = s;
  a.out = dw.raw(), a.out_type = dw.dtype();
  a.x = x.raw(), a.x_type = x.dtype();
  a.g = g.raw(), a.g_type = g.dtype();
  const ConvApi& api = need_part(need_table(op).conv, op);
  void* stream = stream_of(device);
  if (int64_t bytes = api.weight_grad_scratch(a)) {
    space = scratch(bytes, device);
    a.scratch = space.raw();
  }
  check(api.weight_grad(a, stream), op);
  return dw;
}

void pool(Pool kind, const Tensor& out, const Tensor& in0, const Tensor& index, const PoolShape& s, bool adaptive) {
  static const char* const names[] = {"max_pool2d", "max_pool2d_scatter", "max_pool2d_gather", "avg_pool2d",
                                      "avg_pool2d"};
  const char* op = names[int(kind)];
  Device device = common_device(op, {&out, &in0, &index});
  need_types(op, {&out, &in0});
  if (!out.size()) return;
  Tensor in = plain(in0);
  PoolArgs a;
  a.s = s;
  a.adaptive = adaptive;
  a.out = out.raw(), a.out_type = out.dtype();
  a.in = in.raw(), a.in_type = in.dtype();
  if (index) a.index = index.raw(), a.wide = index.dtype() == DType::I32;
  const PoolApi& api = need_part(need_table(op).pool, op);
  using Run = int (*)(const PoolArgs&, void*);
  const Run runs[] = {api.max_forward, api.max_scatter, api.max_gather, api.mean_forward, api.mean_pull};
  check(runs[int(kind)](a, stream_of(device)), op);
}

}  // namespace pb::cuda
