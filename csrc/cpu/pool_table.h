// The functions that one ISA level offers to the pooling driver. Memory is contiguous, float or double.
#pragma once
#include <cstdint>

namespace pb {

struct PoolShape {
  int64_t planes = 0, h = 0, w = 0, oh = 0, ow = 0;
  int64_t kh = 1, kw = 1, sh = 1, sw = 1, ph = 0, pw = 0;
};

// Windows of an average: rows [y0[i], y1[i]) for output row i, columns likewise. count 0: divide by the window's cells.
struct MeanShape {
  int64_t planes = 0, h = 0, w = 0, oh = 0, ow = 0;
  const int64_t *y0 = nullptr, *y1 = nullptr, *x0 = nullptr, *x1 = nullptr;
  int64_t count = 0;
};

// First index: F32, F64. Second: the kept index (the cell inside the window, row by row) is uint8 or int32.
struct PoolKernels {
  void (*max_forward[2][2])(void* y, void* index, const void* x, const PoolShape& s);
  void (*max_scatter[2][2])(void* dx, const void* g, const void* index, const PoolShape& s);
  void (*max_gather[2][2])(void* y, const void* x, const void* index, const PoolShape& s);
  void (*mean_forward[2])(void* y, const void* x, const MeanShape& s);
  void (*mean_pull[2])(void* dx, const void* g, const MeanShape& s);
};

}  // namespace pb
