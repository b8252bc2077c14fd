#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/isa_std.h"
#include "cuda/optim_call.h"
#include "families/map.h"
#include "optim/driver.h"

namespace pb::optim {

namespace {

constexpr int64_t kGrain = 49152;  // elements for which a second thread pays

int lane_of(DType compute) { return compute == DType::F64 ? 1 : 0; }

// What a thread stages. Starts are no multiples of 4 KiB apart, or all would fall into the same sets of the cache.
enum Tile : int { kGradient, kParameter, kNoise, kRest, kSlot };
void* tile(int i) {
  constexpr size_t kStride = size_t(kTile) * 8 + 192;
  return static_cast<char*>(pb_scratch(0, (kSlot + kMaxSlots) * kStride)) + size_t(i) * kStride;
}

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

double measure_range(const Tensor& g, int64_t begin, int64_t n, DType compute, bool direct, bool* finite) {
  auto* f = optim_kernels().measure[lane_of(compute)];
  if (direct) return f(static_cast<char*>(g.raw()) + begin * itemsize(compute), n, finite);
  double sum = 0;
  void* staged = tile(kGradient);
  for (int64_t at = 0; at < n; at += kTile) {
    int64_t m = std::min(kTile, n - at);
    load(staged, g, begin + at, m, compute);
    sum += f(staged, m, finite);
  }
  return sum;
}

}  // namespace

// The chunks that start in [begin, end), counted in elements from first_: equal work for each thread.
template <void (Driver::*F)(size_t)>
void Driver::pass(void* self, int64_t begin, int64_t end) {
  auto* d = static_cast<Driver*>(self);
  begin += d->first_, end += d->first_;
  auto it = std::lower_bound(d->chunks_.begin(), d->chunks_.end(), begin,
                             [](const Chunk& c, int64_t at) { return c.at < at; });
  for (; it != d->chunks_.end() && it->at < end; ++it) (d->*F)(size_t(it - d->chunks_.begin()));
}

void Driver::execute() {
  if (device_.kind == Device::CUDA) return execute_device();
  multiplier_ = 1 / options_.scale;
  if (options_.measure || needs_sums_)
    pb_parallel_for(running_, needs_sums_ ? kGrain : 4 * kGrain, &pass<&Driver::read_chunk>, this);
  if (options_.measure) {
    result_.norm = norm() / options_.scale;
    if (!finite_) return;
    const double clip = options_.clip_norm < 0 ? 1.0 : std::min(1.0, options_.clip_norm / (result_.norm + 1e-6));
    multiplier_ *= clip;
    if (clip != 1 && needs_sums_ && !adjust_sums(clip))
      pb_parallel_for(running_, kGrain, &pass<&Driver::sum_chunk>, this);
  }
  if (needs_sums_) add_sums();
  pb_parallel_for(running_, kGrain, &pass<&Driver::update_chunk>, this);
  if (!needs_norms_) return;
  for (Entry& e : entries_)
    if (e.active) e.sums[0] = std::sqrt(add_pairwise(sums_.data() + e.chunk, e.chunks));
  pb_parallel_for(running_, kGrain, &pass<&Driver::scale_chunk>, this);
}

// ---- tiles in and out

void* Driver::load_gradient(const Entry& e, int64_t begin, int64_t n) const {
  void* g = static_cast<char*>(e.g.raw()) + begin * itemsize(e.compute);
  if (!e.direct_g) load(g = tile(kGradient), e.g, begin, n, e.compute);
  if (options_.clip_value < 0) return g;
  void* clamped = tile(kGradient);
  optim_kernels().clamp[lane_of(e.compute)](clamped, g, multiplier_, options_.clip_value, n);
  return clamped;
}

void* Driver::load_slot(const Entry& e, int j, int64_t begin, int64_t n) const {
  const Memory& m = e.slots[j];
  if (m.format == Format::Exact) return static_cast<char*>(m.data) + begin * itemsize(e.compute);
  auto* to = static_cast<float*>(tile(kSlot + j));
  if (m.format == Format::BF16)
    optim_kernels().formats->widen_bf16(to, static_cast<uint16_t*>(m.data) + begin, n);
  else
    optim_kernels().formats->unpack8(to, static_cast<uint8_t*>(m.data) + begin, m.scales + begin / kBlock8, n);
  return to;
}

// Of a stream for a chunk: chunks do not cross the places where the upper half of an element's number changes.
RoundKey Driver::key(const Chunk& k, const Entry& e, int stream) const {
  return round_key(0, uint64_t(e.state->t + 1), uint32_t(stream), uint32_t(uint64_t(k.begin) >> 32));
}

void Driver::store_slot(const Entry& e, int j, int64_t begin, int64_t n, void* from, RoundKey key) const {
  const Memory& m = e.slots[j];
  if (m.format == Format::Exact) return;
  auto* x = static_cast<float*>(from);
  if (m.format == Format::BF16)
    optim_kernels().formats->narrow_bf16(static_cast<uint16_t*>(m.data) + begin, x, key, uint32_t(begin), n);
  else
    optim_kernels().formats->pack8[1](static_cast<uint8_t*>(m.data) + begin, m.scales + begin / kBlock8, x, key,
                                      uint32_t(begin), n);
}

void* Driver::load_parameter(const Entry& e, int64_t begin, int64_t n) const {
  if (e.direct_p) return static_cast<char*>(e.address) + begin * itemsize(e.compute);
  void* p = tile(kParameter);
  load(p, e.origin ? e.origin : e.p, begin, n, e.compute);
  if (e.rounding < Rounding::Kahan) return p;
  const int type = e.p.dtype() == DType::BF16;
  const FormatKernels& f = *optim_kernels().formats;
  if (e.rounding == Rounding::Master) {
    float* fine = e.state->rest.data<float>() + begin;
    f.refine[type](fine, static_cast<float*>(p), n);
    return fine;
  }
  load(tile(kRest), e.state->rest, begin, n, e.compute);
  f.compensate[type](static_cast<float*>(p), static_cast<float*>(tile(kRest)), n);
  return p;
}

void Driver::store_parameter(const Entry& e, int64_t begin, int64_t n, void* p, RoundKey key) const {
  if (e.direct_p) return;
  const int type = e.p.dtype() == DType::BF16;
  const FormatKernels& f = *optim_kernels().formats;
  auto* x = static_cast<float*>(p);
  if (e.rounding == Rounding::Stochastic) f.round[type](x, key, uint32_t(begin), n);
  if (e.rounding == Rounding::Kahan) {
    f.split[type](x, static_cast<float*>(tile(kRest)), n);
    store(e.state->rest, begin, n, tile(kRest), e.compute);
  }
  store(e.p, begin, n, p, e.compute);
}

template <class F>
void Driver::visit(const Chunk& k, const Entry& e, bool write, F f) {
  const int slots = e.rule->nslots;
  UpdateArgs a{};
  a.step = steps_[e.step].v;
  a.program = e.rule->program;
  a.scale = options_.clip_value >= 0 ? 1 : multiplier_;
  a.decay = groups_[e.group].decay;
  const bool staged = e.narrow || !e.direct_p;
  const int64_t piece = staged ? kTile / 2 : kTile;  // with the tiles that are staged it must stay in L1
  RoundKey keys[kMaxSlots + 1] = {};
  if (staged && write)
    for (int j = 0; j <= slots; j++) keys[j] = key(k, e, j < slots ? j : kMaxSlots);
  for (int64_t at = 0; at < k.n; at += a.n) {
    const int64_t begin = k.begin + at;
    a.n = std::min(piece, k.n - at);
    for (int j = 0; j < slots; j++) {
      a.slots[j] = load_slot(e, j, begin, a.n);
    }
    a.g = load_gradient(e, begin, a.n);
    a.p = load_parameter(e, begin, a.n);
    a.from = e.direct_p && e.origin ? static_cast<char*>(e.origin.raw()) + begin * itemsize(e.compute) : a.p;
    if (write && e.rule->noise) {
      optim_kernels().normal[lane_of(e.compute)](tile(kNoise), uint64_t(e.scalars[0]), uint64_t(e.state->t + 1),
                                                 uint64_t(begin), a.n);
      a.noise = tile(kNoise);
    }
    f(a);
    if (!write) continue;
    for (int j = 0; j < slots; j++) {
      store_slot(e, j, begin, a.n, a.slots[j], keys[j]);
    }
    store_parameter(e, begin, a.n, a.p, keys[slots]);
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
    if (group.prox == Prox::Threshold) optim_kernels().prox[lane](a.p, group.a, -inf, inf, a.n);
    if (group.prox == Prox::Box) optim_kernels().prox[lane](a.p, 0, group.a, group.b, a.n);
    if (group.prox >= Prox::Ball) sums_[c] += optim_kernels().measure[lane](a.p, a.n, &finite);
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
  const RoundKey again = key(k, e, kMaxSlots + 1);
  for (int64_t at = 0; at < k.n; at += kTile) {
    const int64_t begin = k.begin + at, n = std::min(kTile, k.n - at);
    void* p = load_parameter(e, begin, n);
    optim_kernels().clamp[lane_of(e.compute)](p, p, factor, inf, n);
    store_parameter(e, begin, n, p, again);
  }
}

// ---- sums over whole tensors

double Driver::norm() {
  totals_.clear();
  for (const Entry& e : entries_)
    if (e.active) totals_.push_back(add_pairwise(sums_.data() + e.chunk, e.chunks));
  return std::sqrt(add_sorted(totals_));
}

// What must be known before the update, while the piece of g is in the cache.
void Driver::read_chunk(size_t c) {
  const Chunk& k = chunks_[c];
  Entry& e = entries_[k.entry];
  if (!e.active) return;
  if (options_.measure) {
    bool finite = true;
    sums_[c] = measure_range(e.g, k.begin, k.n, e.compute, e.direct_g, &finite);
    if (!finite) __atomic_store_n(&finite_, false, __ATOMIC_RELAXED);
  }
  sum_chunk(c);
}

void Driver::sum_chunk(size_t c) {
  const Chunk& k = chunks_[c];
  const Entry& e = entries_[k.entry];
  if (!e.active || !e.rule->nsums || e.summed) return;
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

// After clipping by `factor`: true where every sum follows from the one at hand, else the rest is to be formed again.
bool Driver::adjust_sums(double factor) {
  bool all = true;
  for (Entry& e : entries_) {
    if (!e.active || !e.rule->nsums) continue;
    e.summed = groups_[e.group].mode != Decay::Coupled && options_.clip_value < 0;
    for (int q = 0; q < e.rule->nsums; q++) e.summed = e.summed && e.rule->degrees[q] >= 0;
    all = all && e.summed;
    if (!e.summed) continue;
    for (int q = 0; q < e.rule->nsums; q++) {
      const double power = std::pow(factor, e.rule->degrees[q]);
      for (size_t c = e.chunk; c < e.chunk + e.chunks; c++) parts_[c * kMaxSums + size_t(q)] *= power;
    }
  }
  return all;
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

Tensor normal_like(const Tensor& p, uint64_t seed, uint64_t t) {
  Tensor u = empty(p.shape(), compute_dtype(p.dtype()));
  if (u.size()) optim_kernels().normal[lane_of(u.dtype())](u.raw(), seed, t, 0, u.size());
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
  if (common_device("norm", tensors).kind == Device::CUDA) return cuda::device_norm(tensors, finite);
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
