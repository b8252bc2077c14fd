// The grid driver of row ops: the formulas of ops/rows.h over rows in registers, or over rows too wide for that in
// chunks that come from cache on every pass.
//
// Note [Rows in registers]
// A lane holds up to groups_of() groups of eight elements of its row. Where rows can be taken in vectors a group is
// eight neighbours, else its elements lie `lanes` apart, so that the lanes of a row read neighbours either way. Column
// sums stay in the registers of the lane that owns the columns, over all rows that a block walks; the blocks' sums meet
// in column_kernel. Blocks, lanes and order follow from the shape alone.
#pragma once
#include "cuda/api_row.h"
#include "cuda/row_lanes.h"

namespace pb::cuda {

// Sums need as many registers as the rows, elements that are not neighbours an address each.
template <class Op>
constexpr int groups_of(bool vectors) {
  return (Op::sums ? 2 : 4) / (vectors ? 1 : 2);
}
inline constexpr int kSums = 2;

// The part of a row that begins at `base` and has `n` elements, spread over the lanes.
template <bool Vectors>
struct Part {
  int64_t base;
  int n, lanes, lane;
  PB_DEVICE int at(int k, int j) const {
    return Vectors ? (k * lanes + lane) * kVec + j : (k * kVec + j) * lanes + lane;
  }
  PB_DEVICE bool has(int k, int j) const { return at(k, j) < n; }
  PB_DEVICE bool begins(int k) const { return k * lanes * kVec < n; }  // the same for all lanes
};

// Group k of the row whose memory begins at element `start`.
template <bool Vectors>
PB_DEVICE void load_group(const Part<Vectors>& p, int k, const void* from, Type t, int64_t start, float (&v)[kVec]) {
#pragma unroll
  for (int j = 0; j < kVec; j++) v[j] = 0.0f;
  start += p.base;
  if constexpr (Vectors) {
    if (p.has(k, 0)) load8(from, t, start + p.at(k, 0), v);
  } else {
#pragma unroll
    for (int j = 0; j < kVec; j++)
      if (p.has(k, j)) v[j] = load1(from, t, start + p.at(k, j));
  }
}
template <bool Vectors>
PB_DEVICE void store_group(const Part<Vectors>& p, int k, void* to, Type t, int64_t start, const float (&v)[kVec]) {
  start += p.base;
  if constexpr (Vectors) {
    if (p.has(k, 0)) store8(to, t, start + p.at(k, 0), v);
  } else {
#pragma unroll
    for (int j = 0; j < kVec; j++)
      if (p.has(k, j)) store1(to, t, start + p.at(k, j), v[j]);
  }
}

// f(j, e) for the elements of group k, e as the formulas read it. Loads that no formula reads are dropped.
template <class Op, int K, bool Vectors, class F>
PB_DEVICE void each_of(const RowArgs& a, const Part<Vectors>& p, int k, const float (&x)[Op::inputs][K][kVec],
                       At<float> e, F f) {
  float c[Op::columns ? Op::columns : 1][kVec];
  if constexpr (Vectors)
#pragma unroll
    for (int i = 0; i < Op::columns; i++) load_group(p, k, a.c[i], Type::F32, 0, c[i]);
#pragma unroll
  for (int j = 0; j < kVec; j++) {
#pragma unroll
    for (int i = 0; i < Op::inputs; i++) e.x[i] = x[i][k][j];
#pragma unroll
    for (int i = 0; i < Op::columns; i++) {
      if constexpr (Vectors)
        e.c[i] = c[i][j];
      else
        e.c[i] = p.has(k, j) ? a.c[i][p.base + p.at(k, j)] : 0.0f;
    }
    f(j, e);
  }
}

// Folds pass P over the groups of a part.
template <class Op, int P, int K, bool Vectors>
PB_DEVICE float fold_part(const RowArgs& a, const Part<Vectors>& p, const float (&x)[Op::inputs][K][kVec],
                          float (&kept)[K][kVec], const At<float>& e, float s) {
#pragma unroll
  for (int k = 0; k < K; k++) {
    if (!p.begins(k)) break;
    each_of<Op, K>(a, p, k, x, e, [&](int j, const At<float>& at) {
      float v = Op::template pass<P, float>(at);
      if constexpr (Op::kept == P) kept[k][j] = v;
      s = p.has(k, j) ? fold_step<Op::folds[P]>(s, v) : s;
    });
  }
  return s;
}

template <class Op, int I = 0>
PB_DEVICE void write_stats(const RowArgs& a, const At<float>& e, int64_t row) {
  if constexpr (I < kStats<Op>) {
    constexpr int which = Op::stats[I];
    if (a.stat[I]) a.stat[I][row] = e.s[which];
    write_stats<Op, I + 1>(a, e, row);
  }
}

template <class Op>
PB_DEVICE At<float> begin_row(const RowArgs& a, int64_t row) {
  At<float> e{};
  e.n = float(a.n);
  e.k = a.k;
#pragma unroll
  for (int i = 0; i < Op::given; i++) e.s[i] = a.given[i][row];
  return e;
}

template <class Op, int P, int K, bool Vectors>
PB_DEVICE void passes(const RowArgs& a, const Part<Vectors>& p, const float (&x)[Op::inputs][K][kVec],
                      float (&kept)[K][kVec], At<float>& e, float* shared) {
  if constexpr (P < kPasses<Op>) {
    constexpr Fold F = Op::folds[P];
    float s = fold_lanes<F>(fold_part<Op, P, K>(a, p, x, kept, e, fold_start<F>()), p.lanes, shared);
    e.s[Op::given + P] = row_finish<Op, P, float>(s, e);
    passes<Op, P + 1, K>(a, p, x, kept, e, shared);
  }
}

// A lane's column sums, added over the rows that the block holds side by side; the first row's lanes write them.
template <class Op, int K, bool Vectors>
PB_DEVICE void write_sums(const RowArgs& a, const Part<Vectors>& p, const float (&sum)[kSums][K][kVec], float* shared) {
  int slots = int(blockDim.x) / p.lanes, slot = int(threadIdx.x) / p.lanes;
#pragma unroll
  for (int i = 0; i < Op::sums; i++) {
    float* to = a.partial + (int64_t(i) * gridDim.x + blockIdx.x) * a.n;
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (!p.begins(k)) break;
#pragma unroll
      for (int j = 0; j < kVec; j++) {
        __syncthreads();
        shared[threadIdx.x] = sum[i][k][j];
        __syncthreads();
#pragma unroll 1
        for (int w = slots / 2; w; w /= 2) {
          if (slot < w) shared[threadIdx.x] += shared[int(threadIdx.x) + w * p.lanes];
          __syncthreads();
        }
        if (slot == 0 && p.has(k, j)) to[p.at(k, j)] = shared[threadIdx.x];
      }
    }
  }
}

