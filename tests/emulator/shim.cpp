// What the tests call through ctypes: the table's functions with plain arguments, device memory, the schedule.
#include <cstring>
#include <sstream>

#include "arena.h"
#include "cuda/api.h"
#include "op_names.h"
#include "probes.h"
#include "runtime.h"

#define PB_SHIM extern "C" __attribute__((visibility("default")))

PB_SHIM const pb::cuda::Table* pb_cuda_table();

namespace emulator {
#define PB_UNIT(name) OpNames names_##name();
#include "cuda_units.inc"
#undef PB_UNIT
}  // namespace emulator

namespace {

using namespace pb::cuda;
const Table& t() { return *pb_cuda_table(); }
constexpr Type kTypes[] = {Type::F32, Type::F16, Type::BF16, Type::Bool};

std::string describe_ops() {
  emulator::OpNames (*names[])() = {
#define PB_UNIT(name) &emulator::names_##name,
#include "cuda_units.inc"
#undef PB_UNIT
  };
  std::ostringstream out;
  const char* comma = "[";
  for (int u = 0; u < t().map_units; u++) {
    emulator::OpNames ops = names[u]();
    for (int i = 0; i < t().map[u].count; i++) {
      const MapEntry& e = t().map[u].rows[i];
      const emulator::OpName& op = ops[size_t(i)];
      out << comma << "{\"unit\": " << u << ", \"row\": " << i << ", \"name\": \"" << op.name
          << "\", \"inputs\": " << op.inputs << ", \"random\": " << op.random << ", \"mask\": " << op.mask
          << ", \"forward\": " << (e.fwd != nullptr) << ", \"pulls\": [" << (e.pull[0] != nullptr) << ", "
          << (e.pull[1] != nullptr) << ", " << (e.pull[2] != nullptr) << "], \"uses\": [" << op.uses[0] << ", "
          << op.uses[1] << ", " << op.uses[2] << "]}";
      comma = ", ";
    }
  }
  out << "]";
  return out.str();
}

}  // namespace

PB_SHIM void emulator_begin(int order, uint64_t seed, int lazy) {
  cudaDeviceReset();
  emulator::schedule() = {emulator::Order(order), seed};
  emulator::runtime().lazy = lazy != 0;
}
PB_SHIM const char* emulator_error(int error) { return cudaGetErrorString(cudaError_t(error)); }
PB_SHIM void* emulator_new(size_t bytes) {
  void* p = nullptr;
  return cudaMalloc(&p, bytes) == cudaSuccess ? p : nullptr;
}
PB_SHIM int emulator_put(void* to, const void* from, size_t bytes) {
  return cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice);
}
PB_SHIM int emulator_get(void* to, const void* from, size_t bytes) {
  return cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost);
}
PB_SHIM void emulator_fail_at(const char* name, long calls, int error) {
  emulator::Runtime& r = emulator::runtime();
  r.fail_name = name;
  r.fail_after = calls;
  r.fail_with = cudaError_t(error);
}
PB_SHIM long emulator_launches() { return emulator::runtime().launches; }

// ---- the families

PB_SHIM const char* emulator_ops() {
  static const std::string text = describe_ops();
  return text.c_str();
}
PB_SHIM int emulator_counts(int which) { return which == 0 ? t().reduces : t().rules; }

// which: -1 the forward, else the pull of that input. Operand 0 is the result; `strides` holds kMaxDims for each.
PB_SHIM int emulator_map(int unit, int row, int which, int operands, void* const* data, const int* types,
                         const int64_t* strides, int ndim, const int64_t* shape, int contiguous, const float* params,
                         uint64_t seed, uint64_t offset) {
  MapArgs a;
  a.n = 1;
  a.ndim = ndim;
  for (int d = 0; d < ndim; d++) a.n *= a.shape[d] = shape[d];
  for (int i = 0; i < operands; i++) {
    Operand& x = i ? a.in[i - 1] : a.out;
    x.data = data[i];
    x.type = kTypes[types[i]];
    for (int d = 0; d < ndim; d++) x.strides[d] = strides[i * kMaxDims + d];
  }
  a.contiguous = contiguous != 0;
  std::memcpy(a.params, params, sizeof a.params);
  a.seed = seed, a.offset = offset;
  const MapEntry& e = t().map[unit].rows[row];
  return t().launch_map(which < 0 ? e.fwd : e.pull[which], a, nullptr);
}

PB_SHIM int emulator_reduce(int row, void* out, int out_type, const void* x, int in_type, int64_t outer, int64_t n,
                            int64_t inner) {
  void* partial = nullptr;
  if (int64_t floats = t().reduce_scratch(outer, n, inner)) {
    partial = emulator_new(size_t(floats) * 4);
    if (!partial) return cudaErrorMemoryAllocation;
  }
  ReduceArgs a{out, x, static_cast<float*>(partial), kTypes[out_type], kTypes[in_type], outer, n, inner};
  return t().launch_reduce(t().reduce[row], a, nullptr);
}

PB_SHIM int emulator_codes(int decode, const void* x, void* out, void* words, int64_t n, int x_type, int out_type,
                           int bits, int first, const int* at, const float* flips, const float* level) {
  CodeArgs a{};
  a.x = x, a.out = out, a.words = static_cast<uint32_t*>(words), a.n = n;
  a.x_type = kTypes[x_type], a.out_type = kTypes[out_type];
  a.bits = bits, a.first = first;
  std::memcpy(a.at, at, sizeof a.at);
  a.flips = flips, a.level = level;
  return decode ? t().launch_decode(a, nullptr) : t().launch_encode(a, nullptr);
}

// Pieces of parameters: `pointers` holds p, from, g, six slots, noise for each, in device memory.
PB_SHIM int emulator_optim(int rule, int decay_kind, int count, void* const* pointers, const int64_t* n, int p_type,
                           int g_type, const float* step, float scale, float decay) {
  std::vector<OptimChunk> chunks(static_cast<size_t>(count));
  for (int i = 0; i < count; i++) {
    OptimChunk& c = chunks[size_t(i)];
    void* const* p = pointers + i * 10;
    c.p = p[0], c.from = p[1], c.g = p[2];
    for (int s = 0; s < 6; s++) c.slots[s] = static_cast<float*>(p[3 + s]);
    c.noise = static_cast<const float*>(p[9]);
    c.n = n[i];
    c.p_type = kTypes[p_type], c.g_type = kTypes[g_type];
  }
  void* table = emulator_new(chunks.size() * sizeof(OptimChunk) + 1);
  if (!table) return cudaErrorMemoryAllocation;
  if (count) emulator_put(table, chunks.data(), chunks.size() * sizeof(OptimChunk));
  OptimArgs a{};
  a.chunks = static_cast<const OptimChunk*>(table);
  a.count = count;
  std::memcpy(a.step, step, sizeof a.step);
  a.scale = scale, a.decay = decay;
  return t().launch_optim(t().rule[rule].update[decay_kind], a, nullptr);
}

PB_SHIM int emulator_probe(const char* name, unsigned blocks, unsigned threads, void* out, int64_t n) {
  emulator::ProbeArgs a{static_cast<float*>(out), n};
  return emulator::run_probe(name, blocks, threads, a);
}
