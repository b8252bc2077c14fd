#include "optim/driver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "cpu/dispatch.h"
#include "cpu/isa_std.h"
#include "families/map.h"

namespace pb::optim {

namespace {

constexpr int64_t kChunk = 16384;  // 64 KiB a stream: the four streams of Adam stay in L2
constexpr int64_t kGrain = 49152;  // elements for which a second thread pays

const OptimKernels& kernels() {
  static const OptimKernels& k = *static_cast<const OptimKernels*>(isa_table("optim"));
  return k;
}

DType compute_dtype(DType t) { return t == DType::F64 ? DType::F64 : DType::F32; }
int lane_of(DType compute) { return compute == DType::F64 ? 1 : 0; }

// Calls f(address, stride, count) for the runs of elements begin .. begin + n - 1 in C order.
template <class F>
void runs(const Tensor& t, int64_t begin, int64_t n, F f) {
  const int bytes = itemsize(t.dtype()), last = t.ndim() - 1;
  char* base = static_cast<char*>(t.raw());
  if (t.contiguous() || last < 0) return f(base + begin * bytes, 1, n);
  const int64_t width = t.shape()[last];
  while (n > 0) {
    int64_t rest = begin / width, column = begin % width, offset = column * t.strides()[last];
    for (int d = last - 1; d >= 0; d--) {
      offset += rest % t.shape()[d] * t.strides()[d];
      rest /= t.shape()[d];
    }
    int64_t count = std::min(n, width - column);
    f(base + offset * bytes, t.strides()[last], count);
    begin += count;
    n -= count;
  }
}

void load(void* tile, const Tensor& t, int64_t begin, int64_t n, DType compute) {
  auto read = cast_kernels().load[int(compute_of(compute))][int(t.dtype())];
  auto* to = static_cast<char*>(tile);
  runs(t, begin, n, [&](char* from, int64_t stride, int64_t count) {
    read(to, from, stride, count);
    to += count * itemsize(compute);
  });
}
void store(const Tensor& t, int64_t begin, int64_t n, const void* tile, DType compute) {
  auto write = cast_kernels().store[int(compute_of(compute))][int(t.dtype())];
  auto* from = static_cast<const char*>(tile);
  runs(t, begin, n, [&](char* to, int64_t stride, int64_t count) {
    write(to, stride, from, count);
    from += count * itemsize(compute);
  });
}

double add_pairwise(double* v, size_t n) {
  if (!n) return 0;
  for (; n > 1; n = (n + 1) / 2)
    for (size_t i = 0; i < (n + 1) / 2; i++) v[i] = 2 * i + 1 < n ? v[2 * i] + v[2 * i + 1] : v[2 * i];
  return v[0];
}

// In sorted order, so that the sum does not depend on the order of the tensors.
double add_sorted(std::vector<double>& v) {
  std::sort(v.begin(), v.end(), [](double a, double b) { return a < b || (b != b && a == a); });  // NaN last
  return add_pairwise(v.data(), v.size());
}

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
  if (!(p.shape() == g.shape()))
    fail<ShapeError>("step", "a gradient has the shape of its parameter", "check the order of grads=", p, g);
  if (!is_float(g.dtype()))
    fail<DTypeError>("step", "a gradient must be floating", "cast with .astype(pb.float32)", p, g);
}

double measure_range(const Tensor& g, int64_t begin, int64_t n, DType compute, bool direct, bool* finite) {
  auto* f = kernels().measure[lane_of(compute)];
  if (direct) return f(static_cast<char*>(g.raw()) + begin * itemsize(compute), n, finite);
  double sum = 0;
  void* tile = pb_scratch(0, size_t(kTile) * 8);
  for (int64_t at = 0; at < n; at += kTile) {
    int64_t m = std::min(kTile, n - at);
    load(tile, g, begin + at, m, compute);
    sum += f(tile, m, finite);
  }
  return sum;
}

}  // namespace

// ---- the table

void Driver::begin() {
  release_gradients();
  groups_.clear();
  cursor_ = 0;
}

