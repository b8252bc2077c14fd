#include "families/attention.h"

#include <cmath>

#include "cpu/attention_table.h"
#include "cpu/dispatch.h"
#include "cuda/calls.h"
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
Tensor causal_mask(int64_t queries, int64_t keys, Device device) {
  return to_device(expand_dims(arange(queries), 1) >= expand_dims(arange(keys), 0), device);
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
  return causal ? where(causal_mask(q.shape()[q.ndim() - 2], k.shape()[k.ndim() - 2], q.device()), s, Tensor(kNever))
                : s;
}

Tensor masked(const Tensor& scores, const Tensor& mask) {
  if (!mask) return scores;
  return mask.dtype() == DType::Bool ? where(mask, scores, Tensor(kNever)) : scores + mask;
}

Tensor dropped(const Tensor& p, double dropout, Generator* rng) {
  if (!(dropout > 0)) return p;
  const Tensor in[] = {p};
  const double params[] = {dropout};
  return map_call(find_map("_dropout"), in, params, rng);
}

// ---- the blocked kernel

// One call of the kernel, and what backward repeats of it.
struct Blocked {
  double scale;
  bool causal;
  double drop;
  RandomState random;
};

// The same draws as of the probabilities as a tensor.
Tensor dropped(const Tensor& p, double share, RandomState random) {
  if (share == 0) return p;
  Generator again{random.seed, random.offset};
  const Tensor in[] = {p};
  return map_call(find_map("_dropout"), in, &share, &again);
}

// Heads of up to 32 bits, nothing added to the scores and no tangent, enough of them to share out unless dropout would
// have to keep the probabilities: decided by the operands alone.
bool blocked(const Tensor& q, const Tensor& k, const Tensor& v, double drop) {
  if (q.dtype() == DType::F64 || k.dtype() != q.dtype() || v.dtype() != q.dtype()) return false;
  if (has_tangent(q) || has_tangent(k) || has_tangent(v) || q.size() == 0 || k.size() == 0 || v.size() == 0)
    return false;
  if (q.ndim() != k.ndim() || q.ndim() != v.ndim()) return false;
  int64_t heads = 1;
  for (int i = 0; i + 2 < q.ndim(); i++) {
    if (q.shape()[i] != k.shape()[i] || q.shape()[i] != v.shape()[i]) return false;
    heads *= q.shape()[i];
  }
  return (heads >= 4 || drop > 0) && q.shape().back() <= 256 && v.shape().back() <= 256;
}

// float32, outside the graph, its rows as the kernel reads them: where they lie if the leading axes are two at most.
Tensor raw(const Tensor& t) {
  GradMode off(false);
  Tensor x = cast(detach(t), DType::F32);
  bool in_place = x.ndim() <= 4 && (x.strides()[x.ndim() - 1] == 1 || x.shape().back() == 1);
  return in_place ? x : contiguous(x);
}
HeadRows rows_of(const Tensor& t) {
  int n = t.ndim();
  const Strides& s = t.strides();
  HeadRows r{t.data<float>(), 0, n > 2 ? s[n - 3] : 0, s[n - 2]};
  if (n > 3) r.outer = s[n - 4];
  if (n > 4) r.outer = t.shape()[n - 3] * r.inner;  // contiguous: any head is as far from the one before
  return r;
}

AttentionCall call_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y, const Tensor& lse,
                      const Blocked& b) {
  int nd = q.ndim();
  AttentionCall c{};
  c.queries = q.shape()[nd - 2];
  c.keys = k.shape()[nd - 2];
  c.width = q.shape()[nd - 1];
  c.out_width = v.shape()[nd - 1];
  c.heads = lse.size() / c.queries;
  c.many = nd > 2 ? q.shape()[nd - 3] : 1;
  c.scale = float(b.scale);
  c.causal = b.causal;
  c.q = rows_of(q), c.k = rows_of(k), c.v = rows_of(v), c.y = rows_of(y);
  c.lse = lse.data<float>();
  c.drop = b.drop, c.seed = b.random.seed, c.offset = b.random.offset;
  return c;
}

const AttentionTable& kernels() {
  static const auto* t = static_cast<const AttentionTable*>(isa_table("attention"));
  return *t;
}

