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
}
uint64_t last_sequence() { return counter; }

Node::Node() {
  seq = ++counter;
  alive++;
  if (mode().anomaly && trace_hook) trace = trace_hook();
}

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
Saved::Saved(const Tensor& input) : t_(input) {
  if (!input) return;
  version_ = input->storage->version;
  if (!mode().grad || input->wants_grad || input.weak()) return;
  refresh_view(input);
  t_ = detach(input);
  if (input->node) attach(t_, input->node, input->out_index);
  if (has_tangent(input)) t_->need_meta().tangents = input->meta->tangents;
}

Saved Saved::output(const Tensor& out, uint32_t index) {
  Saved s;
  s.t_ = detach(out);
  s.version_ = out->storage->version;
  s.own_ = true;
  s.index_ = index;
  s.take_tangents(out);
  return s;
}

void Saved::take_tangents(const Tensor& out) {
  if (own_ && t_ && has_tangent(out) && out->out_index == index_) t_->need_meta().tangents = out->meta->tangents;
}

Tensor Saved::get(Node* self, const char* op) const {
  if (!t_) return t_;
  if (t_->storage->version != version_)
    fail<GraphError>(op,
                     "a tensor kept for backward was modified in place after the forward (version " +
                         std::to_string(t_->storage->version) + ", expected " + std::to_string(version_) + ")",
                     "write to a copy, or move the in-place op before the forward", t_);
  if (!own_ || !mode().grad) return t_;
  Tensor out = detach(t_);
  if (has_tangent(t_)) out->need_meta().tangents = t_->meta->tangents;
  attach(out, self, index_);
  return out;
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

void visit_saved(const Tensor& root, const std::function<void(const char*, const Tensor&)>& f) {
  walk({&root, 1}, [&](Node* n) {
    n->visit_saved([&](const Tensor& t) {
      if (!t.weak()) f(n->name(), t);  // a Python number is not a tensor that is kept
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
