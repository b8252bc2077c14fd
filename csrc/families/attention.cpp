#include "families/attention.h"

#include <cmath>

#include "cpu/attention_table.h"
#include "cpu/dispatch.h"
#include "families/linear.h"
#include "families/reduce.h"
#include "families/row.h"
#include "families/view.h"
#include "fewbit/block.h"
#include "tensor/profile.h"

namespace pb {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  const char* op = "scaled_dot_product_attention";
  if (q.ndim() < 2 || k.ndim() < 2 || v.ndim() < 2)
    fail<ShapeError>(op, "q, k and v must have shape (..., length, width)", "add the missing axes", q, k, v);
  for (const Tensor* t : {&q, &k, &v})
    if (!is_float(t->dtype())) fail<DTypeError>(op, "q, k and v must be floating", "cast them with .astype", q, k, v);
  if (q.shape().back() != k.shape().back())
    fail<ShapeError>(op, "q and k have different widths", "the last axes of q and k must agree", q, k);
  if (k.shape()[k.ndim() - 2] != v.shape()[v.ndim() - 2])
    fail<ShapeError>(op, "k and v have different lengths", "there is one value per key", k, v);
  if (bool(mask) && mask.dtype() != DType::Bool && !is_float(mask.dtype()))
    fail<DTypeError>(op, "the mask must be bool or floating", "True means attend; a float mask is added", mask);
}

// Query i sees key j where j <= i.
Tensor causal_mask(int64_t queries, int64_t keys) {
  return expand_dims(arange(queries), 1) >= expand_dims(arange(keys), 0);
}

// Softmax over the keys; a row without any finite score is 0.
Tensor weights_of(const Tensor& scores, bool masked) {
  if (!masked) return softmax(scores);
  Tensor dead;
  {
    GradMode off(false);
    dead = max_over(detach(scores), {-1}, true) == Tensor(kNever);
  }
  return where(dead, Tensor(0.0), softmax(where(dead, Tensor(0.0), scores)));
}

Tensor scores_of(const Tensor& q, const Tensor& k, double scale, bool causal) {
  Tensor s = matmul(q * Tensor(scale), swap_axes(k, -1, -2));
  return causal ? where(causal_mask(q.shape()[q.ndim() - 2], k.shape()[k.ndim() - 2]), s, Tensor(kNever)) : s;
}

// ---- the blocked kernel

// Many heads of up to 32 bits, nothing added to the scores and no tangent: decided by the operands alone.
bool blocked(const Tensor& q, const Tensor& k, const Tensor& v) {
  if (q.dtype() == DType::F64 || k.dtype() != q.dtype() || v.dtype() != q.dtype()) return false;
  if (has_tangent(q) || has_tangent(k) || has_tangent(v) || q.size() == 0 || k.size() == 0 || v.size() == 0)
    return false;
  if (q.ndim() != k.ndim() || q.ndim() != v.ndim()) return false;
  int64_t heads = 1;
  for (int i = 0; i + 2 < q.ndim(); i++) {
    if (q.shape()[i] != k.shape()[i] || q.shape()[i] != v.shape()[i]) return false;
    heads *= q.shape()[i];
  }
  return heads >= 4 && q.shape().back() <= 256 && v.shape().back() <= 256;
}

Tensor raw(const Tensor& t) {
  GradMode off(false);
  return contiguous(cast(detach(t), DType::F32));
}

AttentionCall call_of(const Tensor& q, const Tensor& k, const Tensor& v, double scale, bool causal) {
  int nd = q.ndim();
  AttentionCall c{};
  c.queries = q.shape()[nd - 2];
  c.keys = k.shape()[nd - 2];
  c.width = q.shape()[nd - 1];
  c.out_width = v.shape()[nd - 1];
  c.heads = q.size() / (c.queries * c.width);
  c.scale = float(scale);
  c.causal = causal;
  c.q = q.data<float>();
  c.k = k.data<float>();
  c.v = v.data<float>();
  return c;
}

const AttentionTable& kernels() {
  static const auto* t = static_cast<const AttentionTable*>(isa_table("attention"));
  return *t;
}

// With V = Tensor: the probabilities are made anew by recorded ops.
void graph_pull(const PullArgs& a, const Tensor& q, const Tensor& k, const Tensor& v, double scale, bool causal) {
  const Tensor& g = a.g[0];
  Tensor p = softmax(scores_of(q, k, scale, causal));
  if (a.need(2)) a.gin[2] = matmul(swap_axes(p, -1, -2), g);
  if (!a.need(0) && !a.need(1)) return;
  Tensor d = matmul(g, swap_axes(v, -1, -2));
  Tensor s = p * (d - sum(p * d, {-1}, true)) * Tensor(scale);
  if (a.need(0)) a.gin[0] = matmul(s, k);
  if (a.need(1)) a.gin[1] = matmul(swap_axes(s, -1, -2), q);
}

