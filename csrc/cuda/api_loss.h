// Losses on the device.
#pragma once
#include "cuda/api.h"
#include "cuda/api_fault.h"

namespace pb::cuda {

// Classes of any integer type as int64, -1 for rows that do not count; a class outside [0, classes) is told to `fault`
// and does not count.
struct TargetArgs {
  const void* in;
  int64_t* out;
  int64_t count, classes, ignored;
  const float* weight;  // (classes) or null: 1
  float* total;         // sum of the weights of the rows that count
  double* partial;      // target_scratch() numbers
  Fault* fault;
  const char* op;
  Type type;
  bool has_ignored;
  int blocks;  // of the launcher
};

// loss[r] = sum over c of q[r, c] * (lse[r] - x[r, c]), with q[r, c] = w[c] * (hit at the target + even).
struct CrossEntropyArgs {
  int64_t rows, n;
  const void* x;            // (rows, n)
  const int64_t* target;    // (rows), -1 for a row that does not count
  const float* weight;      // (n) or null
  float* loss;              // (rows)
  void* slope;              // or null: (rows, n), the derivative of loss[r]
  const float* all_weight;  // or null, for n: the sum of weight
  float hit, even;          // 1 - smoothing, smoothing / n
  Type x_type, slope_type;
  bool aligned;  // of the launcher
  int lanes;     // of the launcher
};

// out[r, i] = x[r, i] * g[r * g_step].
struct ScaleRowsArgs {
  int64_t rows, n, g_step;
  const void* x;
  const float* g;
  void* out;
  Type x_type, out_type;
  bool aligned;  // of the launcher
};

struct LossApi {
  int (*targets)(const TargetArgs& args, void* stream);
  int64_t (*target_scratch)(int64_t count);
  int (*cross_entropy)(const CrossEntropyArgs& args, void* stream);
  int (*scale_rows)(const ScaleRowsArgs& args, void* stream);
};

}  // namespace pb::cuda
