// Functions that are several ops in one.
#include "families/fused.h"

#include <nanobind/stl/string_view.h>

#include "bind/front.h"
#include "bind/random.h"
#include "bind/saving.h"

namespace pb::py {

namespace {

Tensor or_none(nb::handle t) { return t.is_none() ? Tensor() : to_tensor(t.ptr()); }

CrossEntropyOptions::Reduction reduction_of(std::string_view s) {
  if (s == "mean") return CrossEntropyOptions::Mean;
  if (s == "sum") return CrossEntropyOptions::Sum;
  if (s == "none") return CrossEntropyOptions::None;
  fail<ValueError>("linear_cross_entropy", "unknown reduction '" + std::string(s) + "'", "use 'mean', 'sum' or 'none'");
}

}  // namespace

void bind_fused(nb::module_& m) {
  auto none = nb::none();
  m.def(
      "_bias_act_dropout",
      [](const Operand& x, nb::handle bias, std::string_view act, double p, nb::handle rng, nb::handle saved) {
        Saving s = saving_from(saved.ptr(), "bias_act_dropout", true, true);
        return bias_act_dropout(x.t, or_none(bias), find_map(act), p, generator_of(rng.ptr()),
                                saved.is_none() ? nullptr : &s);
      },
      nb::arg("x"), nb::arg("bias").none(), nb::arg("act"), nb::arg("p"), nb::arg("rng").none(),
      nb::arg("saved").none());
  m.def("_linear_act",
        behind_front(
            "_linear_act",
            [](const Operand& x, const Operand& weight, nb::handle bias, std::string_view act, nb::handle saved) {
              Saving s = saving_from(saved.ptr(), "linear_act", true, true);
              return linear_act(x.t, weight.t, or_none(bias), find_map(act), saved.is_none() ? nullptr : &s);
            }),
        nb::arg("x"), nb::arg("weight"), nb::arg("bias").none(), nb::arg("act"), nb::arg("saved").none());
  m.def(
      "_gated",
      [](std::string_view op, const Operand& a, const Operand& b, int bits) {
        return gated(find_map(op), a.t, b.t, bits);
      },
      nb::arg("op"), nb::arg("a"), nb::arg("b"), nb::arg("bits"));
  m.def("_linear_cross_entropy",
        behind_front("_linear_cross_entropy",
                     [](const Operand& x, const Operand& weight, const Operand& target, nb::handle bias,
                        nb::handle ignored, double smoothing, std::string_view reduction) {
                       CrossEntropyOptions o;
                       o.has_ignored = !ignored.is_none();
                       if (o.has_ignored) o.ignored = nb::cast<int64_t>(ignored);
                       o.smoothing = smoothing;
                       o.reduction = reduction_of(reduction);
                       return linear_cross_entropy(x.t, weight.t, or_none(bias), target.t, o);
                     }),
        nb::arg("x"), nb::arg("weight"), nb::arg("target"), nb::arg("bias").none(), nb::arg("ignore_index").none(),
        nb::arg("label_smoothing"), nb::arg("reduction"));
  auto info = [](const char* name, const char* signature, const char* doc) {
    add_info({name, "Custom", signature, doc});
  };
  info("bias_act_dropout", "bias_act_dropout(x, bias, act, p=0.0, *, training=True, rng=None, saved=None)",
       "dropout(act(x + bias), p) in one pass.");
  info("linear_act", "linear_act(x, weight, bias, act, *, saved=None)", "act(linear(x, weight, bias)).");
  info("linear_cross_entropy",
       "linear_cross_entropy(x, weight, target, bias=None, *, ignore_index=None, label_smoothing=0.0, "
       "reduction='mean')",
       "Cross entropy of linear(x, weight, bias) without the matrix of logits.");
  info("add_rms_norm", "add_rms_norm(x, residual, weight=None, *, eps=1e-6)",
       "(rms_norm(x + residual, weight), x + residual).");
}

}  // namespace pb::py
