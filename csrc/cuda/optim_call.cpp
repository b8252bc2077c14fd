#include "cuda/optim_call.h"

#include <cmath>
#include <cstring>
#include <string>

#include "cuda/api_memory.h"
#include "cuda/api_optim.h"
#include "cuda/capture.h"
#include "cuda/copy_call.h"
#include "cuda/engine.h"
#include "families/map.h"
#include "optim/driver.h"

namespace pb::cuda {

void upload(Tensor& memory, const void* data, size_t bytes, Device device) {
  if (!memory || size_t(memory.size()) < bytes || !(memory.device() == device))
    memory = capture() ? capture()->lasting(int64_t(bytes)) : scratch(int64_t(bytes + bytes / 4), device);
  const MemoryApi& api = *need_table("step").memory;
  if (!capture()) return check(api.copy(memory.raw(), data, bytes, stream_of(device)), "step");
  // Beside the capture, at once: the graph finds the data, and does not copy it again.
  static void* side = nullptr;
  stream_of(device);
  if (!side) check(api.stream_create(&side), "step");
  check(api.copy(memory.raw(), data, bytes, side), "step");
  check(need_table("step").synchronize(side), "step");
}

double device_norm(std::span<const Tensor> tensors, bool* finite) {
  GradMode off(false);
  std::vector<Tensor> kept;
  std::vector<OptimChunk> chunks;
  Device device = common_device("norm", tensors);
  for (const Tensor& t : tensors) {
    Tensor flat = contiguous(cast(detach(t), t.dtype() == DType::F64 ? DType::F32 : t.dtype()));
    kept.push_back(flat);
    for (int64_t at = 0; at < flat.size(); at += optim::kChunk) {
      OptimChunk c{};
      c.g = static_cast<char*>(flat.raw()) + at * itemsize(flat.dtype());
      c.n = std::min(optim::kChunk, flat.size() - at);
      c.g_type = flat.dtype();
      chunks.push_back(c);
    }
  }
  Tensor table, partial = scratch(int64_t(chunks.size() * 8 + 8), device), control = scratch(sizeof(OptimControl), device);
  upload(table, chunks.data(), chunks.size() * sizeof(OptimChunk), device);
  void* stream = stream_of(device);
  const OptimApi& api = *need_table("norm").optim;
  check(api.measure(table.data<OptimChunk>(), int64_t(chunks.size()), partial.data<double>(), stream), "norm");
  check(api.finish(partial.data<double>(), int64_t(chunks.size()), 1, -1, control.data<OptimControl>(), stream), "norm");
  OptimControl result;
  read_bytes(&result, control.raw(), sizeof result, device, "norm");
  *finite = result.finite != 0;
  return result.norm;
}

}  // namespace pb::cuda

