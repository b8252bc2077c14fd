// The matrix product over the register tile: blocking, packing, threads and the Store policy.
//
// Note [Order of the products]
// An element of c is the sum, in ascending order, of blocks of block_depth(k) products; inside a block the products are
// added in ascending order to a fresh accumulator. Nothing in that depends on tiles, threads or vector width, so the
// result has the same bits for any number of threads, and at every level that has fused multiply-add. Where the CPU
// multiplies pairs of bfloat16, a product of such operands adds two at a time: bits of its own, a function of the
// shape.
#pragma once
#include "cpu/gemm_integer.h"
#include "cpu/gemm_pack.h"
#include "cpu/gemm_plan.h"
#include "cpu/gemm_store.h"
#include "cpu/gemm_table.h"
#include "cpu/gemm_tile.h"
#include "cpu/gemm_vector.h"

namespace pb {

inline constexpr int kSlotShared = 2, kSlotOwn = 3;

// Waits until others have counted up to `goal`. They have begun what is waited for: tasks are claimed in order.
inline void wait_for(const int64_t& counter, int64_t goal) {
  for (int spins = 0; __atomic_load_n(&counter, __ATOMIC_ACQUIRE) < goal; spins++)
    if (spins >= 1000) sched_yield();
}

// S is what the tile multiplies: the type of the sums, or pairs.
template <class S, class LoadA, class LoadB>
struct Product {
  using Sum = typename SumOf<S>::type;
  static constexpr int64_t kCols = kColumns<S>, kLane = kLanes<S>, kPitch = round_up(kMaxRows, kSquare<S>);
  static constexpr int64_t kGroup = piece_strips<S>(kCols);  // strips of b packed together

  const GemmArgs& g;
  LoadA load_a;
  LoadB load_b;
  Store<Sum> store;
  Plan plan;
  S *shared = nullptr, *own = nullptr;       // two panels; the packed blocks of each thread
  int64_t shared_size = 0, own_size = 0;     // of one
  int64_t joined = 0, claimed = 0;           // threads, tasks
  int64_t packed[2] = {}, computed[2] = {};  // pieces and tasks that are done, of even and of odd panels

  static Strips rows(int64_t i, int64_t m) { return {i, m, kMaxRows, kPitch, true}; }
  static Strips columns(int64_t j, int64_t n) { return {j, n, kCols, kCols, false}; }

  // A part of c: rows i of a, columns j of b, steps [k0, k1), at most those of one panel, which may come packed.
  struct Part {
    int64_t batch, i, m, j, n, k0, k1;
    const S *packed_a, *packed_b;
  };
  static constexpr int64_t kLine = 64 / int64_t(sizeof(S));
  static void fetch(TileArgs<S>& t, const S* from, int64_t step) {
    t.ahead = from;
    t.ahead_step = step * int64_t(sizeof(S));
  }
  // What the tile of strip q of a and strip s of b fetches meanwhile: the next strip of a packed b, a packed a that is
  // met for the first time, or what the next packing of b will read.
  void look_ahead(TileArgs<S>& t, const LoadB& b, const Part& r, const Strips& sb, int64_t s, int64_t q, int64_t count,
                  int64_t k0) const {
    fetch(t, t.b, t.b_step);  // nothing
    if (r.packed_b && s + 1 < sb.count && q * kLine < kCols)
      return fetch(t, t.b + t.k * kCols + q * t.k * kLine, kLine);
    if (r.packed_a && s == 0) fetch(t, t.a + t.k * kPitch, kLine);
    if constexpr (LoadB::dense) {
      if (r.packed_b || plan.direct_b) return;
      int64_t next = (s / kGroup + 1) * kGroup, part = (s % kGroup * count + q) * kLine;
      if (next >= sb.count) next = 0, k0 += t.k;
      if (k0 >= r.k1) return;
      int64_t j = r.j + sb.begin(next);
      if (b.along_lines() && part < kGroup * kCols) fetch(t, b.direct(j + part, k0), g.b_row);
      if (!b.along_lines() && b.along_steps() && part < t.k) fetch(t, b.direct(j, k0 + part), g.b_col);
    }
  }
  // Strip s of b for the block of k at k0: in a packed panel, in place, or packed into `space` with its group.
  void place_b(TileArgs<S>& t, const LoadB& b, const Part& r, const Strips& sb, int64_t s, int64_t k0, S* space) const {
    S* at = space + s % kGroup * t.k * kCols;
    t.width = sb.width(s);
    t.b = r.packed_b ? r.packed_b + ((k0 - r.k0) * sb.count + s * t.k) * kCols : at;
    t.b_step = kCols;
    if (r.packed_b) return;
    bool direct = plan.direct_b && t.width % (LoadB::dense ? kLane : kCols) == 0;
    if (direct) t.b = b.direct(r.j + sb.begin(s), k0), t.b_step = g.b_row;
    if (!direct && (s % kGroup == 0 || plan.direct_b))
      pack(at, t.k * kCols, b, k0, t.k, sb, s, plan.direct_b ? s + 1 : at_most(s + kGroup, sb.count));
  }

