#include "families/map.h"

#include <map>
#include <string>

#include "families/map_driver.h"
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

// ---- the tape node

// Note [The short way]
// Most calls have contiguous operands of one shape in the compute type, or one such and a number: then the kernel runs
// on the tensors' memory and no plan is made. Larger ones take the plan for its threads.
struct ShortCall {
  const void* in[5] = {};
  unsigned scalars = 0;

  // Operand j is usable as it is, or one value of the compute type.
  bool add(int j, const Tensor& t, int64_t size, DType compute, bool scalar_ok) {
    if (t.dtype() != compute) return false;
    in[j] = t.raw();
    if (t.size() == size) return t.contiguous();
    if (t.size() != 1 || !scalar_ok) return false;
    scalars |= 1u << j;
    return true;
  }
};

// One call of an op as its derivative sees it.
struct MapCall {
  const MapOp& op;
  int n;
  Shape out_shape;
  DType out_dtype;
  double params[kMaxArgs];
  RandomState random;

  MapCall(const MapOp& o, int inputs, const Tensor& out, const double* constants, const RandomState& state)
      : op(o), n(inputs), out_shape(out.shape()), out_dtype(out.dtype()), random(state) {
    for (int i = 0; i < op.nargs; i++) params[i] = constants[i];
  }

  // The short way; a number among the inputs is spread over a tile.
  bool pull_short(int i, const Tensor& r, const Tensor& g, const Tensor* x, const Tensor& y) const {
    Compute compute = compute_of(out_dtype);
    DType type = dtype_of(compute);
    if (op.random || r.size() > kGrain || r.dtype() != type) return false;
    ShortCall call;
    alignas(64) char tile[kTile * 8];
    bool spread = false;
    if (!call.add(0, g, r.size(), type, false)) return false;
    for (int j = 0; j < n; j++) {
      if (!(op.uses[i] >> j & 1)) continue;
      if (x[j].size() == 1 && r.size() > 1 && r.size() <= kTile && !spread) {
        spread_value(tile, x[j], compute, r.size());
        call.in[1 + j] = tile;
        spread = true;
      } else if (!call.add(1 + j, x[j], r.size(), type, false)) {
        return false;
      }
    }
    if ((op.uses[i] >> 7 & 1) && !call.add(1 + n, y, r.size(), type, false)) return false;
    op.kernels->pull[i][int(compute)](r.raw(), call.in, params, r.size(), 0);
    return true;
  }

  // g times the derivative by input i, of the output's shape, in one kernel; outside the graph.
  Tensor fused_pull(int i, DType result, const Tensor& g, const Tensor* x, const Tensor& y) const {
    Tensor r = empty(out_shape, result);
    if (pull_short(i, r, g, x, y)) return r;
    MapPlan p;
    p.compute = compute_of(out_dtype);
    p.fn = op.kernels->pull[i][int(p.compute)];
    p.shape = out_shape;
    p.size = r.size();
    p.params = params;
    p.inputs = n + 2;
    p.in[0] = operand_of(g, out_shape);
    for (int j = 0; j < n; j++)
      if (op.uses[i] >> j & 1)
        p.in[1 + j] = operand_of(x[j], out_shape);
      else
        p.in[1 + j].single = false;
    int last = 1 + n;
    Tensor u;
    if (op.random) {
      u = uniform_of(random, out_shape, out_dtype);
      p.in[last++] = operand_of(u, out_shape);
      p.inputs++;
    }
    if (op.uses[i] >> 7 & 1) p.in[last] = operand_of(y, out_shape);
    p.out = operand_of(r, out_shape);
    p.out.direct = true;
    run_plan(p);
    return r;
  }
};

struct MapNode final : Node, MapCall, alloc::Recycled<MapNode> {
  Saved in[kMaxInputs];
  Saved out;
  Shape shapes[kMaxInputs];  // only of inputs that were broadcast
  unsigned broadcast = 0;    // bit i: input i was
  DType dtypes[kMaxInputs];

  using MapCall::MapCall;
  const char* name() const override { return op.name.data(); }
  void release() override {
    for (Saved& s : in) s = Saved();
    out = Saved();
  }
  void visit_saved(const std::function<void(const Tensor&)>& f) const override {
    for (const Saved& s : in)
      if (s) f(s.peek());
    if (out) f(out.peek());
  }
  void output_pushed(const Tensor& y) override { out.take_tangents(y); }

  void pull(const PullArgs& a) override {
    if (!a.g[0]) return;
    Tensor x[kMaxInputs + 1], y;
    bool graph = mode().grad || has_tangent(a.g[0]);
    for (int i = 0; i < n; i++)
      if (in[i]) {
        x[i] = in[i].get(this, name());
        graph = graph || has_tangent(x[i]);
      }
    if (out) {
      y = out.get(this, name());
      graph = graph || has_tangent(y);
    }
    for (int i = 0; i < n; i++) {
      if (!a.need(i)) continue;
      Tensor gi;
      if (op.passes[i] == 1)
        gi = a.g[0];
      else if (graph)
        gi = graph_pull(i, a.g[0], x, y);
      else
        gi = fused_pull(i, broadcast >> i & 1 ? out_dtype : dtypes[i], a.g[0], x, y);
      const Shape& shape = shape_of(i);
      if (!(gi.shape() == shape)) gi = sum_to_shape(gi, shape);
      a.gin[i] = gi.dtype() == dtypes[i] ? std::move(gi) : cast(gi, dtypes[i]);
    }
  }
  const Shape& shape_of(int i) const { return broadcast >> i & 1 ? shapes[i] : out_shape; }

