// The matrix product over the register tile: blocking, packing, threads and the Store policy.
//
// Note [Order of the products]
// An element of c is the sum, in ascending order, of blocks of kDepth products; inside a block the products are added
// in ascending order to a fresh accumulator. Nothing in that depends on tiles, threads or vector width, so the result
// has the same bits for any number of threads, and at every level that has fused multiply-add.
#pragma once
#include "cpu/gemm_integer.h"
#include "cpu/gemm_pack.h"
#include "cpu/gemm_table.h"
#include "cpu/gemm_tile.h"
#include "cpu/gemm_vector.h"

namespace pb {

inline constexpr int64_t kBlockABytes = 512 * 1024;  // of a in one task: half of a second-level cache
inline constexpr int64_t kMaxTileN = 1024;
inline constexpr int64_t kTaskWork = 1 << 20;    // products worth a task of their own
inline constexpr int64_t kVectorWork = 1 << 16;  // the same for a product with one row
inline constexpr int64_t kThreadWork = 1 << 20;  // below, one thread does all
inline constexpr int kSlotA = 2, kSlotB = 3;

// A Store policy sees every element once, when its sum is complete: x is the sum, col its column.
struct StoreIdentity {
  static constexpr bool active = false;
};
template <class S>
struct StoreBias {
  static constexpr bool active = true;
  const S* bias;
  S operator()(S x, int64_t col) const { return x + bias[col]; }
};
// Act is a formula on one value; First another policy, applied before it.
template <class S, class First, class Act>
struct StoreAct {
  static constexpr bool active = true;
  First first;
  Act act;
  S operator()(S x, int64_t col) const {
    if constexpr (First::active)
      return act(first(x, col));
    else
      return act(x);
  }
};
template <class S, class Store>
void finish(S* c, int64_t c_row, int64_t rows, int64_t cols, int64_t col, const Store& store) {
  if constexpr (Store::active)
    for (int64_t i = 0; i < rows; i++, c += c_row)
      for (int64_t j = 0; j < cols; j++) c[j] = store(c[j], col + j);
}

// How c is cut into tasks.
struct Plan {
  int64_t rows, cols;      // of tasks
  int64_t tile_m, tile_n;  // of c in one task
  int64_t tasks;
};
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Four tasks per thread where the work is worth it, more where blocks would outgrow the caches. b is packed once per
// cut of the rows, a once per cut of the columns; what lies along k costs about four times as much to pack. The cut may
// look at the threads because no bit of the result depends on it (Note [Order of the products]).
inline Plan plan_tiles(const GemmArgs& g, int64_t max_m, int64_t columns) {
  int64_t rows = ceil_div(g.m, max_m), cols = ceil_div(g.n, kMaxTileN), team = pb_num_threads();
  double work = double(g.m) * double(g.n) * double(g.k) * double(g.batch), tasks = 1;
  if (team > 1 && work >= kThreadWork) {
    tasks = work / kTaskWork < double(4 * team) ? work / kTaskWork : double(4 * team);
    if (tasks < 2) tasks = 2;
  }
  int64_t cost_a = (g.a_row == 1 ? 1 : 4) * g.m, cost_b = (g.b_col == 1 ? 1 : 4) * g.n;
  while (double(rows * cols * g.batch) < tasks) {
    bool can_m = g.m / rows >= 2 * kMaxRows, can_n = g.n / cols >= 2 * columns;
    if (!can_m && !can_n) break;
    if (can_m && (!can_n || cost_b * rows <= cost_a * cols))
      rows *= 2;
    else
      cols *= 2;
  }
  Plan p{rows, cols, ceil_div(g.m, rows), round_up(ceil_div(g.n, cols), columns), 0};
  p.rows = ceil_div(g.m, p.tile_m);
  p.cols = ceil_div(g.n, p.tile_n);
  p.tasks = p.rows * p.cols * g.batch;
  return p;
}

template <class S, class LoadA, class LoadB, class Store>
struct Product {
  using SA = typename LoadA::Source;
  using SB = typename LoadB::Source;
  static constexpr int64_t kCols = kColumns<S>, kLane = kLanes<S>, kPitch = round_up(kMaxRows, kBlock<S>);
  static constexpr int64_t kGroup = 4 * kCols;  // columns of b packed together