  // For each block of k: a is packed whole and b in groups of strips, unless they come packed; each strip of b meets
  // all strips of a. What is used once or twice and lies well is read in place.
  void block(const Part& r, S* space) const {
    Strips sa = rows(r.i, r.m), sb = columns(r.j, r.n);
    LoadA a = load_a.batch(r.batch);
    LoadB b = load_b.batch(r.batch);
    bool direct_a = false, in_rows = false;
    if constexpr (LoadA::dense) {
      in_rows = !r.packed_a && a.along_steps() && r.n <= kRowsColumns && g.a_row * int64_t(sizeof(S)) <= kRowsStride;
      direct_a = in_rows || (!r.packed_a && a.along_lines() && r.n <= 2 * kCols);
    }
    bool local = store.narrows && g.k <= plan.depth;
    alignas(64) Sum sums[kMaxRows * kCols];
    Sum* c = local ? nullptr : store.sums() + r.batch * g.c_batch;
    TileArgs<S> t{};
    t.a_row = in_rows ? g.a_row : 1;
    t.a_step = direct_a ? g.a_col : kPitch;
    t.c_row = local ? kCols : g.c_row;
    for (int64_t k0 = r.k0; k0 < r.k1; k0 += plan.depth) {
      t.k = at_most(plan.depth, r.k1 - k0);
      t.add = g.accumulate || k0 > 0;
      const S* pa = r.packed_a ? r.packed_a + (k0 - r.k0) * sa.count * kPitch : space;
      bool packs_a = !r.packed_a && !direct_a;
      if (packs_a) pack(space, t.k * kPitch, a, k0, t.k, sa, 0, sa.count);
      for (int64_t s = 0; s < sb.count; s++) {
        place_b(t, b, r, sb, s, k0, packs_a ? space + sa.count * kPitch * t.k : space);
        int64_t j = r.j + sb.begin(s);
        auto* tiles = kTiles<S>.fn[in_rows][ceil_div(t.width, kLane) - 1];
        if constexpr (std::is_same_v<LoadB, LoadCoded>)
          if (plan.direct_b && t.width == kCols) tiles = kHalvesTiles.fn;
        for (int64_t q = 0; q < sa.count; q++) {
          int64_t i = r.i + sa.begin(q), h = sa.width(q);
          t.a = pa + q * t.k * kPitch;
          if constexpr (LoadA::dense)
            if (direct_a) t.a = a.direct(i, k0);
          t.c = local ? sums : c + i * g.c_row + j;
          look_ahead(t, b, r, sb, s, q, sa.count, k0);
          tiles[h - 1](t);
          if (k0 + t.k == g.k) store.finish(t.c, t.c_row, r.batch, i, h, j, t.width);
        }
      }
    }
  }

