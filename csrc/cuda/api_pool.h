// Pooling on the device.
#pragma once
#include "cpu/pool_table.h"
#include "cuda/api.h"

namespace pb::cuda {

// Contiguous memory, float32, bfloat16 or float16. `index` is the cell of the window, uint8 or where `wide` int32.
struct PoolArgs {
  void* out = nullptr;
  const void* in = nullptr;
  void* index = nullptr;
  Type out_type = Type::F32, in_type = Type::F32;
  bool wide = false;
  // Averages: windows as in adaptive_avg_pool2d, of i h / oh to (i + 1) h / oh, divided by their number of cells.
  bool adaptive = false;
  PoolShape s;
};

struct PoolApi {
  int (*max_forward)(const PoolArgs& args, void* stream);  // x to y, and index where that is given
  int (*max_scatter)(const PoolArgs& args, void* stream);  // g and index to dx
  int (*max_gather)(const PoolArgs& args, void* stream);   // x and index to y
  int (*mean_forward)(const PoolArgs& args, void* stream);
  int (*mean_pull)(const PoolArgs& args, void* stream);
};

}  // namespace pb::cuda
