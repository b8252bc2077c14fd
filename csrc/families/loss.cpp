// Cross entropy: fused for integer targets, composed from log_softmax for probabilities.
#include "cuda/faults.h"
#include "cuda/gather_call.h"
#include "cuda/loss_call.h"
#include "families/gather.h"
#include "families/row.h"
#include "families/row_call.h"
#include "tensor/profile.h"

namespace pb {

namespace {

using Options = CrossEntropyOptions;

// loss[r] = sum over c of q[r, c] * (lse[r] - x[r, c]).
struct Problem {
  double hit, even, total_weight;
  CrossEntropyCall call(const Tensor& x, const Tensor& target, const Tensor& weight) const {
    CrossEntropyCall c{};
    c.n = x.shape()[1];
    c.rows = x.shape()[0];
    c.x = x.raw();
    c.target = target.data<int64_t>();
    c.weight = weight ? weight.raw() : nullptr;
    c.hit = hit;
    c.even = even;
    c.total_weight = total_weight;
    return c;
  }
};

// The target distribution q (rows, n), a constant; zero for rows that do not count.
Tensor dense(const Problem& p, const Tensor& x, const Tensor& target, const Tensor& weight) {
  GradMode off(false);
  Tensor t = expand_dims(target, 1);
  Tensor classes = on_cuda(x) ? cuda::counting(x.shape()[1], 0, 1, x.device()) : arange(x.shape()[1]);
  Tensor here = cast(t == classes, x.dtype()) * Tensor(p.hit) + Tensor(p.even);
  if (weight) here = here * weight;
  return where(t >= scalar_weak(int64_t(0)), here, Tensor(0.0));
}

// Note [The gradient in forward]
// What is kept is the slope all * softmax(x) - q, as large as the logits, made while they are in cache; backward is one
// product with the cotangent. Where the gradient itself is differentiated, the slope gives softmax(x) back, and that
// has its place in the graph as the softmax of the logits: any order, without the logits.

// softmax(x) of known values p as a recorded op on `x`, of this dtype, which may be a handle without data.
Tensor softmax_known(const Tensor& x, const Tensor& p, DType dtype) {
  Tensor y = detach(p);
  record("softmax", {x}, y, {Saved::output(y)}, [dtype](const Slots& s, const PullArgs& a) {
    Tensor y = s[0];
    a.gin[0] = cast(plain_pull(a.g[0], y) ? row_run<SoftmaxPull>({a.g[0], y}, {}, {}).y
                                          : row_graph<SoftmaxPull>({a.g[0], y}, {}, {}),
                    dtype);
  });
  return y;
}

// With V = Tensor: the cotangent of x by recorded ops; rows that do not count give 0 whatever x holds.
Tensor graph_pull(const Tensor& x, const Tensor& g, const Tensor& slope, const Tensor& q, DType dtype) {
  Tensor all, p;
  {
    GradMode off(false);
    all = sum(q, {-1}, true);
    p = where(all == Tensor(0.0), Tensor(0.0), (slope + q) / where(all == Tensor(0.0), Tensor(1.0), all));
  }
  return expand_dims(g, -1) * (all * softmax_known(x, p, dtype) - q);
}

// On a device: loss and slope by one kernel, 16-bit logits and slope as they are.
Tensor device_rows(const Tensor& x, const Tensor& target, const Tensor& weight, const Problem& p) {
  bool wanted = any_wants(x);
  auto [loss, slope] = cuda::cross_entropy(x, target, weight, p.hit, p.even, wanted);
  if (!wanted) return loss;
  record("cross_entropy", {x}, loss, {Saved(slope), Saved(target), Saved(weight)},
         [p](const Slots& s, const PullArgs& a) {
           Tensor slope = s[0], g = a.g[0];
           if (plain_pull(g)) {
             a.gin[0] = cuda::scale_rows(slope, g);
             return;
           }
           Tensor wide = cast(slope, DType::F32);
           a.gin[0] = cast(graph_pull(s.input(0), g, wide, dense(p, wide, s[1], s[2]), slope.dtype()), slope.dtype());
         });
  return loss;
}

// x (rows, n) of a float type that kernels compute in; target (rows), -1 where the row does not count.
Tensor fused_rows(const Tensor& x, const Tensor& target, const Tensor& weight, const Problem& p) {
  if (has_tangent(x) || composed_only(x, x.dtype())) {
    Tensor q = dense(p, x, target, weight);
    Tensor dead = sum(q, {-1}, true) == Tensor(0.0);
    Tensor logs = log_softmax(where(dead, Tensor(0.0), x));
    return -sum(where(q == Tensor(0.0), Tensor(0.0), q * logs), {-1});
  }
  if (on_cuda(x)) return device_rows(x, target, weight, p);
  Tensor logits = plain(x, x.dtype());
  Tensor loss = empty({x.shape()[0]}, x.dtype()), lse = empty({x.shape()[0]}, x.dtype());
  CrossEntropyCall call = p.call(logits, target, weight);
  call.lse = lse.raw();
  call.out = loss.raw();
  row_table().cross_entropy[x.dtype() == DType::F64](call);
  if (!any_wants(x)) return loss;
  Tensor slope = empty(x.shape(), x.dtype()), one = ones({}, x.dtype());
  call.g = one.raw();
  call.g_step = 0;
  call.out = slope.raw();
  row_table().cross_entropy_pull[x.dtype() == DType::F64](call);
  record("cross_entropy", {x}, loss, {Saved(slope), Saved(target), Saved(weight)},
         [p](const Slots& s, const PullArgs& a) {
           Tensor slope = s[0], g = a.g[0];
           if (plain_pull(g)) {
             a.gin[0] = slope * expand_dims(cast(g, slope.dtype()), -1);
             return;
           }
           a.gin[0] = graph_pull(s.input(0), g, slope, dense(p, slope, s[1], s[2]), slope.dtype());
         });
  return loss;
}

// Classes as int64 with -1 for ignored rows; checks the range.
Tensor checked_target(const char* op, const Tensor& target, int64_t classes, const Options& o) {
  Tensor t = clone(cast(detach(target), DType::I64));
  auto* v = t.data<int64_t>();
  for (int64_t i = 0; i < t.size(); i++) {
    if (o.has_ignored && v[i] == o.ignored)
      v[i] = -1;
    else if (v[i] < 0 || v[i] >= classes)
      fail<IndexError>(op, cuda::target_rule(v[i], i, classes), cuda::kTargetHelp, target);
  }
  return t;
}

// The same on `device`, with the sum of their weights. What comes from the CPU is checked here.
cuda::Targets device_targets(const char* op, const Tensor& target, int64_t classes, const Options& o,
                             const Tensor& weight, Device device) {
  const int64_t none = -1;
  if (on_cuda(target)) {
    if (!(target.device() == device)) mixed_devices(op, target, weight);
    return cuda::targets_of(op, target, classes, o.has_ignored ? &o.ignored : nullptr, weight, device);
  }
  return cuda::targets_of(op, to_device(checked_target(op, target, classes, o), device), classes, &none, weight,
                          device);
}

Tensor reduce(const Tensor& loss, double total, Options::Reduction r) {
  if (r == Options::None) return loss;
  Tensor s = sum(loss);
  if (r == Options::Sum || total == 0) return s;
  return s / Tensor(total);
}

// On a device the number of rows that count is known there only.
Tensor device_reduce(const Tensor& loss, const Tensor& total, Options::Reduction r) {
  if (r == Options::None) return loss;
  Tensor s = sum(loss);
  return r == Options::Sum ? s : s / cast(where(total == Tensor(0.0), Tensor(1.0), total), s.dtype());
}

// (rows, n): x itself where it has that shape, so that a leaf gets its gradient without a view's copy of it.
Tensor in_rows(const Tensor& x, int64_t rows, int64_t n) { return x.ndim() == 2 ? x : reshape(x, {rows, n}); }

Tensor device_index_loss(const Tensor& x, const Tensor& target, const Tensor& weight, const Options& o,
                         const Shape& kept) {
  int64_t n = x.shape().back();
  cuda::Targets t = device_targets("cross_entropy", target, n, o, weight, x.device());
  Tensor w = weight ? plain(weight, row_compute(x.dtype())) : Tensor();
  Problem p{1 - o.smoothing, n ? o.smoothing / double(n) : 0, double(n)};
  Tensor loss = fused_rows(in_rows(x, target.size(), n), reshape(t.classes, {target.size()}), w, p);
  return device_reduce(o.reduction == Options::None ? reshape(loss, kept) : loss, t.total, o.reduction);
}

Tensor index_loss(const Tensor& x, const Tensor& target, const Tensor& weight, const Options& o, const Shape& kept) {
  if (on_cuda(x)) return device_index_loss(x, target, weight, o, kept);
  int64_t n = x.shape().back();
  Tensor t = checked_target("cross_entropy", target, n, o);
  Tensor w = weight ? plain(weight, x.dtype()) : Tensor();
  double total = 0, all = double(n);
  auto* v = t.data<int64_t>();
  if (w) {
    Tensor wd = plain(w, DType::F64);
    auto* wv = wd.data<double>();
    all = 0;
    for (int64_t i = 0; i < n; i++) all += wv[i];
    for (int64_t i = 0; i < t.size(); i++) total += v[i] < 0 ? 0 : wv[v[i]];
  } else {
    for (int64_t i = 0; i < t.size(); i++) total += v[i] >= 0;
  }
  Problem p{1 - o.smoothing, n ? o.smoothing / double(n) : 0, all};
  Tensor loss = fused_rows(in_rows(x, t.size(), n), reshape(t, {t.size()}), w, p);
  return reduce(o.reduction == Options::None ? reshape(loss, kept) : loss, total, o.reduction);
}

Tensor probability_loss(const Tensor& x, const Tensor& target, const Tensor& weight, const Options& o) {
  int64_t n = x.shape().back();
  if (o.has_ignored)
    fail<ValueError>("cross_entropy", "ignore_index= needs integer targets",
                     "give the row the weight 0 in the target instead", target);
  Tensor q = cast(target, x.dtype());
  if (o.smoothing > 0) q = q * Tensor(1 - o.smoothing) + Tensor(o.smoothing / double(n));
  if (weight) q = q * cast(weight, x.dtype());
  Tensor logs = log_softmax(x);
  Tensor loss = -sum(where(q == Tensor(0.0), Tensor(0.0), q * logs), {-1});
  return reduce(loss, n ? double(x.size() / n) : 0, o.reduction);
}

}  // namespace

namespace {

// What both losses check and prepare: x with the classes last, in a type that rows compute in.
struct Prepared {
  Tensor x, target;
  Shape kept;
  DType result;
  bool integer;
};
Prepared prepare(const char* op, const Tensor& input, const Tensor& target, const Tensor& weight, const Options& o) {
  if (input.ndim() == 0) fail<ShapeError>(op, "the input needs a class axis", "its shape is (..., classes)", input);
  int axis = normalize_axis(o.axis, input.ndim(), op), last = input.ndim() - 1;
  int64_t classes = input.shape()[axis];
  if (bool(weight) && !(weight.shape() == Shape{classes}))
    fail<ShapeError>(op, "weight must have one number per class", "its shape is (" + std::to_string(classes) + ",)",
                     weight);
  Prepared p{as_float(input), target, input.shape(), DType::F32, is_integer(target.dtype())};
  p.kept.erase(axis);
  if (!p.integer && !is_float(target.dtype()))
    fail<DTypeError>(op, "the target must be integer classes or float probabilities", "cast it with .astype", target);
  if (!(target.shape() == (p.integer ? p.kept : input.shape())))
    fail<ShapeError>(op, "the target does not fit the input along axis " + std::to_string(o.axis),
                     "integer targets have the input's shape without the class axis, probabilities the same shape",
                     input, target);
  p.result = p.x.dtype();
  if (axis == last) return p;
  Dims order;  // (N, C, H, W) to (N, H, W, C)
  for (int i = 0; i <= last; i++)
    if (i != axis) order.push_back(i);
  order.push_back(axis);
  p.x = permute(p.x, order);
  if (!p.integer) p.target = permute(target, order);
  return p;
}

}  // namespace

Tensor cross_entropy(const Tensor& input, const Tensor& target, const Tensor& weight, const Options& o) {
  Profiled scope("cross_entropy");
  const char* op = "cross_entropy";
  if (!(o.smoothing >= 0 && o.smoothing <= 1))
    fail<ValueError>(op, "label_smoothing must be in [0, 1], got " + std::to_string(o.smoothing),
                     "0 means no smoothing");
  Prepared p = prepare(op, input, target, weight, o);
  if (bool(weight) && (any_wants(weight) || has_tangent(weight)))
    fail<GraphError>(op, "the derivative with respect to the class weights is not known", "pass weight.detach()",
                     weight);
  // The kernel of a device takes 16-bit logits as they are.
  if (!(p.integer && on_cuda(p.x) && !has_tangent(p.x))) p.x = cast(p.x, row_compute(p.result));
  return cast(p.integer ? index_loss(p.x, p.target, weight, o, p.kept) : probability_loss(p.x, p.target, weight, o),
              p.result);
}

Tensor nll(const Tensor& input, const Tensor& target, const Tensor& weight, const Options& o) {
  Profiled scope("nll");
  const char* op = "nll";
  Prepared p = prepare(op, input, target, weight, o);
  if (!p.integer)
    fail<DTypeError>(op, "the target must be integer classes", "cross_entropy takes probabilities", target);
  p.x = cast(p.x, row_compute(p.result));
  int64_t n = p.x.shape().back();
  Tensor t =
      on_cuda(p.x) ? device_targets(op, target, n, o, {}, p.x.device()).classes : checked_target(op, target, n, o);
  Tensor counted = t >= scalar_weak(int64_t(0)), zero = Tensor(0.0);
  Tensor safe = where(counted, t, scalar_weak(int64_t(0)));
  if (t.size() == 0)
    return o.reduction == Options::None ? zeros(p.kept, p.result, p.x.device()) : zeros({}, p.result, p.x.device());
  Tensor loss = -reshape(take_along_axis(p.x, expand_dims(safe, p.x.ndim() - 1), -1), p.kept);
  Tensor total;
  if (weight) {
    Tensor w = where(counted, take(cast(weight, p.x.dtype()), safe, 0), zero);
    loss = loss * w;
    total = sum(w);
  } else {
    total = sum(cast(counted, p.x.dtype()));
  }
  loss = where(counted, loss, zero);
  if (o.reduction == Options::None) return cast(loss, p.result);
  loss = sum(loss);
  if (o.reduction == Options::Mean) loss = loss / where(total == zero, Tensor(1.0), total);
  return cast(loss, p.result);
}

}  // namespace pb