  // Packing task `piece` of a panel: a part of one block of k. Where lines are neighbours it is some steps of all
  // strips, so that memory is read in long runs, otherwise all steps of some strips.
  template <class Load>
  void pack_piece(S* to, const Load& load, const Strips& t, int64_t piece, int64_t k0, int64_t k1) const {
    int64_t groups = ceil_div(plan.strips, plan.piece), at = piece / groups * plan.depth, part = piece % groups;
    if (k0 + at >= k1) return;
    int64_t k = at_most(plan.depth, k1 - k0 - at);
    to += at * t.count * t.pitch;
    if (load.along_lines()) {
      int64_t p = part * k / groups, end = (part + 1) * k / groups;
      pack(to + p * t.pitch, k * t.pitch, load, k0 + at + p, end - p, t, 0, t.count);
    } else if (int64_t s = part * plan.piece; s < t.count) {
      pack(to + s * k * t.pitch, k * t.pitch, load, k0 + at, k, t, s, at_most(s + plan.piece, t.count));
    }
  }

  // Tasks are numbered panel after panel, and in each the pieces before the parts of c. Two panels are in memory: a
  // piece waits for the parts that read its memory two panels ago, a part for the pieces of its panel.
  void task(int64_t index, S* space) {
    int64_t q = index / (plan.pieces + plan.tasks), at = index % (plan.pieces + plan.tasks), half = q & 1;
    int64_t first = q / plan.deeps % plan.panels * plan.panel, k0 = q % plan.deeps * plan.deep;
    Part r{q / plan.deeps / plan.panels, 0, g.m, 0, g.n, k0, at_most(k0 + plan.deep, g.k), nullptr, nullptr};
    int64_t count = at_most(plan.panel, (plan.by_rows ? g.n : g.m) - first);
    S* panel = plan.shared ? shared + half * shared_size : nullptr;
    if (at < plan.pieces) {
      wait_for(computed[half], q / 2 * plan.tasks);
      if (plan.by_rows)
        pack_piece(panel, load_b.batch(r.batch), columns(first, count), at, r.k0, r.k1);
      else
        pack_piece(panel, load_a.batch(r.batch), rows(first, count), at, r.k0, r.k1);
      __atomic_fetch_add(&packed[half], 1, __ATOMIC_RELEASE);
      return;
    }
    wait_for(packed[half], (q / 2 + 1) * plan.pieces);
    if (k0 > 0) wait_for(computed[1 - half], (q + 1) / 2 * plan.tasks);  // the sums continue those of the panel before
    int64_t begin = plan.begin(at - plan.pieces), lines = plan.begin(at - plan.pieces + 1) - begin;
    if (plan.by_rows) {
      r.i = begin, r.m = lines;
      r.j = first, r.n = count;
      r.packed_b = panel;
    } else {
      r.i = first, r.m = count;
      r.j = begin, r.n = lines;
      r.packed_a = panel;
    }
    if (lines) block(r, space);
    __atomic_fetch_add(&computed[half], 1, __ATOMIC_RELEASE);
  }
  int64_t all_tasks() const { return g.batch * plan.panels * plan.deeps * (plan.pieces + plan.tasks); }