namespace pb::optim {

using cuda::check;
using cuda::need_table;
using cuda::OptimArgs;
using cuda::OptimChunk;
using cuda::OptimControl;

namespace {

// Chunks that one kernel updates.
struct Launch {
  const RuleRow* rule;
  Decay mode;
  int64_t first, count;
};

Device item_device(const cuda::OptimReplay& r) { return r.table->step_memory.device(); }

[[noreturn]] void not_there(const std::string& what, const Tensor& p) {
  fail<DeviceError>("step", what + " on a CUDA device", "move the model to the CPU, or leave this option out", p);
}

}  // namespace

void Driver::check_device_entry(const Entry& e) const {
  const Group& g = groups_[e.group];
  if (e.compute == DType::F64) not_there("float64 parameters cannot be trained", e.p);
  if (!e.p.contiguous()) not_there("parameters that are not contiguous cannot be trained", e.p);
  if (g.state != Format::Exact) not_there("narrow state formats do not exist", e.p);
  if (is_half(e.p.dtype()) && g.rounding != Rounding::Nearest) not_there("rounding of parameters does not exist", e.p);
  if (g.prox != Prox::None) not_there("proximal steps do not exist", e.p);
  if (e.rule->index >= need_table("step").rules) not_there("rules made in Python do not exist", e.p);
}

// The chunk table and the blocks of Step<float>, uploaded where they changed.
void Driver::fill_device_table(std::vector<Tensor>& noise) {
  cuda::OptimTable& t = *device_table_;
  std::vector<OptimChunk> chunks;
  t.steps.assign(steps_.size() * cuda::kStepBlock, 0.0f);
  for (Entry& e : entries_) {
    if (!in_range(e)) continue;
    float* block = &t.steps[e.step * cuda::kStepBlock];
    for (int i = 0; i < e.rule->nstep; i++) block[i] = float(steps_[e.step].v[i]);
    block[cuda::kStepBlock - 1] = float(groups_[e.group].decay);
    const Tensor& from = e.origin ? e.origin : e.p;
    const float* normals = nullptr;
    if (e.rule->noise) {
      noise.push_back(to_device(normal_like(to_device(e.p, {}), uint64_t(e.scalars[0]), uint64_t(e.state->t + 1)),
                                e.p.device()));
      normals = noise.back().data<float>();
    }
    for (int64_t at = 0; at < e.n; at += kChunk) {
      OptimChunk c{};
      c.p = static_cast<char*>(e.p.raw()) + at * itemsize(e.p.dtype());
      c.from = static_cast<char*>(from.raw()) + at * itemsize(from.dtype());
      c.g = static_cast<char*>(e.g.raw()) + at * itemsize(e.g.dtype());
      for (int j = 0; j < e.rule->nslots; j++) c.slots[j] = static_cast<float*>(e.slots[j].data) + at;
      c.noise = normals ? normals + at : nullptr;
      c.n = std::min(kChunk, e.n - at);
      c.p_type = e.p.dtype();
      c.from_type = from.dtype();
      c.g_type = e.g.dtype();
      c.step = int(e.step);
      chunks.push_back(c);
    }
  }
  size_t bytes = chunks.size() * sizeof(OptimChunk);
  if (chunks.size() != t.chunks.size() || std::memcmp(chunks.data(), t.chunks.data(), bytes)) {
    t.chunks = std::move(chunks);
    cuda::upload(t.chunk_memory, t.chunks.data(), bytes, device_);
  }
}

bool Driver::in_range(const Entry& e) const {
  return e.active && e.g && e.chunks && chunks_[e.chunk].at >= first_ && chunks_[e.chunk].at < first_ + running_;
}

void Driver::upload_steps() {
  cuda::OptimTable& t = *device_table_;
  cuda::upload(t.step_memory, t.steps.data(), t.steps.size() * sizeof(float), device_);
}

// Sums over whole tensors come back to the host, where the rules finish their steps.
void Driver::device_sums(const OptimArgs& base) {
  std::vector<double> sums(size_t(base.count) * kMaxSums);
  Tensor memory = cuda::scratch(int64_t(sums.size() * 8), device_);
  OptimArgs a = base;
  int64_t at = 0;
  for (Entry& e : entries_) {
    if (!in_range(e)) continue;
    if (e.rule->nsums) {
      a.chunks = base.chunks + at;
      a.count = int64_t(e.chunks);
      a.sums = memory.data<double>() + at * kMaxSums;
      const bool coupled = groups_[e.group].mode == Decay::Coupled;
      check(need_table("step").launch_optim(need_table("step").rule[e.rule->index].sums[coupled], a,
                                            cuda::stream_of(device_)),
            "step");
    }
    at += int64_t(e.chunks);
  }
  cuda::read_bytes(sums.data(), memory.raw(), sums.size() * 8, device_, "step");
  at = 0;
  for (Entry& e : entries_) {
    if (!in_range(e)) continue;
    std::copy_n(sums.data() + at * kMaxSums, e.chunks * kMaxSums, parts_.data() + e.chunk * kMaxSums);
    at += int64_t(e.chunks);
  }
  add_sums();
  for (Entry& e : entries_) {
    if (!in_range(e)) continue;
    float* block = &device_table_->steps[e.step * cuda::kStepBlock];
    for (int i = 0; i < e.rule->nstep; i++) block[i] = float(steps_[e.step].v[i]);
  }
  upload_steps();
}

// The graph owns its table: what follows the capture makes another.
void Driver::note_replay() {
  cuda::OptimReplay r;
  r.table = std::move(device_table_);
  r.measured = options_.measure;
  for (const Entry& e : entries_)
    if (in_range(e)) {
      if (e.rule->noise) cuda::refuse_in_capture("step", "an optimizer draws its noise on the host");
      r.items.push_back({e.p, e.rule, e.group, e.step, groups_[e.group].mode});
    }
  cuda::capture()->add(std::move(r));
}

bool Driver::replay(cuda::OptimReplay& r) {
  for (const auto& item : r.items)
    if (item.group >= groups_.size() || groups_[item.group].rule != item.rule || groups_[item.group].mode != item.mode)
      return false;
  std::vector<float>& steps = r.table->steps;
  for (const auto& item : r.items) {
    const Group& g = groups_[item.group];
    State& s = state(item.param);
    double v[kMaxStep] = {};
    item.rule->prepare(*item.rule, g.hyper, ++s.t, s.scalars, v);
    float* block = &steps[item.step * cuda::kStepBlock];
    for (int i = 0; i < item.rule->nstep; i++) block[i] = float(v[i]);
    block[cuda::kStepBlock - 1] = float(g.decay);
    item.param->storage->version++;
  }
  cuda::upload(r.table->step_memory, steps.data(), steps.size() * sizeof(float), item_device(r));
  return true;
}

StepResult Driver::replay_result(cuda::OptimReplay& r) {
  OptimControl result;
  cuda::read_bytes(&result, r.table->control.raw(), sizeof result, item_device(r), "step");
  if (!result.finite)
    for (const auto& item : r.items) state(item.param).t--;
  return {result.norm, result.finite == 0};
}

// Nothing waits for the device, unless a norm was asked for or a rule needs sums.
void Driver::execute_device() {
  GradMode off(false);
  if (cuda::capture()) {
    if (needs_sums_) cuda::refuse_in_capture("step", "an optimizer needs sums over whole tensors");
    device_table_ = nullptr;
  }
  if (!device_table_) device_table_ = std::make_shared<cuda::OptimTable>();
  cuda::OptimTable& t = *device_table_;
  const cuda::Table& table = need_table("step");
  std::vector<Tensor> noise;
  for (Entry& e : entries_)
    if (in_range(e)) check_device_entry(e);
  fill_device_table(noise);
  upload_steps();
  void* stream = cuda::stream_of(device_);
  const int64_t count = int64_t(t.chunks.size());
  if (!t.control || !(t.control.device() == device_)) t.control = cuda::scratch(sizeof(OptimControl), device_);
  auto* control = t.control.data<OptimControl>();
  double* partial = nullptr;
  if (options_.measure) {
    if (!t.partial || t.partial.size() < count * 8 || !(t.partial.device() == device_)) t.partial = cuda::scratch(count * 8 + 8, device_);
    partial = t.partial.data<double>();
    check(table.optim->measure(t.chunk_memory.data<OptimChunk>(), count, partial, stream), "step");
  }
  check(table.optim->finish(partial, partial ? count : 0, options_.scale, options_.clip_norm, control, stream), "step");
  OptimArgs a{t.chunk_memory.data<OptimChunk>(), count, t.step_memory.data<float>(), control, nullptr,
              float(options_.clip_value)};
  if (needs_sums_) {
    device_sums(a);
    a.steps = t.step_memory.data<float>();
  }
  std::vector<Launch> launches;
  int64_t at = 0;
  for (Entry& e : entries_) {
    if (!in_range(e)) continue;
    Decay mode = groups_[e.group].mode;
    if (launches.empty() || launches.back().rule != e.rule || launches.back().mode != mode)
      launches.push_back({e.rule, mode, at, 0});
    launches.back().count += int64_t(e.chunks);
    at += int64_t(e.chunks);
  }
  for (const Launch& l : launches) {
    OptimArgs part = a;
    part.chunks += l.first;
    part.count = l.count;
    check(table.launch_optim(table.rule[l.rule->index].update[int(l.mode)], part, stream), "step");
  }
  if (cuda::capture()) return note_replay();
  if (!options_.measure) return;
  OptimControl result;
  cuda::read_bytes(&result, control, sizeof result, device_, "step");
  result_.norm = result.norm;
  finite_ = result.finite != 0;
}

}  // namespace pb::optim
