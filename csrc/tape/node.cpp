#include "tape/node.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "families/view.h"
#include "tensor/alloc.h"

namespace pb {

std::string (*trace_hook)() = nullptr;

namespace {
uint64_t counter = 0;
int64_t nodes = 0;
}  // namespace
uint64_t last_sequence() { return counter; }

Node::Node() {
  seq = ++counter;
  nodes++;
  if (mode().anomaly && trace_hook) trace = trace_hook();
}

Node::~Node() { nodes--; }
int64_t Node::alive() { return nodes; }

void retain(Node* n) {
  if (n) n->refs++;
}

// Note [Freeing a long chain]
// A node owns its producers through its edges and through saved tensors. Destroying it directly would recurse once
// per op of the chain, so nodes whose last reference goes are put on a list that the outermost call works off.
void drop(Node* n) {
  if (!n || --n->refs) return;
  static std::vector<Node*>* dead = nullptr;
  if (dead) {
    dead->push_back(n);
    return;
  }
  std::vector<Node*> list{n};
  dead = &list;
  while (!list.empty()) {
    Node* next = list.back();
    list.pop_back();
    for (Edge& e : next->edges) drop(std::exchange(e.node, nullptr));
    delete next;
  }
  dead = nullptr;
}

Edge edge_of(const Tensor& t) {
  Edge e;
  if (!wants_node(t)) return e;
  refresh_view(t);
  if (t->node) {
    retain(t->node);
    e.node = t->node;
    e.index = t->out_index;
    e.node->uses++;
    if (e.node->late & kWatches) e.node->consumed(t);
  } else {
    e.leaf = t;
  }
  return e;
}

void attach(const Tensor& out, Node* node, uint32_t index) {
  retain(node);
  drop(std::exchange(out->node, node));
  out->out_index = index;
}

// Note [What a slot holds]
// A leaf that wants a gradient and a Python number are held as they are: nothing can write to them while gradients are
// recorded. Any other input is held by a handle of the slot's own. The caller's handle would get a new node when it is
// written to in place, and that node may lead back to this slot: a cycle of references that nothing frees.
Saved::Saved(const Tensor& input, unsigned rebuild) {
  if (!input) return;
  if (!mode().grad || input->wants_grad || input.weak()) {
    t_ = input;
    version_ = input->storage->version;
    return;
  }
  refresh_view(input);
  if (input->node && input->node->late && bind_late(input, rebuild)) return;
  version_ = input->storage->version;
  t_ = detach(input);
  if (input->node) attach(t_, input->node, input->out_index);
  if (has_tangent(input)) t_->need_meta().tangents = input->meta->tangents;
}

namespace {

// Note [Rebuilding]
// The slot of a consumer refers to the producer, which makes its output anew from its own slots. That is the output
// that the consumer read only while nobody wrote to it (version 0: the producer's own fresh memory) and without
// tangents. The producer is older, so it is released after the consumer's pull; where one backward stops in between,
// the pin keeps its slots. The producer's slots are held as they are (Saved::whole): one level, no chain.
class Rebuild final : public Late {
 public:
  explicit Rebuild(Node* n) : node_(n) {
    retain(n);
    n->pins++;
  }
  Rebuild(const Rebuild&) = delete;
  Rebuild& operator=(const Rebuild&) = delete;
  ~Rebuild() override {
    if (!--node_->pins && node_->released) node_->release();
    drop(node_);
  }
  Tensor get(const Tensor&, const char*) const override { return rebuilt(node_); }
  const char* scheme() const override { return "recompute"; }

