// Small codes in words (Note [Planes], cpu/code_table.h): a warp takes 32 elements, one a lane, and a ballot is a
// plane.
#include "cuda/api_copy.h"
#include "cuda/device.h"

namespace pb::cuda {

namespace {

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

PB_DEVICE int64_t first_group() { return (int64_t(blockIdx.x) * kThreads + threadIdx.x) / kWarp; }
PB_DEVICE int64_t warps() { return int64_t(gridDim.x) * (kThreads / kWarp); }
PB_DEVICE int64_t groups_of(int64_t n) { return (n + kWarp - 1) / kWarp; }

__global__ void __launch_bounds__(kThreads) pack_kernel(const __grid_constant__ PackArgs a) {
  int lane = int(threadIdx.x % kWarp);
#pragma unroll 1
  for (int64_t group = first_group(); group < groups_of(a.n); group += warps()) {
    int64_t i = group * kWarp + lane;
    unsigned code = i < a.n ? a.codes[i] : 0;
#pragma unroll 1
    for (int p = 0; p < a.bits; p++) {
      uint32_t word = __ballot_sync(kAll, code >> p & 1u);
      if (lane == 0) a.words[group * a.bits + p] = word;
    }
  }
}

PB_DEVICE unsigned code_of(const PackArgs& a, int64_t group, int lane) {
  unsigned code = 0;
#pragma unroll 1
  for (int p = 0; p < a.bits; p++) code |= (a.words[group * a.bits + p] >> lane & 1u) << p;
  return code;
}

__global__ void __launch_bounds__(kThreads) unpack_kernel(const __grid_constant__ PackArgs a) {
  int lane = int(threadIdx.x % kWarp);
#pragma unroll 1
  for (int64_t group = first_group(); group < groups_of(a.n); group += warps()) {
    int64_t i = group * kWarp + lane;
    if (i < a.n) a.codes[i] = uint8_t(code_of(a, group, lane));
  }
}

__global__ void __launch_bounds__(kThreads) levels_kernel(const __grid_constant__ PackArgs a) {
  int lane = int(threadIdx.x % kWarp);
#pragma unroll 1
  for (int64_t group = first_group(); group < groups_of(a.n); group += warps()) {
    int64_t i = group * kWarp + lane;
    if (i < a.n) a.out[i] = a.level[code_of(a, group, lane)];
  }
}

int launch_groups(Kernel kernel, const PackArgs& a, void* stream) {
  if (a.n == 0) return cudaSuccess;
  int64_t blocks = ((a.n + kWarp - 1) / kWarp * kWarp + kThreads - 1) / kThreads;
  return launch(kernel, dim3(unsigned(blocks < 65535 ? blocks : 65535)), dim3(kThreads), stream, a);
}

}  // namespace

int pack(const PackArgs& a, void* stream) { return launch_groups(reinterpret_cast<Kernel>(&pack_kernel), a, stream); }
int unpack(const PackArgs& a, void* stream) {
  return launch_groups(reinterpret_cast<Kernel>(a.out ? &levels_kernel : &unpack_kernel), a, stream);
}

}  // namespace pb::cuda
