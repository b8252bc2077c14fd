// Backward: a heap ordered by sequence number. The newest queued node is always ready, because every consumer of a
// node is newer than the node; no pass that counts dependencies is needed.
#include <sched.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "cpu/threads.h"
#include "families/map.h"
#include "families/view.h"
#include "tape/node.h"
#include "tape/onto.h"
#include "tensor/profile.h"

namespace pb {

Tensor accumulate(const Tensor& a, Tensor b) {
  if (!a) return b;
  if (!mode().grad && a.dtype() == b.dtype() && !has_tangent(a) && !has_tangent(b)) {
    if (unique(a) && a.contiguous() && a.shape() == b.shape()) {
      map_add_into(a, b);
      return a;
    }
    if (unique(b) && b.contiguous() && a.shape() == b.shape()) {
      map_add_into(b, a);
      return b;
    }
  }
  return a + b;
}

namespace {

bool older(const Node* a, const Node* b) { return a->seq < b->seq; }

// Leaves to whose gradient a product is being added, which may give up the interpreter lock. Another thread that shares
// the leaf makes a tensor of its own meanwhile and waits before it adds that. Read and changed under the lock.
std::vector<TensorImpl*> busy_leaves;
bool leaf_is_busy(const Tensor& leaf) {
  return std::find(busy_leaves.begin(), busy_leaves.end(), leaf.impl()) != busy_leaves.end();
}
struct BusyLeaf {
  Tensor leaf;
  explicit BusyLeaf(const Tensor& t) : leaf(t) { busy_leaves.push_back(t.impl()); }
  BusyLeaf(const BusyLeaf&) = delete;
  BusyLeaf& operator=(const BusyLeaf&) = delete;
  ~BusyLeaf() { std::erase(busy_leaves, leaf.impl()); }
};

class Run;
[[gnu::tls_model("initial-exec")]] thread_local Run* running = nullptr;

class Run {
 public:
  Run(std::span<const Tensor> wrt, BackwardOptions options) : options_(options), wrt_(wrt), captured_(wrt.size()) {
    outer_ = std::exchange(running, this);
    for (size_t i = 0; i < wrt.size(); i++) {
      refresh_view(wrt[i]);
      if (wrt[i]->node)
        captures_[wrt[i]->node].push_back(i);
      else
        leaf_captures_[wrt[i].impl()].push_back(i);
    }
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() {  // after an error: leave no node queued
    running = outer_;
    for (Node* n : queue_) {
      n->run = nullptr;
      n->cotangent = Tensor();
      n->cotangents.clear();
      drop(n);
    }
  }

  std::vector<Tensor> go(std::span<const Tensor> roots, std::span<const Tensor> cotangents) {
    if (!wrt_.empty()) mark_needed(roots);
    if (options_.taker) count_uses(roots);
    for (size_t i = 0; i < roots.size(); i++) {
      Edge e = edge_of(roots[i]);
      send(e, cotangents[i]);
      drop(e.node);
    }
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), older);
      Node* n = queue_.back();
      queue_.pop_back();
      struct Release {
        Node* n;
        ~Release() { drop(n); }
      } guard{n};
      poll_interrupt();
      Profiled scope(n->name(), n->seq);
      step(n);
    }
    for (auto& [leaf, grad] : hooked_leaves_) store(leaf, run_hooks(leaf, grad));
    return std::move(captured_);
  }