  Tensor graph_pull(int i, const Tensor& g, Tensor* x, const Tensor& y) {
    // An input that the formula does not read was not kept; any value of its type stands in.
    for (int j = 0; j < n; j++)
      if (!x[j]) x[j] = scalar_weak(0.0);
    if (op.random) x[n] = uniform_of(random, out_shape, out_dtype);
    return op.pull[i](g, x, y ? y : x[0], params);
  }
};

bool run_short(const MapOp& op, const Tensor& out, std::span<const Tensor> in, Compute compute, const double* params,
               const RandomState* random) {
  DType type = dtype_of(compute);
  if (random || out.size() > kGrain || !out.contiguous() || out.dtype() != (op.mask ? DType::Bool : type)) return false;
  ShortCall call;
  alignas(8) char value[8];
  for (size_t j = 0; j < in.size(); j++) {
    bool scalar_ok = in.size() == 2 && !call.scalars;
    if (scalar_ok && in[j].size() == 1 && in[j].dtype() != type) {
      cast_kernels().load[int(compute)][int(in[j].dtype())](value, in[j].raw(), 1, 1);
      call.in[j] = value;
      call.scalars = 1u << j;
    } else if (!call.add(int(j), in[j], out.size(), type, scalar_ok)) {
      return false;
    }
  }
  op.kernels->fwd[int(compute)](out.raw(), call.in, params, out.size(), call.scalars);
  return true;
}

void run_forward(const MapOp& op, const Tensor& out, std::span<const Tensor> in, Compute compute, const double* params,
                 const RandomState* random) {
  if (run_short(op, out, in, compute, params, random)) return;
  MapPlan p;
  p.compute = compute;
  p.fn = op.kernels->fwd[int(compute)];
  p.mask = op.mask;
  p.shape = out.shape();
  p.size = out.size();
  p.params = params;
  p.inputs = int(in.size());
  p.random = random;
  for (size_t j = 0; j < in.size(); j++) p.in[j] = operand_of(in[j], out.shape());
  p.out = operand_of(out, out.shape());
  run_plan(p);
}

void check_derivative(const MapOp& op, std::span<const Tensor> in) {
  if (!op.no_derivative) return;
  fail<GraphError>(op.name, "has no known derivative and an input requires grad (" + describe(in[0]) + ")",
                   "call it on x.detach(), or inside pb.no_grad()");
}

// `in` are the tensors as they were before an in-place write; `out` receives the node.
void record_map(const MapOp& op, std::span<const Tensor> in, const Tensor& out, const double* params,
                const RandomState& random) {
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
  for (size_t j = 0; j < in.size(); j++)
    if (used >> j & 1) node->in[j] = Saved(in[j]);
  attach(out, node);
  if (used >> 7 & 1) node->out = Saved::output(out);
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
  if (op.random && !fused) in[n] = uniform_of(random, y.shape(), y.dtype());
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

Tensor map_call(const MapOp& op, std::span<const Tensor> in, const double* params, Generator* rng) {
  Profiled scope(op.name.data());
  double defaults[kMaxArgs];
  params = params_or_defaults(op, params, defaults);
  Typing t = typing_of(op, in);
  Tensor out;
  if (in.size() == 1)
    out = empty(in[0].shape(), t.result);
  else if (in.size() == 2 && in[0].shape() == in[1].shape())
    out = empty(in[0].shape(), t.result);
  else {
    Shape shape;
    for (const Tensor& x : in) shape = broadcast(shape, x.shape(), op.name.data());
    out = empty(shape, t.result);
  }
  out->weak = t.weak;
  RandomState random;
  if (op.random) random = (rng ? *rng : default_generator()).reserve(out.size());
  run_forward(op, out, in, t.compute, params, op.random ? &random : nullptr);
  record_map(op, in, out, params, random);
  push_all(op, in, out, params, random);
  return out;
}

void map_call_into(const MapOp& op, const Tensor& target, std::span<const Tensor> in, const double* params) {
  Profiled scope(op.name.data());
  double defaults[kMaxArgs];
  params = params_or_defaults(op, params, defaults);
  check_writable(target, op.name.data());
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
  for (size_t j = 0; j < in.size(); j++) used |= op.uses[j];
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
  record_map(op, before, value, params, {});
  push_all(op, before, value, params, {});
  write.replace(value);
}

Tensor map_draw(const MapOp& op, const Shape& shape, DType dtype, const double* params, Generator& rng) {
  Profiled scope(op.name.data());
  if (!is_float(dtype))
    fail<DTypeError>(op.name, std::string("draws are floating, got dtype ") + dtype_name(dtype),
                     "use randint, or cast the result");
  Tensor out = empty(shape, dtype);
  RandomState random = rng.reserve(out.size());
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
