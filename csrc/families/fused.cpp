#include "families/fused.h"

#include "cpu/isa_std.h"
#include "cuda/engine.h"
#include "families/linear.h"
#include "families/map_driver.h"
#include "families/reduce.h"
#include "families/view.h"
#include "fewbit/block.h"
#include "fewbit/codec.h"
#include "ops/arithmetic.h"

namespace pb {

namespace {

// ---- bias_act_dropout: three kernels per tile

const MapOp& dropout_row() {
  static const MapOp& row = find_map("_dropout");
  return row;
}

// One call, forward or back. `params` are those of the activation.
struct BiasAct {
  const MapOp& act;
  double params[kMaxArgs] = {};
  double p;
  RandomState random;
  CodeRef code;

  BiasAct(const MapOp& op, double drop) : act(op), p(drop) {
    for (int i = 0; i < op.nargs; i++) params[i] = op.args[i].value;
  }
  bool reads_output() const { return act.uses[0] >> 7 & 1; }
};

struct Pass {
  const BiasAct& call;
  Compute compute;
  Shape shape;
  int64_t size = 0;
  MapOperand x, bias, y, g, out;  // backward has g; x or y or words, as they were kept
  uint32_t* words = nullptr;
};

struct Tile {
  alignas(64) char u[kTile * 8], b[kTile * 8], y[kTile * 8], g[kTile * 8], r[kTile * 8];
};

// u = x + bias.
void pre_activation(const Pass& p, Tile& t, int64_t at, int64_t n) {
  load_operand(p.compute, p.x, p.shape, at, n, t.u);
  if (!p.bias.data) return;
  load_operand(p.compute, p.bias, p.shape, at, n, t.b);
  const void* in[] = {t.u, t.b};
  map_row<Add>().kernels->fwd[int(p.compute)](t.u, in, nullptr, n, 0);
}

void draw(const Pass& p, Tile& t, int64_t at, int64_t n) {
  const RandomState& s = p.call.random;
  cast_kernels().uniform[p.compute == Compute::F64](t.r, s.seed, s.offset, uint64_t(at), n);
}

void forward_tile(const Pass& p, Tile& t, int64_t at, int64_t n) {
  const BiasAct& c = p.call;
  pre_activation(p, t, at, n);
  if (p.words)
    code_kernels().encode(p.words + at / kGroup * c.code->bits(), reinterpret_cast<float*>(t.u), n, c.code->table());
  const void* in[] = {t.u};
  c.act.kernels->fwd[int(p.compute)](t.y, in, c.params, n, 0);
  if (c.p > 0) {
    draw(p, t, at, n);
    const void* drop[] = {t.y, t.r};
    dropout_row().kernels->fwd[int(p.compute)](t.y, drop, &c.p, n, 0);
  }
  store_operand(p.compute, p.out, p.shape, at, n, t.y);
}

void backward_tile(const Pass& p, Tile& t, int64_t at, int64_t n) {
  const BiasAct& c = p.call;
  load_operand(p.compute, p.g, p.shape, at, n, t.g);
  if (c.p > 0) {
    draw(p, t, at, n);
    const void* drop[] = {t.g, t.g, t.r};
    dropout_row().kernels->pull[0][p.compute == Compute::F64](t.g, drop, &c.p, n, 0);
  }
  if (p.words) {
    auto* g = reinterpret_cast<float*>(t.g);
    code_kernels().decode(g, g, p.words + at / kGroup * c.code->bits(), n, c.code->level(1), c.code->bits());
  } else {
    if (p.x.data) pre_activation(p, t, at, n);
    if (p.y.data) load_operand(p.compute, p.y, p.shape, at, n, t.y);
    if (p.x.data && c.reads_output()) {
      const void* in[] = {t.u};
      c.act.kernels->fwd[int(p.compute)](t.y, in, c.params, n, 0);
    }
    const void* in[] = {t.g, t.u, t.y};
    c.act.kernels->pull[0][p.compute == Compute::F64](t.g, in, c.params, n, 0);
  }
  store_operand(p.compute, p.out, p.shape, at, n, t.g);
}

template <void (*Body)(const Pass&, Tile&, int64_t, int64_t)>
void run(const Pass& p) {
  pb_parallel_for((p.size + kTile - 1) / kTile, kGrain / kTile,
                  [](void* ctx, int64_t begin, int64_t end) {
                    const Pass& p = *static_cast<const Pass*>(ctx);
                    Tile tile;
                    for (int64_t i = begin; i < end; i++) {
                      int64_t at = i * kTile, n = p.size - at < kTile ? p.size - at : kTile;
                      Body(p, tile, at, n);
                    }
                  },
                  const_cast<Pass*>(&p));
}

// The definition, of recorded ops, with the same random numbers.
Tensor act_of(const BiasAct& c, const Tensor& u) {
  const Tensor in[] = {u};
  return map_call(c.act, in, c.params);
}
Tensor dropped(const BiasAct& c, const Tensor& t) {
  if (!(c.p > 0)) return t;
  Generator again{c.random.seed, c.random.offset};
  const Tensor in[] = {t};
  return map_call(dropout_row(), in, &c.p, &again);
}
// The cotangent of x + bias from that of the result: every step is linear in g, so tangents go the same way.
Tensor graph_pull(const BiasAct& c, const Tensor& g, const Tensor& u, const Tensor& y) {
  const Tensor in[] = {u ? u : scalar_weak(0.0)};
  return c.act.pull[0](dropped(c, g), in, y ? y : in[0], c.params);
}

Pass pass_of(const BiasAct& c, const Shape& shape, DType dtype) {
  Pass p{.call = c, .compute = compute_of(dtype), .shape = shape, .x = {}, .bias = {}, .y = {}, .g = {}, .out = {}};
  p.size = count(shape);
  return p;
}

struct Slot {
  int x = -1, bias = -1, y = -1, words = -1;  // places among the saved tensors
};

Tensor fused_pull(const BiasAct& c, const Slots& s, const Slot& at, const Tensor& g, const Shape& shape, DType dtype) {
  Tensor x = at.x < 0 ? Tensor() : s[at.x], bias = at.bias < 0 ? Tensor() : s[at.bias];
  Tensor y = at.y < 0 ? Tensor() : s[at.y], words = at.words < 0 ? Tensor() : s[at.words];
  if (mode().grad || has_tangent(g) || has_tangent(x) || has_tangent(bias) || has_tangent(y)) {
    if (words) refuse_order(c.act.name.data(), "a derivative code");
    Tensor u = !x ? Tensor() : bias ? x + bias : x;
    return graph_pull(c, g, u, y ? y : c.reads_output() ? act_of(c, u) : Tensor());
  }
  Pass p = pass_of(c, shape, dtype);
  Tensor out = empty(shape, dtype);
  if (x) p.x = operand_of(x, shape);
  if (bias) p.bias = operand_of(bias, shape);
  if (y) p.y = operand_of(y, shape);
  if (words) p.words = words.data<uint32_t>();
  p.g = operand_of(g, shape);
  p.out = operand_of(out, shape);
  run<&backward_tile>(p);
  return out;
}

void check_bias_act(const Tensor& x, const Tensor& bias, const MapOp& act, double p) {
  const char* op = "bias_act_dropout";
  if (act.inputs != 1 || act.random || !act.differentiable)
    fail<ValueError>(op, "act must be an activation, got " + std::string(act.name), "for example act=\"gelu\"");
  if (!(p >= 0 && p < 1))
    fail<ValueError>(op, "p must be in [0, 1), got " + std::to_string(p), "p is the probability of a zero");
  if (!is_float(x.dtype())) fail<DTypeError>(op, "x must be floating", "cast it with .astype", x);
  if (bool(bias) && !(broadcast(x.shape(), bias.shape(), op) == x.shape()))
    fail<ShapeError>(op, "the bias must broadcast to the shape of x", "its usual shape is (width,)", x, bias);
}

}  // namespace

Tensor bias_act_dropout(const Tensor& x0, const Tensor& bias0, const MapOp& act, double p, Generator* rng,
                        const Saving* saving) {
  check_bias_act(x0, bias0, act, p);
  const Tensor both[] = {x0, bias0 ? bias0 : x0};
  DType dtype = result_dtype(both, "bias_act_dropout");
  Tensor x = cast(x0, dtype), bias = bias0 ? cast(bias0, dtype) : Tensor();
  BiasAct c(act, p);
  if (p > 0) c.random = (rng ? *rng : default_generator()).reserve(x.size());
  bool wanted = any_wants(x, bias);
  if (wanted && !has_tangent(x) && !has_tangent(bias)) c.code = code_for(act, c.params, dtype, saving_of(saving));
  if (c.code && c.code->random()) c.code = nullptr;
  if (on_cuda(x)) {
    const Tensor u[] = {bias ? x + bias : x};
    return dropped(c, map_call(act, u, c.params, nullptr, saving));
  }
  Tensor out = empty(x.shape(), dtype), words;
  Pass pass = pass_of(c, x.shape(), dtype);
  if (c.code) {
    words = empty({code_words(out.size(), c.code->bits())}, DType::U32);
    pass.words = words.data<uint32_t>();
  }
  pass.x = operand_of(x, x.shape());
  if (bias) pass.bias = operand_of(bias, x.shape());
  pass.out = operand_of(out, x.shape());
  run<&forward_tile>(pass);
  if (wanted) {
    Slot at;
    std::vector<Saved> saved;
    bool own = c.reads_output() && (p == 0 || act.name == "relu") && saving_of(saving).choice != SavedChoice::Input;
    if (c.code) {
      at.words = 0;
      saved.push_back(saved_code(words, c.code));
    } else if (own) {
      at.y = 0;
      saved.push_back(Saved::output(out));
    } else {
      at.x = 0;
      saved.push_back(Saved(x));
      if (bias) at.bias = 1, saved.push_back(Saved(bias));
    }
    Shape shape = x.shape(), bias_shape = bias ? bias.shape() : Shape();
    record("bias_act_dropout", {x, bias}, out, std::move(saved),
           [c, at, shape, bias_shape, dtype](const Slots& s, const PullArgs& a) {
             Tensor gu = fused_pull(c, s, at, a.g[0], shape, dtype);
             if (a.need(0)) a.gin[0] = gu;
             if (a.need(1)) a.gin[1] = sum_to_shape(gu, bias_shape);
           });
  }
  push_forward({x, bias}, out, [&](const Tensor* in, const Tensor* t, const Tensor& y) {
    Tensor u = in[1] ? in[0] + in[1] : in[0];
    Tensor d = t[0] && t[1] ? t[0] + t[1] : t[0] ? t[0] : broadcast_to(t[1], y.shape());
    return graph_pull(c, d, u, c.reads_output() ? act_of(c, u) : Tensor());
  });
  return out;
}

Tensor linear_act(const Tensor& x, const Tensor& weight, const Tensor& bias, const MapOp& act, const Saving* saved) {
  if (act.inputs != 1 || act.random || !act.differentiable)
    fail<ValueError>("linear_act", "act must be an activation, got " + std::string(act.name),
                     "for example act=\"gelu\"");
  const Tensor in[] = {linear(x, weight, bias)};
  return map_call(act, in, nullptr, nullptr, saved);
}

Tensor gated(const MapOp& op, const Tensor& a, const Tensor& b, int bits) {
  const Tensor in[] = {a, b};
  bits = operand_bits(op.name.data(), bits);
  bool same = a.shape() == b.shape() && a.dtype() == b.dtype() && !a.weak() && is_float(a.dtype());
  if (!bits || !same || !any_wants(a, b) || has_tangent(a) || has_tangent(b)) return map_call(op, in);
  Tensor out;
  {
    GradMode off(false);
    out = map_call(op, in);
  }
  const MapOp* row = &op;
  record_rebuilt(
      op.name.data(), {a, b}, out, {saved_whole(a, bits), saved_whole(b, bits)},
      [row](const Slots& s, const PullArgs& p) {
        Tensor in[] = {s[0], s[1]};
        for (int i = 0; i < 2; i++)
          if (p.need(i)) p.gin[i] = row->pull[i](p.g[0], in, in[0], nullptr);
      },
      [row](const Slots& s) {
        const Tensor in[] = {s[0], s[1]};
        return map_call(*row, in);
      },
      kRebuildsForProducts);
  return out;
}

}  // namespace pb
