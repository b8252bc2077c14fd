// The second stage of sums over rows: partial sums of blocks, added per column in a fixed order.
#pragma once
#include "cuda/device.h"

namespace pb::cuda {

inline constexpr int64_t kPartials = 512;  // blocks that hand in partial sums, at most

struct ColumnArgs {
  float* out[2];         // (n); null: not wanted
  const float* partial;  // (sums, count, n)
  int64_t count, n;
};
// Adds `sums` sets of partial sums.
cudaError_t add_columns(const ColumnArgs& args, int sums, void* stream);

}  // namespace pb::cuda