 private:
  Node* node_;
};

// A handle without memory, for slots that hold none.
Tensor nothing() {
  static const Tensor* t = new Tensor(empty({0}, DType::U8));
  return detach(*t);
}

}  // namespace

bool Saved::bind_late(const Tensor& input, unsigned rebuild) {
  Node* n = input->node;
  if (input->out_index || input->storage->version || has_tangent(input)) return false;
  if (n->late & rebuild) {
    t_ = nothing();
    kind_ = Kind::Late;
    t_->need_meta().late = std::make_shared<Rebuild>(n);
    return true;
  }
  if (n->late & kAsksWhenKept) n->output_kept(input);
  return false;
}

Saved Saved::packed(const Tensor& words, std::shared_ptr<const Late> form) {
  Saved s;
  s.t_ = detach(words);
  s.kind_ = Kind::Late;
  s.t_->need_meta().late = std::move(form);
  return s;
}

Saved Saved::output(const Tensor& out, uint32_t index) {
  Saved s;
  s.t_ = detach(out);
  s.version_ = out->storage->version;
  s.kind_ = Kind::Output;
  s.index_ = index;
  s.take_tangents(out);
  return s;
}

void Saved::take_tangents(const Tensor& out) {
  if (kind_ == Kind::Output && t_ && has_tangent(out) && out->out_index == index_)
    t_->need_meta().tangents = out->meta->tangents;
}

Tensor Saved::get(Node* self, const char* op) const {
  if (!t_) return t_;
  if (kind_ == Kind::Late) return t_->meta->late->get(t_, op);
  if (t_->storage->version != version_)
    fail<GraphError>(op,
                     "a tensor kept for backward was modified in place after the forward (version " +
                         std::to_string(t_->storage->version) + ", expected " + std::to_string(version_) + ")",
                     "write to a copy, or move the in-place op before the forward", t_);
  if (kind_ == Kind::Input || !mode().grad) return t_;
  Tensor out = detach(t_);
  if (has_tangent(t_)) out->need_meta().tangents = t_->meta->tangents;
  attach(out, self, index_);
  return out;
}

void Saved::visit(const VisitKept& f, const char* error) const {
  if (!t_) return;
  if (kind_ == Kind::Late)
    t_->meta->late->visit(t_, f);
  else
    f({t_, kind_ == Kind::Output ? "output" : "input", error});
}

Tensor Slots::input(int i) const {
  const Edge& e = self_->edges[size_t(i)];
  if (!e.node) return e.leaf;
  Tensor t = empty({0}, DType::F32);
  attach(t, e.node, e.index);
  return t;
}

void refuse_order(const char* op, const char* kept) {
  fail<GraphError>(op, std::string("what is kept for backward (") + kept + ") has no derivative of this order",
                   "pass saved=\"input\", or announce the order with pb.saving(order=2)");
}

void connect(Node* n, std::span<const Tensor> inputs, std::span<const Tensor> outs) {
  n->outputs = uint32_t(outs.size());
  n->edges.resize(inputs.size());
  for (size_t i = 0; i < inputs.size(); i++) n->edges[i] = edge_of(inputs[i]);
  for (size_t i = 0; i < outs.size(); i++)
    if (bool(outs[i]) && is_float(outs[i].dtype())) attach(outs[i], n, uint32_t(i));
  drop(n);
}

// ---- walks over a graph, iterative

namespace {
template <class Visit>
void walk(std::span<const Tensor> roots, Visit visit) {
  std::unordered_set<Node*> seen;
  std::vector<Node*> stack;
  auto push = [&](Node* n) {
    if (n && seen.insert(n).second) stack.push_back(n);
  };
  for (const Tensor& r : roots) push(r->node);
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    if (!visit(n)) return;
    for (const Edge& e : n->edges) push(e.node);
  }
}
}  // namespace

bool depends_on_others(std::span<const Tensor> roots, std::span<const Tensor> wrt) {
  auto mine = [&](const Tensor& t) {
    for (const Tensor& w : wrt)
      if (w.is(t)) return true;
    return false;
  };
  bool found = false;
  for (const Tensor& r : roots) found = found || (r->wants_grad && !mine(r));
  walk(roots, [&](Node* n) {
    for (const Edge& e : n->edges) found = found || (e.leaf && !mine(e.leaf));
    return !found;
  });
  return found;
}

void visit_saved(const Tensor& root, const std::function<void(const char*, const Kept&)>& f) {
  walk({&root, 1}, [&](Node* n) {
    n->visit_saved([&](const Kept& k) {
      if (!k.t.weak()) f(n->name(), k);  // a Python number is not a tensor that is kept
    });
    return true;
  });
}

std::vector<Tensor> boundary_of(const std::vector<Tensor>& roots, uint64_t start) {
  std::vector<Tensor> found;
  std::unordered_set<TensorImpl*> leaves;
  std::set<std::pair<Node*, uint32_t>> results;
  auto leaf = [&](const Tensor& t) {
    if (leaves.insert(t.impl()).second) found.push_back(t);
  };
  auto result = [&](Node* n, uint32_t index) {
    if (!results.emplace(n, index).second) return;
    Tensor t = empty({}, DType::F32);
    attach(t, n, index);
    found.push_back(t);
  };
  for (const Tensor& r : roots) {
    if (r->wants_grad && !r->node) leaf(r);
    if (r->node && r->node->seq <= start) result(r->node, r->out_index);
  }
  walk(roots, [&](Node* n) {
    if (n->seq <= start) return true;
    for (const Edge& e : n->edges) {
      if (e.leaf) leaf(e.leaf);
      if (e.node && e.node->seq <= start) result(e.node, e.index);
    }
    return true;
  });
  return found;
}

// ---- forward mode

bool has_tangent(const Tensor& t) {
  if (!t || !t->meta) return false;
  if (t->meta->base && mode().levels) refresh_view(t);
  return !t->meta->tangents.empty();
}

Tensor tangent(const Tensor& t, int level) {
  if (has_tangent(t))
    for (const Tangent& g : t->meta->tangents)
      if (g.level == level) return g.value;
  return Tensor();
}

Tensor strip(const Tensor& t, int level) {
  if (!has_tangent(t) || t->meta->tangents.back().level < level) return t;
  Tensor s = detach(t);
  s->weak = t.weak();
  if (t->node) attach(s, t->node, t->out_index);
  for (const Tangent& g : t->meta->tangents)
    if (g.level < level) s->need_meta().tangents.push_back(g);
  return s;
}

void set_tangent(const Tensor& t, int level, const Tensor& value) {
  auto& list = t->need_meta().tangents;
  for (Tangent& g : list)
    if (g.level == level) {
      g.value = value;
      return;
    }
  auto at = std::find_if(list.begin(), list.end(), [&](const Tangent& g) { return g.level > level; });
  list.insert(at, {level, value});
}

std::vector<int> levels_of(std::span<const Tensor> inputs) {
  std::vector<int> levels;
  for (const Tensor& t : inputs)
    if (has_tangent(t))
      for (const Tangent& g : t->meta->tangents)
        if (std::find(levels.begin(), levels.end(), g.level) == levels.end()) levels.push_back(g.level);
  std::sort(levels.begin(), levels.end());
  return levels;
}

}  // namespace pb