// With V = Tensor: the probabilities are made anew by recorded ops, with the same random numbers.
void graph_pull(const PullArgs& a, const Tensor& q, const Tensor& k, const Tensor& v, const cuda::AttentionCall& c) {
  const Tensor& g = a.g[0];
  auto drop = [&](const Tensor& t) {
    Generator again{c.seed, c.offset};
    return dropped(t, c.dropout, &again);
  };
  Tensor p = weights_of(masked(scores_of(q, k, c.scale, c.causal), c.mask), bool(c.mask));
  if (a.need(2)) a.gin[2] = matmul(swap_axes(drop(p), -1, -2), g);
  if (!a.need(0) && !a.need(1)) return;
  Tensor d = drop(matmul(g, swap_axes(v, -1, -2)));
  Tensor s = p * (d - sum(p * d, {-1}, true)) * Tensor(c.scale);
  if (a.need(0)) a.gin[0] = matmul(s, k);
  if (a.need(1)) a.gin[1] = matmul(swap_axes(s, -1, -2), q);
}

// With V = Tensor: the probabilities are made anew by recorded ops.
void graph_pull(const PullArgs& a, const Tensor& q, const Tensor& k, const Tensor& v, const Blocked& b) {
  Shape shape = q.shape();
  shape[q.ndim() - 1] = v.shape().back();
  Tensor g = broadcast_to(a.g[0], shape);
  Tensor p = softmax(scores_of(q, k, b.scale, b.causal));
  if (a.need(2)) a.gin[2] = matmul(swap_axes(dropped(p, b.drop, b.random), -1, -2), g);
  if (!a.need(0) && !a.need(1)) return;
  Tensor d = dropped(matmul(g, swap_axes(v, -1, -2)), b.drop, b.random);
  Tensor s = p * (d - sum(p * d, {-1}, true)) * Tensor(b.scale);
  if (a.need(0)) a.gin[0] = matmul(s, k);
  if (a.need(1)) a.gin[1] = matmul(swap_axes(s, -1, -2), q);
}

// Note [Heads side by side]
// The result of (batch, heads, length, width) lies in memory as (batch, length, heads, width): the caller joins the
// heads by a view, and the kernel writes what the projection that follows reads. So do the cotangents of operands that
// lie so.
Tensor side_by_side(const Shape& shape, DType dtype, Device device = {}) {
  int n = shape.size();
  if (n < 4) return empty(shape, dtype, device);
  Shape memory = shape;
  std::swap(memory[n - 2], memory[n - 3]);
  Tensor t = empty(memory, dtype, device);
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

// Where the kernel writes something of this shape and type: the tensor itself where it can.
struct Target {
  Tensor t, wide;
  Target(const Shape& shape, DType dtype, bool apart)
      : t(apart ? empty(shape, dtype) : side_by_side(shape, dtype)), wide(t) {
    if (dtype != DType::F32 || shape.size() > 4) wide = empty(shape, DType::F32);
  }
  Tensor done() const {
    if (!wide.is(t)) copy_into(t, wide);
    return t;
  }
};
Target cotangent_of(const Tensor& t) { return {t.shape(), t.dtype(), t.contiguous()}; }

void blocked_pull(const Slots& s, const PullArgs& a, const Blocked& b) {
  Tensor q = s[0], k = s[1], v = s[2];
  if (mode().grad || has_tangent(a.g[0]) || has_tangent(q) || has_tangent(k) || has_tangent(v))
    return graph_pull(a, q, k, v, b);
  Tensor cq = raw(q), ck = raw(k), cv = raw(v), y = raw(s[3]), lse = s[4], g = raw(broadcast_to(a.g[0], y.shape()));
  Target gq = cotangent_of(q), gk = cotangent_of(k), gv = cotangent_of(v);
  AttentionCall call = call_of(cq, ck, cv, y, lse, b);
  call.gy = rows_of(g);
  call.gq = rows_of(gq.wide), call.gk = rows_of(gk.wide), call.gv = rows_of(gv.wide);
  kernels().backward(call);
  a.gin[0] = gq.done(), a.gin[1] = gk.done(), a.gin[2] = gv.done();
}

Tensor blocked_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Blocked& b, int bits) {
  Tensor cq = raw(q), ck = raw(k), cv = raw(v);
  Shape shape = q.shape(), rows = q.shape();
  shape[q.ndim() - 1] = v.shape().back();
  rows.resize(q.ndim() - 1);
  Target out(shape, q.dtype(), false);
  Tensor lse = empty(rows, DType::F32);
  kernels().forward(call_of(cq, ck, cv, out.wide, lse, b));
  Tensor y = out.done();
  std::vector<Saved> saved;
  if (any_wants(q, k, v))
    saved = {saved_operand(q, bits), saved_operand(k, bits), saved_operand(v, bits),
             bits ? saved_result(y, joined(y.shape()), bits) : Saved::output(y), Saved(lse)};
  record("scaled_dot_product_attention", {q, k, v}, y, std::move(saved),
         [b](const Slots& s, const PullArgs& a) { blocked_pull(s, a, b); });
  return y;
}

