// Codes of a derivative (Note [Planes], cpu/code_table.h). A warp takes a group of 32 elements, one a lane: a ballot is
// a plane, and on the way back a lane reads its label's bits from the group's words and its level from another lane.
#include "cuda/device.h"
#include "value/code.h"

namespace pb::cuda {

namespace {

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

PB_DEVICE int64_t group_of_warp() { return (int64_t(blockIdx.x) * kThreads + threadIdx.x) / kWarp; }
PB_DEVICE int64_t warps() { return int64_t(gridDim.x) * (kThreads / kWarp); }

__global__ void __launch_bounds__(kThreads) encode_kernel(const __grid_constant__ CodeArgs a) {
  int lane = int(threadIdx.x % kWarp);
  int64_t groups = (a.n + kWarp - 1) / kWarp;
#pragma unroll 1
  for (int64_t group = group_of_warp(); group < groups; group += warps()) {
    int64_t i = group * kWarp + lane;
    float x = i < a.n ? load_one(a.x, a.x_type, i) : 0.0f;
#pragma unroll 1
    for (int p = 0; p < a.bits; p++) {
      bool set = i < a.n && code_plane(x, a.flips, a.at[p], a.at[p + 1], (a.first >> p & 1) != 0);
      uint32_t word = __ballot_sync(kAll, set);
      if (lane == 0) a.words[group * a.bits + p] = word;
    }
  }
}

// dx = dy * level. Up to 32 levels lie in the lanes of the warp; more are read from memory.
__global__ void __launch_bounds__(kThreads) decode_kernel(const __grid_constant__ CodeArgs a) {
  int lane = int(threadIdx.x % kWarp);
  int64_t groups = (a.n + kWarp - 1) / kWarp;
  float mine = a.level[lane & ((1 << a.bits) - 1)];
#pragma unroll 1
  for (int64_t group = group_of_warp(); group < groups; group += warps()) {
    uint32_t word = lane < a.bits ? a.words[group * a.bits + lane] : 0;
    int label = 0;
#pragma unroll 1
    for (int p = 0; p < a.bits; p++) label |= int(__shfl_sync(kAll, word, p) >> lane & 1u) << p;
    float level = a.bits <= 5 ? __shfl_sync(kAll, mine, label) : a.level[label];
    int64_t i = group * kWarp + lane;
    if (i < a.n) store_one(a.out, a.out_type, i, load_one(a.x, a.x_type, i) * level);
  }
}

unsigned blocks_for(int64_t n) {
  int64_t blocks = (n + kThreads - 1) / kThreads;
  return unsigned(blocks < 65535 ? blocks : 65535);
}

}  // namespace

int launch_encode(const CodeArgs& args, void* stream) {
  if (args.n == 0) return cudaSuccess;
  return launch(reinterpret_cast<Kernel>(&encode_kernel), dim3(blocks_for(args.n)), dim3(kThreads), stream, args);
}
int launch_decode(const CodeArgs& args, void* stream) {
  if (args.n == 0) return cudaSuccess;
  return launch(reinterpret_cast<Kernel>(&decode_kernel), dim3(blocks_for(args.n)), dim3(kThreads), stream, args);
}

}  // namespace pb::cuda
