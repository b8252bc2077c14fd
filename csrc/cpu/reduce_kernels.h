// The reduction loops of one ISA level.
//
// Note [Fixed trees]
// A slice is cut into blocks of kBlock elements, a block into kLanes partial results, and partial results are merged
// pairwise. The cut depends on the shape alone, so the bits do not depend on the number of threads or the ISA level.
#pragma once
#include "cpu/reduce_table.h"
#include "families/reduce_op.h"

namespace pb {

inline constexpr int kLanes = 32;
inline constexpr int64_t kBlock = 4096;
inline constexpr int64_t kRowBlock = 512;  // rows summed before a merge, column case
inline constexpr int64_t kColumns = 256;   // columns a thread takes at once

template <class Op, class S>
S reduce_block(const S* x, int64_t n) {
  S lane[kLanes];
  for (int j = 0; j < kLanes; j++) lane[j] = Op::template init<S>();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; j++) lane[j] = Op::step(lane[j], x[i + j]);
  for (int j = 0; i + j < n; j++) lane[j] = Op::step(lane[j], x[i + j]);
  for (int w = kLanes / 2; w; w /= 2)
    for (int j = 0; j < w; j++) lane[j] = Op::merge(lane[j], lane[j + w]);
  return lane[0];
}

template <class Op, class S>
S merge_tree(S* part, int64_t n) {
  while (n > 1) {
    int64_t half = n / 2;
    for (int64_t i = 0; i < half; i++) part[i] = Op::merge(part[2 * i], part[2 * i + 1]);
    if (n & 1) part[half] = part[n - 1];
    n = half + (n & 1);
  }
  return part[0];
}

template <class Op, class S>
struct RowJob {
  S* out;
  const S* x;
  S* part;
  int64_t n, blocks;
  static void rows(void* ctx, int64_t begin, int64_t end) {
    const RowJob& j = *static_cast<RowJob*>(ctx);
    for (int64_t r = begin; r < end; r++) j.out[r] = Op::finish(reduce_block<Op>(j.x + r * j.n, j.n), S(j.n));
  }
  static void parts(void* ctx, int64_t begin, int64_t end) {
    const RowJob& j = *static_cast<RowJob*>(ctx);
    for (int64_t p = begin; p < end; p++) {
      int64_t r = p / j.blocks, b = p % j.blocks, at = b * kBlock;
      j.part[p] = reduce_block<Op>(j.x + r * j.n + at, j.n - at < kBlock ? j.n - at : kBlock);
    }
  }
};

template <class Op, class S>
void reduce_rows(S* out, const S* x, int64_t rows, int64_t n) {
  RowJob<Op, S> job{out, x, nullptr, n, (n + kBlock - 1) / kBlock};
  if (job.blocks <= 1) {
    pb_parallel_for(rows, 65536 / (n + 1) + 1, &RowJob<Op, S>::rows, &job);
    return;
  }
  job.part = static_cast<S*>(pb_scratch(0, size_t(rows * job.blocks) * sizeof(S)));
  pb_parallel_for(rows * job.blocks, 16, &RowJob<Op, S>::parts, &job);
  for (int64_t r = 0; r < rows; r++) out[r] = Op::finish(merge_tree<Op>(job.part + r * job.blocks, job.blocks), S(n));
}

template <class Op, class S>
struct ColumnJob {
  S* out;
  const S* x;
  int64_t n, inner, groups;
  static void run(void* ctx, int64_t begin, int64_t end) {
    const ColumnJob& j = *static_cast<ColumnJob*>(ctx);
    for (int64_t p = begin; p < end; p++) {
      int64_t o = p / j.groups, first = (p % j.groups) * kColumns;
      int64_t width = j.inner - first < kColumns ? j.inner - first : kColumns;
      j.columns(j.out + o * j.inner + first, j.x + o * j.n * j.inner + first, width);
    }
  }
  void columns(S* to, const S* from, int64_t width) const {
    S total[kColumns], block[kColumns];
    for (int64_t c = 0; c < width; c++) total[c] = Op::template init<S>();
    for (int64_t r = 0; r < n; r += kRowBlock) {
      int64_t last = r + kRowBlock < n ? r + kRowBlock : n;
      for (int64_t c = 0; c < width; c++) block[c] = Op::template init<S>();
      for (int64_t i = r; i < last; i++) {
        const S* row = from + i * inner;
        for (int64_t c = 0; c < width; c++) block[c] = Op::step(block[c], row[c]);
      }
      for (int64_t c = 0; c < width; c++) total[c] = Op::merge(total[c], block[c]);
    }
    for (int64_t c = 0; c < width; c++) to[c] = Op::finish(total[c], S(n));
  }
};

template <class Op, class S>
void reduce_kernel(void* out, const void* x, int64_t outer, int64_t n, int64_t inner) {
  auto* o = static_cast<S*>(out);
  auto* in = static_cast<const S*>(x);
  if (inner == 1) return reduce_rows<Op>(o, in, outer, n);
  int64_t groups = (inner + kColumns - 1) / kColumns;
  ColumnJob<Op, S> job{o, in, n, inner, groups};
  int64_t work = n * (inner < kColumns ? inner : kColumns) + 1;
  pb_parallel_for(outer * groups, 65536 / work + 1, &ColumnJob<Op, S>::run, &job);
}

template <class Op, class S>
constexpr ReduceKernels::Fn reduce_of() {
  if constexpr (std::is_integral_v<S> && !Op::integers)
    return nullptr;
  else
    return &reduce_kernel<Op, S>;
}
template <int N>
struct ReduceTable {
  ReduceKernels row[N];
};
template <class Op>
constexpr ReduceKernels reduce_kernels() {
  return {{reduce_of<Op, float>(), reduce_of<Op, double>(), reduce_of<Op, int64_t>(), reduce_of<Op, uint64_t>()}};
}
template <class Unit, size_t... I>
constexpr ReduceTable<int(sizeof...(I))> reduce_table(std::index_sequence<I...>) {
  return {{reduce_kernels<typename OpAt<Unit, int(I)>::type>()...}};
}

}  // namespace pb
