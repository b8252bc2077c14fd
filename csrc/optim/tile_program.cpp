// From the nodes of a rule to a program of tiles: fused kernels, order, places.
#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/dispatch.h"
#include "ops/arithmetic.h"
#include "ops/transcendental.h"
#include "optim/user_rule.h"

namespace pb::optim {

namespace {

constexpr int kForever = std::numeric_limits<int>::max();

const TileKernels& tile_kernels() {
  static const TileKernels& k = *static_cast<const TileKernels*>(isa_table("tile"));
  return k;
}

class Compiler {
 public:
  Compiler(const UserRule& rule, bool coupled, bool decoupled);
  Program update();
  Program measure();

 private:
  struct Match {  // a kernel that takes the place of a node and of what only that node reads
    const FusedKernel* kernel = nullptr;
    int tiles[3] = {-1, -1, -1}, values[4] = {-1, -1, -1, -1};
  };
  struct Target {
    int node, place;
    bool direct;  // the node's kernel writes there
  };

  int add(const MapOp& op, int a, int b);
  int resolve(int id) const;
  bool leaf(int id) const { return nodes_[size_t(id)].kind != Node::Op; }
  bool element(int id) const { return nodes_[size_t(id)].element; }
  std::vector<int> inputs(int id) const;
  void count(int id);
  const char* match(const char* pattern, int id, bool root, Match& m) const;
  bool cheap(int id) const;
  void fuse(int id);
  void visit(int id);
  void run();
  int target_place(int id, int at);
  int leaf_place(int id) const;
  int place(int id) const { return leaf(id) ? leaf_place(id) : places_[size_t(id)]; }
  int value(int id);
  int take();
  void give(int place) { free_.push_back(place); }
  void emit(int id, int at);
  Instruction translate(int id);

