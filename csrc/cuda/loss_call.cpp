#include "cuda/loss_call.h"

#include "cuda/api_loss.h"
#include "cuda/engine.h"
#include "cuda/faults.h"
#include "cuda/row_call.h"
#include "families/row_call.h"

namespace pb::cuda {

namespace {

const LossApi& api(const char* op) { return *need_table(op).loss; }
const float* numbers(const Tensor& t) { return t ? t.data<float>() : nullptr; }

}  // namespace

Targets targets_of(const char* op, const Tensor& target, int64_t classes, const int64_t* ignored, const Tensor& weight,
                   Device device) {
  Tensor in = plain(target, target.dtype()), w = weight ? plain(weight, DType::F32) : Tensor();
  Targets r{empty(target.shape(), DType::I64, device), empty({}, DType::F32, device)};
  TargetArgs a{};
  a.in = in.raw();
  a.type = in.dtype();
  a.out = r.classes.data<int64_t>();
  a.count = in.size();
  a.classes = classes;
  a.has_ignored = ignored != nullptr;
  a.ignored = ignored ? *ignored : 0;
  a.weight = numbers(w);
  a.total = r.total.data<float>();
  Tensor partial = scratch(8 * api(op).target_scratch(a.count) + 8, device);
  a.partial = partial.data<double>();
  a.fault = fault_of(device, op);
  a.op = op;
  check(api(op).targets(a, stream_of(device)), op);
  return r;
}

Losses cross_entropy(const Tensor& x, const Tensor& classes, const Tensor& weight, double hit, double even,
                     bool want_slope) {
  const char* op = "cross_entropy";
  GradMode off(false);
  Tensor logits = staged(x), w = weight ? plain(weight, DType::F32) : Tensor(), all;
  CrossEntropyArgs a{};
  a.rows = x.shape()[0];
  a.n = x.shape()[1];
  a.x = logits.raw();
  a.x_type = logits.dtype();
  a.target = classes.data<int64_t>();
  a.weight = numbers(w);
  if (w && even != 0) all = sum(w);
  a.all_weight = numbers(all);
  a.hit = float(hit);
  a.even = float(even);
  Losses r{empty({a.rows}, DType::F32, x.device()), {}};
  a.loss = r.loss.data<float>();
  if (want_slope) {
    r.slope = empty(x.shape(), logits.dtype(), x.device());
    a.slope = r.slope.raw();
    a.slope_type = r.slope.dtype();
  }
  check(api(op).cross_entropy(a, stream_of(x.device())), op);
  return r;
}

Tensor scale_rows(const Tensor& x, const Tensor& g) {
  const char* op = "cross_entropy";
  GradMode off(false);
  // One number for all rows, as after a sum, is read where it is.
  bool one = g.size() == 1 || g.strides()[0] == 0;
  Tensor numbers = plain(one ? alias(g, {1}, {1}, g->offset) : g, DType::F32);
  Tensor out = empty(x.shape(), x.dtype(), x.device());
  ScaleRowsArgs a{};
  a.rows = x.shape()[0];
  a.n = x.shape()[1];
  a.x = x.raw();
  a.x_type = x.dtype();
  a.g = numbers.data<float>();
  a.g_step = one ? 0 : 1;
  a.out = out.raw();
  a.out_type = out.dtype();
  check(api(op).scale_rows(a, stream_of(x.device())), op);
  return out;
}

}  // namespace pb::cuda