  // Several consumers of one output share what is made anew, until the producer's own step.
  Tensor rebuilt(Node* n) {
    for (auto& [node, y] : rebuilt_)
      if (node == n) return y;
    Tensor y = rebuild_at(n);
    rebuilt_.emplace_back(n, y);
    return y;
  }
  // A pull that makes a product for input i adds it to the sum that is there, instead of making a tensor to be added.
  bool add_onto(const PullArgs& p, int i, DType dtype, const std::function<bool(const Tensor&)>& add) {
    if (!pulling_ || p.edges != pulled_edges_ || mode().grad || mode().anomaly || options_.stop) return false;
    const Edge& e = pulling_->edges[size_t(i)];
    if (!wanted(e)) return false;
    bool leaf_grad = !e.node && wrt_.empty();
    if (leaf_grad && leaf_is_busy(e.leaf)) return false;
    const Tensor* at = leaf_grad ? grad_of(e.leaf) : sum_of(e);
    if (!at || !*at || (!leaf_grad && !unique(*at))) return false;
    Tensor sum = *at;
    if (sum->node || !sum.contiguous() || sum.dtype() != dtype || has_tangent(sum)) return false;
    if (!leaf_grad) return add(sum);
    BusyLeaf busy(e.leaf);
    if (!add(sum)) return false;
    sum->storage->version++;
    return true;
  }
  static Tensor rebuild_at(Node* n) {
    Tensor y;
    {
      GradMode off(false);
      y = n->rebuild();
    }
    if (mode().grad) attach(y, n, 0);
    return y;
  }

 private:
  static const Tensor* grad_of(const Tensor& leaf) {
    return leaf->meta && leaf->meta->hooks.empty() ? &leaf->meta->grad : nullptr;
  }
  // Where the cotangents that go along e are summed, if that is one place and something stands there.
  const Tensor* sum_of(const Edge& e) {
    if (e.node) {
      if (e.node->run != this) return nullptr;
      if (e.index == 0) return &e.node->cotangent;
      return e.index <= e.node->cotangents.size() ? &e.node->cotangents[e.index - 1] : nullptr;
    }
    auto it = leaf_captures_.find(e.leaf.impl());
    return it != leaf_captures_.end() && it->second.size() == 1 ? &captured_[it->second[0]] : nullptr;
  }
  // Only nodes on a path to a wanted tensor run. Producers are older, so one sweep by age settles it.
  void mark_needed(std::span<const Tensor> roots) {
    std::vector<Node*> all, stack;
    auto visit = [&](Node* n) {
      if (n && needed_.emplace(n, false).second) stack.push_back(n);
    };
    for (const Tensor& r : roots) visit(r->node);
    while (!stack.empty()) {
      Node* n = stack.back();
      stack.pop_back();
      all.push_back(n);
      if (options_.stop && captures_.count(n)) continue;
      for (const Edge& e : n->edges) visit(e.node);
    }
    std::sort(all.begin(), all.end(), older);
    for (Node* n : all) {
      bool need = captures_.count(n) > 0;
      for (const Edge& e : n->edges) need = need || wanted(e);
      needed_[n] = need;
    }
  }
  // How many edges lead to each leaf whose gradient somebody takes.
  void count_uses(std::span<const Tensor> roots) {
    std::vector<Node*> stack;
    std::unordered_set<Node*> seen;
    auto visit = [&](Node* n) {
      if (n && seen.insert(n).second) stack.push_back(n);
    };
    for (const Tensor& r : roots) visit(r->node);
    while (!stack.empty()) {
      Node* n = stack.back();
      stack.pop_back();
      for (const Edge& e : n->edges) {
        visit(e.node);
        if (e.leaf && options_.taker->wants(e.leaf)) uses_[e.leaf.impl()]++;
      }
    }
  }
  // An edge that will bring no more.
  void settle(const Edge& e) {
    auto it = uses_.find(e.leaf.impl());
    if (it == uses_.end() || --it->second) return;
    for (size_t i = 0; i < hooked_leaves_.size(); i++)
      if (hooked_leaves_[i].first.is(e.leaf)) {
        auto [leaf, sum] = hooked_leaves_[i];
        hooked_leaves_.erase(hooked_leaves_.begin() + ptrdiff_t(i));
        store(leaf, run_hooks(leaf, std::exchange(sum, Tensor())));
        break;
      }
    if (e.leaf->meta && e.leaf->meta->grad) options_.taker->take(e.leaf);
  }

  bool wanted(const Edge& e) const {
    if (wrt_.empty()) return e.live();
    if (e.node) {
      auto it = needed_.find(e.node);
      return it != needed_.end() && it->second;
    }
    return e.leaf && leaf_captures_.count(e.leaf.impl()) > 0;
  }

