// The functions that one ISA level offers to the optimizer driver. Plain data: host code and kernels both include it.
#pragma once
#include <cstdint>

#include "optim/rounding.h"

namespace pb::optim {

inline constexpr int64_t kTile = 1024;  // what is staged at once: every stream of a tile stays in L1

// One contiguous piece of one tensor, in the compute type.
struct UpdateArgs {
  void* p;
  const void* from;  // what p is read from; p itself as a rule
  const void* g;
  void* slots[6];
  const void* noise;    // normal numbers, for rules that take them
  const double* step;   // Step<double> as an array
  const void* program;  // RuleRow::program
  double scale;         // multiplies g first
  double decay;
  int64_t n;
};

// What a rule does to one tile: at most kTile elements, contiguous, in the compute type, whatever the format of the
// memory. Calls for different tiles may run at the same time.
struct RuleKernels {
  using Update = void (*)(const UpdateArgs&);
  using Measure = void (*)(const UpdateArgs&, double* sums);
  Update update[2][3];    // float or double; by Decay
  Measure measure[2][2];  // float or double; by coupled decay or none; null where the rule needs no sums
};

// In and out of narrow memory; `at` is the place of the first element in its tensor. Arrays by type: float16, bfloat16.
struct FormatKernels {
  void (*widen_bf16)(float* to, const uint16_t* from, int64_t n);
  void (*narrow_bf16)(uint16_t* to, const float* from, RoundKey key, uint32_t at, int64_t n);
  void (*unpack8)(float* to, const uint8_t* codes, const float* scales, int64_t n);
  void (*pack8[2])(uint8_t* codes, float* scales, const float* from, RoundKey key, uint32_t at,
                   int64_t n);  // to nearest, stochastic
  void (*round[2])(float* p, RoundKey key, uint32_t at, int64_t n);
  void (*refine[2])(float* fine, const float* p, int64_t n);      // fine = p unless p is its rounded form
  void (*compensate[2])(float* p, const float* rest, int64_t n);  // p += rest on the same condition
  void (*split[2])(float* p, float* rest, int64_t n);             // p into its rounded form and the rest
};

struct OptimKernels {
  // Sum of squares in float64 of n elements; `finite` turns false when one is not.
  double (*measure[2])(const void* g, int64_t n, bool* finite);
  // to = g * scale limited to [-bound, bound]; NaN stays.
  void (*clamp[2])(void* to, const void* g, double scale, double bound, int64_t n);
  // Elements first .. first + n - 1 of a stream of normal numbers.
  void (*normal[2])(void* to, uint64_t seed, uint64_t stream, uint64_t first, int64_t n);
  // Soft threshold, then limits, in place.
  void (*prox[2])(void* p, double threshold, double low, double high, int64_t n);
  const RuleKernels* rules;
  const FormatKernels* formats;
};

}  // namespace pb::optim
