#include "cuda/gather_call.h"

#include "cuda/api_gather.h"
#include "cuda/engine.h"
#include "cuda/faults.h"
#include "cuda/row_call.h"
#include "families/map.h"
#include "families/view.h"

namespace pb::cuda {

namespace {

const GatherApi& api(const char* op) { return *need_table(op).gather; }

Tensor raw_contiguous(const Tensor& t) {
  GradMode off(false);
  return contiguous(detach(t));
}

}  // namespace

Tensor checked_index(const Tensor& indices, int64_t n, int axis, const char* op) {
  Tensor in = raw_contiguous(indices), out = empty(in.shape(), DType::I64, in.device());
  IndexArgs a{};
  a.in = in.raw();
  a.type = in.dtype();
  a.out = out.data<int64_t>();
  a.count = in.size();
  a.size = n;
  a.fault = fault_of(in.device(), op);
  a.op = op;
  a.axis = axis;
  check(api(op).index(a, stream_of(in.device())), op);
  return out;
}

void take(const Tensor& out, const Tensor& x, const Tensor& index, Axis s, bool along) {
  Tensor from = raw_contiguous(x);
  TakeArgs a{};
  a.x = from.raw();
  a.index = index.data<int64_t>();
  a.out = out.raw();
  a.outer = s.outer;
  a.n = s.n;
  a.m = along ? index.size() / std::max<int64_t>(1, s.outer * s.inner) : index.size();
  a.inner = s.inner;
  a.item = itemsize(x.dtype());
  const GatherApi& t = api("take");
  check((along ? t.along : t.take)(a, stream_of(x.device())), along ? "take_along_axis" : "take");
}

void add(const Tensor& out, const Tensor& values, const Tensor& index, Axis s, bool along) {
  Tensor from = raw_contiguous(values);
  AddArgs a{};
  a.x = from.raw();
  a.index = index.data<int64_t>();
  a.out = out.raw();
  a.outer = s.outer;
  a.n = s.n;
  a.m = along ? index.size() / std::max<int64_t>(1, s.outer * s.inner) : index.size();
  a.inner = s.inner;
  a.type = values.dtype();
  a.along = along;
  const GatherApi& t = api("scatter_add");
  Tensor partial;
  if (int64_t bytes = t.add_scratch(a)) {
    partial = scratch(bytes, out.device());
    a.partial = partial.raw();
  }
  check(t.add(a, stream_of(out.device())), "scatter_add");
}

namespace {

PutArgs put_of(const Tensor& index, Axis s, const Tensor& latest) {
  PutArgs a{};
  a.index = index.data<int64_t>();
  a.latest = latest.data<int64_t>();
  a.outer = s.outer;
  a.n = s.n;
  a.m = index.size();
  a.inner = s.inner;
  return a;
}

}  // namespace

void put(const Tensor& out, const Tensor& values, const Tensor& index, Axis s) {
  Tensor from = raw_contiguous(values), latest = empty({s.n}, DType::I64, out.device());
  PutArgs a = put_of(index, s, latest);
  a.x = from.raw();
  a.out = out.raw();
  a.item = itemsize(out.dtype());
  check(api("put_rows").put(a, stream_of(out.device())), "put_rows");
}

Tensor winners(const Tensor& index, int64_t n) {
  Tensor last = empty(index.shape(), DType::Bool, index.device()), latest = empty({n}, DType::I64, index.device());
  PutArgs a = put_of(index, {1, n, 1}, latest);
  a.last = last.data<bool>();
  check(api("put_rows").winners(a, stream_of(index.device())), "put_rows");
  return last;
}

std::vector<Tensor> positions(const Tensor& mask) {
  const char* op = "index";
  Tensor m = raw_contiguous(mask);
  Device device = m.device();
  int nd = m.ndim();
  if (nd > kMaxDims)
    fail<DeviceError>(op, "a mask on a CUDA device has at most " + std::to_string(kMaxDims) + " dimensions",
                      "flatten mask and tensor with reshape", mask);
  const GatherApi& t = api(op);
  int64_t pieces = t.pieces(m.size());
  Tensor counts = empty({pieces + 1}, DType::I64, device), sums = empty({pieces + 1}, DType::I64, device);
  PositionArgs a{};
  a.mask = m.data<bool>();
  a.n = m.size();
  a.ndim = nd;
  for (int d = 0; d < nd; d++) a.shape[d] = m.shape()[d];
  a.counts = counts.data<int64_t>();
  if (a.n) {
    check(t.count(a, stream_of(device)), op);
    running_sum(sums, counts, 1, pieces + 1, 1, 0);
    a.found = item_int(alias(sums, {}, {}, pieces));
  }
  a.counts = sums.data<int64_t>();
  Tensor all = empty({nd, a.found}, DType::I64, device);
  a.out = all.data<int64_t>();
  if (a.found) check(t.positions(a, stream_of(device)), op);
  std::vector<Tensor> out;
  for (int d = 0; d < nd; d++) out.push_back(alias(all, {a.found}, {1}, d * a.found));
  return out;
}

Tensor joined(const std::vector<Tensor>& index, const std::vector<int64_t>& sizes, const Shape& shape) {
  const char* op = "index";
  if (index.size() > size_t(kMaxDims))
    fail<DeviceError>(op, "at most " + std::to_string(kMaxDims) + " index arrays on a CUDA device",
                      "index in several steps");
  Tensor out = empty(shape, DType::I64, index[0].device());
  std::vector<Tensor> hold;
  JoinArgs a{};
  for (size_t k = 0; k < index.size(); k++) {
    hold.push_back(raw_contiguous(broadcast_to(index[k], shape)));
    a.index[k] = hold.back().data<int64_t>();
    a.size[k] = sizes[k];
  }
  a.count = int(index.size());
  a.n = out.size();
  a.out = out.data<int64_t>();
  check(api(op).join(a, stream_of(out.device())), op);
  return out;
}

namespace {

void fill(const Tensor& out, PatternArgs a, const char* op) {
  a.out = out.raw();
  a.n = out.size();
  check(api(op).pattern(a, stream_of(out.device())), op);
}

}  // namespace

Tensor counting(int64_t n, int64_t start, int64_t step, Device device) {
  Tensor out = empty({n}, DType::I64, device);
  PatternArgs a{};
  a.kind = PatternArgs::Count;
  a.start = start;
  a.step = step;
  fill(out, a, "arange");
  return out;
}

Tensor triangle(int64_t rows, int64_t columns, int64_t k, bool lower, Device device) {
  Tensor out = empty({rows, columns}, DType::Bool, device);
  PatternArgs a{};
  a.kind = PatternArgs::Triangle;
  a.columns = columns;
  a.k = k;
  a.lower = lower;
  fill(out, a, lower ? "tril" : "triu");
  return out;
}

Tensor integers(const Shape& shape, int64_t low, uint64_t range, uint64_t seed, uint64_t offset, Device device) {
  Tensor out = empty(shape, DType::I64, device);
  PatternArgs a{};
  a.kind = PatternArgs::Integers;
  a.start = low;
  a.range = range;
  a.seed = seed;
  a.offset = offset;
  fill(out, a, "randint");
  return out;
}

}  // namespace pb::cuda
