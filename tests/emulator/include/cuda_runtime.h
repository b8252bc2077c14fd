// A CUDA runtime header for machines without the CUDA toolkit: the parts of the language, the device functions and the
// host interface that csrc/cuda uses, as plain C++. Kernels run on fibers (scheduler.cpp), device memory is host memory
// that only kernels and copies may touch (arena.cpp). The build empties the word that marks a kernel.
#pragma once
#include <math.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

#include "cuda_runtime_api.h"
#include "emulator/device.h"
#include "emulator/vector_types.h"

// Shared memory: one object per block and instantiation of the function that names it. It starts as NaN.
#define PB_SHARED(T, name, dims)                                                                            \
  using name##_in_shared_memory = T dims;                                                                   \
  static const ::emulator::SharedKey name##_key{#name, __FILE__, __LINE__, sizeof(name##_in_shared_memory), \
                                                alignof(name##_in_shared_memory)};                          \
  auto& name = *static_cast<name##_in_shared_memory*>(::emulator::shared(name##_key))
#define PB_DYN_SHARED(T, name) T* const name = static_cast<T*>(::emulator::dynamic_shared(alignof(T)))

// The typed launch; the kernel is called with copies of the arguments.
template <class... Declared, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Declared...), Given&&... given) {
  return emulator::launch(*config, reinterpret_cast<const void*>(kernel),
                          [kernel, ... a = Declared(std::forward<Given>(given))] { kernel(a...); });
}
template <class T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(p), bytes);
}
template <class T>
cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