// Note [Heads side by side]
// The result of (batch, heads, length, width) lies in memory as (batch, length, heads, width): the caller joins the
// heads by a view, and the one copy of it serves this node and the projection that follows. Undefined where the
// kernel's own layout and type do.
Tensor result_of(const Shape& shape, DType dtype) {
  int n = shape.size();
  if (n < 4) return dtype == DType::F32 ? Tensor() : empty(shape, dtype);
  Shape memory = shape;
  std::swap(memory[n - 2], memory[n - 3]);
  Tensor t = empty(memory, dtype);
  Strides strides = t.strides();
  std::swap(strides[n - 2], strides[n - 3]);
  return alias(t, shape, strides, 0);
}

// The result as the projection that follows reads it.
Shape joined(const Shape& shape) {
  int n = shape.size();
  if (n < 4) return shape;
  Shape memory = shape;
  memory.resize(n - 2);
  memory[n - 3] = shape[n - 2];
  memory.push_back(shape[n - 3] * shape[n - 1]);
  return memory;
}

Tensor blocked_attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, bool causal, int bits) {
  Tensor cq = raw(q), ck = raw(k), cv = raw(v);
  AttentionCall call = call_of(cq, ck, cv, scale, causal);
  Shape shape = q.shape(), rows = q.shape();
  shape[q.ndim() - 1] = call.out_width;
  rows.resize(q.ndim() - 1);
  Tensor wide = empty(shape, DType::F32), lse = empty(rows, DType::F32), y = result_of(shape, q.dtype());
  call.y = wide.data<float>();
  call.lse = lse.data<float>();
  kernels().forward(call);
  if (y)
    copy_into(y, wide);
  else
    y = wide;
  std::vector<Saved> saved;
  if (any_wants(q, k, v))
    saved = {saved_operand(q, bits), saved_operand(k, bits), saved_operand(v, bits),
             bits ? saved_result(y, joined(y.shape()), bits) : Saved::output(y), Saved(lse)};
  record("scaled_dot_product_attention", {q, k, v}, y, std::move(saved),
         [scale, causal](const Slots& s, const PullArgs& a) {
           Tensor q = s[0], k = s[1], v = s[2];
           if (mode().grad || has_tangent(a.g[0]) || has_tangent(q) || has_tangent(k) || has_tangent(v))
             return graph_pull(a, q, k, v, scale, causal);
           Tensor cq = raw(q), ck = raw(k), cv = raw(v), y = raw(s[3]), lse = s[4], g = raw(a.g[0]);
           Tensor gq = empty(q.shape(), DType::F32), gk = empty(k.shape(), DType::F32),
                  gv = empty(v.shape(), DType::F32);
           AttentionCall call = call_of(cq, ck, cv, scale, causal);
           call.y = y.data<float>();
           call.lse = lse.data<float>();
           call.gy = g.data<float>();
           call.gq = gq.data<float>();
           call.gk = gk.data<float>();
           call.gv = gv.data<float>();
           kernels().backward(call);
           a.gin[0] = cast(gq, q.dtype());
           a.gin[1] = cast(gk, k.dtype());
           a.gin[2] = cast(gv, v.dtype());
         });
  return y;
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, const AttentionOptions& o) {
  Profiled scope("scaled_dot_product_attention");
  check(q, k, v, mask);
  int64_t keys = k.shape()[k.ndim() - 2], width = q.shape().back();
  if (!(o.dropout >= 0 && o.dropout < 1))
    fail<ValueError>("scaled_dot_product_attention", "dropout must be in [0, 1), got " + std::to_string(o.dropout),
                     "0 means no dropout");
  int bits = operand_bits("scaled_dot_product_attention", o.saved);
  double scale = o.has_scale ? o.scale : width ? 1 / std::sqrt(double(width)) : 1;
  if (!bool(mask) && o.dropout == 0 && blocked(q, k, v)) return blocked_attention(q, k, v, scale, o.causal, bits);
  Tensor scores = scores_of(q, k, scale, o.causal);
  if (keys == 0) return matmul(scores, v);  // nothing to attend to: zeros
  if (bool(mask) && mask.dtype() == DType::Bool)
    scores = where(mask, scores, Tensor(kNever));
  else if (mask)
    scores = scores + mask;
  Tensor p = weights_of(scores, bool(mask));
  if (o.dropout > 0) {
    const Tensor in[] = {p};
    const double params[] = {o.dropout};
    p = map_call(find_map("_dropout"), in, params, o.rng);
  }
  return matmul(p, v);
}

}  // namespace pb
