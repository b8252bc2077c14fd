// The matrix product over the register tile: blocking, packing, threads and the Store policy.
//
// Note [Order of the products]
// An element of c is the sum, in ascending order, of blocks of kDepth products; inside a block the products are added
// in ascending order to a fresh accumulator. Nothing in that depends on tiles, threads or vector width, so the result
// has the same bits for any number of threads, and at every level that has fused multiply-add.
#pragma once
#include "cpu/gemm_table.h"
#include "cpu/gemm_pack.h"
#include "cpu/gemm_tile.h"
#include "cpu/gemm_vector.h"
#include "cpu/gemm_integer.h"

namespace pb {

inline constexpr int64_t kBlockABytes = 512 * 1024;  // packed rows of a: half of a second-level cache
inline constexpr int64_t kMaxTileN = 1024;
inline constexpr int64_t kTaskWork = 4 << 20;        // products worth a task of their own
inline constexpr int64_t kThreadWork = 1 << 18;      // below, one thread does all
inline constexpr int kSlotA = 2, kSlotB = 3;

// A Store policy sees every element once, when its sum is complete: x is the sum, col its column.
struct StoreIdentity {
  static constexpr bool active = false;
};
template <class S> struct StoreBias {
  static constexpr bool active = true;
  const S* bias;
  S operator()(S x, int64_t col) const { return x + bias[col]; }
};
// Act is a formula on one value; First another policy, applied before it.
template <class S, class First, class Act> struct StoreAct {
  static constexpr bool active = true;
  First first;
  Act act;
  S operator()(S x, int64_t col) const {
    if constexpr (First::active) return act(first(x, col));
    else return act(x);
  }
};
template <class S, class Store> void finish(S* c, int64_t c_row, int64_t rows, int64_t cols, int64_t col, const Store& store) {
  if constexpr (Store::active)
    for (int64_t i = 0; i < rows; i++, c += c_row)
      for (int64_t j = 0; j < cols; j++) c[j] = store(c[j], col + j);
}

// How c is cut into tasks: a function of the shape only.
struct Plan {
  int64_t rows, cols;      // of tasks
  int64_t tile_m, tile_n;  // of c in one task
  int64_t tasks;
};
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Cutting rows packs b once more per cut, cutting columns packs a once more; strips that lie along k cost about four
// times as much to pack as strips of neighbours.
inline Plan plan_tiles(const GemmArgs& g, int64_t max_m, int64_t columns) {
  int64_t rows = ceil_div(g.m, max_m), cols = ceil_div(g.n, kMaxTileN);
  double work = double(g.m) * double(g.n) * double(g.k);
  int64_t cost_a = (g.a_row == 1 ? 1 : 4) * g.m, cost_b = (g.b_col == 1 ? 1 : 4) * g.n;
  auto want = [&](int64_t tiles) { return tiles * g.batch < (work * double(g.batch) > 1.5e6 ? 2 : 1); };
  while ((work / double(rows * cols) >= 2.0 * kTaskWork && rows * cols * g.batch < 64) || want(rows * cols)) {
    bool can_m = g.m / rows >= 2 * kMaxRows, can_n = g.n / cols >= 2 * columns;
    if (!can_m && !can_n) break;
    if (can_m && (!can_n || cost_b * cols <= cost_a * rows || g.m / rows >= 4 * (g.n / cols))) rows *= 2;
    else cols *= 2;
  }
  Plan p{rows, cols, ceil_div(g.m, rows), round_up(ceil_div(g.n, cols), columns), 0};
  p.rows = ceil_div(g.m, p.tile_m);
  p.cols = ceil_div(g.n, p.tile_n);
  p.tasks = p.rows * p.cols * g.batch;
  return p;
}

template <class S, class LoadA, class LoadB, class Store> struct Product {
  using SA = typename LoadA::Source;
  using SB = typename LoadB::Source;
  static constexpr int64_t kCols = kColumns<S>, kLane = kLanes<S>;

  const GemmArgs& g;
  Plan plan;
  Store store;
  int64_t claimed = 0;

  // c[m, n] of one task: for each block of k, a is packed whole, b strip by strip just before its use.
  void block(const SA* a, const SB* b, S* c, int64_t col, int64_t m, int64_t n) const {
    int64_t strips = ceil_div(m, kMaxRows), depth = g.k < kDepth ? g.k : kDepth;
    bool direct_a = LoadA::direct && g.a_row == 1 && n <= 2 * kCols;
    auto* pa = direct_a ? nullptr : static_cast<S*>(pb_scratch(kSlotA, size_t(m * depth) * sizeof(S) + 64));
    auto* pb = static_cast<S*>(pb_scratch(kSlotB, size_t(depth * kCols) * sizeof(S) + 64));
    for (int64_t k0 = 0; k0 < g.k; k0 += kDepth) {
      int64_t k = g.k - k0 < kDepth ? g.k - k0 : kDepth;
      const SA* ak = a + k0 * g.a_col;
      if (!direct_a)
        for (int64_t s = 0; s < strips; s++) {
          int64_t i = m * s / strips, h = m * (s + 1) / strips - i;
          pack<LoadA>(pa + i * k, h, ak + i * g.a_row, g.a_row, g.a_col, h, k);
        }
      for (int64_t j = 0; j < n; j += kCols) {
        int64_t w = n - j < kCols ? n - j : kCols, v = ceil_div(w, kLane);
        const SB* bk = b + k0 * g.b_row + j * g.b_col;
        TileArgs<S> t{};
        t.k = k;
        t.c_row = g.c_row;
        t.width = w;
        t.add = g.accumulate || k0 > 0;
        if (LoadB::direct && g.b_col == 1 && w == v * kLane && strips <= 4) {
          t.b = reinterpret_cast<const S*>(bk);
          t.b_step = g.b_row;
        } else {
          pack<LoadB>(pb, v * kLane, bk, g.b_col, g.b_row, w, k);
          t.b = pb;
          t.b_step = v * kLane;
        }
        for (int64_t s = 0; s < strips; s++) {
          int64_t i = m * s / strips, h = m * (s + 1) / strips - i;
          t.a = direct_a ? reinterpret_cast<const S*>(ak) + i : pa + i * k;
          t.a_step = direct_a ? g.a_col : h;
          t.c = c + i * g.c_row + j;
          kTiles<S>.fn[v - 1][h - 1](t);
          if (k0 + k == g.k) finish(t.c, g.c_row, h, w, col + j, store);
        }
      }
    }
  }

  void task(int64_t index) const {
    int64_t batch = index / (plan.rows * plan.cols), at = index % (plan.rows * plan.cols);
    int64_t i = at / plan.cols * plan.tile_m, j = at % plan.cols * plan.tile_n;
    int64_t m = g.m - i < plan.tile_m ? g.m - i : plan.tile_m, n = g.n - j < plan.tile_n ? g.n - j : plan.tile_n;
    auto* a = static_cast<const SA*>(g.a) + batch * g.a_batch + i * g.a_row;
    auto* b = static_cast<const SB*>(g.b) + batch * g.b_batch + j * g.b_col;
    S* c = static_cast<S*>(g.c) + batch * g.c_batch + i * g.c_row + j;
    if constexpr (LoadA::direct && LoadB::direct) {
      if (g.m == 1 && (g.b_col == 1 || g.b_row == 1)) {
        vector_product(a, g.a_col, b, g.b_row, g.b_col, c, n, g.k, g.accumulate);
        finish(c, g.c_row, 1, n, j, store);
        return;
      }
    }
    block(a, b, c, j, m, n);
  }

  // Threads take the next task when they are free; who computes a tile does not show in it.
  static void claim(void* self, int64_t, int64_t) {
    auto* p = static_cast<Product*>(self);
    for (int64_t i; (i = __atomic_fetch_add(&p->claimed, 1, __ATOMIC_RELAXED)) < p->plan.tasks;) p->task(i);
  }
  void run() {
    double work = double(g.m) * double(g.n) * double(g.k) * double(g.batch);
    int64_t team = work < kThreadWork ? 1 : pb_num_threads();
    if (team > plan.tasks) team = plan.tasks;
    if (team > 1) pb_parallel_for(team, 1, &claim, this);
    else
      for (int64_t i = 0; i < plan.tasks; i++) task(i);
  }
};

template <class S, class Store> void run_store(const GemmArgs& g, const Store& store) {
  Plan plan;
  if (g.m == 1) {
    int64_t wide = round_up(kTaskWork / 64 / g.k + 1, kVectorColumns<S>);
    plan = {1, ceil_div(g.n, wide), 1, wide, ceil_div(g.n, wide) * g.batch};
  } else {
    plan = plan_tiles(g, kBlockABytes / (kDepth * int64_t(sizeof(S))), kColumns<S>);
  }
  Product<S, LoadIdentity<S>, LoadIdentity<S>, Store> p{g, plan, store};
  p.run();
}

template <class S> void run_gemm(const GemmArgs& args) {
  GemmArgs g = args;
  if (g.m <= 0 || g.n <= 0 || g.batch <= 0) return;
  if (g.n == 1 && g.m > 1 && g.c_row == 1 && !g.bias) {  // a column is the row of the transposed product
    g = args;
    g.m = 1, g.n = args.m, g.c_row = args.m;
    g.a = args.b, g.a_row = args.b_col, g.a_col = args.b_row, g.a_batch = args.b_batch;
    g.b = args.a, g.b_row = args.a_col, g.b_col = args.a_row, g.b_batch = args.a_batch;
  }
  auto* bias = static_cast<const S*>(g.bias);
  if (g.k <= 0) {
    for (int64_t b = 0; b < g.batch; b++)
      for (int64_t i = 0; i < g.m; i++)
        for (int64_t j = 0; j < g.n; j++) {
          S& c = static_cast<S*>(g.c)[b * g.c_batch + i * g.c_row + j];
          c = (g.accumulate ? c : S(0)) + (bias ? bias[j] : S(0));
        }
    return;
  }
  if (bias) run_store<S>(g, StoreBias<S>{bias});
  else run_store<S>(g, StoreIdentity{});
}

inline constexpr GemmKernels kGemmTable = {{&run_gemm<float>, &run_gemm<double>, &run_integers, &run_integers}};

}  // namespace pb
