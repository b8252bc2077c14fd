#include "families/map_node.h"

#include "cuda/map_call.h"
#include "families/map_driver.h"
#include "families/view.h"

namespace pb {

namespace {

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

}  // namespace

// The short way; a number among the inputs is spread over a tile.
bool MapCall::pull_short(int i, const Tensor& r, const Tensor& g, const Tensor* x, const Tensor& y) const {
  Compute compute = compute_of(out_dtype);
  DType type = dtype_of(compute);
  if (op.random || r.size() > kGrain || r.dtype() != type) return false;
  ShortCall call;
  alignas(64) char tile[kTile * 8];
  bool spread = false;
  if (!call.add(0, g, r.size(), type, false)) return false;
  if (from_y) {
    if (!call.add(1, y, r.size(), type, false)) return false;
    op.kernels->pull_y[int(compute)](r.raw(), call.in, params, r.size(), 0);
    return true;
  }
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

Tensor MapCall::fused_pull(int i, DType result, const Tensor& g, const Tensor* x, const Tensor& y) const {
  Tensor r = empty(out_shape, result, device);
  if (on_cuda(r)) {
    cuda::map_pull(*this, i, r, g, x, y);
    return r;
  }
  if (pull_short(i, r, g, x, y)) return r;
  MapPlan p;
  p.compute = compute_of(out_dtype);
  p.fn = from_y ? op.kernels->pull_y[int(p.compute)] : op.kernels->pull[i][int(p.compute)];
  p.shape = out_shape;
  p.size = r.size();
  p.params = params;
  p.inputs = from_y ? 2 : n + 2;
  p.in[0] = operand_of(g, out_shape);
  p.out = operand_of(r, out_shape);
  p.out.direct = true;
  if (from_y) {
    p.in[1] = operand_of(y, out_shape);
    run_plan(p);
    return r;
  }
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
  run_plan(p);
  return r;
}

void MapNode::release() {
  for (Saved& s : in) s = Saved();
  out = Saved();
}

void MapNode::visit_saved(const VisitKept& f) const {
  for (const Saved& s : in) s.visit(f);
  out.visit(f, near ? "near" : "exact");
}

void MapNode::pull(const PullArgs& a) {
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
  if (!y && (reads(0) >> 7 & 1)) {  // the input is kept and the pull reads the output
    if (!x[0])
      fail<GraphError>(op.name, "the output was given up for that of a dropout, and then used without its data",
                       "read the tensor itself, or call the op with saved=\"input\"");
    y = graph              ? map_call(op, {x, size_t(n)}, params, nullptr, &kKeepInput)
        : late & kRebuilds ? rebuilt(this)
                           : rebuild();
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
Tensor MapNode::graph_pull(int i, const Tensor& g, Tensor* x, const Tensor& y) {
  if (from_y) return op.pull_y(g, x, y, params);
  // An input that the formula does not read was not kept; any value of its type stands in.
  for (int j = 0; j < n; j++)
    if (!x[j]) x[j] = scalar_weak(0.0);
  if (op.random) x[n] = uniform_of(random, out_shape, out_dtype, device);
  return op.pull[i](g, x, y ? y : x[0], params);
}

Tensor MapNode::rebuild() {
  Tensor x[kMaxInputs], y = empty(out_shape, out_dtype, device);
  for (int j = 0; j < n; j++) x[j] = in[j].get(this, name());
  run_forward(op, y, {x, size_t(n)}, compute_of(out_dtype), params, nullptr);
  return y;
}

// Note [A tensor that stands in]
// relu, dropout, Linear: Linear keeps z = dropout(y), and z > 0 tells what y > 0 tells wherever the cotangent of y is
// not zero, as long as dropout is the only one that used y. Then z stands in the slot of relu's output. A later use of
// y puts y back; its caller holds it.
void MapNode::output_kept(const Tensor& z) {
  if (edges[0].node && !edges[0].index) edges[0].node->stand_in(z);
}

bool MapNode::stand_in(const Tensor& z) {
  constexpr int64_t kLeast = 32;  // smaller ones are not worth it; a handle without data has one element
  if (!op.by_sign || uses != 1 || !out.is_output() || has_tangent(out.peek()) || !(z.shape() == out_shape) ||
      z.dtype() != out_dtype || z.size() < kLeast)
    return false;
  own_version = out.version();
  out = Saved::whole(detach(z));
  late |= kWatches;
  return true;
}

void MapNode::consumed(const Tensor& y) {
  late &= uint8_t(~kWatches);
  if (!out || !(y.shape() == out_shape) || y.dtype() != out_dtype) {
    out = Saved();  // used through a handle without data; pull says so
    return;
  }
  out = Saved::output(y);
  out.set_version(own_version);
}

namespace {

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

}  // namespace

void run_forward(const MapOp& op, const Tensor& out, std::span<const Tensor> in, Compute compute, const double* params,
                 const RandomState* random) {
  if (on_cuda(out)) return cuda::map_forward(op, out, in, compute, params, random);
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

}  // namespace pb
