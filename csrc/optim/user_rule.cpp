#include "optim/user_rule.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/dispatch.h"
#include "cpu/isa_std.h"
#include "ops/arithmetic.h"

namespace pb::optim {

namespace {

constexpr size_t kMaxNodes = 1000, kMaxNumeric = 256;
constexpr int kScratch = 7;  // of pb_scratch
constexpr int64_t kPieceBytes = 8192;

const UserRule& rule_of(const void* program) { return *static_cast<const UserRule*>(program); }

// ---- once per step: numbers

double evaluate(const Node& n, const UserRule& r, const double* value) {
  double x[kMaxInputs];
  const void* in[kMaxInputs];
  for (int j = 0; j < n.op->inputs; j++) {
    x[j] = value[r.rank[size_t(n.in[j])]];
    in[j] = &x[j];
  }
  if (n.op == &map_row<Pow>()) return power(x[0], x[1]);  // what built-in rules use
  double number;
  bool truth;
  void* out = n.op->mask ? static_cast<void*>(&truth) : &number;
  n.op->kernels->fwd[int(Compute::F64)](out, in, n.params, 1, 0);
  return n.op->mask ? double(truth) : number;
}

// Fills step, and moves the numbers on when everything is known. Without sums what depends on them stays 0.
void prepare_numbers(const UserRule& r, const double* hyper, int64_t t, double* numbers, const double* sums,
                     double* step) {
  double value[kMaxNumeric] = {};
  for (size_t i = 0; i < r.numeric.size(); i++) {
    const Node& n = r.nodes[size_t(r.numeric[i])];
    if (n.late && !sums) continue;
    value[i] = n.kind == Node::Hyper    ? hyper[n.index]
               : n.kind == Node::Count  ? double(t)
               : n.kind == Node::Number ? numbers[n.index]
               : n.kind == Node::Sum    ? sums[n.index]
               : n.kind == Node::Op     ? evaluate(n, r, value)
                                        : n.value;
  }
  for (size_t i = 0; i < r.handed.size(); i++) step[i] = value[r.rank[size_t(r.handed[i])]];
  if (!sums && !r.sums.empty()) return;
  for (size_t i = 0; i < r.new_numbers.size(); i++) numbers[i] = value[r.rank[size_t(r.new_numbers[i])]];
}

void prepare_row(const RuleRow& row, const double* hyper, int64_t t, double* numbers, double* step) {
  prepare_numbers(rule_of(row.program), hyper, t, numbers, nullptr, step);
}
void finish_row(const RuleRow& row, const double* hyper, int64_t t, double* numbers, const double* sums, double* step) {
  prepare_numbers(rule_of(row.program), hyper, t, numbers, sums, step);
}

// ---- per tile

// Note [Pieces of a tile]
// A tile is cut into pieces, so that what the program reads, writes and keeps fills a quarter of L1: then
// the hardware fetches the next piece while the kernels work on this one.
template <class T>
int64_t piece_of(const UserRule& r, const Program& p) {
  const int64_t tiles = 2 + int64_t(r.slots.size()) + p.temps;
  int64_t n = kTile;
  while (n > 128 && n * tiles * int64_t(sizeof(T)) > kPieceBytes) n /= 2;
  return n;
}

const TileKernels& tile_kernels() {
  static const TileKernels& k = *static_cast<const TileKernels*>(isa_table("tile"));
  return k;
}

template <class T>
void execute(const Instruction& i, void* const* at, const T* values, void* flags, int64_t n) {
  constexpr int lane = sizeof(T) == 8;
  const void* in[kMaxFused];
  for (int j = 0; j < i.inputs; j++) in[j] = i.in[j] < kPlaces ? at[i.in[j]] : &values[i.in[j] - kPlaces];
  void* out = at[i.out];
  switch (i.kind) {
    case Instruction::Map:
      return i.fn[lane](out, in, i.params, n, i.scalars);
    case Instruction::Fused:
      return i.fused[lane](out, in, n);
    case Instruction::Spread:
      return tile_kernels().fill[lane](out, in[0], n);
    case Instruction::Copy:
      std::memcpy(out, in[0], size_t(n) * sizeof(T));
      return;
    case Instruction::Test:
      i.fn[lane](flags, in, i.params, n, i.scalars);
      return cast_kernels().load[lane][int(DType::Bool)](out, flags, 1, n);
  }
}

// Calls after(places, n) for each piece.
template <class T, class F>
void run(const UserRule& r, const Program& p, const UpdateArgs& a, F after) {
  T values[kValues];
  values[kValueScale] = T(a.scale);
  values[kValueDecay] = T(a.decay);
  for (size_t i = 0; i < r.handed.size(); i++) values[size_t(kValueStep) + i] = T(a.step[i]);
  for (size_t i = 0; i < p.constants.size(); i++) values[size_t(kValueConstants) + i] = T(p.constants[i]);
  const int64_t piece = piece_of<T>(r, p);
  void* at[kPlaces];
  char* temps =
      static_cast<char*>(pb_scratch(kScratch, size_t(kMaxTemps + 1) * 128 * sizeof(double) + size_t(kPieceBytes)));
  for (int i = 0; i < p.temps; i++) at[kPlaceTemps + i] = temps + i * piece * int64_t(sizeof(T));
  void* flags = temps + p.temps * piece * int64_t(sizeof(T));
  const bool unscaled = p.scaled && a.scale == 1;
  for (int64_t begin = 0; begin < a.n; begin += piece) {
    const int64_t n = std::min(piece, a.n - begin), shift = begin * int64_t(sizeof(T));
    auto place = [&](int i, const void* data) { at[i] = static_cast<char*>(const_cast<void*>(data)) + shift; };
    place(kPlaceFrom, a.from), place(kPlaceGrad, a.g), place(kPlaceParam, a.p);
    for (size_t j = 0; j < r.slots.size(); j++) place(kPlaceSlots + int(j), a.slots[j]);
    if (unscaled) at[p.scaled] = at[kPlaceGrad];
    for (size_t i = unscaled; i < p.code.size(); i++) execute<T>(p.code[i], at, values, flags, n);
    after(at, n);
  }
}

template <class T, Decay D>
void update_tile(const UpdateArgs& a) {
  const UserRule& r = rule_of(a.program);
  run<T>(r, r.update[int(D)], a, [](void* const*, int64_t) {});
}

template <class T, bool Coupled>
void measure_tile(const UpdateArgs& a, double* sums) {
  const UserRule& r = rule_of(a.program);
  const Program& p = r.measure[Coupled];
  double lane[kMaxSums][kSumLanes] = {};
  run<T>(r, p, a, [&](void* const* at, int64_t n) {
    for (size_t q = 0; q < r.sums.size(); q++) tile_kernels().sum[sizeof(T) == 8](lane[q], at[p.results[q]], n);
  });
  for (size_t q = 0; q < r.sums.size(); q++) {
    for (int w = kSumLanes / 2; w; w /= 2)
      for (int j = 0; j < w; j++) lane[q][j] += lane[q][j + w];
    sums[q] = lane[q][0];
  }
}

constexpr RuleKernels kKernels = {
    {{&update_tile<float, Decay::None>, &update_tile<float, Decay::Coupled>, &update_tile<float, Decay::Decoupled>},
     {&update_tile<double, Decay::None>, &update_tile<double, Decay::Coupled>, &update_tile<double, Decay::Decoupled>}},
    {{&measure_tile<float, false>, &measure_tile<float, true>},
     {&measure_tile<double, false>, &measure_tile<double, true>}}};

// ---- the row

void check_count(size_t n, size_t most, const char* what) {
  if (n > most)
    fail<ValueError>("rule", "has " + std::to_string(n) + " " + what + ", at most " + std::to_string(most) + " fit",
                     "split it into two rules");
}

void check_limits(const UserRule& r) {
  check_count(r.slots.size(), kMaxSlots, "states");
  check_count(r.numbers.size(), kMaxScalars, "numbers");
  check_count(r.hyper.size(), kMaxHyper, "hyper-parameters");
  check_count(r.sums.size(), kMaxSums, "sums");
  check_count(r.nodes.size(), kMaxNodes, "operations");
}

// The power of a positive factor of g that comes out of an operation: the driver scales sums instead of forming them
// again when clipping bites.
int degree_of(const Node& n, const std::vector<Node>& nodes) {
  int d[kMaxInputs] = {};
  bool constant = true, equal = true;
  for (int j = 0; j < n.op->inputs; j++) {
    d[j] = nodes[size_t(n.in[j])].degree;
    if (d[j] < 0) return -1;
    constant = constant && d[j] == 0;
    equal = equal && (j == 0 || d[j] == d[0]);
  }
  if (constant) return 0;
  const std::string_view op = n.op->name;
  if (op == "multiply") return d[0] + d[1];
  if (op == "square") return 2 * d[0];
  if (op == "divide") return d[0] >= d[1] ? d[0] - d[1] : -1;
  if (op == "abs" || op == "negative") return d[0];
  if (op == "add" || op == "subtract" || op == "maximum" || op == "minimum") return equal ? d[0] : -1;
  return -1;
}

void classify(UserRule& r) {
  r.rank.assign(r.nodes.size(), -1);
  for (size_t i = 0; i < r.nodes.size(); i++) {
    Node& n = r.nodes[i];
    n.element = n.kind <= Node::Slot;
    n.late = n.kind == Node::Sum;
    if (n.kind == Node::Op) {
      if (n.op->random || !n.op->kernels->fwd[0] || !n.op->kernels->fwd[1])
        fail<ValueError>("rule", std::string(n.op->name) + " cannot be part of a rule",
                         "use element-wise functions of floating tensors that draw no random numbers");
      for (int j = 0; j < n.op->inputs; j++) {
        const Node& x = r.nodes[size_t(n.in[j])];
        n.element = n.element || x.element;
        n.late = n.late || x.late;
      }
    }
    n.degree = n.kind == Node::Grad ? 1 : n.kind == Node::Op ? degree_of(n, r.nodes) : 0;
    if (n.element) continue;
    r.rank[i] = int(r.numeric.size());
    r.numeric.push_back(int(i));
  }
  check_count(r.numeric.size(), kMaxNumeric, "operations on numbers");
}

// The numbers that elements read become the Step.
void hand_over(UserRule& r) {
  std::vector<char> seen(r.nodes.size(), 0);
  std::vector<int> open = r.new_slots;
  open.insert(open.end(), r.sums.begin(), r.sums.end());
  open.push_back(r.new_p);
  while (!open.empty()) {
    const int id = open.back();
    const Node& n = r.nodes[size_t(id)];
    open.pop_back();
    if (seen[size_t(id)]) continue;
    seen[size_t(id)] = 1;
    if (!n.element && n.kind != Node::Constant) r.handed.push_back(id);
    if (n.element && n.kind == Node::Op) open.insert(open.end(), n.in, n.in + n.op->inputs);
  }
  check_count(r.handed.size(), kMaxStep, "numbers that meet elements");
}

}  // namespace

int add_user_rule(std::unique_ptr<UserRule> rule, Scope scope) {
  UserRule& r = *rule;
  check_limits(r);
  classify(r);
  hand_over(r);
  for (int d = 0; d < kDecays; d++) r.update[d] = compile_update(r, Decay(d));
  if (!r.sums.empty())
    for (int c = 0; c < 2; c++) r.measure[c] = compile_measure(r, c == 1);
  r.slot_names.assign(r.slots.begin(), r.slots.end());
  r.number_names.assign(r.numbers.begin(), r.numbers.end());
  for (size_t i = 0; i < r.hyper.size(); i++) r.infos[i].name = r.hyper[i];
  RuleRow& row = r.row;
  row.name = r.name;
  row.doc = r.doc;
  row.nslots = int(r.slots.size());
  row.nscalars = int(r.numbers.size());
  row.nhyper = int(r.hyper.size());
  row.nsums = int(r.sums.size());
  row.nstep = int(r.handed.size());
  row.scope = scope;
  row.exact = r.exact;
  for (size_t q = 0; q < r.sums.size(); q++) row.degrees[q] = r.nodes[size_t(r.sums[q])].degree;
  row.slots = r.slot_names.data();
  row.scalars = r.number_names.data();
  row.hyper = r.infos.data();
  row.prepare = &prepare_row;
  row.finish = &finish_row;
  row.kernels = &kKernels;
  row.program = &r;
  rule.release();  // rows live as long as the process: optimizers point to them
  return add_rule(r.row);
}

}  // namespace pb::optim