  // Threads take the next task when they are free; who computes a part does not show in it.
  static void claim(void* self, int64_t, int64_t) {
    auto* p = static_cast<Product*>(self);
    S* space = p->own + __atomic_fetch_add(&p->joined, 1, __ATOMIC_RELAXED) * p->own_size;
    for (int64_t i, n = p->all_tasks(); (i = __atomic_fetch_add(&p->claimed, 1, __ATOMIC_RELAXED)) < n;)
      p->task(i, space);
  }
  // All memory is taken here: a thread that failed to get its own would leave others waiting.
  void run() {
    int64_t team = products(g) < kThreadWork ? 1 : at_most(pb_num_threads(), g.batch * plan.panels * plan.tasks);
    int64_t block_a = ceil_div(plan.by_rows ? plan.longest() : g.m, kMaxRows) * kPitch * plan.depth;
    int64_t group_b = at_most(kGroup, ceil_div(g.n, kCols)) * kCols * plan.depth;
    own_size = plan.by_rows && plan.shared ? block_a : plan.shared ? group_b : block_a + group_b;
    own_size = round_up(own_size, 64 / int64_t(sizeof(S)));
    own = static_cast<S*>(pb_scratch(kSlotOwn, size_t(team * own_size) * sizeof(S)));
    if (plan.shared) {
      int64_t halves = at_most(2, g.batch * plan.panels * plan.deeps);
      shared_size = plan.strips * (plan.by_rows ? kCols : kPitch) * plan.deep;
      shared = static_cast<S*>(pb_scratch(kSlotShared, size_t(halves * shared_size) * sizeof(S)));
    }
    if (team > 1)
      pb_parallel_for(team, 1, &claim, this);
    else
      claim(this, 0, 1);
  }
};

// Products with one row: ranges of columns, nothing packed. B is how b is stored.
template <class S, class B>
struct RowProduct {
  const GemmArgs& g;
  const S* a;  // neighbours
  int64_t a_batch;
  Store<S> store;
  int64_t wide, count;  // columns of a task, tasks per product
  bool stream;          // b comes from memory, in long runs

