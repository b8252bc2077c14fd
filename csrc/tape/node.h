// The tape: one node per recorded op, saved slots with a version check, and the engine's entry points.
#pragma once
#include <memory>
#include <span>

#include "tensor/tensor.h"

namespace pb {

// Where a cotangent goes: an output of a producer, or a leaf's gradient slot.
struct Edge {
  Node* node = nullptr;  // owned
  Tensor leaf;
  uint32_t index = 0;
  bool live() const { return node || leaf; }
};

// The edges of a node, sized once; up to three lie inside the node.
class Edges {
 public:
  Edges() = default;
  Edges(const Edges&) = delete;
  Edges& operator=(const Edges&) = delete;
  ~Edges() {
    if (data_ != inline_) delete[] data_;
  }
  void resize(size_t n) {
    if (n > 3) data_ = new Edge[n];
    n_ = n;
  }
  size_t size() const { return n_; }
  Edge& operator[](size_t i) { return data_[i]; }
  const Edge& operator[](size_t i) const { return data_[i]; }
  Edge* begin() { return data_; }
  Edge* end() { return data_ + n_; }
  const Edge* begin() const { return data_; }
  const Edge* end() const { return data_ + n_; }

 private:
  Edge inline_[3];
  Edge* data_ = inline_;
  size_t n_ = 0;
};

// One tensor that a slot holds, as the memory report shows it.
struct Kept {
  const Tensor& t;
  const char* scheme;  // "input", "output", "recompute", or the name of a packed form
  const char* error;   // "exact", "near", "bounded", "unbiased": how the gradient relates to that of keeping the input
};
using VisitKept = std::function<void(const Kept&)>;

// Note [Late binding]
// What stands in a slot for a tensor that is not kept: packed words with the way to read them, or the producer of the
// tensor, which makes it anew. A slot reads it during its pull only.
struct Late {
  virtual ~Late() = default;
  // The tensor. `words` is what the slot holds. With grad mode on the result has its place in the graph, or this is a
  // GraphError: call refuse_order. Never a constant in silence.
  virtual Tensor get(const Tensor& words, const char* op) const = 0;
  virtual const char* scheme() const = 0;
  virtual const char* error() const { return "exact"; }
  virtual void visit(const Tensor& words, const VisitKept& f) const { f({words, scheme(), error()}); }
};
// GraphError: what `op` kept has no derivative of the order that is asked for.
[[noreturn]] void refuse_order(const char* op, const char* kept);

// What a node has to say when somebody keeps or uses its output; bits of Node::late.
enum : uint8_t {
  kRebuildsForProducts = 1,  // output 0 can be made anew, cheap beside a matrix product
  kRebuilds = 2,             // output 0 is made anew for whoever would keep it: saved="recompute"
  kAsksWhenKept = 4,         // output_kept is called when somebody keeps output 0
  kWatches = 8,              // consumed is called at each further use of output 0
  kAddsInto = 16,            // add_into may do the work of a pull: one output, one input
};

// Cotangents in, cotangents out. need(i) tells whether gin[i] is wanted at all.
struct PullArgs {
  const Tensor* g;  // one per output, may be undefined (means zero)
  Tensor* gin;
  const Edge* edges;
  bool need(int i) const { return edges[i].live(); }
};

struct Node {
  uint32_t refs = 1;
  bool released = false;  // saved slots are gone, or go with the last pin
  uint8_t late = 0;       // see kRebuilds and its like
  uint32_t uses = 0;      // edges that were made to this node
  uint32_t pins = 0;      // slots of consumers that rebuild from this node's slots
  uint32_t outputs = 1;
  uint64_t seq;
  const void* run = nullptr;       // the backward in which it is queued
  Tensor cotangent;                // of output 0, while a backward runs
  std::vector<Tensor> cotangents;  // of outputs 1.., while a backward runs
  Edges edges;
  std::vector<std::pair<int64_t, std::function<Tensor(const Tensor&)>>> hooks;
  std::vector<uint32_t> hook_index;
  std::string trace;  // where the op was called, in anomaly mode