// Note [Rows in registers]. A block whose last rows are missing reads the last row again and writes nothing for it.
template <class Op, bool Vectors>
__global__ void __launch_bounds__(kWidest) rows_kernel(const __grid_constant__ RowArgs a) {
  constexpr int K = groups_of<Op>(Vectors);
  PB_SHARED(float, shared, [kWidest]);
  const int slots = int(blockDim.x) / a.lanes;
  const Part<Vectors> p{0, int(a.n), a.lanes, int(threadIdx.x) % a.lanes};
  float sum[kSums][K][kVec] = {};
#pragma unroll 1
  for (int64_t first = int64_t(blockIdx.x) * slots; first < a.rows; first += int64_t(gridDim.x) * slots) {
    int64_t row = first + int(threadIdx.x) / a.lanes;
    const bool live = row < a.rows;
    if (!live) row = a.rows - 1;
    float x[Op::inputs][K][kVec], kept[K][kVec];
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (!p.begins(k)) break;
#pragma unroll
      for (int i = 0; i < Op::inputs; i++) load_group(p, k, a.x[i], a.x_type[i], row * a.n, x[i][k]);
    }
    At<float> e = begin_row<Op>(a, row);
    passes<Op, 0, K>(a, p, x, kept, e, shared);
    if (live && p.lane == 0) write_stats<Op>(a, e, row);
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (!p.begins(k)) break;
      float y[kVec];
      each_of<Op, K>(a, p, k, x, e, [&](int j, At<float> at) {
        if constexpr (Op::kept >= 0) at.kept = kept[k][j];
        y[j] = Op::template out<float>(at);
        if constexpr (Op::sums > 0) {
          const bool counts = live && p.has(k, j);
          sum[0][k][j] += counts ? Op::template column<0, float>(at) : 0.0f;
          if constexpr (Op::sums > 1) sum[1][k][j] += counts ? Op::template column<1, float>(at) : 0.0f;
        }
      });
      if (live) store_group(p, k, a.out, a.out_type, row * a.n, y);
    }
  }
  if constexpr (Op::sums > 0)
    if (a.partial) write_sums<Op, K>(a, p, sum, shared);
}

