// Runs one grid: block after block, the threads of a block on fibers that take turns where they wait.
#pragma once
#include <functional>
#include <string>

#include "cuda_runtime.h"

namespace emulator {

// In which order threads and blocks go on where CUDA leaves it open.
enum class Order { Ascending, Descending, Shuffled };
struct Schedule {
  Order order = Order::Ascending;
  uint64_t seed = 1;
};
Schedule& schedule();

struct Failure {
  cudaError_t error = cudaSuccess;
  std::string text;
};
Failure run_grid(dim3 grid, dim3 block, size_t dynamic, const std::function<void()>& body);

// Whether this operating system thread is inside a kernel; then `broken` ends the kernel with that failure instead of
// the process, by changing what the signal handler's `ucontext` returns to. False where that cannot be.
bool inside();
bool broken(void* ucontext, Failure failure);
// Where the running thread of the kernel was seen last.
std::string whereabouts();

}  // namespace emulator
