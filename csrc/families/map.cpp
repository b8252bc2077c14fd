#include "families/map.h"

#include <map>
#include <string>

#include "cuda/map_call.h"
#include "families/map_driver.h"
#include "families/map_node.h"
#include "families/view.h"
#include "ops/arithmetic.h"
#include "tensor/profile.h"

namespace pb {

Generator& default_generator() {
  static Generator g{0x5eed, 0};
  return g;
}

// ---- registry

namespace {
std::vector<const MapOp*>& rows() {
  static auto* r = new std::vector<const MapOp*>;
  return *r;
}
std::map<std::string_view, const MapOp*>& by_name() {
  static auto* m = new std::map<std::string_view, const MapOp*>;
  return *m;
}
}  // namespace

const std::vector<const MapOp*>& map_ops() { return rows(); }

void add_map(const MapOp& row) {
  auto* copy = new MapOp(row);
  if (!by_name().emplace(copy->name, copy).second)
    fail<ValueError>(row.name, "an op of this name is registered already", "choose another name");
  rows().push_back(copy);
}

const MapOp& find_map(std::string_view name) {
  auto it = by_name().find(name);
  if (it == by_name().end())
    fail<ValueError>("registry", "no element-wise op is called " + std::string(name), "see pb.ops()");
  return *it->second;
}

// ---- dtypes

DType result_dtype(std::span<const Tensor> in, const char*, unsigned promotes) {
  bool strong = false, weak = false;
  DType s = DType::Bool, w = DType::Bool;
  for (size_t j = 0; j < in.size(); j++) {
    if (!(promotes >> j & 1)) continue;
    DType t = in[j].dtype();
    if (in[j].weak()) {
      w = weak && category(w) > category(t) ? w : t;
      weak = true;
    } else {
      s = strong ? promote(s, t) : t;
      strong = true;
    }
  }
  if (!strong) return w;
  return weak ? promote_weak(s, w) : s;
}

namespace {

struct Typing {
  DType result;
  Compute compute;
  bool weak;
};

Typing typing_of(const MapOp& op, std::span<const Tensor> in) {
  Typing t{DType::F32, Compute::F32, true};
  for (size_t j = 0; j < in.size(); j++)
    if ((op.promotes >> j & 1) && !in[j].weak()) t.weak = false;
  if (in.empty()) t.weak = false;
  DType d = in.empty() ? DType::F32 : result_dtype(in, op.name.data(), op.promotes);
  if (op.no_floats && is_float(d)) {
    std::string list;
    for (const Tensor& x : in) list += (list.empty() ? "" : ", ") + describe(x);
    fail<DTypeError>(op.name, "needs integers or bools, got " + list, "cast with x.astype(pb.int64)");
  }
  if (!op.integers && !is_float(d)) d = t.weak ? DType::F64 : DType::F32;
  t.compute = compute_of(d);
  t.result = op.mask ? DType::Bool : d;
  if (t.compute == Compute::U64 && !op.kernels->fwd[int(Compute::U64)]) t.compute = Compute::I64;
  return t;
}

void check_derivative(const MapOp& op, std::span<const Tensor> in) {
  if (!op.no_derivative) return;
  fail<GraphError>(op.name, "has no known derivative and an input requires grad (" + describe(in[0]) + ")",
                   "call it on x.detach(), or inside pb.no_grad()");
}

// `in` are the tensors as they were before an in-place write; `out` receives the node.
void record_map(const MapOp& op, std::span<const Tensor> in, const Tensor& out, const double* params,
                const RandomState& random, const Saving& saving) {
  if (!mode().grad) return;
  bool wanted = false;
  for (const Tensor& t : in) wanted = wanted || wants_node(t);
  if (!wanted || op.zero_derivative || op.mask || !is_float(out.dtype())) return;
  check_derivative(op, in);
  auto* node = new MapNode(op, int(in.size()), out, params, random);
  unsigned used = 0;
  node->edges.resize(in.size());
  for (size_t j = 0; j < in.size(); j++) {
    node->edges[j] = edge_of(in[j]);
    if (!(in[j].shape() == out.shape())) {
      node->shapes[j] = in[j].shape();
      node->broadcast |= 1u << j;
    }
    node->dtypes[j] = in[j].dtype();
    if (node->edges[j].live()) used |= op.uses[j];
  }
  attach(out, node);
  if (op.keeps_specially) {
    keep_specially(*node, in, out, used, saving);
  } else {
    for (size_t j = 0; j < in.size(); j++)
      if (used >> j & 1) node->in[j] = Saved(in[j]);
    if (used >> 7 & 1) node->out = Saved::output(out);
  }
  drop(node);
}

// jvp = sum over inputs of pull_i(t_i): the Jacobian of an element-wise op is diagonal.
Tensor push_map(const MapOp& op, int n, const Tensor* x, const Tensor* t, const Tensor& y, const double* params,
                const RandomState& random) {
  MapCall call(op, n, y, params, random);
  bool fused = is_constant(y) && !y.weak();
  for (int i = 0; i < n; i++) {
    bool whole = !t[i] || op.passes[i] == 1 || t[i].shape() == y.shape();
    fused = fused && whole && is_constant(x[i]) && is_constant(t[i]);
  }
  Tensor sum, in[kMaxInputs + 1];
  for (int i = 0; i < n; i++) in[i] = x[i];
  if (op.random && !fused) in[n] = uniform_of(random, y.shape(), y.dtype(), y.device());
  for (int i = 0; i < n; i++) {
    if (!t[i]) continue;
    Tensor d;
    if (op.passes[i] == 1)
      d = t[i];
    else if (fused)
      d = call.fused_pull(i, y.dtype(), t[i], x, y);
    else
      d = op.pull[i](t[i], in, y, params);
    d = cast(broadcast_to(d, y.shape()), y.dtype());
    sum = sum ? sum + d : d;
  }
  return sum;
}

void push_all(const MapOp& op, std::span<const Tensor> in, const Tensor& out, const double* params,
              const RandomState& random) {
  if (!mode().levels || op.zero_derivative || op.mask) return;
  push_forward(in, out, [&](const Tensor* x, const Tensor* t, const Tensor& y) {
    check_derivative(op, in);
    return push_map(op, int(in.size()), x, t, y, params, random);
  });
}

const double* params_or_defaults(const MapOp& op, const double* params, double* buffer) {
  if (params) return params;
  for (int i = 0; i < op.nargs; i++) buffer[i] = op.args[i].value;
  return buffer;
}

}  // namespace

Tensor map_call(const MapOp& op, std::span<const Tensor> in, const double* params, Generator* rng,
                const Saving* saved) {
  Profiled scope(op.name.data());
  double defaults[kMaxArgs];
  params = params_or_defaults(op, params, defaults);
  Typing t = typing_of(op, in);
  Device device = common_device(op.name.data(), in);
  Tensor out;
  if (in.size() == 1)
    out = empty(in[0].shape(), t.result, device);
  else if (in.size() == 2 && in[0].shape() == in[1].shape())
    out = empty(in[0].shape(), t.result, device);
  else {
    Shape shape;
    for (const Tensor& x : in) shape = broadcast(shape, x.shape(), op.name.data());
    out = empty(shape, t.result, device);
  }
  out->weak = t.weak;
  RandomState random;
  if (op.random) random = (rng ? *rng : default_generator()).reserve(out.size());
  const Saving& saving = op.activation ? saving_of(saved) : kNoSaving;
  if (saving.choice == SavedChoice::Code && map_code_call(op, in, out, params, saving)) return out;
  run_forward(op, out, in, t.compute, params, op.random ? &random : nullptr);
  record_map(op, in, out, params, random, saving);
  push_all(op, in, out, params, random);
  return out;
}

void map_call_into(const MapOp& op, const Tensor& target, std::span<const Tensor> in, const double* params) {
  Profiled scope(op.name.data());
  double defaults[kMaxArgs];
  params = params_or_defaults(op, params, defaults);
  check_writable(target, op.name.data());
  for (const Tensor& x : in)
    if (!x.weak() && !(x.device() == target.device())) mixed_devices(op.name.data(), target, x);
  Typing t = typing_of(op, in);
  if (!op.mask && category(t.result) > category(target.dtype()))
    fail<DTypeError>(op.name,
                     std::string("the result is ") + dtype_name(t.result) + ", which the target cannot hold in place",
                     "use the out-of-place form", target);
  Shape shape = target.shape();
  for (const Tensor& x : in)
    if (!(broadcast(shape, x.shape(), op.name.data()) == shape))
      fail<ShapeError>(op.name, "an in-place result must have the shape of its target", "use the out-of-place form",
                       target, x);
  InPlace write(target, op.name.data());
  // What the pull reads must survive the write, and another operand may be a shifted view of the same memory.
  std::vector<Tensor> before;
  unsigned used = 0;
  for (size_t j = 0; j < in.size(); j++) used |= reads_of(op, int(j), target.dtype(), params);
  for (const Tensor& x : in) {
    size_t j = before.size();
    bool itself = x.is(target);
    Tensor old = itself ? write.before() : x;
    bool overlaps = !itself && x->storage == target->storage;
    bool needed = mode().grad && (used >> j & 1) && x->storage == target->storage && write.tracked(in);
    before.push_back(overlaps || needed || (itself && has_tangent(x)) ? with_copy(old) : old);
  }
  Tensor result = detach(target);
  if (t.result == target.dtype() || is_float(target.dtype())) {
    run_forward(op, result, before, t.compute, params, nullptr);
  } else {
    Tensor wide = map_call(op, before, params);
    copy_into(result, wide);
  }
  write.done();
  Tensor value = detach(target);
  record_map(op, before, value, params, {}, kNoSaving);  // the input is overwritten: no choice
  push_all(op, before, value, params, {});
  write.replace(value);
}

Tensor map_draw(const MapOp& op, const Shape& shape, DType dtype, const double* params, Generator& rng,
                Device device) {
  Profiled scope(op.name.data());
  if (!is_float(dtype))
    fail<DTypeError>(op.name, std::string("draws are floating, got dtype ") + dtype_name(dtype),
                     "use randint, or cast the result");
  Tensor out = empty(shape, dtype, device);
  RandomState random = rng.reserve(out.size());
  if (on_cuda(out)) {
    cuda::map_forward(op, out, {}, compute_of(dtype), params, &random);
    return out;
  }
  MapPlan p;
  p.compute = compute_of(dtype);
  p.fn = op.kernels->fwd[int(p.compute)];
  p.shape = shape;
  p.size = out.size();
  p.params = params;
  p.random = &random;
  p.out = operand_of(out, shape);
  run_plan(p);
  return out;
}

void map_add_into(const Tensor& acc, const Tensor& x) {
  const Tensor in[] = {acc, x};
  run_forward(map_row<Add>(), acc, in, compute_of(acc.dtype()), nullptr, nullptr);
}

}  // namespace pb
