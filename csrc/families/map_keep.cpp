// What the node of an element-wise op keeps: its inputs, its output, a few bits, or what the caller chose.
#include <string>

#include "cpu/dispatch.h"
#include "cpu/isa_std.h"
#include "cuda/copy_call.h"
#include "cuda/map_call.h"
#include "families/map_driver.h"
#include "families/map_node.h"
#include "fewbit/codec.h"

namespace pb {

CodeCall code_call = nullptr;

SavingState& saving_state() {
  static thread_local SavingState s;
  return s;
}

int announced_order() {
  int transforms = mode().graph_depth + mode().levels, order = saving_state().order;
  return transforms > order ? transforms : order;
}

const Saving& saving_of(const Saving* call) {
  const SavingState& s = saving_state();
  if (call && call->choice != SavedChoice::Auto) return *call;
  return s.saving.choice != SavedChoice::Auto ? s.saving : s.policy;
}

Tensor pack_bytes(const Tensor& codes, int bits) {
  Tensor words = empty({code_words(codes.size(), bits)}, DType::U32, codes.device());
  if (on_cuda(codes)) {
    cuda::pack_tensor(words, codes, bits);
    return words;
  }
  struct Job {
    uint32_t* words;
    const uint8_t* codes;
    int64_t n;
    int bits;
  } job{words.data<uint32_t>(), codes.data<uint8_t>(), codes.size(), bits};
  pb_parallel_for((codes.size() + kGroup - 1) / kGroup, kGrain / kGroup,
                  [](void* ctx, int64_t begin, int64_t end) {
                    const Job& j = *static_cast<Job*>(ctx);
                    int64_t first = begin * kGroup, last = end * kGroup < j.n ? end * kGroup : j.n;
                    code_kernels().pack(j.words + begin * j.bits, j.codes + first, last - first, j.bits);
                  },
                  &job);
  return words;
}

namespace {

constexpr int64_t kLeastCoded = 1024;  // below, a few bits instead of the tensor are not worth a pass

// Whether a constant is a number of this dtype.
bool holds(DType dtype, double v) {
  Tensor t = full({}, v, dtype);
  return item_double(t) == (dtype == DType::F64 ? v : double(float(v)));
}

bool own_output(const MapOp& op, DType dtype, const double* params) {
  if (!op.from_output || !op.from_output(params)) return false;
  if (!op.exact_params || dtype_of(compute_of(dtype)) == dtype) return true;
  for (int i = 0; i < op.nargs; i++)
    if (!holds(dtype, params[i])) return false;
  return true;
}

// A slot whose bits decide the derivative: read as an input with the same code. A constant to every order, since the
// derivative is a step function of the input.
class Steps final : public Late {
 public:
  Steps(const MapOp& op, const Shape& shape, const double* params) : shape_(shape), bits_(op.code_bits) {
    for (int c = 0; c < 1 << bits_; c++) level_[c] = float(op.code_value(c, params));
  }
  Tensor get(const Tensor& words, const char*) const override {
    Tensor x = empty(shape_, DType::F32, words.device());
    if (on_cuda(words)) {
      cuda::unpack_levels(x, words, bits_, level_);
      return x;
    }
    struct Job {
      float* out;
      const uint32_t* words;
      const float* level;
      int64_t n;
      int bits;
    } job{x.data<float>(), words.data<uint32_t>(), level_, x.size(), bits_};
    pb_parallel_for((x.size() + kGroup - 1) / kGroup, kGrain / kGroup,
                    [](void* ctx, int64_t begin, int64_t end) {
                      const Job& j = *static_cast<Job*>(ctx);
                      int64_t first = begin * kGroup, last = end * kGroup < j.n ? end * kGroup : j.n;
                      code_kernels().decode(j.out + first, nullptr, j.words + begin * j.bits, last - first, j.level,
                                            j.bits);
                    },
                    &job);
    return x;
  }
  const char* scheme() const override { return "mask"; }

