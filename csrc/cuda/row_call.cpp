#include "cuda/row_call.h"

#include "cuda/api_row.h"
#include "cuda/layout.h"
#include "families/row_call.h"

namespace pb::cuda {

namespace {

const RowApi& api(const char* op) { return *need_table(op).row; }

// Memory that a kernel may take in vectors.
Tensor on_boundary(const Tensor& t) { return aligned16(t.raw()) ? t : clone(t); }

Tensor scratch_for(int64_t bytes, const Tensor& like) { return bytes ? scratch(bytes, like.device()) : Tensor(); }
void* memory(const Tensor& t) { return t ? t.raw() : nullptr; }

}  // namespace

Tensor staged(const Tensor& t) {
  return on_boundary(half_of(t.dtype()) == Half::None ? plain(t, DType::F32) : plain(t, t.dtype()));
}

RowResult run_rows(const RowKind& kind, std::span<const Tensor> x, std::span<const Tensor> c,
                   std::span<const Tensor> given, double k, bool want_sums, DType result) {
  Device device = x[0].device();
  RowArgs a{};
  a.n = x[0].shape().back();
  a.rows = a.n ? x[0].size() / a.n : 0;
  a.k = float(k);
  std::vector<Tensor> hold;  // until the launch
  auto keep = [&](Tensor t) { return hold.emplace_back(std::move(t)); };
  for (size_t j = 0; j < x.size(); j++) {
    Tensor t = keep(staged(x[j]));
    a.x[j] = t.raw();
    a.x_type[j] = t.dtype();
  }
  for (size_t j = 0; j < c.size(); j++) a.c[j] = keep(on_boundary(plain(c[j], DType::F32))).data<float>();
  for (size_t j = 0; j < given.size(); j++) a.given[j] = keep(plain(given[j], DType::F32)).data<float>();
  RowResult r;
  a.out_type = half_of(result) == Half::None ? DType::F32 : result;
  r.y = empty(x[0].shape(), a.out_type, device);
  a.out = r.y.raw();
  for (int i = 0; i < kind.stats; i++) {
    r.stat[i] = empty({a.rows}, DType::F32, device);
    a.stat[i] = r.stat[i].data<float>();
  }
  Tensor partial;
  for (int i = 0; want_sums && i < kind.sums; i++) {
    r.column[i] = empty({a.n}, DType::F32, device);
    a.column[i] = r.column[i].data<float>();
    if (!partial) partial = scratch(4 * api(kind.name).row_scratch(kind.op, a.rows, a.n), device);
    a.partial = partial.data<float>();
  }
  check(api(kind.name).rows(kind.op, a, stream_of(device)), kind.name);
  return r;
}

namespace {

ChannelArgs channels_of(const ChannelCall& call, const Tensor& x, const Tensor& g) {
  ChannelArgs a{};
  a.outer = call.outer;
  a.channels = call.channels;
  a.inner = call.inner;
  a.x = x.raw();
  a.x_type = x.dtype();
  a.g = memory(g);
  a.g_type = g ? g.dtype() : DType::F32;
  a.m = static_cast<const float*>(call.m);
  a.a = static_cast<const float*>(call.a);
  a.b = static_cast<const float*>(call.b);
  a.scale = static_cast<const float*>(call.scale);
  return a;
}

}  // namespace

void channel_sums(const ChannelCall& call, const Tensor& x, const Tensor& g, const Tensor& out, const Tensor& product) {
  const char* op = "channel_sums";
  ChannelArgs a = channels_of(call, x, g);
  bool pull = call.sum == ChannelCall::G || call.sum == ChannelCall::Product;
  a.sum = pull ? ChannelArgs::Both : call.sum == ChannelCall::X ? ChannelArgs::X : ChannelArgs::Square;
  a.total[call.sum == ChannelCall::Product] = out.data<float>();
  if (product) a.total[1] = product.data<float>();
  Tensor partial = scratch(4 * api(op).channel_scratch(a), x.device());
  a.partial = partial.data<float>();
  check(api(op).channel_sums(a, stream_of(x.device())), op);
}

void channel_apply(const ChannelCall& call, const Tensor& x, const Tensor& g, const Tensor& out) {
  ChannelArgs a = channels_of(call, x, g);
  a.out = out.raw();
  a.out_type = out.dtype();
  check(api("channel_apply").channel_apply(a, stream_of(x.device())), "channel_apply");
}

void group_norm(const GroupCall& call, const Tensor& x, const Tensor& g, const Tensor& out) {
  GroupArgs a{};
  a.rows = call.rows;
  a.groups = call.groups;
  a.width = call.width;
  a.inner = call.inner;
  a.x = x.raw();
  a.x_type = x.dtype();
  a.g = memory(g);
  a.g_type = g ? g.dtype() : DType::F32;
  a.out = out.raw();
  a.out_type = out.dtype();
  a.weight = static_cast<const float*>(call.weight);
  a.bias = static_cast<const float*>(call.bias);
  a.mean = static_cast<float*>(call.mean);
  a.scale = static_cast<float*>(call.scale);
  a.total = static_cast<float*>(call.total);
  a.along = static_cast<float*>(call.along);
  a.eps = float(call.eps);
  const RowApi& t = api("group_norm");
  check((g ? t.group_norm_pull : t.group_norm)(a, stream_of(x.device())), "group_norm");
}

namespace {

ScanArgs scan_of(const Tensor& out, const Tensor& x, int64_t outer, int64_t n, int64_t inner) {
  ScanArgs a{};
  a.outer = outer;
  a.n = n;
  a.inner = inner;
  a.x = x.raw();
  a.out = out.raw();
  a.type = x.dtype();
  return a;
}

}  // namespace

void extreme(const Tensor& out, const Tensor& x, int64_t outer, int64_t n, int64_t inner, bool largest) {
  const char* op = largest ? "argmax" : "argmin";
  ScanArgs a = scan_of(out, x, outer, n, inner);
  a.largest = largest;
  Tensor partial = scratch_for(api(op).extreme_scratch(a), x);
  a.partial = memory(partial);
  check(api(op).extreme(a, stream_of(x.device())), op);
}

void running_sum(const Tensor& out, const Tensor& x, int64_t outer, int64_t n, int64_t inner, int64_t lead) {
  const char* op = "cumulative_sum";
  ScanArgs a = scan_of(out, x, outer, n, inner);
  a.lead = lead;
  Tensor partial = scratch_for(api(op).running_scratch(a), x);
  a.partial = memory(partial);
  check(api(op).running(a, stream_of(x.device())), op);
}

void order(const Tensor& out, const Tensor& x, int64_t n, int64_t k, bool descending) {
  const char* op = "argsort";
  OrderArgs a{};
  a.rows = x.size() / n;
  a.n = n;
  a.k = k;
  a.x = x.raw();
  a.out = out.data<int64_t>();
  a.type = x.dtype();
  a.descending = descending;
  Tensor partial = scratch_for(api(op).order_scratch(a), x);
  a.partial = memory(partial);
  check(api(op).order(a, stream_of(x.device())), op);
}

}  // namespace pb::cuda
