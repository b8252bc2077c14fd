// Cross entropy of a linear map, without the matrix of logits.
#include "families/fused.h"
#include "families/linear.h"
#include "families/reduce.h"
#include "families/row_call.h"
#include "families/view.h"

namespace pb {

namespace {

using Options = CrossEntropyOptions;

constexpr int64_t kLogits = int64_t(1) << 20;  // of one block of rows: 4 MB

Tensor composed(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& target, const Options& o) {
  return cross_entropy(linear(x, w, b, -1), target, Tensor(), o);
}

struct Grads {
  Tensor x, w, b;
};

Tensor rows_of(const Tensor& t, int64_t first, int64_t n) {
  Shape shape = t.shape();
  shape[0] = n;
  return alias(t, shape, t.strides(), t->offset + first * t.strides()[0]);
}

// The loss of each row, and where `seeds` (one per row, or one for all) is given the gradients that it weighs. All in
// the type that rows compute in; x (rows, in), outside the graph.
Tensor walk(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& target, Options o, const Tensor& seeds,
            Grads* out, const bool (&need)[3]) {
  GradMode off(false);
  o.reduction = Options::None;
  int64_t rows = x.shape()[0], block = kLogits / (w.shape()[0] + 1) + 1;
  Tensor loss = empty({rows}, x.dtype(), x.device());
  if (out && need[0]) out->x = empty(x.shape(), x.dtype(), x.device());
  if (out && need[1]) out->w = zeros(w.shape(), w.dtype(), w.device());
  if (out && need[2]) out->b = zeros(b.shape(), b.dtype(), b.device());
  for (int64_t at = 0; at < rows; at += block) {
    int64_t n = rows - at < block ? rows - at : block;
    Tensor part = rows_of(x, at, n), logits = linear(part, w, b, -1), classes = rows_of(target, at, n), g;
    if (!out) {
      copy_into(rows_of(loss, at, n), cross_entropy(logits, classes, Tensor(), o));
      continue;
    }
    logits->wants_grad = true;
    {
      GradMode on(true);
      Tensor each = cross_entropy(logits, classes, Tensor(), o);
      copy_into(rows_of(loss, at, n), each);
      Tensor seed = seeds.size() == 1 ? broadcast_to(reshape(seeds, {1}), {n}) : rows_of(seeds, at, n);
      g = backward({&each, 1}, {&seed, 1}, {&logits, 1}, {.create_graph = false, .stop = true})[0];
    }
    g = detach(g);
    if (need[0]) copy_into(rows_of(out->x, at, n), matmul(g, w));
    if (need[1]) map_add_into(out->w, matmul(swap_axes(g, 0, 1), part));
    if (need[2]) map_add_into(out->b, sum(g, {0}));
  }
  return loss;
}

// What the sum of the losses is multiplied by: 1, or one over the number of rows that count, which is not waited for.
Tensor scale_of(const Tensor& target, const Options& o, DType dtype, Device device) {
  GradMode off(false);
  if (o.reduction != Options::Mean) return full({}, 1, dtype, device);
  if (!o.has_ignored) return full({}, target.size() ? 1 / double(target.size()) : 1, dtype, device);
  Tensor total = sum(cast(target != scalar_weak(o.ignored), DType::F64));
  return to_device(cast(where(total == Tensor(0.0), Tensor(1.0), Tensor(1.0) / total), dtype), device);
}

Tensor scaled(const Tensor& kept, const Tensor& g, DType dtype) {
  return cast(g ? cast(g, kept.dtype()) * kept : kept, dtype);
}

// The derivatives by recorded ops: the definition is computed again and differentiated.
void graph_pull(const PullArgs& a, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& target,
                const Options& o) {
  GradMode on(true);
  Tensor loss = composed(x, w, b, target, o);
  std::vector<Tensor> wrt;
  std::vector<int> places;
  const Tensor* in[] = {&x, &w, &b};
  for (int i = 0; i < 3; i++)
    if (a.need(i)) wrt.push_back(*in[i]), places.push_back(i);
  auto grads = backward({&loss, 1}, {&a.g[0], 1}, wrt, {.create_graph = true, .retain_graph = true, .stop = true});
  for (size_t i = 0; i < places.size(); i++) a.gin[places[i]] = grads[i];
}

void check(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& target, const Options& o) {
  const char* op = "linear_cross_entropy";
  if (w.ndim() != 2) fail<ShapeError>(op, "the weight must be 2-d, (classes, in)", "reshape it", w);
  if (x.ndim() == 0 || x.shape().back() != w.shape()[1])
    fail<ShapeError>(op, "inner sizes differ: the last axis of x must be the weight's second",
                     "the weight has shape (classes, in)", x, w);
  if (bool(b) && !(b.shape() == Shape{w.shape()[0]}))
    fail<ShapeError>(op, "the bias must have one element per class", "its shape is (classes,)", b, w);
  if (!is_integer(target.dtype()))
    fail<DTypeError>(op, "the target must be integer classes",
                     "for probabilities use losses.cross_entropy(linear(x, weight), target)", target);
  Shape kept = x.shape();
  kept.resize(x.ndim() - 1);
  if (!(target.shape() == kept))
    fail<ShapeError>(op, "the target must have the shape of x without its last axis", "one class per row", x, target);
  if (!(o.smoothing >= 0 && o.smoothing <= 1))
    fail<ValueError>(op, "label_smoothing must be in [0, 1], got " + std::to_string(o.smoothing),
                     "0 means no smoothing");
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& x0, const Tensor& w0, const Tensor& b0, const Tensor& target0,
                            const Options& options) {
  check(x0, w0, b0, target0, options);
  Options o = options;
  o.axis = -1;
  Tensor x = as_float(x0), w = as_float(w0), b = b0 ? as_float(b0) : Tensor();
  const Tensor all[] = {x, w, b ? b : w};
  DType result = result_dtype(all, "linear_cross_entropy"), compute = row_compute(result);
  if (has_tangent(x) || has_tangent(w) || has_tangent(b) || x.size() == 0 || w.shape()[0] == 0)
    return cast(composed(x, w, b, target0, o), result);
  int64_t rows = target0.size();
  Tensor flat = reshape(plain(x, compute), {rows, x.shape().back()}), target = plain(target0, DType::I64);
  Tensor classes = reshape(target, {rows}), weight = plain(w, compute), bias = b ? plain(b, compute) : Tensor();
  Tensor seed = scale_of(target, o, compute, x.device());
  bool each = o.reduction == Options::None, wanted = any_wants(x, w, b);
  const bool need[] = {wants_node(x), wants_node(w), wants_node(b)};
  Grads grads;
  Tensor losses = walk(flat, weight, bias, classes, o, seed, wanted && !each ? &grads : nullptr, need);
  Tensor out;
  {
    GradMode off(false);
    out = each ? reshape(losses, target.shape()) : sum(losses) * seed;
    out = cast(out, result);
  }
  if (!wanted) return out;
  std::vector<Saved> saved{Saved(x), Saved(w), Saved(b), Saved(target)};
  for (const Tensor& t : {grads.x, grads.w, grads.b}) saved.push_back(Saved(t));
  Shape shape = x.shape();
  record("linear_cross_entropy", {x, w, b}, out, std::move(saved),
         [o, each, shape, compute, rows](const Slots& s, const PullArgs& a) {
           Tensor x = s[0], w = s[1], b = s[2], target = s[3];
           if (!plain_pull(a.g[0], x, w)) return graph_pull(a, x, w, b, target, o);
           Grads d{s[4], s[5], s[6]};
           Tensor g = a.g[0];
           if (each) {
             const bool need[] = {a.need(0), a.need(1), a.need(2)};
             walk(reshape(plain(x, compute), {rows, shape.back()}), plain(w, compute), b ? plain(b, compute) : b,
                  reshape(target, {rows}), o, reshape(plain(g, compute), {rows}), &d, need);
             g = Tensor();  // the rows are weighed already
           }
           if (a.need(0)) a.gin[0] = scaled(reshape(d.x, shape), g, x.dtype());
           if (a.need(1)) a.gin[1] = scaled(d.w, g, w.dtype());
           if (a.need(2)) a.gin[2] = scaled(d.b, g, b.dtype());
         });
  return out;
}

}  // namespace pb
