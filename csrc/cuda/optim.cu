// The optimizer step: one launch updates the chunks of every parameter, whatever their shapes. Rules are those of
// optim/rules.h, in their order. Norm, clipping and the finite check stay on the device (OptimControl).
#define PB_RULE_UNIT
#include "cuda/api_optim.h"
#include "cuda/device.h"
#include "optim/rules.h"

namespace pb::cuda {

namespace {

using optim::Decay;
static_assert(sizeof(OptimChunk::slots) / sizeof(float*) == optim::kMaxSlots);
static_assert(kStepBlock == optim::kMaxStep + 1 && kOptimSums == optim::kMaxSums);

template <class Rule>
PB_DEVICE auto step_of(const float* block) {
  typename Rule::template Step<float> k;
  float v[optim::step_count<Rule>()];
#pragma unroll
  for (int i = 0; i < optim::step_count<Rule>(); i++) v[i] = block[i];
  static_assert(sizeof k == sizeof v);
  memcpy(&k, v, sizeof k);
  return k;
}

PB_DEVICE float scaled(float g, float multiplier, float clip) {
  g *= multiplier;
  if (clip < 0.0f) return g;
  g = g > clip ? clip : g;
  return g < -clip ? -clip : g;
}

PB_DEVICE bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <class Rule, Decay D>
__global__ void __launch_bounds__(kThreads) update_kernel(const __grid_constant__ OptimArgs a) {
  constexpr int slots = optim::slot_count<Rule>();
  constexpr bool noisy = optim::takes_noise<Rule>();
  if (!a.control->finite) return;
  const OptimChunk& c = a.chunks[blockIdx.x];
  const float multiplier = a.control->multiplier, *block = a.steps + int64_t(c.step) * kStepBlock;
  const float decay = block[kStepBlock - 1];
  const auto k = step_of<Rule>(block);
  bool wide = aligned(c.p) && aligned(c.from) && aligned(c.g);
#pragma unroll
  for (int s = 0; s < slots; s++) wide = wide && aligned(c.slots[s]);
  int64_t whole = wide ? c.n / kVec : 0;
#pragma unroll 1
  for (int64_t i = int64_t(threadIdx.x) * kVec; i < whole * kVec; i += kThreads * kVec) {
    float p[kVec], g[kVec], state[slots + 1][kVec];
    vector_load(c.from, c.from_type, i, p);
    vector_load(c.g, c.g_type, i, g);
#pragma unroll
    for (int s = 0; s < slots; s++) vector_load(c.slots[s], Type::F32, i, state[s]);
#pragma unroll
    for (int e = 0; e < kVec; e++) {
      optim::Slots<float, slots + noisy> one;
#pragma unroll
      for (int s = 0; s < slots; s++) one[s] = state[s][e];
      if constexpr (noisy) one[slots] = c.noise[i + e];
      p[e] = optim::advance<Rule, D, float>(p[e], scaled(g[e], multiplier, a.clip_value), one, k, decay);
#pragma unroll
      for (int s = 0; s < slots; s++) state[s][e] = one[s];
    }
    vector_store(c.p, c.p_type, i, p);
#pragma unroll
    for (int s = 0; s < slots; s++) vector_store(c.slots[s], Type::F32, i, state[s]);
  }
#pragma unroll 1
  for (int64_t i = whole * kVec + threadIdx.x; i < c.n; i += kThreads) {
    optim::Slots<float, slots + noisy> one;
#pragma unroll
    for (int s = 0; s < slots; s++) one[s] = c.slots[s][i];
    if constexpr (noisy) one[slots] = c.noise[i];
    float p = load_one(c.from, c.from_type, i), g = scaled(load_one(c.g, c.g_type, i), multiplier, a.clip_value);
    store_one(c.p, c.p_type, i, optim::advance<Rule, D, float>(p, g, one, k, decay));
#pragma unroll
    for (int s = 0; s < slots; s++) c.slots[s][i] = one[s];
  }
}

// ---- sums: one value a thread to one a block, in a fixed tree

template <bool Largest>
PB_DEVICE double merge_block(double v) {
  PB_SHARED(double, lane, [kThreads]);
  __syncthreads();
  lane[threadIdx.x] = v;
  __syncthreads();
#pragma unroll
  for (int w = kThreads / 2; w; w /= 2) {
    if (int(threadIdx.x) < w) {
      double other = lane[threadIdx.x + w];
      if constexpr (Largest)
        lane[threadIdx.x] = max(lane[threadIdx.x], other);
      else
        lane[threadIdx.x] += other;
    }
    __syncthreads();
  }
  return lane[0];
}

// What the rule sums over whole tensors, of one chunk a block.
template <class Rule, bool Coupled>
__global__ void __launch_bounds__(kThreads) sums_kernel(const __grid_constant__ OptimArgs a) {
  constexpr int slots = optim::slot_count<Rule>(), sums = optim::sum_count<Rule>();
  constexpr bool largest = optim::takes_largest<Rule>();
  const OptimChunk& c = a.chunks[blockIdx.x];
  const float multiplier = a.control->multiplier, *block = a.steps + int64_t(c.step) * kStepBlock;
  const auto k = step_of<Rule>(block);
  double total[sums] = {};
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < c.n; i += kThreads) {
    optim::Slots<float, slots> one;
#pragma unroll
    for (int s = 0; s < slots; s++) one[s] = c.slots[s][i];
    float p = load_one(c.from, c.from_type, i), g = scaled(load_one(c.g, c.g_type, i), multiplier, a.clip_value);
    if constexpr (Coupled) g = g + block[kStepBlock - 1] * p;
    auto part = Rule::template measure<float>(p, g, one, k);
#pragma unroll
    for (int q = 0; q < sums; q++) {
      if constexpr (largest)
        total[q] = max(double(part[q]), total[q]);
      else
        total[q] += double(part[q]);
    }
  }
#pragma unroll
  for (int q = 0; q < sums; q++) {
    double sum = merge_block<largest>(total[q]);
    if (threadIdx.x == 0) a.sums[int64_t(blockIdx.x) * kOptimSums + q] = sum;
  }
}

struct MeasureArgs {
  const OptimChunk* chunks;
  double* partial;
};
__global__ void __launch_bounds__(kThreads) measure_kernel(const __grid_constant__ MeasureArgs a) {
  const OptimChunk& c = a.chunks[blockIdx.x];
  int64_t whole = aligned(c.g) ? c.n / kVec : 0;
  double sum = 0;
#pragma unroll 1
  for (int64_t i = int64_t(threadIdx.x) * kVec; i < whole * kVec; i += kThreads * kVec) {
    float g[kVec];
    vector_load(c.g, c.g_type, i, g);
#pragma unroll
    for (int e = 0; e < kVec; e++) sum += double(g[e]) * double(g[e]);
  }
#pragma unroll 1
  for (int64_t i = whole * kVec + threadIdx.x; i < c.n; i += kThreads) {
    double g = double(load_one(c.g, c.g_type, i));
    sum += g * g;
  }
  sum = merge_block<false>(sum);
  if (threadIdx.x == 0) a.partial[blockIdx.x] = sum;
}

struct FinishArgs {
  const double* partial;
  int64_t count;
  double scale, clip_norm;
  OptimControl* control;
};
// One block. Squares of floats do not overflow in double: the sum is finite where every gradient is.
__global__ void __launch_bounds__(kThreads) finish_kernel(const __grid_constant__ FinishArgs a) {
  double sum = 0;
#pragma unroll 1
  for (int64_t c = threadIdx.x; c < a.count; c += kThreads) sum += a.partial[c];
  sum = merge_block<false>(sum);
  if (threadIdx.x != 0) return;
  double norm = sqrt(sum) / a.scale, clip = 1;
  if (a.clip_norm >= 0 && a.clip_norm < norm + 1e-6) clip = a.clip_norm / (norm + 1e-6);
  a.control->norm = norm;
  a.control->finite = isfinite(sum);
  a.control->multiplier = float(1 / a.scale * clip);
}

template <class Rule, bool Coupled>
Kernel sums_of() {
  if constexpr (optim::sum_count<Rule>() > 0)
    return reinterpret_cast<Kernel>(&sums_kernel<Rule, Coupled>);
  else
    return nullptr;
}
template <class Rule>
OptimEntry entry_of() {
  return {{reinterpret_cast<Kernel>(&update_kernel<Rule, Decay::None>),
           reinterpret_cast<Kernel>(&update_kernel<Rule, Decay::Coupled>),
           reinterpret_cast<Kernel>(&update_kernel<Rule, Decay::Decoupled>)},
          {sums_of<Rule, false>(), sums_of<Rule, true>()}};
}
template <size_t... I>
const OptimEntry* entries_of(std::index_sequence<I...>) {
  static const OptimEntry rows[] = {entry_of<typename optim::RuleAt<int(I)>::type>()...};
  return rows;
}

int measure(const OptimChunk* chunks, int64_t count, double* partial, void* stream) {
  if (count == 0) return cudaSuccess;
  if (count > INT32_MAX) return cudaErrorInvalidConfiguration;
  return launch(reinterpret_cast<Kernel>(&measure_kernel), dim3(unsigned(count)), dim3(kThreads), stream,
                MeasureArgs{chunks, partial});
}
int finish(const double* partial, int64_t count, double scale, double clip_norm, OptimControl* control, void* stream) {
  return launch(reinterpret_cast<Kernel>(&finish_kernel), dim3(1), dim3(kThreads), stream,
                FinishArgs{partial, count, scale, clip_norm, control});
}

}  // namespace

const OptimEntry* optim_entries(int& count) {
  count = optim::kRules;
  return entries_of(std::make_index_sequence<size_t(optim::kRules)>{});
}

int launch_optim(Kernel kernel, const OptimArgs& args, void* stream) {
  if (args.count == 0) return cudaSuccess;
  if (args.count > INT32_MAX) return cudaErrorInvalidConfiguration;
  return launch(kernel, dim3(unsigned(args.count)), dim3(kThreads), stream, args);
}

const OptimApi* optim_api() {
  static const OptimApi api = {.measure = &measure, .finish = &finish};
  return &api;
}

}  // namespace pb::cuda
