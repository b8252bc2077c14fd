// What the tests call through ctypes: device memory, the schedule, errors on request, the probes.
#include "probes.h"
#include "runtime.h"

#define PB_SHIM extern "C" __attribute__((visibility("default")))

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

PB_SHIM int emulator_probe(const char* name, unsigned blocks, unsigned threads, void* out, int64_t n) {
  emulator::ProbeArgs a{static_cast<float*>(out), n};
  return emulator::run_probe(name, blocks, threads, a);
}
