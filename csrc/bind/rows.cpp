// Softmax, norms, losses, orders and attention as Python functions.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string_view.h>

#include <string>

#include "bind/front.h"
#include "bind/random.h"
#include "families/attention.h"
#include "families/row.h"

namespace pb::py {

namespace {

Tensor optional(nb::handle h) { return h.is_none() ? Tensor() : to_tensor(h.ptr()); }

// None for the flattened tensor.
struct MaybeAxis {
  int64_t value = 0;
  const int64_t* get = nullptr;
  explicit MaybeAxis(nb::handle h) {
    if (h.is_none()) return;
    value = nb::cast<int64_t>(h);
    get = &value;
  }
  MaybeAxis(const MaybeAxis&) = delete;
};

Dims norm_axes(const Tensor& x, const Axes& a) {
  if (!a.all) return a.axes;
  Dims d;
  for (int i = 0; i < x.ndim(); i++) d.push_back(i);
  return d;
}

CrossEntropyOptions::Reduction reduction_of(std::string_view s, const char* op) {
  if (s == "mean") return CrossEntropyOptions::Mean;
  if (s == "sum") return CrossEntropyOptions::Sum;
  if (s == "none") return CrossEntropyOptions::None;
  fail<ValueError>(op, "reduction must be 'mean', 'sum' or 'none', got '" + std::string(s) + "'",
                   "'none' returns one loss per row");
}

void bind_norms(nb::module_& m) {
  auto none = nb::none();
  def_op(
      m,
      {"softmax", "Row", "softmax(x, axis=-1)",
       "exp(x) / sum(exp(x)) along axis, without overflow. A row of -inf gives NaN."},
      [](const Operand& x, int64_t axis) { return softmax(x.t, axis); }, nb::arg("x"), nb::arg("axis") = -1);
  def_op(
      m, {"log_softmax", "Row", "log_softmax(x, axis=-1)", "log(softmax(x)) along axis, without overflow."},
      [](const Operand& x, int64_t axis) { return log_softmax(x.t, axis); }, nb::arg("x"), nb::arg("axis") = -1);
  def_op(
      m,
      {"layer_norm", "Row", "layer_norm(x, weight=None, bias=None, *, axis=-1, eps=1e-5)",
       "(x - mean) / sqrt(var + eps) * weight + bias over the last axes (an int or a tuple); weight and bias have "
       "the shape of those axes."},
      [](const Operand& x, nb::handle w, nb::handle b, const Axes& axis, double eps) {
        return layer_norm(x.t, optional(w), optional(b), norm_axes(x.t, axis), eps);
      },
      nb::arg("x"), nb::arg("weight").none() = none, nb::arg("bias").none() = none, nb::kw_only(), nb::arg("axis") = -1,
      nb::arg("eps") = 1e-5);
  def_op(
      m,
      {"rms_norm", "Row", "rms_norm(x, weight=None, *, axis=-1, eps=1e-6)",
       "x / sqrt(mean(x * x) + eps) * weight over the last axes (an int or a tuple)."},
      [](const Operand& x, nb::handle w, const Axes& axis, double eps) {
        return rms_norm(x.t, optional(w), norm_axes(x.t, axis), eps);
      },
      nb::arg("x"), nb::arg("weight").none() = none, nb::kw_only(), nb::arg("axis") = -1, nb::arg("eps") = 1e-6);
  def_op(
      m,
      {"group_norm", "Row", "group_norm(x, groups, weight=None, bias=None, *, eps=1e-5)",
       "Normalises each of `groups` groups of channels of x (N, C, ...); weight and bias have shape (C,)."},
      [](const Operand& x, int64_t groups, nb::handle w, nb::handle b, double eps) {
        return group_norm(x.t, groups, optional(w), optional(b), eps);
      },
      nb::arg("x"), nb::arg("groups"), nb::arg("weight").none() = none, nb::arg("bias").none() = none, nb::kw_only(),
      nb::arg("eps") = 1e-5);
  def_op(
      m,
      {"batch_norm", "Row",
       "batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5)",
       "Normalises each channel of x (N, C, ...). Training uses the batch's mean and variance and writes the running "
       "tensors: running = (1 - momentum) * running + momentum * new, with the unbiased variance."},
      [](const Operand& x, nb::handle mean, nb::handle var, nb::handle w, nb::handle b, bool training, double momentum,
         double eps) {
        return batch_norm(x.t, optional(mean), optional(var), optional(w), optional(b), training, momentum, eps);
      },
      nb::arg("x"), nb::arg("running_mean").none(), nb::arg("running_var").none(), nb::arg("weight").none() = none,
      nb::arg("bias").none() = none, nb::kw_only(), nb::arg("training") = false, nb::arg("momentum") = 0.1,
      nb::arg("eps") = 1e-5);
}

void bind_losses(nb::module_& m) {
  using Loss = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, const CrossEntropyOptions&);
  auto add = [&](const char* name, const char* op, Loss loss) {
    m.def(name,
          behind_front(name,
                       [=](const Operand& x, const Operand& target, int64_t axis, nb::handle weight, nb::handle ignored,
                           double smoothing, std::string_view reduction) {
                         CrossEntropyOptions o;
                         o.axis = axis;
                         o.has_ignored = !ignored.is_none();
                         if (o.has_ignored) o.ignored = nb::cast<int64_t>(ignored);
                         o.smoothing = smoothing;
                         o.reduction = reduction_of(reduction, op);
                         return loss(x.t, target.t, optional(weight), o);
                       }),
          nb::arg("x"), nb::arg("target"), nb::arg("axis"), nb::arg("weight").none(), nb::arg("ignore_index").none(),
          nb::arg("label_smoothing"), nb::arg("reduction"));
  };
  add("_cross_entropy", "cross_entropy", &cross_entropy);
  add("_nll", "nll", &nll);
  add_info({"losses.cross_entropy", "Row",
            "cross_entropy(logits, target, *, axis=-1, weight=None, ignore_index=None, label_smoothing=0.0, "
            "reduction='mean')",
            "Cross entropy of softmax(logits) and a target of classes or probabilities."});
  // Written in Python from the ops of other families.
  add_info({"losses.mse", "Custom", "mse(input, target, *, reduction='mean')", "(input - target) ** 2."});
  add_info({"losses.l1", "Custom", "l1(input, target, *, reduction='mean')", "|input - target|."});
  add_info({"losses.huber", "Custom", "huber(input, target, *, delta=1.0, reduction='mean')",
            "d * d / 2 for |d| <= delta, else delta * (|d| - delta / 2), of d = input - target."});
  add_info({"losses.smooth_l1", "Custom", "smooth_l1(input, target, *, beta=1.0, reduction='mean')",
            "Huber's loss divided by its bound."});
  add_info({"losses.nll", "Row", "nll(log_probs, target, *, axis=-1, weight=None, ignore_index=None, reduction='mean')",
            "Negative log-likelihood of integer classes."});
  add_info({"losses.bce_with_logits", "Custom",
            "bce_with_logits(logits, target, *, weight=None, pos_weight=None, reduction='mean')",
            "Binary cross entropy of sigmoid(logits) and targets in [0, 1]."});
  add_info({"losses.kl_div", "Custom", "kl_div(input, target, *, log_target=False, reduction='mean')",
            "target * (log(target) - input), input holding log-probabilities."});
  add_info({"losses.hinge", "Custom", "hinge(scores, target, *, margin=1.0, reduction='mean')",
            "max(0, margin - target * scores) with targets -1 and 1."});
  add_info({"losses.cosine_embedding", "Custom", "cosine_embedding(x1, x2, target, *, margin=0.0, reduction='mean')",
            "1 - cos(x1, x2) where target is 1, max(0, cos(x1, x2) - margin) where it is -1."});
}

void bind_orders(nb::module_& m) {
  auto none = nb::none();
  def_op(
      m,
      {"argmax", "Row", "argmax(x, axis=None, keepdims=False)",
       "Index of the largest element (the first of equals, NaN is largest); None: of the flattened x.", "none"},
      [](const Operand& x, nb::handle axis, bool keepdims) {
        return arg_extreme(x.t, MaybeAxis(axis).get, keepdims, true);
      },
      nb::arg("x"), nb::arg("axis").none() = none, nb::arg("keepdims") = false);
  def_op(
      m,
      {"argmin", "Row", "argmin(x, axis=None, keepdims=False)",
       "Index of the smallest element (the first of equals, NaN is smallest); None: of the flattened x.", "none"},
      [](const Operand& x, nb::handle axis, bool keepdims) {
        return arg_extreme(x.t, MaybeAxis(axis).get, keepdims, false);
      },
      nb::arg("x"), nb::arg("axis").none() = none, nb::arg("keepdims") = false);
  def_op(
      m,
      {"cumulative_sum", "Row", "cumulative_sum(x, axis=None, *, dtype=None, include_initial=False)",
       "Running sum along axis (needed unless x has one dimension); integers and bools sum in 64 bits."},
      [](const Operand& x, nb::handle axis, nb::handle dtype, bool initial) {
        Tensor t = x.t;
        DType wanted;
        if (!dtype.is_none()) {
          if (!to_dtype(dtype.ptr(), wanted))
            fail<DTypeError>("cumulative_sum", "dtype is not a data type", "pass one such as pb.float64", t);
          t = cast(t, wanted);
        }
        Tensor y = cumulative_sum(t, MaybeAxis(axis).get, initial);
        return dtype.is_none() ? y : cast(y, wanted);
      },
      nb::arg("x"), nb::arg("axis").none() = none, nb::kw_only(), nb::arg("dtype").none() = none,
      nb::arg("include_initial") = false);
  def_op(
      m,
      {"sort", "Row", "sort(x, *, axis=-1, descending=False, stable=True)",
       "x in order along axis; NaN counts as the largest. The order of equal elements is always kept."},
      [](const Operand& x, int64_t axis, bool descending, bool) { return sort(x.t, axis, descending); }, nb::arg("x"),
      nb::kw_only(), nb::arg("axis") = -1, nb::arg("descending") = false, nb::arg("stable") = true);
  def_op(
      m,
      {"argsort", "Row", "argsort(x, *, axis=-1, descending=False, stable=True)",
       "Indices (int64) that sort x along axis; NaN counts as the largest.", "none"},
      [](const Operand& x, int64_t axis, bool descending, bool) { return argsort(x.t, axis, descending); },
      nb::arg("x"), nb::kw_only(), nb::arg("axis") = -1, nb::arg("descending") = false, nb::arg("stable") = true);
  def_op(
      m,
      {"topk", "Row", "topk(x, k, *, axis=-1)",
       "The k largest elements along axis, largest first, as (values, indices); NaN counts as the largest."},
      [](const Operand& x, int64_t k, int64_t axis) { return topk(x.t, k, axis); }, nb::arg("x"), nb::arg("k"),
      nb::kw_only(), nb::arg("axis") = -1);
}

void bind_attention(nb::module_& m) {
  auto none = nb::none();
  def_op(
      m,
      {"scaled_dot_product_attention", "Custom",
       "scaled_dot_product_attention(q, k, v, mask=None, *, causal=False, scale=None, dropout=0.0, rng=None, "
       "saved=None)",
       "softmax(q k^T * scale) v for q (..., L, D), k (..., S, D), v (..., S, E); scale is 1 / sqrt(D) unless given. A "
       "bool mask is True where a query attends, a float mask is added; causal: query i sees keys 0..i. A query that "
       "attends to nothing gives 0. saved: 4 or 8 keeps q, k, v and the result in blocks of that many bits, where the "
       "blocked kernel runs (float32, at least 4 heads, no mask, no dropout)."},
      [](const Operand& q, const Operand& k, const Operand& v, nb::handle mask, bool causal, nb::handle scale,
         double dropout, nb::handle rng, nb::handle saved) {
        AttentionOptions o;
        o.saved = block_bits("scaled_dot_product_attention", saved);
        o.causal = causal;
        o.has_scale = !scale.is_none();
        if (o.has_scale) o.scale = nb::cast<double>(nb::float_(scale));
        o.dropout = dropout;
        o.rng = generator_of(rng.ptr());
        return attention(q.t, k.t, v.t, optional(mask), o);
      },
      nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("mask").none() = none, nb::kw_only(), nb::arg("causal") = false,
      nb::arg("scale").none() = none, nb::arg("dropout") = 0.0, nb::arg("rng").none() = none,
      nb::arg("saved").none() = none);
}

}  // namespace

void bind_rows(nb::module_& m) {
  bind_norms(m);
  bind_losses(m);
  bind_orders(m);
  bind_attention(m);
}

}  // namespace pb::py