  Node();
  virtual ~Node();
  static int64_t alive();  // in the process
  virtual const char* name() const = 0;
  // Runs with grad mode on when the gradient itself is to be differentiated, else off.
  virtual void pull(const PullArgs& a) = 0;
  virtual void release() = 0;  // drops the saved slots
  // Tensors held for backward, for the memory report.
  virtual void visit_saved(const VisitKept&) const {}
  // `out` just received its tangents: a kept output needs them too (Note [Tangents]).
  virtual void output_pushed(const Tensor&) {}
  // The values of output 0 from the slots, outside the graph. One level: what it reads is held by slots as it is.
  virtual Tensor rebuild() { return Tensor(); }
  virtual void output_kept(const Tensor&) {}
  // Offers z, kept by somebody, in place of the kept output 0: it has the sign of that wherever the cotangent is not 0.
  virtual bool stand_in(const Tensor&) { return false; }
  virtual void consumed(const Tensor&) {}
  // Adds what pull makes of g into `sum`, the contiguous cotangent that the input has so far; false where it cannot.
  virtual bool add_into(const Tensor& /*sum*/, const Tensor& /*g*/) { return false; }
};
void retain(Node* n);
void drop(Node* n);  // iterative: a chain of any length is freed without recursion

// A tensor kept for backward, or what stands for it. Reading it checks that nobody wrote to it since.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& input) : Saved(input, kRebuilds) {}
  // For products, whose backward is dear enough that an operand may be made anew for it.
  static Saved operand(const Tensor& input) { return Saved(input, kRebuilds | kRebuildsForProducts); }
  // The tensor itself, whatever its producer offers: for nodes that rebuild their own output from it.
  static Saved whole(const Tensor& input) { return Saved(input, 0); }
  // Words that nobody else sees, and how to read them.
  static Saved packed(const Tensor& words, std::shared_ptr<const Late> form);
  // Keeps the output's storage only; the handle is rebuilt with the edge at reading, so no cycle exists.
  static Saved output(const Tensor& out, uint32_t index = 0);
  void take_tangents(const Tensor& out);  // of the output that is kept here
  Tensor get(Node* self, const char* op) const;
  const Tensor& peek() const { return t_; }
  explicit operator bool() const { return bool(t_); }
  void visit(const VisitKept& f, const char* error = "exact") const;
  bool is_output() const { return kind_ == Kind::Output && t_; }
  uint32_t version() const { return version_; }
  void set_version(uint32_t v) { version_ = v; }  // of the memory when it was first kept

 private:
  enum class Kind : uint8_t { Input, Output, Late };
  Saved(const Tensor& input, unsigned rebuild);
  bool bind_late(const Tensor& input, unsigned rebuild);

  Tensor t_;
  uint32_t version_ = 0;
  Kind kind_ = Kind::Input;
  uint32_t index_ = 0;
};

Edge edge_of(const Tensor& t);
inline bool wants_node(const Tensor& t) { return t && t.requires_grad() && is_float(t.dtype()); }
template <class... Ts>
bool any_wants(const Ts&... ts) {
  return mode().grad && (wants_node(ts) || ...);
}
void attach(const Tensor& out, Node* node, uint32_t index = 0);  // retains the node

// What a recorded closure reads back: slots[i] is the i-th saved tensor, version checked, with its place in the graph.
class Slots {
 public:
  Slots(Node* self, const char* op, const Saved* saved) : self_(self), op_(op), saved_(saved) {}
  Tensor operator[](int i) const { return saved_[i].get(self_, op_); }
  const Saved& slot(int i) const { return saved_[i]; }  // as it is held, nothing checked
  // The place of input i in the graph: a leaf, or a handle without data to record an op on; undefined for a constant.
  Tensor input(int i) const;

 private:
  Node* self_;
  const char* op_;
  const Saved* saved_;
};

// A node whose pull is a closure f(const Slots&, const PullArgs&); tensors it needs are saved slots, never captures.
template <class F>
struct FnNode : Node, alloc::Recycled<FnNode<F>> {
  const char* op;
  std::vector<Saved> saved;
  F f;
  FnNode(const char* n, std::vector<Saved> s, F fn) : op(n), saved(std::move(s)), f(std::move(fn)) {}
  const char* name() const override { return op; }
  void pull(const PullArgs& a) override { f(Slots(this, op, saved.data()), a); }
  void release() override { saved.clear(); }
  void visit_saved(const VisitKept& visit) const override {
    for (const Saved& s : saved) s.visit(visit);
  }
  void output_pushed(const Tensor& out) override {
    for (Saved& s : saved) s.take_tangents(out);
  }
};

// The same with a second closure r(const Slots&) that makes output 0 anew.
template <class F, class R>
struct RebuildNode final : FnNode<F>, alloc::Recycled<RebuildNode<F, R>> {
  using alloc::Recycled<RebuildNode>::operator new;
  using alloc::Recycled<RebuildNode>::operator delete;
  R r;
  RebuildNode(const char* n, std::vector<Saved> s, F fn, R rebuilds, uint8_t when)
      : FnNode<F>(n, std::move(s), std::move(fn)), r(std::move(rebuilds)) {
    this->late = when;
  }
  Tensor rebuild() override { return r(Slots(this, this->op, this->saved.data())); }
};

void connect(Node* n, std::span<const Tensor> inputs, std::span<const Tensor> outs);  // edges and places; drops n