  static void run(void* self, int64_t begin, int64_t end) {
    const RowProduct& p = *static_cast<RowProduct*>(self);
    const GemmArgs& g = p.g;
    for (int64_t t = begin; t < end; t++) {
      int64_t batch = t / p.count, j = t % p.count * p.wide, n = at_most(p.wide, g.n - j);
      S* c = p.store.sums() + batch * g.c_batch + j;
      vector_product(p.a + batch * p.a_batch, static_cast<const B*>(g.b) + batch * g.b_batch + j * g.b_col, g.b_row,
                     g.b_col, c, n, g.k, g.accumulate, p.stream);
      p.store.finish(c, g.c_row, batch, 0, 1, j, n);
    }
  }
};

template <class S>
const S* row_as_neighbours(const GemmArgs& g) {
  auto* a = static_cast<S*>(pb_scratch(kSlotRow, size_t(g.k * g.batch) * sizeof(S)));
  for (int64_t b = 0; b < g.batch; b++)
    for (int64_t p = 0; p < g.k; p++) {
      int64_t at = b * g.a_batch + p * g.a_col;
      if (g.a_form == Form::Same)
        a[b * g.k + p] = static_cast<const S*>(g.a)[at];
      else
        a[b * g.k + p] = S(coded_number(static_cast<const char*>(g.a), at, g.a_form, 0));
    }
  return a;
}

template <class S, class B>
void run_row(const GemmArgs& g) {
  bool stream = g.b_col == 1 && g.n * g.k >= kStreamBytes / int64_t(sizeof(B));
  int64_t wide = round_up(kVectorWork / g.k + 1, kVectorColumns<S>);
  if (stream)  // long runs, but a task for every thread
    wide = at_least(wide, at_most(kStreamColumns, round_up(ceil_div(g.n, 2 * pb_num_threads()), kVectorColumns<S>)));
  auto* a = static_cast<const S*>(g.a);
  int64_t a_batch = g.a_batch;
  if (g.a_form != Form::Same || g.a_col != 1) a = row_as_neighbours<S>(g), a_batch = g.k;
  RowProduct<S, B> rows{g, a, a_batch, Store<S>(g), wide, ceil_div(g.n, wide), stream};
  int64_t tasks = rows.count * g.batch, grain = products(g) < kThreadWork ? tasks : 1;
  pb_parallel_for(tasks, grain, &RowProduct<S, B>::run, &rows);
}

template <class S, class LoadA, class LoadB>
void run_product(const GemmArgs& g, const LoadA& a, const LoadB& b) {
  Product<S, LoadA, LoadB> p{g, a, b, Store<typename SumOf<S>::type>(g), make_plan<S>(g)};
  p.run();
}

template <class S>
LoadDense<S> dense(const void* data, int64_t line, int64_t step, int64_t batch) {
  return {static_cast<const S*>(data), line, step, batch};
}
inline LoadCoded coded(const void* data, Form form, int64_t line, int64_t step, int64_t batch, int64_t length) {
  return {form, static_cast<const char*>(data), line, step, batch, length};
}

inline bool quantised(Form form) { return form == Form::Int8 || form == Form::Int4; }

template <class S>
void run_forms(const GemmArgs& g) {
  bool row = g.m == 1 && (g.b_col == 1 || g.b_row == 1) && !quantised(g.a_form);
  if (row && g.b_form == Form::Same) return run_row<S, S>(g);
  auto a = dense<S>(g.a, g.a_row, g.a_col, g.a_batch), b = dense<S>(g.b, g.b_col, g.b_row, g.b_batch);
  if (g.a_form == Form::Same && g.b_form == Form::Same) return run_product<S>(g, a, b);
  if constexpr (std::is_same_v<S, float>) {
    if (row && g.b_form == Form::BF16) return run_row<S, BFloat>(g);
    LoadCoded ca = coded(g.a, g.a_form, g.a_row, g.a_col, g.a_batch, g.a_length);
    LoadCoded cb = coded(g.b, g.b_form, g.b_col, g.b_row, g.b_batch, g.b_length);
    if (g.b_form == Form::Same) return run_product<S>(g, ca, b);
    if (g.a_form == Form::Same) return run_product<S>(g, a, cb);
    run_product<S>(g, ca, cb);
  }
}

// Nothing to add up: c is what was there, or nothing, and the bias.
template <class S>
void run_empty(const GemmArgs& g) {
  Store<S> store(g);
  for (int64_t b = 0; b < g.batch; b++) {
    S* c = store.sums() + b * g.c_batch;
    for (int64_t i = 0; i < g.m; i++)
      for (int64_t j = 0; j < g.n && !g.accumulate; j++) c[i * g.c_row + j] = S(0);
    store.finish(c, g.c_row, b, 0, g.m, 0, g.n);
  }
}

// A column is the row of the transposed product.
inline GemmArgs with_row(const GemmArgs& args) {
  GemmArgs g = args;
  if (g.n != 1 || g.m <= 1 || g.c_row != 1 || g.bias) return g;
  g.m = 1, g.n = args.m, g.c_row = args.m;
  g.a = args.b, g.a_row = args.b_col, g.a_col = args.b_row, g.a_batch = args.b_batch;
  g.b = args.a, g.b_row = args.a_col, g.b_col = args.a_row, g.b_batch = args.a_batch;
  g.a_form = args.b_form, g.a_length = args.b_length;
  g.b_form = args.a_form, g.b_length = args.a_length;
  return g;
}

template <class S>
void run_gemm(const GemmArgs& args) {
  if (args.m <= 0 || args.n <= 0 || args.batch <= 0) return;
  if (args.k <= 0) return run_empty<S>(args);
  run_forms<S>(with_row(args));
}

#if defined(__AVX512F__)
inline void run_pairs(const GemmArgs& args) {
  GemmArgs g = with_row(args);
  bool few = g.m <= kHalvesRows<float> && (g.m <= 1 || g.b_col == 1);
  if (few || g.n <= 0 || g.batch <= 0 || g.k <= 1) return run_gemm<float>(args);
  g.k = ceil_div(args.k, 2);
  run_product<Pair>(g, LoadPairs{static_cast<const uint16_t*>(g.a), g.a_row, g.a_col, g.a_batch, args.k},
                    LoadPairs{static_cast<const uint16_t*>(g.b), g.b_col, g.b_row, g.b_batch, args.k});
}
inline constexpr auto* kRunPairs = &run_pairs;
#else
inline constexpr void (*kRunPairs)(const GemmArgs&) = nullptr;
#endif

inline constexpr GemmKernels kGemmTable = {{&run_gemm<float>, &run_gemm<double>, &run_integers, &run_integers},
                                           kRunPairs};

}  // namespace pb