 private:
  Shape shape_;
  int bits_;
  float level_[4] = {};
};

// The bytes of a code, one per element.
Tensor code_bytes(const MapCall& call, std::span<const Tensor> in) {
  GradMode off(false);
  Tensor codes = empty(call.out_shape, DType::U8, call.device);
  if (on_cuda(codes)) {
    cuda::map_code(call, in, codes);
    return codes;
  }
  MapPlan p;
  p.compute = compute_of(call.out_dtype);
  p.fn = call.op.kernels->code[int(p.compute)];
  p.shape = codes.shape();
  p.size = codes.size();
  p.params = call.params;
  p.inputs = int(in.size());
  for (size_t j = 0; j < in.size(); j++) p.in[j] = operand_of(in[j], codes.shape());
  // A kernel of codes takes no single values in registers: a third, unread input rules them out.
  if (p.inputs == 2) p.in[p.inputs++].single = false;
  p.out = operand_of(codes, codes.shape());
  run_plan(p);
  return codes;
}

// Bytes that keeping the inputs would hold and nobody else does: leaves and numbers are held anyway.
int64_t bytes_of_inputs(std::span<const Tensor> in, unsigned used) {
  int64_t bytes = 0;
  for (size_t j = 0; j < in.size(); j++)
    if ((used >> j & 1) && !in[j]->wants_grad && !in[j].weak()) bytes += in[j].size() * itemsize(in[j].dtype());
  return bytes;
}

bool keep_steps(MapNode& node, std::span<const Tensor> in, unsigned used) {
  const MapOp& op = node.op;
  int64_t n = count(node.out_shape);
  if (!op.code_value || n < kLeastCoded) return false;
  if (code_words(n, op.code_bits) * 4 >= bytes_of_inputs(in, used)) return false;
  Tensor words = pack_bytes(code_bytes(node, in), op.code_bits);
  for (size_t j = 0; j < in.size(); j++)
    if (used >> j & 1) node.in[j] = Saved(scalar_weak(0.0));
  node.in[op.coded] = Saved::packed(words, std::make_shared<Steps>(op, node.out_shape, node.params));
  return true;
}

// x from the kept output, and a bit for its side of the minimum. Its place in the graph is that of the input: to every
// order the derivative is that of the recovered x.
class FromOutput final : public Late {
 public:
  FromOutput(const MapOp& op, const Edge& input, const Tensor& out)
      : op_(op), output_(Saved::output(out)), node_(input.node), index_(input.index) {
    retain(node_);
  }
  FromOutput(const FromOutput&) = delete;
  FromOutput& operator=(const FromOutput&) = delete;
  ~FromOutput() override { drop(node_); }

  Tensor get(const Tensor& words, const char* name) const override {
    Tensor x;
    {
      GradMode off(false);
      Tensor y = output_.get(nullptr, name), side = Tensor(0.0);
      if (words.size()) {
        Tensor bits = unpack_codes(words, 1, y.size());
        side = alias(bits, y.shape(), contiguous_strides(y.shape()), 0);
      }
      x = empty(y.shape(), dtype_of(compute_of(y.dtype())), y.device());  // not rounded to 16 bits again
      const Tensor in[] = {y, side};
      double half = half_step(y.dtype());
      run_forward(find_map(op_.inverse), x, in, compute_of(y.dtype()), &half, nullptr);
    }
    if (mode().grad) attach(x, node_, index_);
    return x;
  }
  // What y may be off by, relative to the power of 2 below it: half a step of a 16-bit type; of float32 a step, which
  // the kernels' own rounding makes it.
  static double half_step(DType t) {
    return t == DType::BF16 ? 0x1p-8 : t == DType::F16 ? 0x1p-11 : t == DType::F32 ? 0x1p-23 : 0;
  }
  const char* scheme() const override { return "output"; }
  const char* error() const override { return "near"; }
  void visit(const Tensor& words, const VisitKept& f) const override {
    output_.visit(f, "near");
    if (words.size()) f({words, "side", "near"});
  }