template <bool Vectors>
PB_DEVICE int chunk_of(const RowArgs& a, const Part<Vectors>& p) {
  int64_t rest = a.n - p.base;
  return rest < p.lanes * kVec ? int(rest) : p.lanes * kVec;
}

// Wider rows, one a block: every pass reads the row again, a group of eight a thread. What a pass keeps is made anew.
template <class Op, int P, bool Vectors>
PB_DEVICE void wide_passes(const RowArgs& a, Part<Vectors> p, int64_t start, At<float>& e, float* shared) {
  if constexpr (P < kPasses<Op>) {
    constexpr Fold F = Op::folds[P];
    float s = fold_start<F>();
#pragma unroll 1
    for (p.base = 0; p.base < a.n; p.base += p.lanes * kVec) {
      p.n = chunk_of(a, p);
      float x[Op::inputs][1][kVec], kept[1][kVec];
#pragma unroll
      for (int i = 0; i < Op::inputs; i++) load_group(p, 0, a.x[i], a.x_type[i], start, x[i][0]);
      s = fold_part<Op, P, 1>(a, p, x, kept, e, s);
    }
    e.s[Op::given + P] = row_finish<Op, P, float>(fold_lanes<F>(s, p.lanes, shared), e);
    wide_passes<Op, P + 1>(a, p, start, e, shared);
  }
}

// The columns of a thread are the same for every row, so it adds them up in memory without anybody else.
template <class Op, int I>
PB_DEVICE void add_column(const RowArgs& a, bool first, int64_t column, const At<float>& e) {
  if constexpr (I < Op::sums) {
    float& sum = a.partial[(int64_t(I) * gridDim.x + blockIdx.x) * a.n + column];
    float v = Op::template column<I, float>(e);
    sum = first ? v : sum + v;
    add_column<Op, I + 1>(a, first, column, e);
  }
}

template <class Op, bool Vectors>
__global__ void __launch_bounds__(kWidest) wide_kernel(const __grid_constant__ RowArgs a) {
  PB_SHARED(float, shared, [kWidest / kWarp]);
  Part<Vectors> p{0, 0, a.lanes, int(threadIdx.x)};
#pragma unroll 1
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t start = row * a.n;
    At<float> e = begin_row<Op>(a, row);
    wide_passes<Op, 0>(a, p, start, e, shared);
    if (threadIdx.x == 0) write_stats<Op>(a, e, row);
#pragma unroll 1
    for (p.base = 0; p.base < a.n; p.base += p.lanes * kVec) {
      p.n = chunk_of(a, p);
      float x[Op::inputs][1][kVec], y[kVec];
#pragma unroll
      for (int i = 0; i < Op::inputs; i++) load_group(p, 0, a.x[i], a.x_type[i], start, x[i][0]);
      each_of<Op, 1>(a, p, 0, x, e, [&](int j, At<float> at) {
        if constexpr (Op::kept >= 0) at.kept = Op::template pass<(Op::kept < 0 ? 0 : Op::kept), float>(at);
        y[j] = Op::template out<float>(at);
        if constexpr (Op::sums > 0)
          if (a.partial && p.has(0, j)) add_column<Op, 0>(a, row == blockIdx.x, p.base + p.at(0, j), at);
      });
      store_group(p, 0, a.out, a.out_type, start, y);
    }
  }
}

struct RowEntry {
  Kernel rows[2], wide[2];  // by whether rows can be taken in vectors
  int groups[2];
  int inputs, columns, sums;
};
template <class Op>
RowEntry row_entry() {
  return {{reinterpret_cast<Kernel>(&rows_kernel<Op, false>), reinterpret_cast<Kernel>(&rows_kernel<Op, true>)},
          {reinterpret_cast<Kernel>(&wide_kernel<Op, false>), reinterpret_cast<Kernel>(&wide_kernel<Op, true>)},
          {groups_of<Op>(false), groups_of<Op>(true)},
          Op::inputs,
          Op::columns,
          Op::sums};
}

}  // namespace pb::cuda
