// Rules that were traced in Python (pullback.optim.trace), and states that belong to the caller (pullback.fused).
#include "optim/user_rule.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "bind/caster.h"
#include "optim/driver.h"

namespace pb::py {

namespace {

using optim::Node;
using optim::Range;
using optim::UserRule;
using NodeArgs = std::tuple<std::string, std::vector<int>, std::vector<double>>;  // name, inputs, constants
using HyperArgs = std::tuple<std::string, double, int>;                           // name, default, range

// Leaves are named with an @; their number is the first input.
Node node_of(const NodeArgs& n, size_t at) {
  static const std::string_view leaves[] = {"@p", "@g", "@state", "@number", "@hyper", "@t", "@sum", "@constant"};
  const auto& [name, inputs, constants] = n;
  Node node;
  for (size_t k = 0; k < std::size(leaves); k++)
    if (name == leaves[k]) {
      node.kind = Node::Kind(k);
      if (!inputs.empty()) node.index = inputs[0];
      if (!constants.empty()) node.value = constants[0];
      return node;
    }
  node.kind = Node::Op;
  node.op = &find_map(name);
  if (int(inputs.size()) != node.op->inputs || constants.size() > size_t(kMaxArgs))
    fail<ValueError>("rule", name + " has another number of inputs", "trace the rule with pb.optim.rule");
  for (size_t j = 0; j < inputs.size(); j++) {
    if (inputs[j] < 0 || size_t(inputs[j]) >= at)
      fail<ValueError>("rule", name + " reads a later value", "trace the rule with pb.optim.rule");
    node.in[j] = inputs[j];
  }
  std::copy(constants.begin(), constants.end(), node.params);
  return node;
}

int user_rule(std::string name, std::string doc, std::vector<std::string> slots, unsigned exact,
              std::vector<std::string> numbers, const std::vector<HyperArgs>& hyper, bool shared,
              const std::vector<NodeArgs>& nodes, int new_p, std::vector<int> new_slots, std::vector<int> new_numbers,
              std::vector<int> sums) {
  auto r = std::make_unique<UserRule>();
  r->name = std::move(name);
  r->doc = std::move(doc);
  r->slots = std::move(slots);
  r->exact = exact;
  r->numbers = std::move(numbers);
  for (const auto& [key, value, range] : hyper) {
    r->hyper.push_back(key);
    r->infos.push_back({{}, value, Range(range)});
  }
  for (const NodeArgs& n : nodes) r->nodes.push_back(node_of(n, r->nodes.size()));
  r->new_p = new_p;
  r->new_slots = std::move(new_slots);
  r->new_numbers = std::move(new_numbers);
  r->sums = std::move(sums);
  return optim::add_user_rule(std::move(r), shared ? optim::Scope::Model : optim::Scope::Tensor);
}

// The driver works in the memory of these tensors.
void adopt_state(optim::Driver& d, const Tensor& p, int64_t t, const std::vector<Tensor>& slots,
                 const std::vector<double>& numbers) {
  if (t < 0) fail<ValueError>("fused", "a step count is negative", "start with an empty dict", p);
  optim::State s;
  s.param = p;
  s.t = t;
  for (size_t j = 0; j < slots.size() && j < size_t(optim::kMaxSlots); j++) {
    const Tensor& x = slots[j];
    if (!(x.shape() == p.shape()) || x.dtype() != optim::compute_dtype(p.dtype()) || !x.contiguous())
      fail<ShapeError>("fused",
                       "a state is a contiguous array of its parameter's shape, float64 beside float64, else "
                       "float32",
                       "start with an empty dict", p, x);
    check_writable(x, "fused");
    s.slots[j].data = x;
  }
  std::copy_n(numbers.begin(), std::min(numbers.size(), size_t(optim::kMaxScalars)), s.scalars);
  d.state(p) = std::move(s);
}

}  // namespace

void bind_user_rule(nb::module_& m) {
  m.def("optim_add_rule", &user_rule, nb::arg("name"), nb::arg("doc"), nb::arg("slots"), nb::arg("exact"),
        nb::arg("numbers"), nb::arg("hyper"), nb::arg("shared"), nb::arg("nodes"), nb::arg("new_p"),
        nb::arg("new_slots"), nb::arg("new_numbers"), nb::arg("sums"), "Registers a traced rule; returns its index.");
  m.def("optim_adopt_state", &adopt_state, nb::arg("driver"), nb::arg("p"), nb::arg("t"), nb::arg("slots"),
        nb::arg("numbers"), "Makes tensors the state of p, without a copy.");
}

}  // namespace pb::py