  const UserRule& rule_;
  Program program_;
  std::vector<Node> nodes_;
  int from_, grad_, scale_, decay_, scaled_, p_, g_;
  std::vector<Target> targets_;
  std::vector<int> uses_, last_, places_, order_, free_;
  std::vector<char> seen_;
  std::vector<Match> fused_;
  int last_read_[kPlaces] = {};
};

Compiler::Compiler(const UserRule& rule, bool coupled, bool decoupled) : rule_(rule), nodes_(rule.nodes) {
  auto leaf = [&](Node::Kind kind, bool element) {
    Node n;
    n.kind = kind;
    n.element = element;
    nodes_.push_back(n);
    return int(nodes_.size()) - 1;
  };
  for (Node& n : nodes_)
    if (n.op == &map_row<Square>()) n.op = &map_row<Multiply>(), n.in[1] = n.in[0];
  from_ = leaf(Node::Param, true), grad_ = leaf(Node::Grad, true);
  scale_ = leaf(Node::Constant, false), decay_ = leaf(Node::Constant, false);
  p_ = from_;
  g_ = scaled_ = add(map_row<Multiply>(), grad_, scale_);
  if (coupled) g_ = add(map_row<Add>(), scaled_, add(map_row<Multiply>(), from_, decay_));
  if (decoupled) p_ = add(map_row<Subtract>(), from_, add(map_row<Multiply>(), from_, decay_));
}

int Compiler::add(const MapOp& op, int a, int b) {
  Node n;
  n.kind = Node::Op;
  n.element = true;
  n.op = &op;
  n.in[0] = a;
  n.in[1] = b;
  nodes_.push_back(n);
  return int(nodes_.size()) - 1;
}

// The rule's p and g are those after scaling and decay.
int Compiler::resolve(int id) const {
  if (id >= int(rule_.nodes.size())) return id;
  const Node& n = nodes_[size_t(id)];
  return n.kind == Node::Param ? p_ : n.kind == Node::Grad ? g_ : id;
}

std::vector<int> Compiler::inputs(int id) const {
  std::vector<int> in;
  if (const Match& m = fused_[size_t(id)]; m.kernel) {
    in.assign(m.tiles, m.tiles + m.kernel->tiles);
    in.insert(in.end(), m.values, m.values + m.kernel->values);
    return in;
  }
  const Node& n = nodes_[size_t(id)];
  for (int j = 0; j < n.op->inputs; j++) in.push_back(resolve(n.in[j]));
  return in;
}

void Compiler::count(int id) {
  if (uses_[size_t(id)]++ || leaf(id) || !element(id)) return;
  for (int in : inputs(id)) count(in);
}

// Computing it twice costs less than keeping it: one sum, difference or product of what is in memory anyway.
bool Compiler::cheap(int id) const {
  const Node& n = nodes_[size_t(id)];
  if (n.op != &map_row<Add>() && n.op != &map_row<Subtract>() && n.op != &map_row<Multiply>()) return false;
  for (const Target& t : targets_)
    if (t.node == id) return false;
  auto near = [&](int x) { return leaf(resolve(x)) || resolve(x) == scaled_; };
  return near(n.in[0]) && near(n.in[1]);
}

// The rest of the pattern behind what `id` matches, or null. Inner nodes have no other reader or are cheap; the scaled
// gradient stays alone, since it is left out where there is nothing to scale.
const char* Compiler::match(const char* pattern, int id, bool root, Match& m) const {
  static const MapOp* const operators[] = {&map_row<Add>(),    &map_row<Subtract>(), &map_row<Multiply>(),
                                           &map_row<Divide>(), &map_row<Sqrt>(),     &map_row<Sign>()};
  const char c = *pattern++;
  if (const char* sign = std::strchr("+-*/rs", c)) {
    const Node& n = nodes_[size_t(id)];
    const MapOp* op = operators[sign - "+-*/rs"];
    if (leaf(id) || !element(id) || n.op != op || id == scaled_) return nullptr;
    if (!root && uses_[size_t(id)] > 1 && !cheap(id)) return nullptr;
    const int x = resolve(n.in[0]);
    if (c == 'r' || c == 's') return match(pattern, x, false, m);
    const int y = resolve(n.in[1]);
    const Match before = m;
    const char* rest = match(pattern, x, false, m);
    if (rest) rest = match(rest, y, false, m);
    if (rest || (c != '+' && c != '*')) return rest;
    m = before;
    rest = match(pattern, y, false, m);
    return rest ? match(rest, x, false, m) : nullptr;
  }
  const bool tile = c >= 'a';
  int& bound = tile ? m.tiles[c - 'a'] : m.values[c - 'A'];
  if (element(id) != tile || (bound >= 0 && bound != id)) return nullptr;
  bound = id;
  return pattern;
}

void Compiler::fuse(int id) {
  for (int k = 0; k < tile_kernels().count; k++) {
    Match m;
    m.kernel = &tile_kernels().fused[k];
    if (!match(m.kernel->pattern, id, true, m)) continue;
    fused_[size_t(id)] = m;
    return;
  }
}

void Compiler::visit(int id) {
  if (leaf(id) || !element(id) || seen_[size_t(id)]) return;
  seen_[size_t(id)] = 1;
  for (int in : inputs(id)) visit(in);
  order_.push_back(id);
}

int Compiler::leaf_place(int id) const {
  const Node& n = nodes_[size_t(id)];
  return n.kind == Node::Param ? kPlaceFrom : n.kind == Node::Grad ? kPlaceGrad : kPlaceSlots + n.index;
}

int Compiler::value(int id) {
  if (id == scale_) return kPlaces + kValueScale;
  if (id == decay_) return kPlaces + kValueDecay;
  const Node& n = nodes_[size_t(id)];
  if (n.kind != Node::Constant) {
    auto it = std::find(rule_.handed.begin(), rule_.handed.end(), id);
    return kPlaces + kValueStep + int(it - rule_.handed.begin());
  }
  auto& all = program_.constants;
  size_t i = 0;
  while (i < all.size() && bits_of(all[i]) != bits_of(n.value)) i++;
  if (i == all.size()) all.push_back(n.value);
  if (i >= size_t(kMaxConstants))
    fail<ValueError>("rule", "more than " + std::to_string(kMaxConstants) + " constants meet elements",
                     "split the rule, or make some of them hyper-parameters");
  return kPlaces + kValueConstants + int(i);
}

int Compiler::take() {
  if (!free_.empty()) {
    int p = free_.back();
    free_.pop_back();
    return p;
  }
  if (program_.temps == kMaxTemps)
    fail<ValueError>("rule", "more than " + std::to_string(kMaxTemps) + " values are alive at once",
                     "split the rule into two");
  return kPlaceTemps + program_.temps++;
}

// Where a node may write at once: its target, unless somebody still reads the old value there.
int Compiler::target_place(int id, int at) {
  for (Target& t : targets_) {
    if (t.node != id || t.place < 0 || last_read_[t.place == kPlaceParam ? kPlaceFrom : t.place] > at) continue;
    t.direct = true;
    return t.place;
  }
  return -1;
}

Instruction Compiler::translate(int id) {
  const Node& n = nodes_[size_t(id)];
  Instruction i;
  if (const FusedKernel* k = fused_[size_t(id)].kernel) {
    i.kind = Instruction::Fused;
    std::copy(k->fn, k->fn + 2, i.fused);
  } else {
    i.kind = n.op->mask ? Instruction::Test : Instruction::Map;
    for (int lane = 0; lane < 2; lane++) i.fn[lane] = n.op->kernels->fwd[lane];
    std::copy(n.params, n.params + kMaxArgs, i.params);
  }
  return i;
}

void Compiler::emit(int id, int at) {
  Instruction i = translate(id);
  const std::vector<int> in = inputs(id);
  std::vector<int> spread;
  int tiles = 0;
  for (int x : in) tiles += element(x);
  const bool values = i.kind == Instruction::Fused || (in.size() == 2 && tiles == 1);
  for (int x : in) {
    int& operand = i.in[i.inputs];
    if (element(x)) {
      operand = place(x);
    } else if (values) {
      operand = value(x);
      i.scalars |= 1u << i.inputs;
    } else {  // kernels of one or three inputs read tiles only
      Instruction fill;
      fill.kind = Instruction::Spread;
      fill.inputs = 1;
      fill.in[0] = value(x);
      fill.out = operand = take();
      spread.push_back(operand);
      program_.code.push_back(fill);
    }
    i.inputs++;
  }
  for (size_t j = 0; j < in.size(); j++) {
    const int x = in[j];
    const bool again = std::find(in.begin(), in.begin() + int(j), x) != in.begin() + int(j);
    if (again || !element(x) || leaf(x) || x == scaled_ || last_[size_t(x)] != at) continue;
    if (place(x) >= kPlaceTemps) give(place(x));
  }
  i.out = target_place(id, at);
  if (i.out < 0) i.out = take();
  places_[size_t(id)] = i.out;
  program_.code.push_back(i);
  for (int p : spread) give(p);
  if (id == scaled_ && i.out >= kPlaceTemps) program_.scaled = i.out;
}

// Fills program_ with what the targets need. A target of place -1 keeps its node to the end.
void Compiler::run() {
  for (Target& t : targets_) {  // a leaf is copied, so that states may change places
    t.node = resolve(t.node);
    if (t.place >= 0 && leaf(t.node) && leaf_place(t.node) != t.place) t.node = add(map_row<Positive>(), t.node, 0);
  }
  const size_t n = nodes_.size();
  uses_.assign(n, 0), last_.assign(n, -1), places_.assign(n, -1), seen_.assign(n, 0), fused_.assign(n, {});
  for (const Target& t : targets_) count(t.node), count(t.node);  // targets are never taken into another kernel
  for (size_t id = 0; id < n; id++)
    if (uses_[id] && !leaf(int(id)) && element(int(id))) fuse(int(id));
  if (uses_[size_t(scaled_)]) visit(scaled_);
  for (const Target& t : targets_) visit(t.node);
  std::fill(last_read_, last_read_ + kPlaces, -1);
  for (size_t at = 0; at < order_.size(); at++)
    for (int x : inputs(order_[at])) {
      if (!element(x)) continue;
      last_[size_t(x)] = int(at);
      if (leaf(x)) last_read_[leaf_place(x)] = int(at);
    }
  for (const Target& t : targets_) last_[size_t(t.node)] = kForever;
  for (size_t at = 0; at < order_.size(); at++) emit(order_[at], int(at));
  for (const Target& t : targets_) {
    if (t.place < 0 || t.direct || place(t.node) == t.place) continue;
    Instruction copy;
    copy.kind = Instruction::Copy;
    copy.inputs = 1;
    copy.in[0] = place(t.node);
    copy.out = t.place;
    program_.code.push_back(copy);
  }
}

Program Compiler::update() {
  // p comes first, for it often reads old states, while new states seldom read p.
  targets_.push_back({rule_.new_p, kPlaceParam, false});
  for (size_t j = 0; j < rule_.new_slots.size(); j++)
    targets_.push_back({rule_.new_slots[j], kPlaceSlots + int(j), false});
  run();
  return std::move(program_);
}

Program Compiler::measure() {
  for (int id : rule_.sums) targets_.push_back({id, -1, false});
  run();
  for (size_t q = 0; q < targets_.size(); q++) program_.results[q] = place(targets_[q].node);
  return std::move(program_);
}

}  // namespace

Program compile_update(const UserRule& rule, Decay decay) {
  return Compiler(rule, decay == Decay::Coupled, decay == Decay::Decoupled).update();
}
Program compile_measure(const UserRule& rule, bool coupled) { return Compiler(rule, coupled, false).measure(); }

}  // namespace pb::optim
