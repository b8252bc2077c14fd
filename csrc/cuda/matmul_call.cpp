// The engine's side of matrix products on a device.
#include "cuda/api_matmul.h"
#include "cuda/calls.h"
#include "families/stack.h"

namespace pb::cuda {

Device common_device(const char* op, std::initializer_list<const Tensor*> tensors) {
  const Tensor* first = nullptr;
  for (const Tensor* t : tensors) {
    if (!*t) continue;
    if (!first) first = t;
    if (!(t->device() == first->device()))
      fail<DeviceError>(op, "operands are on " + device_name(first->device()) + " and " + device_name(t->device()),
                        "move one of them: x.to(\"" + device_name(first->device()) + "\")", *first, *t);
  }
  return first->device();
}

bool direct_type(DType t) { return t == DType::F32 || t == DType::BF16 || t == DType::F16; }

void need_types(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    if (*t && !direct_type(t->dtype())) no_kernel(op, *t);
}

namespace {

void set_batches(MatmulArgs& g, const Batches& r) {
  g.axes = r.size.size();
  for (int d = 0; d < g.axes; d++) {
    g.batch[d] = r.size[d];
    g.a_batch[d] = r.a[d], g.b_batch[d] = r.b[d], g.c_batch[d] = r.c[d];
  }
}

}  // namespace

Tensor product(const Tensor& a, const Tensor& b, bool transposed, const Tensor& bias0, const Shape& batch,
               const Shape& out_shape, DType dtype, const Tensor& onto) {
  const char* op = "matmul";
  Device device = common_device(op, {&a, &b, &bias0});
  need_types(op, {&a, &b, &bias0});
  Tensor out = onto ? onto : empty(out_shape, dtype, device), bias = bias0;
  if (!out.size()) return out;
  if (bias && !bias.contiguous()) bias = clone(bias);
  Stack from_a = stack_of(a, false), from_b = stack_of(b, transposed);
  MatmulArgs g;
  g.m = a.ndim() > 1 ? a.shape()[a.ndim() - 2] : 1;
  g.k = a.shape().back();
  g.n = out_shape.back();
  g.a = from_a.data, g.a_type = a.dtype(), g.a_row = from_a.row, g.a_col = from_a.col;
  g.b = from_b.data, g.b_type = b.dtype(), g.b_row = from_b.row, g.b_col = from_b.col;
  g.c = out.raw(), g.c_type = out.dtype(), g.c_row = g.n;
  g.accumulate = bool(onto);
  if (bias) g.bias = bias.raw(), g.bias_type = bias.dtype();
  Batches r = coalesce(batch, broadcast_strides(from_a.batch, from_a.strides, batch),
                       broadcast_strides(from_b.batch, from_b.strides, batch), g.m * g.n);
  fold_rows(r, g.m, g.a_row);
  set_batches(g, r);
  const MatmulApi& api = need_part(need_table(op).matmul, op);
  void* stream = stream_of(device);
  Tensor space;
  if (int64_t bytes = api.scratch(g)) {
    space = scratch(bytes, device);
    g.scratch = space.raw();
  }
  check(api.run(g, stream), op);
  return out;
}

}  // namespace pb::cuda