void Driver::group(const RuleRow& rule, const double* hyper, double weight_decay, bool decoupled, Prox prox, double a,
                   double b) {
  Group g;
  g.rule = &rule;
  std::copy(hyper, hyper + rule.nhyper, g.hyper);
  g.mode = weight_decay == 0 ? Decay::None : decoupled ? Decay::Decoupled : Decay::Coupled;
  g.decay = decoupled ? hyper[0] * weight_decay : weight_decay;
  g.prox = prox;
  g.a = prox == Prox::Threshold || prox == Prox::Shrink ? a * hyper[0] : a;
  g.b = b;
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
  e.g = g;
  e.origin = origin;
  e.active = bool(g) && e.n > 0;
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

void Driver::prepare(const StepOptions& options) {
  options_ = options;
  result_ = {};
  finite_ = true;
  if (cursor_ != entries_.size()) {
    entries_.resize(cursor_);
    changed_ = true;
  }
  if (changed_) rebuild();
  bool any = false;
  for (const Entry& e : entries_)
    if (e.g) {
      check_writable(e.p, "step");
      any = true;
    }
  if (!any)
    fail<GraphError>("step", "no parameter has a gradient", "call loss.backward() first, or pass closure or grads=");
  steps_.clear();
  needs_sums_ = needs_norms_ = false;
  for (Entry& e : entries_)
    if (e.g) prepare_entry(e);
}

void Driver::prepare_entry(Entry& e) {
  if (!e.state) e.state = &state(e.p);
  for (int j = 0; j < e.rule->nslots; j++) {
    Tensor& slot = e.state->slots[j];
    if (!slot) slot = zeros(e.p.shape(), e.compute);
    e.slots[j] = slot.raw();
  }
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

// The chunks that start in [begin, end), counted in elements: equal work for each thread.
template <void (Driver::*F)(size_t)>
void Driver::pass(void* self, int64_t begin, int64_t end) {
  auto* d = static_cast<Driver*>(self);
  auto it = std::lower_bound(d->chunks_.begin(), d->chunks_.end(), begin,
                             [](const Chunk& c, int64_t at) { return c.at < at; });
  for (; it != d->chunks_.end() && it->at < end; ++it) (d->*F)(size_t(it - d->chunks_.begin()));
}

void Driver::execute() {
  multiplier_ = 1 / options_.scale;
  if (options_.measure) {
    result_.norm = measure() / options_.scale;
    if (!finite_) return;
    if (options_.clip_norm >= 0) multiplier_ *= std::min(1.0, options_.clip_norm / (result_.norm + 1e-6));
  }
  if (needs_sums_) {
    pb_parallel_for(elements_, kGrain, &pass<&Driver::sum_chunk>, this);
    add_sums();
  }
  pb_parallel_for(elements_, kGrain, &pass<&Driver::update_chunk>, this);
  if (!needs_norms_) return;
  for (Entry& e : entries_)
    if (e.active) e.sums[0] = std::sqrt(add_pairwise(sums_.data() + e.chunk, e.chunks));
  pb_parallel_for(elements_, kGrain, &pass<&Driver::scale_chunk>, this);
}

double Driver::measure() {
  pb_parallel_for(elements_, 4 * kGrain, &pass<&Driver::measure_chunk>, this);
  totals_.clear();
  for (const Entry& e : entries_)
    if (e.active) totals_.push_back(add_pairwise(sums_.data() + e.chunk, e.chunks));
  return std::sqrt(add_sorted(totals_));
}

void Driver::measure_chunk(size_t c) {
  const Chunk& k = chunks_[c];
  const Entry& e = entries_[k.entry];
  if (!e.active) return;
  bool finite = true;
  sums_[c] = measure_range(e.g, k.begin, k.n, e.compute, e.direct_g, &finite);
  if (!finite) __atomic_store_n(&finite_, false, __ATOMIC_RELAXED);
}

// Calls f with the pieces of a chunk: the tensors themselves where they are contiguous and of the compute type, else
// tiles that are filled first and, with `write`, stored afterwards.
template <class F>
void Driver::visit(const Chunk& k, const Entry& e, bool write, F f) {
  const Group& group = groups_[e.group];
  const int lane = lane_of(e.compute), bytes = itemsize(e.compute);
  const bool clamp = options_.clip_value >= 0, noise = e.rule->noise && write;
  UpdateArgs a{};
  a.step = steps_[e.step].v;
  a.program = e.rule->program;
  a.scale = clamp ? 1 : multiplier_;
  a.decay = group.decay;
  for (int64_t at = 0; at < k.n; at += a.n) {
    const int64_t begin = k.begin + at;
    a.n = std::min(kTile, k.n - at);
    for (int j = 0; j < e.rule->nslots; j++) a.slots[j] = static_cast<char*>(e.slots[j]) + begin * bytes;
    a.g = static_cast<char*>(e.g.raw()) + begin * bytes;
    a.p = static_cast<char*>(e.address) + begin * bytes;
    a.from = e.origin ? static_cast<char*>(e.origin.raw()) + begin * bytes : a.p;
    if (!e.direct_g) {
      void* tile = pb_scratch(0, size_t(kTile) * 8);
      load(tile, e.g, begin, a.n, e.compute);
      a.g = tile;
    }
    if (clamp) {
      void* tile = pb_scratch(0, size_t(kTile) * 8);
      kernels().clamp[lane](tile, a.g, multiplier_, options_.clip_value, a.n);
      a.g = tile;
    }
    if (!e.direct_p) {
      a.from = a.p = pb_scratch(1, size_t(kTile) * 8);
      load(a.p, e.origin ? e.origin : e.p, begin, a.n, e.compute);
    }
    if (noise) {
      void* tile = pb_scratch(2, size_t(kTile) * 8);
      kernels().normal[lane](tile, uint64_t(e.scalars[0]), uint64_t(e.state->t + 1), uint64_t(begin), a.n);
      a.noise = tile;
    }
    f(a);
    if (write && !e.direct_p) store(e.p, begin, a.n, a.p, e.compute);
  }
}

void Driver::update_chunk(size_t c) {
  const Chunk& k = chunks_[c];
  const Entry& e = entries_[k.entry];
  if (!e.active) return;
  const Group& group = groups_[e.group];
  const int lane = lane_of(e.compute);
  auto update = e.rule->kernels->update[lane][int(group.mode)];
  if (group.prox == Prox::None) return visit(k, e, true, update);
  constexpr double inf = std::numeric_limits<double>::infinity();
  bool finite = true;
  sums_[c] = 0;
  visit(k, e, true, [&](const UpdateArgs& a) {
    update(a);
    if (group.prox == Prox::Threshold) kernels().prox[lane](a.p, group.a, -inf, inf, a.n);
    if (group.prox == Prox::Box) kernels().prox[lane](a.p, 0, group.a, group.b, a.n);
    if (group.prox >= Prox::Ball) sums_[c] += kernels().measure[lane](a.p, a.n, &finite);
  });
}

void Driver::scale_chunk(size_t c) {
  const Chunk& k = chunks_[c];
  const Entry& e = entries_[k.entry];
  const Group& group = groups_[e.group];
  if (!e.active || group.prox < Prox::Ball) return;
  const double norm = e.sums[0];
  const double factor = group.prox == Prox::Ball ? (norm > group.a ? group.a / norm : 1.0)
                                                 : (norm > group.a ? 1.0 - group.a / norm : 0.0);
  if (factor == 1) return;
  constexpr double inf = std::numeric_limits<double>::infinity();
  auto scale = kernels().clamp[lane_of(e.compute)];
  if (e.direct_p) {
    void* p = static_cast<char*>(e.address) + k.begin * itemsize(e.compute);
    return scale(p, p, factor, inf, k.n);
  }
  void* tile = pb_scratch(1, size_t(kTile) * 8);
  for (int64_t at = 0; at < k.n; at += kTile) {
    const int64_t n = std::min(kTile, k.n - at);
    load(tile, e.p, k.begin + at, n, e.compute);
    scale(tile, tile, factor, inf, n);
    store(e.p, k.begin + at, n, tile, e.compute);
  }
}

// ---- sums over whole tensors

void Driver::sum_chunk(size_t c) {
  const Chunk& k = chunks_[c];
  const Entry& e = entries_[k.entry];
  if (!e.active || !e.rule->nsums) return;
  const bool coupled = groups_[e.group].mode == Decay::Coupled;
  auto measure = e.rule->kernels->measure[lane_of(e.compute)][coupled];
  double* total = &parts_[c * kMaxSums];
  std::fill(total, total + kMaxSums, 0.0);
  visit(k, e, false, [&](const UpdateArgs& a) {
    double part[kMaxSums];
    measure(a, part);
    for (int q = 0; q < e.rule->nsums; q++) total[q] = e.rule->largest ? max(part[q], total[q]) : total[q] + part[q];
  });
}

void Driver::add_sums() {
  for (Entry& e : entries_) {
    if (!e.g || !e.rule->nsums) continue;
    for (int q = 0; q < e.rule->nsums; q++) {
      double largest = 0;
      totals_.clear();
      for (size_t c = e.chunk; c < e.chunk + e.chunks; c++) {
        totals_.push_back(parts_[c * kMaxSums + size_t(q)]);
        largest = max(totals_.back(), largest);
      }
      e.sums[q] = e.rule->largest ? largest : add_pairwise(totals_.data(), totals_.size());
    }
  }
  const RuleRow* last = nullptr;
  double shared[kMaxSums] = {};
  for (Entry& e : entries_) {
    if (!e.g || !e.rule->nsums) continue;
    if (e.rule->scope == Scope::Model) {
      for (int q = 0; q < e.rule->nsums && e.rule != last; q++) {
        totals_.clear();
        for (const Entry& other : entries_)
          if (other.active && other.rule == e.rule) totals_.push_back(other.sums[q]);
        shared[q] = add_sorted(totals_);
      }
      last = e.rule;
    }
    const double* sums = e.rule->scope == Scope::Model ? shared : e.sums;
    e.rule->finish(*e.rule, groups_[e.group].hyper, e.state->t + 1, e.scalars, sums, steps_[e.step].v);
  }
}

StepResult Driver::commit() {
  result_.skipped = !finite_;
  if (finite_)
    for (Entry& e : entries_)
      if (e.g) {
        e.state->t++;
        if (e.rule->nscalars) std::copy(e.scalars, e.scalars + e.rule->nscalars, e.state->scalars);
        e.p->storage->version++;
      }
  release_gradients();
  return result_;
}

void Driver::release_gradients() {
  for (Entry& e : entries_) e.g = e.origin = Tensor();
}

Tensor normal_like(const Tensor& p, uint64_t seed, uint64_t t) {
  Tensor u = empty(p.shape(), compute_dtype(p.dtype()));
  if (u.size()) kernels().normal[lane_of(u.dtype())](u.raw(), seed, t, 0, u.size());
  return u;
}

// ---- a norm outside a step

double global_norm(std::span<const Tensor> tensors, bool* finite) {
  struct Job {
    Tensor t;
    std::vector<double> sums;
    bool finite = true;
    static void run(void* self, int64_t begin, int64_t end) {
      auto& j = *static_cast<Job*>(self);
      DType compute = compute_dtype(j.t.dtype());
      bool direct = j.t.contiguous() && j.t.dtype() == compute, ok = true;
      for (int64_t c = begin; c < end; c++)
        j.sums[size_t(c)] =
            measure_range(j.t, c * kChunk, std::min(kChunk, j.t.size() - c * kChunk), compute, direct, &ok);
      if (!ok) __atomic_store_n(&j.finite, false, __ATOMIC_RELAXED);
    }
  };
  std::vector<double> totals;
  Job job;
  for (const Tensor& t : tensors) {
    job.t = t;
    job.sums.resize(size_t((t.size() + kChunk - 1) / kChunk));
    pb_parallel_for(int64_t(job.sums.size()), 12, &Job::run, &job);
    totals.push_back(add_pairwise(job.sums.data(), job.sums.size()));
  }
  *finite = job.finite;
  return std::sqrt(add_sorted(totals));
}

}  // namespace pb::optim
