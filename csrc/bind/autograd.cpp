// Backward, gradients, hooks, modes, forward-mode levels and ops written in Python.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <unordered_set>

#include "bind/front.h"
#include "families/map.h"
#include "families/view.h"

namespace pb::py {

namespace {

std::vector<Tensor> tensors_of(nb::handle list) {
  std::vector<Tensor> v;
  for (nb::handle h : nb::cast<nb::sequence>(list))
    v.push_back(h.is_none() ? Tensor() : checked_tensor(h, "gradients"));
  return v;
}

nb::tuple tuple_of(const std::vector<Tensor>& v) {
  nb::list l;
  for (const Tensor& t : v) l.append(nb::steal(wrap(t)));
  return nb::tuple(l);
}

// The cotangent of a root: ones for one element, else what the caller gave, in the root's shape and dtype.
Tensor cotangent_of(const Tensor& root, const Tensor& given, const char* op) {
  if (!is_float(root.dtype()) || !root.requires_grad())
    fail<GraphError>(op, "the tensor does not require grad and has no graph",
                     "compute it from a tensor with requires_grad=True, outside pb.no_grad()", root);
  if (!given) {
    if (root.size() != 1)
      fail<GraphError>(op, "only a tensor of one element has a gradient without a cotangent",
                       "reduce it to a scalar, or pass a cotangent of its shape", root);
    return ones(root.shape(), root.dtype(), root.device());
  }
  if (!(given.shape() == root.shape()))
    fail<ShapeError>(op, "the cotangent must have the shape of the output", "reshape it", root, given);
  return cast(given, root.dtype());
}

void backward_of(const Tensor& root, const Tensor& cotangent, bool create_graph, bool retain_graph) {
  refresh_view(root);
  Tensor g = cotangent_of(root, cotangent, "backward");
  backward({&root, 1}, {&g, 1}, {}, {create_graph, retain_graph});
}

nb::tuple gradients_of(nb::handle outputs, nb::handle inputs, nb::handle cotangents, bool create_graph,
                       bool retain_graph) {
  std::vector<Tensor> outs = tensors_of(outputs), ins = tensors_of(inputs), gs;
  for (nb::handle list : {outputs, inputs})
    for (nb::handle h : nb::cast<nb::sequence>(list)) checked_tensor(h, "gradients");
  if (!cotangents.is_none()) gs = tensors_of(cotangents);
  if (!gs.empty() && gs.size() != outs.size())
    fail<ShapeError>("gradients",
                     std::to_string(gs.size()) + " cotangents for " + std::to_string(outs.size()) + " outputs",
                     "give one cotangent per output");
  std::vector<Tensor> roots, seeds;
  for (size_t i = 0; i < outs.size(); i++) {
    refresh_view(outs[i]);
    if (!outs[i].requires_grad()) continue;  // independent of every input
    roots.push_back(outs[i]);
    seeds.push_back(cotangent_of(outs[i], gs.empty() ? Tensor() : gs[i], "gradients"));
  }
  std::vector<Tensor> r(ins.size());
  if (!roots.empty()) r = backward(roots, seeds, ins, {create_graph, retain_graph});
  for (size_t i = 0; i < r.size(); i++)
    if (!r[i]) r[i] = zeros(ins[i].shape(), ins[i].dtype(), ins[i].device());
  return tuple_of(r);
}

// ---- hooks

int64_t next_hook = 0;

Tensor call_hook(const nb::object& f, const Tensor& g) {
  nb::object r = f(nb::steal(wrap(g)));
  if (r.is_none()) return Tensor();
  if (!is_tensor(r.ptr()))
    fail<DTypeError>("hook", "a gradient hook returns a tensor or None", "return the new gradient");
  return unwrap(r.ptr());
}

int64_t register_hook(const Tensor& t, nb::object f) {
  refresh_view(t);
  if (!t.requires_grad())
    fail<GraphError>("register_hook", "the tensor does not require grad", "call requires_grad_() first", t);
  int64_t id = ++next_hook;
  auto hook = [f](const Tensor& g) { return call_hook(f, g); };
  if (t->node) {
    t->node->hooks.emplace_back(id, hook);
    t->node->hook_index.push_back(t->out_index);
  } else {
    t->need_meta().hooks.emplace_back(id, hook);
  }
  return id;
}

void remove_hook(const Tensor& t, int64_t id) {
  if (t->meta) std::erase_if(t->meta->hooks, [&](auto& h) { return h.first == id; });
  if (!t->node) return;
  for (size_t i = 0; i < t->node->hooks.size(); i++)
    if (t->node->hooks[i].first == id) {
      t->node->hooks.erase(t->node->hooks.begin() + int64_t(i));
      t->node->hook_index.erase(t->node->hook_index.begin() + int64_t(i));
      return;
    }
}

// The cell is shared by the tensor and its node's hook, so neither owns the other.
void retain_grad(const Tensor& t) {
  if (!t.requires_grad())
    fail<GraphError>("retain_grad", "the tensor does not require grad", "call requires_grad_() first", t);
  Meta& m = t->need_meta();
  if (!t->node || m.retained) return;
  m.retained = std::make_shared<Tensor>();
  t->node->hooks.emplace_back(++next_hook, [cell = m.retained](const Tensor& g) {
    *cell = *cell ? accumulate(*cell, g) : with_copy(g);
    return Tensor();
  });
  t->node->hook_index.push_back(t->out_index);
}

// ---- transforms

// The tensor that a gradient transform differentiates by: a leaf of its own, joined to x where x has a graph.
Tensor lift(const Tensor& x) {
  if (!is_float(x.dtype()))
    fail<DTypeError>("grad", "only floating tensors can be differentiated",
                     "cast the argument with .astype(pb.float32)", x);
  refresh_view(x);
  Tensor t = detach(x);
  if (x.requires_grad()) {
    GradMode on(true);
    record("lift", {x}, t, [](const PullArgs& a) { a.gin[0] = a.g[0]; });
  } else {
    t->wants_grad = true;
  }
  if (has_tangent(x)) t->need_meta().tangents = x->meta->tangents;
  return t;
}

Tensor make_dual(const Tensor& x, const Tensor& t, int level) {
  if (!is_float(x.dtype()))
    fail<DTypeError>("jvp", "only floating tensors carry tangents", "cast the argument with .astype(pb.float32)", x);
  if (!(x.shape() == t.shape()))
    fail<ShapeError>("jvp", "a tangent must have the shape of its primal", "reshape it", x, t);
  refresh_view(x);
  Tensor d = detach(x);
  if (x->node)
    attach(d, x->node, x->out_index);
  else if (x->wants_grad) {
    record("lift", {x}, d, [](const PullArgs& a) { a.gin[0] = a.g[0]; });
  }
  if (has_tangent(x)) d->need_meta().tangents = x->meta->tangents;
  set_tangent(d, level, cast(t, x.dtype()));
  return d;
}

// ---- ops written in Python

// Nodes keep a pointer to their name, so a name from Python is kept for good, once.
const char* interned(const std::string& name) {
  static auto* names = new std::unordered_set<std::string>;
  return names->insert(name).first->c_str();
}

Tensor checked_like(nb::handle h, const Tensor& like, const char* what) {
  if (h.is_none()) return Tensor();
  if (!is_tensor(h.ptr()))
    fail<DTypeError>("custom", std::string(what) + " returns tensors or None", "return one per input");
  const Tensor& g = unwrap(h.ptr());
  if (!(g.shape() == like.shape()))
    fail<ShapeError>("custom", std::string(what) + " returned a tensor of another shape", "it must equal the primal's",
                     like, g);
  return cast(g, like.dtype());
}

nb::list list_of(const Tensor* t, size_t n) {
  nb::list l;
  for (size_t i = 0; i < n; i++) l.append(nb::steal(wrap(t[i])));
  return l;
}

// pull(cotangents, outputs, inputs) -> cotangents of the inputs, push(tangents, outputs, inputs) -> tangents of the
// outputs; None stands for zero.
nb::tuple custom(const std::string& name, nb::handle inputs, nb::handle outputs, nb::object pull, nb::object push) {
  const char* op = interned(name);
  std::vector<Tensor> ins = tensors_of(inputs), outs;
  for (const Tensor& t : tensors_of(outputs)) outs.push_back(detach(t));
  std::vector<Saved> saved;
  if (!pull.is_none()) {
    for (const Tensor& t : ins) saved.emplace_back(t);
    for (size_t i = 0; i < outs.size(); i++) saved.push_back(Saved::output(outs[i], uint32_t(i)));
    record_n(
        op, ins, outs, std::move(saved), [pull, n = ins.size(), k = outs.size()](const Slots& s, const PullArgs& a) {
          std::vector<Tensor> x(n), y(k);
          for (size_t i = 0; i < n; i++) x[i] = s[int(i)];
          for (size_t i = 0; i < k; i++) y[i] = s[int(n + i)];
          nb::sequence r = nb::cast<nb::sequence>(pull(list_of(a.g, k), list_of(y.data(), k), list_of(x.data(), n)));
          for (size_t i = 0; i < n; i++)
            if (a.need(int(i))) a.gin[i] = checked_like(nb::object(r[i]), x[i], "pull");
        });
  }
  if (!mode().levels) return tuple_of(outs);
  for (int level : levels_of(ins)) {
    if (push.is_none())
      fail<GraphError>(op, "has no forward-mode rule", "give it one with @f.push, or use reverse mode");
    std::vector<Tensor> primal, tang;
    for (const Tensor& t : ins) {
      primal.push_back(strip(t, level));
      tang.push_back(tangent(t, level));
    }
    nb::sequence r = nb::cast<nb::sequence>(push(list_of(tang.data(), tang.size()), list_of(outs.data(), outs.size()),
                                                 list_of(primal.data(), primal.size())));
    for (size_t i = 0; i < outs.size(); i++)
      if (Tensor v = checked_like(nb::object(r[i]), outs[i], "push")) set_tangent(outs[i], level, v);
  }
  for (const Tensor& t : outs)
    if (t->node && has_tangent(t)) t->node->output_pushed(t);
  return tuple_of(outs);
}

// What the graph of `outs` reads from before node `start`: leaves, and results of older nodes as handles on them.
nb::list boundary(nb::handle outs, uint64_t start) {
  nb::list found;
  for (const Tensor& t : boundary_of(tensors_of(outs), start)) found.append(nb::steal(wrap(t)));
  return found;
}

// An op whose inputs are a boundary: pull(cotangents) returns one cotangent or None per source.
nb::tuple custom_boundary(const std::string& name, nb::handle sources, nb::handle outputs, nb::object pull) {
  const char* op = interned(name);
  std::vector<Tensor> ins = tensors_of(sources), outs;
  for (const Tensor& t : tensors_of(outputs)) outs.push_back(detach(t));
  record_n(op, ins, outs, {}, [pull, n = ins.size(), k = outs.size()](const Slots&, const PullArgs& a) {
    nb::sequence r = nb::cast<nb::sequence>(pull(list_of(a.g, k)));
    for (size_t i = 0; i < n; i++)
      if (nb::object g = r[i]; a.need(int(i)) && !g.is_none()) a.gin[i] = checked_tensor(g, "custom");
  });
  return tuple_of(outs);
}

nb::tuple pull_boundary(nb::handle outputs, nb::handle cotangents, nb::handle sources, bool create_graph) {
  std::vector<Tensor> outs = tensors_of(outputs), gs = tensors_of(cotangents), ins = tensors_of(sources);
  return tuple_of(backward(outs, gs, ins, {create_graph, create_graph, true}));
}

std::string python_trace() {
  nb::object stack = nb::module_::import_("traceback").attr("format_stack")(nb::arg("limit") = 6);
  return nb::cast<std::string>(nb::str("").attr("join")(stack));
}

nb::list saved_of(const Tensor& root) {
  std::vector<Tensor> leaves = boundary_of({root}, 0);
  auto parameter = [&](const Tensor& t) {
    for (const Tensor& l : leaves)
      if (l->storage == t->storage) return true;
    return false;
  };
  nb::list out;
  visit_saved(root, [&](const char* op, const Kept& kept) {
    const Tensor& t = kept.t;
    if (parameter(t) || t->storage == root->storage) return;
    nb::dict row;
    row["op"] = op;
    row["shape"] = shape_tuple(t.shape());
    row["dtype"] = dtype_name(t.dtype());
    row["bytes"] = int64_t(t->storage->bytes);
    row["address"] = reinterpret_cast<uintptr_t>(t.raw());
    row["storage"] = reinterpret_cast<uintptr_t>(t->storage);
    row["scheme"] = kept.scheme;
    row["error"] = kept.error;
    out.append(row);
  });
  return out;
}

}  // namespace

void bind_autograd(nb::module_& m) {
  nb::object cls = m.attr("Tensor");
  auto method = [&](const char* name, auto f, const auto&... extra) {
    cls.attr(name) = nb::cpp_function(f, nb::name(name), nb::scope(cls), nb::is_method(), extra...);
  };
  method(
      "backward",
      [](const Tensor& x, nb::handle g, bool create_graph, bool retain_graph) {
        backward_of(x, g.is_none() ? Tensor() : to_tensor(g.ptr()), create_graph, retain_graph);
      },
      nb::arg("cotangent").none() = nb::none(), nb::kw_only(), nb::arg("create_graph") = false,
      nb::arg("retain_graph") = false,
      "Adds the gradient of this tensor into .grad of every leaf it was computed from.\n\n"
      "Example:\n    >>> x = pb.tensor([1.0, 2.0], requires_grad=True)\n    >>> (x * x).sum().backward()\n"
      "    >>> x.grad.tolist()\n    [2.0, 4.0]");
  method("retain_grad", &retain_grad, "Keeps the gradient of a result, not only of leaves, in .grad.");
  method("_register_hook", &register_hook);
  method("_remove_hook", &remove_hook);
  m.def("_gradients", &gradients_of, nb::arg("outputs"), nb::arg("inputs"), nb::arg("cotangents").none(),
        nb::arg("create_graph"), nb::arg("retain_graph"));
  m.def("_depends_on_others",
        [](nb::handle outs, nb::handle ins) { return depends_on_others(tensors_of(outs), tensors_of(ins)); });
  m.def("_lift", &lift);
  m.def("_saved", &saved_of);
  def_op(
      m,
      {"stop_gradient", "Custom", "stop_gradient(x)",
       "x as a constant: the same memory, no gradient and no tangent.\n\nExample:\n"
       "    >>> pb.grad(lambda x: x * pb.stop_gradient(x))(pb.tensor(3.0)).item()\n    3.0",
       "zero"},
      [](const Operand& x) { return detach(x.t); }, nb::arg("x"));
  m.def("_grad_enabled", [] { return mode().grad; });
  m.def("_set_grad_enabled", [](bool on) { return std::exchange(mode().grad, on); });
  m.def("_set_anomaly", [](bool on) { return std::exchange(mode().anomaly, on); });
  m.def("_enter_graph", [] { return ++mode().graph_depth; });
  m.def("_leave_graph", [] { return --mode().graph_depth; });
  m.def("_enter_level", [] { return ++mode().levels; });
  m.def("_leave_level", [] { return --mode().levels; });
  m.def("_sequence", &last_sequence);
  m.def("_boundary", &boundary);
  m.def("_custom_boundary", &custom_boundary);
  m.def("_pull_boundary", &pull_boundary);
  m.def("_make_dual", &make_dual, nb::arg("x"), nb::arg("tangent"), nb::arg("level"));
  m.def("_tangent", [](const Tensor& t, int level) {
    refresh_view(t);
    return tangent(t, level);
  });
  m.def("_strip", &strip);
  m.def("_has_tangent", [](const Tensor& t) { return has_tangent(t); });
  m.def("_custom", &custom, nb::arg("name"), nb::arg("inputs"), nb::arg("outputs"), nb::arg("pull"),
        nb::arg("push").none());
  trace_hook = &python_trace;
}

}  // namespace pb::py