// ---- on a device: one kernel forward, one back, with masks and dropout

bool fused_on_device(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, double dropout) {
  if (!on_cuda(q) || !cuda::attention_fits(q, k, v)) return false;
  if (dropout > 0) return false;  // the kernel counts its draws in another way than the stream does
  if (has_tangent(q) || has_tangent(k) || has_tangent(v)) return false;
  if (!mask) return true;
  if (wants_node(mask) || has_tangent(mask) || mask.ndim() > q.ndim()) return false;
  if (mask.dtype() != DType::Bool && !cuda::direct_type(mask.dtype())) return false;
  Shape scores = q.shape();
  scores[q.ndim() - 1] = k.shape()[k.ndim() - 2];
  return broadcast(mask.shape(), scores, "scaled_dot_product_attention") == scores;
}

Tensor device_attention(const Tensor& q, const Tensor& k, const Tensor& v, cuda::AttentionCall c, int bits) {
  Shape shape = q.shape(), rows = q.shape();
  shape[q.ndim() - 1] = v.shape().back();
  rows.resize(q.ndim() - 1);
  const Tensor all[] = {q, k, v};
  Tensor y = side_by_side(shape, result_dtype(all, "scaled_dot_product_attention"), q.device());
  Tensor lse = empty(rows, DType::F32, q.device());
  cuda::attention_forward(c, q, k, v, y, lse);
  if (!any_wants(q, k, v)) return y;
  std::vector<Saved> saved{saved_operand(q, bits),
                           saved_operand(k, bits),
                           saved_operand(v, bits),
                           bits ? saved_result(y, joined(y.shape()), bits) : Saved::output(y),
                           Saved(lse),
                           Saved(c.mask)};
  c.mask = Tensor();  // the slot has it
  record("scaled_dot_product_attention", {q, k, v}, y, std::move(saved), [c](const Slots& s, const PullArgs& a) {
    Tensor q = s[0], k = s[1], v = s[2];
    cuda::AttentionCall call = c;
    call.mask = s[5];
    if (mode().grad || has_tangent(a.g[0]) || has_tangent(q) || has_tangent(k) || has_tangent(v))
      return graph_pull(a, q, k, v, call);
    Tensor gq = side_by_side(q.shape(), q.dtype(), q.device()), gk = side_by_side(k.shape(), k.dtype(), q.device()),
           gv = side_by_side(v.shape(), v.dtype(), q.device());
    cuda::attention_backward(call, q, k, v, s[3], s[4], a.g[0], gq, gk, gv);
    a.gin[0] = gq;
    a.gin[1] = gk;
    a.gin[2] = gv;
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
  if (fused_on_device(q, k, v, mask, o.dropout)) return device_attention(q, k, v, {scale, o.causal, mask}, bits);
  if (!on_cuda(q) && !bool(mask) && blocked(q, k, v, o.dropout)) {
    RandomState random;
    if (o.dropout > 0) {
      Generator& rng = o.rng ? *o.rng : default_generator();
      random = rng.reserve(q.size() / width * keys);
    }
    return blocked_attention(q, k, v, {scale, o.causal, o.dropout, random}, bits);
  }
  Tensor scores = scores_of(q, k, scale, o.causal);
  if (keys == 0) return matmul(scores, v);  // nothing to attend to: zeros
  return matmul(dropped(weights_of(masked(scores, mask), bool(mask)), o.dropout, o.rng), v);
}

}  // namespace pb
