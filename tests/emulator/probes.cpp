#include "probes.h"

#include <map>
#include <string>

#include "cuda/device.h"

namespace emulator {

namespace {

using A = ProbeArgs;
constexpr unsigned kAll = ~0u;

void divergent(A) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
void early_return(A) {
  if (threadIdx.x == 5) return;
  __syncthreads();
}
void half_warp(A a) {
  if (threadIdx.x % 32 < 16) a.out[threadIdx.x] = __shfl_xor_sync(kAll, 1.0f, 1);
}
void returned_lane(A a) {
  __syncwarp();
  if (threadIdx.x == 3) return;
  a.out[threadIdx.x] = float(__ballot_sync(kAll, 1));
}
void foreign_mask(A a) { a.out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0); }
void outside_lane(A a) {
  if (threadIdx.x % 32 < 16) a.out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}
void other_function(A a) {
  if (threadIdx.x % 2)
    a.out[threadIdx.x] = float(__any_sync(kAll, 1));
  else
    a.out[threadIdx.x] = __shfl_sync(kAll, 1.0f, 0);
}
void past_end(A a) { a.out[a.n + threadIdx.x * 1024] = 1.0f; }
void just_past_end(A a) {
  if (threadIdx.x == 0) a.out[a.n] = 1.0f;
}
void host_memory(A) { *reinterpret_cast<volatile int*>(64) = 1; }
void misaligned(A a) {
  float4 v = *reinterpret_cast<const float4*>(a.out + 1);
  a.out[0] = v.x;
}
void past_shared(A a) {
  PB_SHARED(float, few, [8]);
  few[threadIdx.x] = 1.0f;
  a.out[0] = few[0];
}
void deep(A a) {
  volatile char big[1 << 20];
  big[0] = 1;
  a.out[0] = float(big[0]);
}
void trapped(A) {
  if (threadIdx.x == 7) __trap();
}
void unwritten_shared(A a) {
  PB_SHARED(float, box, [64]);
  a.out[threadIdx.x] = box[threadIdx.x % 64];
}
void dynamic_shared_memory(A a) {
  PB_DYN_SHARED(float, box);
  box[threadIdx.x] = float(threadIdx.x);
  __syncthreads();
  a.out[threadIdx.x] = box[blockDim.x - 1 - threadIdx.x];
}
// The order in which threads come here: it shows the schedule.
void order(A a) {
  PB_SHARED(int, next, [1]);
  if (threadIdx.x == 0) next[0] = 0;
  __syncthreads();
  a.out[atomicAdd(&next[0], 1) + int(blockIdx.x * blockDim.x)] = float(threadIdx.x);
}
void missing_barrier(A a) {
  PB_SHARED(float, box, [1024]);
  box[threadIdx.x] = 1.0f;
  a.out[threadIdx.x] = box[(threadIdx.x + 1) % blockDim.x];
}
void votes(A a) {
  int odd = int(threadIdx.x) % 2;
  int count = __syncthreads_count(odd), any = __syncthreads_or(odd), all = __syncthreads_and(odd);
  a.out[threadIdx.x] = float(count * 4 + (any ? 2 : 0) + (all ? 1 : 0));
}
void shuffles(A a) {
  float x = float(threadIdx.x);
  float r[6] = {__shfl_sync(kAll, x, 5),         __shfl_up_sync(kAll, x, 3), __shfl_down_sync(kAll, x, 3),
                __shfl_xor_sync(kAll, x, 6, 16), __shfl_sync(kAll, x, 9, 8), __shfl_down_sync(kAll, x, 7, 16)};
  for (int i = 0; i < 6; i++) a.out[i * int(blockDim.x) + int(threadIdx.x)] = r[i];
}
void warp_values(A a) {
  unsigned lane = threadIdx.x % 32;
  float r[6] = {float(__reduce_add_sync(kAll, lane)),
                float(__reduce_max_sync(kAll, int(lane) - 40)),
                float(__reduce_min_sync(kAll, int(lane) - 20)),
                float(__popc(__match_any_sync(kAll, lane % 3))),
                float(__all_sync(kAll, lane < 32)),
                float(__any_sync(kAll, lane == 40))};
  for (int i = 0; i < 6; i++) a.out[i * int(blockDim.x) + int(threadIdx.x)] = r[i];
}
void total(A a) { atomicAdd(&a.out[0], 1.0f); }

using Function = void (*)(A);
const std::map<std::string, Function> kProbes = {
    {"divergent", divergent},
    {"early_return", early_return},
    {"half_warp", half_warp},
    {"returned_lane", returned_lane},
    {"foreign_mask", foreign_mask},
    {"outside_lane", outside_lane},
    {"other_function", other_function},
    {"past_end", past_end},
    {"just_past_end", just_past_end},
    {"host_memory", host_memory},
    {"misaligned", misaligned},
    {"past_shared", past_shared},
    {"deep", deep},
    {"trapped", trapped},
    {"unwritten_shared", unwritten_shared},
    {"dynamic_shared_memory", dynamic_shared_memory},
    {"no_dynamic_shared_memory", dynamic_shared_memory},
    {"order", order},
    {"missing_barrier", missing_barrier},
    {"votes", votes},
    {"shuffles", shuffles},
    {"warp_values", warp_values},
    {"total", total},
};

}  // namespace

int run_probe(const char* name, unsigned blocks, unsigned threads, const ProbeArgs& args) {
  auto found = kProbes.find(name);
  if (found == kProbes.end()) return -1;
  size_t shared = std::string(name) == "dynamic_shared_memory" ? threads * sizeof(float) : 0;
  return pb::cuda::launch(reinterpret_cast<pb::cuda::Kernel>(found->second), dim3(blocks), dim3(threads), nullptr, args,
                          shared);
}

}  // namespace emulator