  const GemmArgs& g;
  Plan plan;
  Store store;
  int64_t claimed = 0;

  // c[m, n] of one task. For each block of k, a is packed whole and b in groups of strips; each strip of b, in the
  // first-level cache, meets all strips of a. What is used once or twice and lies well is read in place.
  void block(const SA* a, const SB* b, S* c, int64_t col, int64_t m, int64_t n) const {
    Strips sa{m, ceil_div(m, kMaxRows), kPitch, 0};
    bool direct_a = LoadA::direct && g.a_row == 1 && n <= 2 * kCols;
    bool direct_b = LoadB::direct && g.b_col == 1 && sa.count <= 2 && n % kLane == 0;
    size_t depth = size_t(g.k < kDepth ? g.k : kDepth) * sizeof(S);
    auto* pa = direct_a ? nullptr : static_cast<S*>(pb_scratch(kSlotA, size_t(sa.count * kPitch) * depth));
    auto* pb = direct_b ? nullptr : static_cast<S*>(pb_scratch(kSlotB, size_t(kGroup) * depth));
    for (int64_t k0 = 0; k0 < g.k; k0 += kDepth) {
      int64_t k = g.k - k0 < kDepth ? g.k - k0 : kDepth;
      const SA* ak = a + k0 * g.a_col;
      if (!direct_a) pack<LoadA>(pa, ak, g.a_row, g.a_col, k, sa);
      TileArgs<S> t{};
      t.k = k;
      t.a_step = direct_a ? g.a_col : kPitch;
      t.b_step = direct_b ? g.b_row : kCols;
      t.c_row = g.c_row;
      t.add = g.accumulate || k0 > 0;
      for (int64_t j = 0; j < n; j += kCols) {
        const SB* bk = b + k0 * g.b_row + j * g.b_col;
        if (!direct_b && j % kGroup == 0) {
          int64_t lines = n - j < kGroup ? n - j : kGroup;
          pack<LoadB>(pb, bk, g.b_col, g.b_row, k, {lines, ceil_div(lines, kCols), kCols, kCols});
        }
        t.b = direct_b ? reinterpret_cast<const S*>(bk) : pb + j % kGroup * k;
        t.width = n - j < kCols ? n - j : kCols;
        auto& tiles = kTiles<S>.fn[ceil_div(t.width, kLane) - 1];
        for (int64_t s = 0; s < sa.count; s++) {
          int64_t i = sa.begin(s), h = sa.begin(s + 1) - i;
          t.a = direct_a ? reinterpret_cast<const S*>(ak) + i : pa + s * k * kPitch;
          t.c = c + i * g.c_row + j;
          tiles[h - 1](t);
          if (k0 + k == g.k) finish(t.c, g.c_row, h, t.width, col + j, store);
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
    if (team > 1)
      pb_parallel_for(team, 1, &claim, this);
    else
      for (int64_t i = 0; i < plan.tasks; i++) task(i);
  }
};

template <class S, class Store>
void run_store(const GemmArgs& g, const Store& store) {
  Plan plan;
  if (g.m == 1) {
    int64_t wide = round_up(kVectorWork / g.k + 1, kVectorColumns<S>);
    plan = {1, ceil_div(g.n, wide), 1, wide, ceil_div(g.n, wide) * g.batch};
  } else {
    plan = plan_tiles(g, kBlockABytes / (kDepth * int64_t(sizeof(S))), kColumns<S>);
  }
  Product<S, LoadIdentity<S>, LoadIdentity<S>, Store> p{g, plan, store};
  p.run();
}

template <class S>
void run_gemm(const GemmArgs& args) {
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
  if (bias)
    run_store<S>(g, StoreBias<S>{bias});
  else
    run_store<S>(g, StoreIdentity{});
}

inline constexpr GemmKernels kGemmTable = {{&run_gemm<float>, &run_gemm<double>, &run_integers, &run_integers}};

}  // namespace pb