  void send(const Edge& e, const Tensor& g) {
    if (!g) return;
    if (e.node && options_.stop && capture(e, g)) return;
    if (e.node) {
      if (e.node->run && e.node->run != this)
        fail<GraphError>(e.node->name(), "another backward is running through this graph",
                         "run one backward at a time through a graph, or build a graph per thread");
      Tensor* slot = &e.node->cotangent;
      if (e.index) {
        if (e.node->cotangents.size() < e.index) e.node->cotangents.resize(e.index);
        slot = &e.node->cotangents[e.index - 1];
      }
      *slot = *slot ? accumulate(std::exchange(*slot, Tensor()), g) : g;
      if (!e.node->run) {
        e.node->run = this;
        retain(e.node);
        queue_.push_back(e.node);
        std::push_heap(queue_.begin(), queue_.end(), older);
      }
    } else if (e.leaf) {
      leaf(e.leaf, g);
    }
  }

  bool capture(const Edge& e, const Tensor& g) {
    auto it = captures_.find(e.node);
    if (it == captures_.end()) return false;
    for (size_t i : it->second)
      if (wrt_[i]->out_index == e.index)
        captured_[i] = captured_[i] ? accumulate(std::exchange(captured_[i], Tensor()), g) : g;
    return true;
  }

  void leaf(const Tensor& t, const Tensor& g) {
    if (!wrt_.empty()) {
      auto it = leaf_captures_.find(t.impl());
      if (it != leaf_captures_.end())
        for (size_t i : it->second)
          captured_[i] = captured_[i] ? accumulate(std::exchange(captured_[i], Tensor()), g) : g;
      return;
    }
    if (t->meta && !t->meta->hooks.empty()) {
      for (auto& [leaf, sum] : hooked_leaves_)
        if (leaf.is(t)) {
          sum = accumulate(std::exchange(sum, Tensor()), g);
          return;
        }
      hooked_leaves_.emplace_back(t, g);
      return;
    }
    store(t, g);
  }

  // The gradient of a leaf is never a buffer that somebody else sees.
  void store(const Tensor& t, const Tensor& g) {
    while (leaf_is_busy(t)) {
      LongKernel others_go_on(1e9);
      sched_yield();
    }
    KeepLock keep;  // threads that share weights add one after the other
    Tensor& grad = t->need_meta().grad;
    if (grad) {
      if (!options_.create_graph && !grad->node && grad.contiguous() && grad.dtype() == g.dtype() && !has_tangent(g)) {
        map_add_into(grad, g);
        grad->storage->version++;
      } else {
        grad = accumulate(std::exchange(grad, Tensor()), g);
      }
    } else if (options_.create_graph || (g->refs == 1 && unique(g) && g.contiguous())) {
      grad = g;
    } else {
      grad = clone(g);
    }
  }

  static Tensor run_hooks(const Tensor& t, Tensor g) {
    for (auto& [id, f] : t->meta->hooks)
      if (Tensor changed = f(g)) g = changed;
    return g;
  }

