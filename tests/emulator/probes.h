// Small kernels that do one thing right or wrong, to test the emulator itself.
#pragma once
#include <cstdint>

namespace emulator {

struct ProbeArgs {
  float* out;
  int64_t n;
};
// The error of the launch; -1 for a name that there is not.
int run_probe(const char* name, unsigned blocks, unsigned threads, const ProbeArgs& args);

}  // namespace emulator
