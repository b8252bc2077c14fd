// The functions that one ISA level offers to the optimizer driver. Plain data: host code and kernels both include it.
#pragma once
#include <cstdint>

namespace pb::optim {

// One contiguous piece of one tensor, in the compute type.
struct UpdateArgs {
  void* p;
  const void* g;
  void* slots[4];
  const double* step;  // Step<double> as an array
  double scale;        // multiplies g first
  double decay;
  int64_t n;
};

struct RuleKernels {
  using Update = void (*)(const UpdateArgs&);
  Update update[2][3];  // float or double; by Decay
};

struct OptimKernels {
  // Sum of squares in float64 of n elements; `finite` turns false when one is not.
  double (*measure[2])(const void* g, int64_t n, bool* finite);
  // to = g * scale limited to [-bound, bound]; NaN stays.
  void (*clamp[2])(void* to, const void* g, double scale, double bound, int64_t n);
  const RuleKernels* rules;
};

}  // namespace pb::optim