  void step(Node* n) {
    n->run = nullptr;
    size_t outs = std::max<size_t>(n->outputs, 1 + n->cotangents.size());
    std::vector<Tensor>& g = outputs_;
    g.clear();
    g.push_back(std::exchange(n->cotangent, Tensor()));
    for (Tensor& c : n->cotangents) g.push_back(std::exchange(c, Tensor()));
    n->cotangents.clear();
    if (g.size() < n->outputs) g.resize(n->outputs);
    for (size_t h = 0; h < n->hooks.size(); h++)
      if (n->hook_index[h] < outs && g[n->hook_index[h]])
        if (Tensor changed = n->hooks[h].second(g[n->hook_index[h]])) g[n->hook_index[h]] = changed;
    if (!wrt_.empty()) {
      auto it = captures_.find(n);
      if (it != captures_.end())
        for (size_t i : it->second)
          if (wrt_[i]->out_index < outs) captured_[i] = g[wrt_[i]->out_index];
      if (!inner_needed(n)) return;
    }
    if (n->released)
      fail<GraphError>(n->name(), "this graph was used by an earlier backward and its saved tensors are freed",
                       "pass retain_graph=True to the first backward");
    std::vector<Edge> masked;
    const Edge* edges = n->edges.begin();
    if (!wrt_.empty()) {  // a node need not compute what nobody asked for
      for (const Edge& e : n->edges) {
        Edge m;
        if (wanted(e)) m.leaf = g[0] ? g[0] : g.back();
        masked.push_back(m);
      }
      edges = masked.data();
    }
    if (n->late & kAddsInto && add_into_receiver(n, g[0])) return done(n);
    // A pull may run a backward of its own (composed definitions), so buffers in use are moved out of this object.
    std::vector<Tensor> gout = std::move(outputs_), gin = std::move(inputs_);
    gin.resize(n->edges.size());
    pulling_ = n, pulled_edges_ = edges;
    n->pull({gout.data(), gin.data(), edges});
    pulling_ = nullptr;
    if (mode().anomaly) check_finite(n, gin);
    if (!rebuilt_.empty()) std::erase_if(rebuilt_, [&](auto& r) { return r.first == n; });
    gout.clear();
    for (size_t i = 0; i < gin.size(); i++)
      if (wanted(n->edges[i])) send(n->edges[i], std::exchange(gin[i], Tensor()));
    gin.clear();
    outputs_ = std::move(gout);
    inputs_ = std::move(gin);
    done(n);
  }

  void done(Node* n) {
    if (!options_.retain_graph) {
      n->released = true;
      if (!n->pins) n->release();
    }
    if (options_.taker)
      for (const Edge& e : n->edges)
        if (e.leaf) settle(e);
  }

  // The pieces of a tensor that was cut up come back one by one: each is added at its place in the sum that the first
  // one left, instead of a tensor of zeros around each.
  bool add_into_receiver(Node* n, const Tensor& g) {
    if (!g || has_tangent(g)) return false;
    pulling_ = n, pulled_edges_ = n->edges.begin();
    auto add = [&](const Tensor& sum) { return n->add_into(sum, g); };
    bool added = add_onto({&g, nullptr, pulled_edges_}, 0, g.dtype(), add);
    pulling_ = nullptr;
    return added;
  }

  bool inner_needed(Node* n) const {
    for (const Edge& e : n->edges)
      if (wanted(e)) return true;
    return false;
  }
  static void check_finite(Node* n, const std::vector<Tensor>& gin) {
    for (size_t i = 0; i < gin.size(); i++)
      if (gin[i] && !all_finite(gin[i]))
        fail<GraphError>(n->name(), "backward produced a non-finite gradient for input " + std::to_string(i),
                         "the forward call was made here:\n" + n->trace, gin[i]);
  }

  Run* outer_;
  BackwardOptions options_;
  std::span<const Tensor> wrt_;
  std::vector<Tensor> captured_;
  std::vector<Tensor> outputs_, inputs_;  // the cotangents of one step; kept for their memory
  Node* pulling_ = nullptr;               // the node whose pull runs, and what it was given
  const Edge* pulled_edges_ = nullptr;
  std::vector<Node*> queue_;
  std::unordered_map<Node*, std::vector<size_t>> captures_;
  std::unordered_map<TensorImpl*, std::vector<size_t>> leaf_captures_;
  std::unordered_map<Node*, bool> needed_;
  std::vector<std::pair<Tensor, Tensor>> hooked_leaves_;
  std::unordered_map<TensorImpl*, uint32_t> uses_;
  std::vector<std::pair<Node*, Tensor>> rebuilt_;
};

}  // namespace

bool add_onto(const PullArgs& p, int i, DType dtype, const std::function<bool(const Tensor&)>& add) {
  return running && running->add_onto(p, i, dtype, add);
}
Tensor rebuilt(Node* n) { return running ? running->rebuilt(n) : Run::rebuild_at(n); }

std::vector<Tensor> backward(std::span<const Tensor> roots, std::span<const Tensor> cotangents,
                             std::span<const Tensor> wrt, BackwardOptions options) {
  options.retain_graph = options.retain_graph || options.create_graph;
  GradMode grad(options.create_graph);
  return Run(wrt, options).go(roots, cotangents);
}

}  // namespace pb
