// Group normalisation of long segments by one kernel each way.
#include "families/row.h"
#include "families/row_call.h"

namespace pb {

namespace {

struct Groups {
  int64_t batch, channels, groups, inner;
  Groups(const Tensor& x, int64_t groups)
      : batch(x.shape()[0]), channels(x.shape()[1]), groups(groups), inner(x.size() / (batch * channels)) {}
  int64_t rows() const { return batch * groups; }
  Shape segments() const { return {batch, channels, inner}; }
  Shape grouped() const { return {batch, groups, channels / groups * inner}; }
  GroupCall call(const Tensor& x, const Tensor& weight) const {
    GroupCall c{};
    c.rows = rows();
    c.groups = groups;
    c.width = channels / groups;
    c.inner = inner;
    c.x = x.raw();
    c.weight = weight ? weight.raw() : nullptr;
    return c;
  }
};

Tensor plain_or_none(const Tensor& t, DType dtype) { return t ? plain(t, dtype) : t; }

// slots: x, weight, bias, mean, 1 / deviation
void fused_pull(const Slots& s, const PullArgs& a, const Groups& k, DType compute) {
  Tensor x = s[0], w = s[1], g = a.g[0];
  Tensor cx = operand_of_rows(x, compute), cg = operand_of_rows(g, compute), cw = plain_or_none(w, compute),
         mean = s[3], scale = s[4];
  Tensor out = empty(x.shape(), written_by_rows(x, compute, x.dtype()), x.device()),
         total = empty({k.batch, k.channels}, compute, x.device()), along = clone(total);
  GroupCall call = k.call(cx, cw);
  call.g = cg.raw();
  call.mean = mean.raw();
  call.scale = scale.raw();
  call.out = out.raw();
  call.total = total.raw();
  call.along = along.raw();
  if (on_cuda(x))
    cuda::group_norm(call, cx, cg, out);
  else
    row_table().group_norm_pull[compute == DType::F64](call);
  if (a.need(0)) a.gin[0] = cast(out, x.dtype());
  if (a.need(1)) a.gin[1] = cast(sum(along, {0}), w.dtype());
  if (a.need(2)) a.gin[2] = cast(sum(total, {0}), s[2].dtype());
}

// The composed definition, by recorded ops.
void graph_pull(const Slots& s, const PullArgs& a, const Groups& k, double eps, DType compute) {
  Tensor x = s[0], w = s[1], wide = reshape(cast(x, compute), k.grouped());
  Tensor g = reshape(cast(a.g[0], compute), k.segments());
  Tensor d = wide - mean(wide, {2}, true);
  Tensor r = rsqrt(mean(square(d), {2}, true) + Tensor(eps)), hat = d * r;
  if (a.need(0)) {
    Tensor gw = reshape(w ? g * reshape(cast(w, compute), {k.channels, 1}) : g, k.grouped());
    Tensor gx = r * ((gw - mean(gw, {2}, true)) - hat * mean(gw * hat, {2}, true));
    a.gin[0] = cast(reshape(gx, x.shape()), x.dtype());
  }
  if (a.need(1)) a.gin[1] = cast(sum(g * reshape(hat, k.segments()), {0, 2}), w.dtype());
  if (a.need(2)) a.gin[2] = cast(sum(g, {0, 2}), s[2].dtype());
}

}  // namespace

Tensor group_norm_segments(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps,
                           DType result) {
  DType compute = row_compute(result);
  Groups k(x, groups);
  Tensor y, mean = empty({k.rows()}, compute, x.device()), scale = empty({k.rows()}, compute, x.device());
  {
    GradMode off(false);
    Tensor cx = operand_of_rows(x, compute), w = plain_or_none(weight, compute), b = plain_or_none(bias, compute);
    y = empty(x.shape(), written_by_rows(x, compute, result), x.device());
    GroupCall call = k.call(cx, w);
    call.bias = b ? b.raw() : nullptr;
    call.mean = mean.raw();
    call.scale = scale.raw();
    call.out = y.raw();
    call.eps = eps;
    if (on_cuda(x))
      cuda::group_norm(call, cx, {}, y);
    else
      row_table().group_norm[compute == DType::F64](call);
    y = cast(y, result);
  }
  std::vector<Saved> saved;
  if (any_wants(x, weight, bias)) saved = {Saved(x), Saved(weight), Saved(bias), Saved(mean), Saved(scale)};
  record("group_norm", {x, weight, bias}, y, std::move(saved), [k, eps, compute](const Slots& s, const PullArgs& a) {
    if (plain_pull(a.g[0], s[0], s[1]))
      fused_pull(s, a, k, compute);
    else
      graph_pull(s, a, k, eps, compute);
  });
  return y;
}

}  // namespace pb
