// The engine's side of attention on a device.
#include "cuda/api_attention.h"
#include "cuda/calls.h"
#include "families/map.h"

namespace pb::cuda {

namespace {

const char* const kOp = "scaled_dot_product_attention";

bool rows_aligned(const Tensor& t) {
  if (reinterpret_cast<uintptr_t>(t.raw()) % 16) return false;
  for (int d = 0; d + 1 < t.ndim(); d++)
    if (t.shape()[d] > 1 && t.strides()[d] * itemsize(t.dtype()) % 16) return false;
  return true;
}
HeadsOperand operand_of(const Tensor& t) {
  HeadsOperand o;
  int n = t.ndim();
  o.data = t.raw();
  o.type = t.dtype();
  for (int d = 0; d + 2 < n; d++) o.batch[d] = t.strides()[d];
  o.row = t.strides()[n - 2];
  o.aligned = rows_aligned(t);
  return o;
}
// With the last axis in one piece.
Tensor rows_of(const Tensor& t) {
  Tensor d = detach(t);
  return d.shape().back() <= 1 || d.strides()[d.ndim() - 1] == 1 ? d : contiguous(d);
}

AttentionArgs args_of(const AttentionCall& c, const Tensor& q, const Tensor& k, const Tensor& v) {
  AttentionArgs a;
  int n = q.ndim();
  a.axes = n - 2;
  a.heads = 1;
  for (int d = 0; d < a.axes; d++) a.heads *= a.batch[d] = q.shape()[d];
  a.queries = q.shape()[n - 2], a.width = q.shape()[n - 1];
  a.keys = k.shape()[n - 2], a.out_width = v.shape()[n - 1];
  a.scale = float(c.scale), a.causal = c.causal;
  a.dropout = float(c.dropout), a.seed = c.seed, a.offset = c.offset;
  a.q = operand_of(q), a.k = operand_of(k), a.v = operand_of(v);
  if (!c.mask) return a;
  Shape scores = q.shape();
  scores[n - 1] = a.keys;
  Strides s = broadcast_strides(c.mask.shape(), c.mask.strides(), scores);
  a.mask = c.mask.raw(), a.mask_type = c.mask.dtype();
  for (int d = 0; d < a.axes; d++) a.mask_batch[d] = s[d];
  a.mask_row = s[n - 2], a.mask_col = s[n - 1];
  return a;
}

}  // namespace

bool attention_fits(const Tensor& q, const Tensor& k, const Tensor& v) {
  if (!direct_type(q.dtype()) || !direct_type(k.dtype()) || !direct_type(v.dtype())) return false;
  if (q.ndim() != k.ndim() || q.ndim() != v.ndim() || q.ndim() - 2 > kMaxBatch) return false;
  for (int d = 0; d + 2 < q.ndim(); d++)
    if (q.shape()[d] != k.shape()[d] || q.shape()[d] != v.shape()[d]) return false;
  return q.size() && k.size() && v.size() && q.shape().back() <= kMostWidth && v.shape().back() <= kMostWidth;
}

void attention_forward(const AttentionCall& c, const Tensor& q0, const Tensor& k0, const Tensor& v0, const Tensor& y,
                       const Tensor& lse) {
  GradMode off(false);
  Device device = common_device(kOp, {&q0, &k0, &v0, &c.mask});
  Tensor q = rows_of(q0), k = rows_of(k0), v = rows_of(v0);
  AttentionArgs a = args_of(c, q, k, v);
  a.y = operand_of(y);
  a.lse = lse.data<float>();
  check(need_part(need_table(kOp).attention, kOp).forward(a, stream_of(device)), kOp);
}

void attention_backward(const AttentionCall& c, const Tensor& q0, const Tensor& k0, const Tensor& v0, const Tensor& y0,
                        const Tensor& lse, const Tensor& gy0, const Tensor& gq, const Tensor& gk, const Tensor& gv) {
  GradMode off(false);
  Device device = common_device(kOp, {&q0, &k0, &v0, &c.mask, &gy0});
  need_types(kOp, {&gy0});
  Tensor q = rows_of(q0), k = rows_of(k0), v = rows_of(v0), y = rows_of(y0), gy = rows_of(gy0);
  AttentionArgs a = args_of(c, q, k, v);
  Tensor delta = scratch(a.heads * a.queries * int64_t(sizeof(float)), device);
  a.y = operand_of(y), a.gy = operand_of(gy);
  a.lse = lse.data<float>(), a.delta = delta.data<float>();
  a.gq = operand_of(gq), a.gk = operand_of(gk), a.gv = operand_of(gv);
  check(need_part(need_table(kOp).attention, kOp).backward(a, stream_of(device)), kOp);
}

}  // namespace pb::cuda
