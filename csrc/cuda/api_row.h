// Passes over rows on the device: row ops, sums and maps per channel, group normalisation, extremes, running sums,
// orders. All memory is contiguous.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

// One call of a row op of ops/rows.h; unused pointers are null. Formulas compute in float; x and out are F32, F16 or
// BF16. Where n is a multiple of 8, x, c and out begin on multiples of 16 bytes.
struct RowArgs {
  int64_t rows, n;
  const void* x[2];       // (rows, n)
  const float* c[2];      // (n)
  const float* given[2];  // (rows)
  void* out;              // (rows, n)
  float* stat[2];         // (rows)
  float* column[2];       // (n): sums over the rows; both null: not wanted
  float* partial;         // row_scratch() floats, with `column`
  float k;
  Type x_type[2], out_type;
  int lanes;  // of the launcher: threads that share a row, a power of two
};

// x[outer, channels, inner] with numbers per channel.
struct ChannelArgs {
  enum Sum : int { X, Square, Both } sum;  // of x; of (x - m)^2; of g and of g (x - m)
  int64_t outer, channels, inner;
  const void *x, *g;
  const float* m;              // (channels); null: 0
  const float *a, *b, *scale;  // apply: out = (x - m) a + b, + g scale where g is given; null: 1, 0, 1
  void* out;                   // apply: like x
  float* total[2];             // sums: (channels)
  float* partial;              // sums: channel_scratch() floats
  Type x_type, g_type, out_type;
  bool aligned;  // of the launcher
};

// Group normalisation of x[rows, width, inner]: a row is one group of one sample, a segment one of its channels.
struct GroupArgs {
  int64_t rows, groups, width, inner;
  const void *x, *g;           // g null in forward
  const float *weight, *bias;  // (groups * width) or null
  float *mean, *scale;         // (rows); 1 / deviation
  void* out;                   // like x
  float *total, *along;        // backward: (rows, width), sums of g and of g (x - mean) scale
  float eps;
  Type x_type, g_type, out_type;
  bool aligned;  // of the launcher
};

// x[outer, n, inner] in a compute type: F32, F64, I64 or U64.
struct ScanArgs {
  int64_t outer, n, inner;
  const void* x;
  void* out;      // extremes: int64 (outer, inner); running sums: (outer, n + lead, inner)
  void* partial;  // scan_scratch() bytes
  int64_t lead;   // running sums: so many zeros stand in front
  Type type;
  bool largest;    // extremes
  int64_t chunks;  // of the launcher
};

// The first k indices that order each row of x[rows, n]; NaN counts as the largest, equal elements keep their order.
struct OrderArgs {
  int64_t rows, n, k;
  const void* x;
  int64_t* out;   // (rows, k)
  void* partial;  // order_scratch() bytes
  Type type;
  bool descending;
};

struct RowApi {
  int (*rows)(int op, const RowArgs& args, void* stream);  // op: its number in ops/rows.h
  int64_t (*row_scratch)(int op, int64_t rows, int64_t n);
  int (*channel_sums)(const ChannelArgs& args, void* stream);
  int64_t (*channel_scratch)(const ChannelArgs& args);
  int (*channel_apply)(const ChannelArgs& args, void* stream);
  int (*group_norm)(const GroupArgs& args, void* stream);
  int (*group_norm_pull)(const GroupArgs& args, void* stream);
  int (*extreme)(const ScanArgs& args, void* stream);
  int64_t (*extreme_scratch)(const ScanArgs& args);
  int (*running)(const ScanArgs& args, void* stream);
  int64_t (*running_scratch)(const ScanArgs& args);
  int (*order)(const OrderArgs& args, void* stream);
  int64_t (*order_scratch)(const OrderArgs& args);
};

}  // namespace pb::cuda
