#include "cuda/map_call.h"

#include <string>
#include <unordered_map>

#include "cuda/layout.h"
#include "cuda/streams.h"

namespace pb::cuda {

namespace {

const uint64_t* shift = nullptr;

const MapEntry* entry_of(const MapOp& op) {
  static auto* found = new std::unordered_map<const MapOp*, const MapEntry*>;
  auto at = found->find(&op);
  if (at != found->end()) return at->second;
  const Table& t = need_table(op.name.data());
  const MapEntry* entry = nullptr;
  for (int u = 0; u < t.map_units; u++)
    if (op.unit == t.map[u].name && op.index >= 0 && op.index < t.map[u].count) entry = t.map[u].rows + op.index;
  return found->emplace(&op, entry).first->second;
}

// What kernels of a compute type read and write in place.
bool reads(Compute c, DType t) {
  if (c != Compute::F32) return t == dtype_of(c);
  return t == DType::F32 || t == DType::F16 || t == DType::BF16 || t == DType::Bool;
}

Tensor cast_raw(const Tensor& t, DType dtype) {
  Tensor out = empty(t.shape(), dtype, t.device());
  copy_into(out, t);
  return out;
}

// A call as it is put together: operands in the order of the kernel, then the output.
struct Launch {
  MapArgs args;
  Compute compute;
  const Tensor& target;
  const Shape& shape;
  Strides strides[kMaxIn + 1];
  int operands = 0;
  bool flat = true;
  std::vector<Tensor> staged;  // casts live until the launch

  Launch(Compute c, const Tensor& out) : compute(c), target(out), shape(out.shape()) {}

  void fill(Operand& o, Strides& st, const Tensor& t) {
    if (!on_cuda(t)) {  // a Python number
      if (t.size() != 1) mixed_devices("map", t, target);
      o.kind = Kind::Number;
      cast_kernels().load[int(compute)][int(t.dtype())](&o.bits, t.raw(), 1, 1);
      st = Strides(shape.size(), 0);
      return;
    }
    const Tensor* from = &t;
    if (!reads(compute, t.dtype())) {
      staged.push_back(cast_raw(t, dtype_of(compute)));
      from = &staged.back();
    }
    o.data = from->raw();
    o.type = from->dtype();
    if (from->size() == 1) {
      o.kind = Kind::One;
      st = Strides(shape.size(), 0);
      return;
    }
    flat = flat && from->contiguous() && from->shape() == shape && aligned16(o.data);
    st = broadcast_strides(from->shape(), from->strides(), shape);
  }
  void add(const Tensor& t) {
    if (t)
      fill(args.in[operands], strides[operands], t);
    else
      args.in[operands].kind = Kind::Number, strides[operands] = Strides(shape.size(), 0);
    operands++;
  }

  void set(const MapOp& op, const double* params, const RandomState* random) {
    for (int i = 0; i < op.nargs; i++) args.params[i] = params ? params[i] : op.args[i].value;
    if (!random) return;
    args.seed = random->seed;
    args.offset = random->offset;
    args.shift = random_shift();
  }

  // A type that the kernel does not write gets its values by a cast.
  void run(Kernel kernel, const char* op, bool mask, bool bytes = false) {
    if (target.size() == 0) return;
    if (!kernel) no_kernel(op, target);
    Tensor out = target;
    bool direct =
        bytes || (mask ? out.dtype() == DType::Bool : out.dtype() != DType::Bool && reads(compute, out.dtype()));
    if (!direct) out = empty(shape, mask ? DType::Bool : dtype_of(compute), target.device());
    args.out.data = out.raw();
    args.out.type = out.dtype();
    strides[operands] = out.strides();
    args.n = out.size();
    args.contiguous = flat && out.contiguous() && aligned16(args.out.data);
    if (!args.contiguous) {
      Layout l = merged(shape, strides, operands + 1, op);
      args.ndim = l.ndim;
      for (int d = 0; d < l.ndim; d++) {
        args.shape[d] = l.shape[d];
        for (int j = 0; j < operands; j++) args.in[j].strides[d] = l.strides[j][d];
        args.out.strides[d] = l.strides[operands][d];
      }
    }
    void* stream = stream_of(out.device());
    check(need_table(op).launch_map(kernel, args, stream), op);
    if (!direct) copy_into(target, out);
  }
};

}  // namespace

const uint64_t* random_shift() { return shift; }
void set_random_shift(const uint64_t* p) { shift = p; }

void map_forward(const MapOp& op, const Tensor& out, std::span<const Tensor> in, Compute compute, const double* params,
                 const RandomState* random) {
  const MapEntry* entry = entry_of(op);
  Launch l(compute, out);
  for (const Tensor& t : in) l.add(t);
  l.set(op, params, random);
  l.run(entry ? entry->fwd[int(compute)] : nullptr, op.name.data(), op.mask);
}

void map_pull(const MapCall& call, int i, const Tensor& r, const Tensor& g, const Tensor* x, const Tensor& y) {
  const MapEntry* entry = entry_of(call.op);
  Compute compute = compute_of(call.out_dtype);
  int lane = compute == Compute::F64;
  Launch l(compute, r);
  l.add(g);
  if (!call.from_y)
    for (int j = 0; j < call.op.inputs; j++) l.add(call.op.uses[i] >> j & 1 ? x[j] : Tensor());
  l.add(call.reads(i) >> 7 & 1 ? y : Tensor());
  l.set(call.op, call.params, call.op.random ? &call.random : nullptr);
  Kernel kernel = !entry ? nullptr : call.from_y && entry->pull_y[lane] ? entry->pull_y[lane] : entry->pull[i][lane];
  l.run(kernel, call.op.name.data(), false);
}

void map_code(const MapCall& call, std::span<const Tensor> in, const Tensor& codes) {
  const MapEntry* entry = entry_of(call.op);
  Compute compute = compute_of(call.out_dtype);
  Launch l(compute, codes);
  for (const Tensor& t : in) l.add(t);
  l.set(call.op, call.params, nullptr);
  l.run(entry ? entry->code[compute == Compute::F64] : nullptr, call.op.name.data(), false, true);
}

void reduce(const ReduceOp& op, const Tensor& out, const Tensor& x, int64_t outer, int64_t n, int64_t inner) {
  if (out.size() == 0) return;
  const char* name = op.name.data();
  const Table& t = need_table(name);
  Compute c = op.mask && x.dtype() == DType::Bool ? Compute::F32 : compute_of(x.dtype());
  const ReduceEntry* entry = op.index >= 0 && op.index < t.reduces ? &t.reduce[op.index].by[int(c)] : nullptr;
  if (!entry || !entry->rows) no_kernel(name, x);
  ReduceArgs a{};
  a.out = out.raw();
  a.x = x.raw();
  a.out_type = out.dtype();
  a.in_type = x.dtype();
  a.outer = outer;
  a.n = n;
  a.inner = inner;
  Tensor partial;
  if (int64_t bytes = t.reduce_scratch(outer, n, inner)) {
    partial = scratch(bytes, x.device());
    a.partial = partial.raw();
  }
  check(t.launch_reduce(*entry, a, stream_of(x.device())), name);
}

}  // namespace pb::cuda
