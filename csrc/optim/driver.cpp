#include "optim/driver.h"

#include <algorithm>
#include <string>

#include "cpu/isa_std.h"
#include "families/map.h"

namespace pb::optim {

namespace {

bool overlaps_itself(const Tensor& t) {
  for (int d = 0; d < t.ndim(); d++)
    if (t.shape()[d] > 1 && t.strides()[d] == 0) return true;
  return false;
}

}  // namespace

void check_parameter(const Tensor& p) {
  if (!is_float(p.dtype()))
    fail<DTypeError>("optimizer", "only floating tensors can be trained", "cast with .astype(pb.float32)", p);
  if (p->node)
    fail<GraphError>("optimizer", "a parameter must be a leaf, not the result of a recorded op", "pass x.detach()", p);
  if (overlaps_itself(p))
    fail<ShapeError>("optimizer", "elements of a parameter share memory", "pass the tensor before broadcast_to", p);
}

namespace {

void check_gradient(const Tensor& p, const Tensor& g) {
  if (!(p.device() == g.device())) mixed_devices("step", p, g);
  if (!(p.shape() == g.shape()))
    fail<ShapeError>("step", "a gradient has the shape of its parameter", "check the order of grads=", p, g);
  if (!is_float(g.dtype()))
    fail<DTypeError>("step", "a gradient must be floating", "cast with .astype(pb.float32)", p, g);
}

}  // namespace

// ---- the table

void Driver::begin() {
  release_gradients();
  groups_.clear();
  cursor_ = 0;
}

void Driver::group(const RuleRow& rule, const double* hyper, const GroupOptions& o) {
  Group g;
  g.rule = &rule;
  std::copy(hyper, hyper + rule.nhyper, g.hyper);
  g.mode = o.weight_decay == 0 ? Decay::None : o.decoupled ? Decay::Decoupled : Decay::Coupled;
  g.decay = o.decoupled ? hyper[0] * o.weight_decay : o.weight_decay;
  g.prox = o.prox;
  g.a = o.prox == Prox::Threshold || o.prox == Prox::Shrink ? o.a * hyper[0] : o.a;
  g.b = o.b;
  g.state = o.state;
  g.rounding = o.rounding;
  g.t = 0;
  g.step = 0;
  groups_.push_back(g);
}

bool Driver::same(const Entry& e, const Tensor& p) const {
  return e.p.is(p) && e.address == p.raw() && e.n == p.size() && e.compute == compute_dtype(p.dtype()) &&
         e.direct_p == (p.contiguous() && p.dtype() == e.compute);
}

void Driver::add(const Tensor& p, const Tensor& g, const Tensor& origin) {
  if (g) check_gradient(p, g);
  if (origin && !(origin.shape() == p.shape() && origin.dtype() == compute_dtype(p.dtype()) && origin.contiguous()))
    fail<ShapeError>("step", "an origin is a contiguous copy of its parameter", "the state is damaged", p, origin);
  if (cursor_ == entries_.size() || !same(entries_[cursor_], p)) {
    check_parameter(p);
    entries_.resize(cursor_);
    Entry e{};
    e.p = p;
    e.address = p.raw();
    e.n = p.size();
    e.compute = compute_dtype(p.dtype());
    e.direct_p = p.contiguous() && p.dtype() == e.compute;
    entries_.push_back(std::move(e));
    changed_ = true;
  }
  Entry& e = entries_[cursor_++];
  e.g = on_cuda(p) && g && !g.contiguous() ? clone(g) : g;
  e.origin = origin;
  e.active = bool(g) && e.n > 0;
  e.summed = false;
  e.direct_g = bool(g) && g.contiguous() && g.dtype() == e.compute;
  e.group = groups_.size() - 1;
  e.rule = groups_.back().rule;
}

void Driver::rebuild() {
  chunks_.clear();
  elements_ = 0;
  for (size_t i = 0; i < entries_.size(); i++) {
    Entry& e = entries_[i];
    e.state = nullptr;
    e.chunk = chunks_.size();
    for (int64_t at = 0; at < e.n; at += kChunk) {
      int64_t n = std::min(kChunk, e.n - at);
      chunks_.push_back({i, at, n, elements_});
      elements_ += n;
    }
    e.chunks = chunks_.size() - e.chunk;
  }
  sums_.resize(chunks_.size());
  parts_.resize(chunks_.size() * kMaxSums);
  totals_.reserve(std::max(entries_.size(), chunks_.size()));
  steps_.reserve(entries_.size());
  changed_ = false;
}

// ---- states

const State* Driver::find(const Tensor& p) const {
  auto it = states_.find(p.impl());
  return it == states_.end() ? nullptr : &it->second;
}
State& Driver::state(const Tensor& p) {
  State& s = states_[p.impl()];
  if (!s.param) s.param = p;
  return s;
}

// ---- a step

void Driver::settle(const StepOptions& options) {
  options_ = options;
  result_ = {};
  finite_ = true;
  if (cursor_ != entries_.size()) {
    entries_.resize(cursor_);
    changed_ = true;
  }
  if (changed_) rebuild();
  first_ = 0;
  running_ = elements_;
  steps_.clear();
  needs_sums_ = needs_norms_ = false;
}

void Driver::prepare(const StepOptions& options) {
  settle(options);
  bool any = false;
  for (const Entry& e : entries_)
    if (e.g) {
      check_writable(e.p, "step");
      any = true;
    }
  bool first = true;
  for (const Entry& e : entries_) {
    if (!e.g) continue;
    if (!first && !(e.p.device() == device_))
      fail<DeviceError>("step", "the parameters lie on " + device_name(device_) + " and " + device_name(e.p.device()),
                        "move the whole model to one device, or use one optimizer for each device", e.p);
    device_ = e.p.device();
    first = false;
  }
  if (!any)
    fail<GraphError>("step", "no parameter has a gradient", "call loss.backward() first, or pass closure or grads=");
  for (Entry& e : entries_)
    if (e.g) prepare_entry(e);
}

void Driver::prepare_parts(const StepOptions& options) { settle(options); }

void Driver::update(size_t place, const Tensor& g) {
  Entry& e = entries_[place];
  check_gradient(e.p, g);
  check_writable(e.p, "step");
  device_ = e.p.device();
  struct Release {
    Tensor& g;
    ~Release() { g = Tensor(); }
  } guard{e.g};
  e.g = on_cuda(g) && !g.contiguous() ? clone(g) : g;
  e.active = e.n > 0;
  e.direct_g = g.contiguous() && g.dtype() == e.compute;
  needs_sums_ = needs_norms_ = false;
  prepare_entry(e);
  first_ = e.chunks ? chunks_[e.chunk].at : 0;
  running_ = e.n;
  execute();
  advance_state(e);
}

void Driver::prepare_entry(Entry& e) {
  if (!e.state) e.state = &state(e.p);
  prepare_memory(e);
  Group& g = groups_[e.group];
  needs_sums_ = needs_sums_ || e.rule->nsums;
  needs_norms_ = needs_norms_ || g.prox >= Prox::Ball;
  if (e.rule->nscalars || e.rule->nsums) {
    std::copy(e.state->scalars, e.state->scalars + kMaxScalars, e.scalars);
    e.step = steps_.size();
    steps_.emplace_back();
    e.rule->prepare(*e.rule, g.hyper, e.state->t + 1, e.scalars, steps_.back().v);
    return;
  }
  if (g.t != e.state->t + 1) {  // tensors that joined at the same time share their Step
    g.t = e.state->t + 1;
    g.step = steps_.size();
    steps_.emplace_back();
    g.rule->prepare(*g.rule, g.hyper, g.t, nullptr, steps_.back().v);
  }
  e.step = g.step;
}

// States in the format of the group: made at the first step, converted where the format was changed since.
void Driver::prepare_memory(Entry& e) {
  const Group& g = groups_[e.group];
  e.narrow = false;
  for (int j = 0; j < e.rule->nslots; j++) {
    Slot& slot = e.state->slots[j];
    const Format f = format_for(g.state, e.rule->exact >> j & 1, e.p);
    if (!slot)
      slot = make_slot(e.p, f);
    else if (format_of(slot) != f)
      slot = convert(slot, f, e.compute);
    e.slots[j] = {slot.data.raw(), slot.scale ? slot.scale.data<float>() : nullptr, f, itemsize(slot.data.dtype())};
    e.narrow = e.narrow || f != Format::Exact;
  }
  e.rounding = is_half(e.p.dtype()) ? g.rounding : Rounding::Nearest;
  Tensor& rest = e.state->rest;
  if (e.rounding < Rounding::Kahan)
    rest = Tensor();
  else if (!rest || rest.dtype() != (e.rounding == Rounding::Kahan ? e.p.dtype() : DType::F32))
    rest = convert_rest(e.p, rest, e.rounding);
}

void Driver::advance_state(Entry& e) {
  e.state->t++;
  if (e.rule->nscalars) std::copy(e.scalars, e.scalars + e.rule->nscalars, e.state->scalars);
  e.p->storage->version++;
}

StepResult Driver::commit() {
  result_.skipped = !finite_;
  if (finite_)
    for (Entry& e : entries_)
      if (e.g) advance_state(e);
  release_gradients();
  return result_;
}

void Driver::release_gradients() {
  for (Entry& e : entries_) e.g = e.origin = Tensor();
}

}  // namespace pb::optim
