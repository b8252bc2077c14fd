// The functions that one ISA level offers to the Row family. All memory is contiguous in the compute type.
#pragma once
#include <cstdint>

namespace pb {

enum class Half : uint8_t { None, BFloat16, Float16 };

// One call of a row op; unused pointers are null. Arrays of 16-bit floats are widened and narrowed row by row.
struct RowCall {
  int64_t rows, n;
  const void* x[2];      // (rows, n)
  const void* c[2];      // (n)
  const void* given[2];  // (rows)
  void* out;             // (rows, n)
  void* stat[2];         // (rows)
  void* column[2];       // (blocks, n): partial column sums of blocks of block_rows rows
  int64_t block_rows;
  double k;
  Half half[2], half_out;  // of x and out; None is the compute type
};

// loss[r] = sum over c of q[r, c] * (lse[r] - x[r, c]), with q[r, c] = w[c] * (hit at the target + even).
struct CrossEntropyCall {
  int64_t rows, n;
  const void* x;          // (rows, n)
  const int64_t* target;  // (rows), -1 for a row that does not count
  const void* weight;     // (n) or null
  const void* g;          // backward: cotangent of loss, (rows), or one number with g_step 0
  int64_t g_step;
  void* lse;                       // (rows)
  void* out;                       // forward: loss (rows); backward: cotangent of x (rows, n)
  double hit, even, total_weight;  // 1 - smoothing, smoothing / n, sum of weight
};

// x[outer, channels, inner] with numbers per channel; inner is 1 (a channel is a column) or long.
struct ChannelCall {
  enum Sum { X, Square, G, Product } sum;  // of x, (x - m)^2, g, g (x - m)
  int64_t outer, channels, inner;
  const void *x, *g;          // g null in forward
  const void* m;              // (channels)
  const void *a, *b, *scale;  // apply: out = (x - m) a + b, + g scale
  void* out;                  // sums: (channels); apply: like x
};

// Group normalisation of x[rows, width, inner]: a row is one group of one sample, a segment one of its channels.
struct GroupCall {
  int64_t rows, groups, width, inner;
  const void *x, *g;          // g null in forward
  const void *weight, *bias;  // (groups * width) or null
  void *mean, *scale;         // (rows); 1 / deviation
  void* out;                  // like x
  void *total, *along;        // backward: (rows, width), sums of g and of g (x - mean) scale
  double eps;
};

struct RowKernels {
  using Fn = void (*)(const RowCall& call);
  Fn fn[2];  // float, double
};
struct RowTable {
  const RowKernels* ops;  // in the order of ops/rows.h
  void (*cross_entropy[2])(const CrossEntropyCall& call);
  void (*cross_entropy_pull[2])(const CrossEntropyCall& call);
  void (*channel_sums[2])(const ChannelCall& call);
  void (*channel_apply[2])(const ChannelCall& call);
  void (*group_norm[2])(const GroupCall& call);
  void (*group_norm_pull[2])(const GroupCall& call);
  // out[o, i] = index of the extreme of x[outer, n, inner] along n; NaN wins, the first of equals wins. By Compute.
  void (*arg_extreme[4])(int64_t* out, const void* x, int64_t outer, int64_t n, int64_t inner, bool largest);
  // Running sums along n of x[outer, n, inner]; y has n + lead entries, the first `lead` are 0. By Compute.
  void (*running_sum[4])(void* y, const void* x, int64_t outer, int64_t n, int64_t inner, int64_t lead);
};

// How many rows share one partial column sum: a function of the shape only.
inline int64_t block_rows_of(int64_t rows) { return rows <= 1024 ? 16 : (rows + 63) / 64; }

}  // namespace pb