 private:
  const MapOp& op_;
  Saved output_;
  Node* node_;
  uint32_t index_;
};

bool keep_inverse(MapNode& node, std::span<const Tensor> in, const Tensor& out) {
  const MapOp& op = node.op;
  if (op.inverse.empty() || has_tangent(in[0])) return false;
  if (!node.edges[0].node) {  // a leaf is held anyway, and exact
    node.in[0] = Saved(in[0]);
    return true;
  }
  Tensor words = op.code_bits ? pack_bytes(code_bytes(node, in), 1) : empty({0}, DType::U32, out.device());
  node.in[0] = Saved::packed(words, std::make_shared<FromOutput>(op, node.edges[0], out));
  return true;
}

void keep_output(MapNode& node, const Tensor& out) {
  node.from_y = bool(node.op.from_output);
  node.out = Saved::output(out);
}

bool keeps_inputs(const MapNode& node) {
  for (int j = 0; j < node.n; j++)
    if (!node.in[j]) return false;
  return true;
}

[[noreturn]] void refuse_output(const MapOp& op) {
  fail<ValueError>(op.name, "saved=\"output\": the output of this op does not tell the derivative",
                   "use saved=\"input\", \"recompute\" or None");
}

bool keep_chosen(MapNode& node, std::span<const Tensor> in, const Tensor& out, const Saving& s) {
  const MapOp& op = node.op;
  switch (s.choice) {
    case SavedChoice::Input:
      node.in[0] = Saved(in[0]);
      return true;
    case SavedChoice::Recompute:
      node.in[0] = Saved::whole(in[0]);
      node.late |= kRebuilds | kRebuildsForProducts;
      return true;
    case SavedChoice::Output:
      if (op.pull_y && (!op.from_output || own_output(op, out.dtype(), node.params))) {
        keep_output(node, out);
        node.near = op.only_asked;
        return true;
      }
      if (keep_inverse(node, in, out)) return true;
      if (s.asked && !op.code_value && !has_tangent(in[0])) refuse_output(op);
      return false;
    default:
      return false;
  }
}

}  // namespace

unsigned reads_of(const MapOp& op, int i, DType out, const double* params) {
  return own_output(op, out, params) && !op.only_asked ? 128u : op.uses[i];
}

bool map_code_call(const MapOp& op, std::span<const Tensor> in, const Tensor& out, const double* params,
                   const Saving& s) {
  if (in.size() != 1 || !code_call || !any_wants(in[0]) || has_tangent(in[0]) || !is_float(out.dtype())) return false;
  return code_call(op, in[0], out, params, s);
}

void keep_specially(MapNode& node, std::span<const Tensor> in, const Tensor& out, unsigned used, const Saving& s) {
  const MapOp& op = node.op;
  if (op.activation && in.size() == 1 && s.choice != SavedChoice::Auto && keep_chosen(node, in, out, s)) return;
  if (own_output(op, out.dtype(), node.params) && !op.only_asked) return keep_output(node, out);
  if (keep_steps(node, in, used)) return;
  bool rebuilds = op.rebuilds && s.choice != SavedChoice::Input;
  for (size_t j = 0; j < in.size(); j++)
    if (used >> j & 1) node.in[j] = rebuilds ? Saved::whole(in[j]) : Saved(in[j]);
  if (used >> 7 & 1) node.out = Saved::output(out);
  if (rebuilds && keeps_inputs(node))
    node.late |= kRebuildsForProducts | (s.choice == SavedChoice::Recompute ? kRebuilds : 0);
  if (op.rebuilds && s.asked && s.choice == SavedChoice::Output) refuse_output(op);
  if (op.random && node.edges[0].node) node.late |= kAsksWhenKept;
}

}  // namespace pb
