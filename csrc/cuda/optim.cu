// The optimizer step: one launch updates the chunks of every parameter, whatever their shapes. Rules are those of
// optim/rules.h, in their order.
#define PB_RULE_UNIT
#include "cuda/device.h"
#include "optim/rules.h"

namespace pb::cuda {

namespace {

using optim::Decay;
static_assert(sizeof(OptimChunk::slots) / sizeof(float*) == optim::kMaxSlots);
static_assert(sizeof(OptimArgs::step) / sizeof(float) == optim::kMaxStep);

template <class Rule>
PB_DEVICE auto step_of(const OptimArgs& a) {
  typename Rule::template Step<float> k;
  static_assert(sizeof k <= sizeof a.step);
  memcpy(&k, a.step, sizeof k);
  return k;
}

template <class Rule, Decay D>
__global__ void __launch_bounds__(kThreads) update_kernel(const __grid_constant__ OptimArgs a) {
  constexpr int slots = optim::slot_count<Rule>();
  constexpr bool noisy = optim::takes_noise<Rule>();
  const OptimChunk& c = a.chunks[blockIdx.x];
  const auto k = step_of<Rule>(a);
  bool aligned =
      (reinterpret_cast<uintptr_t>(c.p) | reinterpret_cast<uintptr_t>(c.from) | reinterpret_cast<uintptr_t>(c.g)) %
          16 ==
      0;
#pragma unroll
  for (int s = 0; s < slots; s++) aligned = aligned && reinterpret_cast<uintptr_t>(c.slots[s]) % 16 == 0;
  int64_t whole = aligned ? c.n / kVec : 0;
#pragma unroll 1
  for (int64_t i = int64_t(threadIdx.x) * kVec; i < whole * kVec; i += kThreads * kVec) {
    float p[kVec], g[kVec], state[slots + 1][kVec];
    vector_load(c.from, c.p_type, i, p);
    vector_load(c.g, c.g_type, i, g);
#pragma unroll
    for (int s = 0; s < slots; s++) vector_load(c.slots[s], Type::F32, i, state[s]);
#pragma unroll
    for (int e = 0; e < kVec; e++) {
      optim::Slots<float, slots + noisy> one;
#pragma unroll
      for (int s = 0; s < slots; s++) one[s] = state[s][e];
      if constexpr (noisy) one[slots] = c.noise[i + e];
      p[e] = optim::advance<Rule, D, float>(p[e], g[e] * a.scale, one, k, a.decay);
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
    float p = load_one(c.from, c.p_type, i), g = load_one(c.g, c.g_type, i) * a.scale;
    store_one(c.p, c.p_type, i, optim::advance<Rule, D, float>(p, g, one, k, a.decay));
#pragma unroll
    for (int s = 0; s < slots; s++) c.slots[s][i] = one[s];
  }
}

template <class Rule>
OptimEntry entry_of() {
  return {{reinterpret_cast<Kernel>(&update_kernel<Rule, Decay::None>),
           reinterpret_cast<Kernel>(&update_kernel<Rule, Decay::Coupled>),
           reinterpret_cast<Kernel>(&update_kernel<Rule, Decay::Decoupled>)}};
}
template <size_t... I>
const OptimEntry* entries_of(std::index_sequence<I...>) {
  static const OptimEntry rows[] = {entry_of<typename optim::RuleAt<int(I)>::type>()...};
  return rows;
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

}  // namespace pb::cuda