// Records an op when an input wants a gradient. `saved` may hold Saved(input) and Saved::output(out, index);
// f(const Slots& s, const PullArgs& a) fills a.gin[i] for every input i with a.need(i).
template <class F>
void record_n(const char* op, std::span<const Tensor> inputs, std::span<const Tensor> outs, std::vector<Saved> saved,
              F f) {
  bool wanted = false;
  for (const Tensor& t : inputs) wanted = wanted || wants_node(t);
  if (!wanted || !mode().grad) return;
  connect(new FnNode<F>(op, std::move(saved), std::move(f)), inputs, outs);
}
// An op of one float output that consumers may make anew: r(const Slots&) gives its values; `when` as in Node::late.
template <class F, class R>
void record_rebuilt(const char* op, std::initializer_list<Tensor> inputs, const Tensor& out, std::vector<Saved> saved,
                    F f, R r, uint8_t when) {
  bool wanted = false;
  for (const Tensor& t : inputs) wanted = wanted || wants_node(t);
  if (!wanted || !mode().grad) return;
  connect(new RebuildNode<F, R>(op, std::move(saved), std::move(f), std::move(r), when),
          {inputs.begin(), inputs.size()}, {&out, 1});
}
template <class F>
void record(const char* op, std::initializer_list<Tensor> inputs, const Tensor& out, std::vector<Saved> saved, F f) {
  if (is_float(out.dtype())) record_n(op, {inputs.begin(), inputs.size()}, {&out, 1}, std::move(saved), std::move(f));
}
template <class F>
void record(const char* op, std::initializer_list<Tensor> inputs, const Tensor& out, F f) {
  record(op, inputs, out, {}, [f](const Slots&, const PullArgs& a) { f(a); });
}

// ---- forward mode
// Note [Tangents]
// A tensor carries one tangent per active jvp level. The rule of a level sees its inputs without that level and
// without deeper ones, so what it computes carries only outer levels: nested jvp never confuses perturbations.
// Saved slots keep the tangents, which makes backward inside jvp (forward over reverse) work.
Tensor tangent(const Tensor& t, int level);  // undefined when there is none
Tensor strip(const Tensor& t, int level);    // same node and storage, without tangents at `level` and deeper
void set_tangent(const Tensor& t, int level, const Tensor& value);
bool has_tangent(const Tensor& t);
std::vector<int> levels_of(std::span<const Tensor> inputs);
// Nothing differentiates what is computed from `t`: a rule may then use a fused kernel or write in place.
inline bool is_constant(const Tensor& t) { return !t || (!(mode().grad && wants_node(t)) && !has_tangent(t)); }

// rule(primal inputs, tangents (some undefined), out) -> tangent of out. Built-in ops have exactly one such rule.
template <class Rule>
void push_forward(std::span<const Tensor> inputs, const Tensor& out, Rule rule) {
  if (!mode().levels || !is_float(out.dtype())) return;
  for (int level : levels_of(inputs)) {
    std::vector<Tensor> primal, tang;
    for (const Tensor& t : inputs) {
      primal.push_back(t ? strip(t, level) : Tensor());
      tang.push_back(t ? tangent(t, level) : Tensor());
    }
    Tensor result = rule(primal.data(), tang.data(), out);
    if (result) set_tangent(out, level, result);
  }
  if (out->node && has_tangent(out)) out->node->output_pushed(out);
}
template <class Rule>
void push_forward(std::initializer_list<Tensor> inputs, const Tensor& out, Rule rule) {
  if (mode().levels) push_forward(std::span<const Tensor>(inputs.begin(), inputs.size()), out, rule);
}

// ---- engine
// Who takes the gradients of leaves as they become complete: when every node that reads the leaf has run.
struct GradTaker {
  virtual ~GradTaker() = default;
  virtual bool wants(const Tensor& leaf) const = 0;
  virtual void take(const Tensor& leaf) = 0;  // its gradient stands in .grad
};
struct BackwardOptions {
  bool create_graph = false;
  bool retain_graph = false;
  bool stop = false;  // do not go past the tensors of `wrt`, nor touch their nodes: a larger backward may be running
  GradTaker* taker = nullptr;  // leaves that a node never reached, or that are roots, are left to its owner
};
// Without `wrt`: adds into the leaves' .grad. With it: returns the gradients, undefined where independent.
std::vector<Tensor> backward(std::span<const Tensor> roots, std::span<const Tensor> cotangents,
                             std::span<const Tensor> wrt, BackwardOptions options);
Tensor accumulate(const Tensor& a, Tensor b);
// Whether the graph of `roots` reaches a leaf that is not in `wrt`: then a gradient transform must stay differentiable.
bool depends_on_others(std::span<const Tensor> roots, std::span<const Tensor> wrt);
// Output 0 of n made anew, with its place in the graph when grad mode is on; once per backward.
Tensor rebuilt(Node* n);
// What the graph of `root` keeps for backward: f(op name, what is kept), once per slot.
void visit_saved(const Tensor& root, const std::function<void(const char*, const Kept&)>& f);
// What the graph of `roots` reads that was made before sequence number `start`: leaves, and results of older nodes as
// handles without data.
std::vector<Tensor> boundary_of(const std::vector<Tensor>& roots, uint64_t start);
uint64_t last_sequence();
// Called for each new node in anomaly mode; tells where in the user's program the op was called.
extern std::string (*trace_hook)();

}  // namespace pb
