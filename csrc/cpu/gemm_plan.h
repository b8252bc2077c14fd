// How a product is cut into tasks, and which operand they share.
//
// Note [Who packs what]
// c is cut along its longer side. A task packs its own part of the cut operand; the other operand is needed whole by
// every task, so it is packed once, by all threads, before the tasks run. So each number is packed once per panel of
// the operand that meets it. A panel is as much of the shared operand as may lie packed at a time. Nothing of this
// shows in the result (Note [Order of the products]), so the cut may look at the number of threads. A small b whose
// rows lie well is read where it is: packing it would cost more than it saves, and nobody waits for it.
#pragma once
#include "cpu/gemm_args.h"
#include "cpu/gemm_tile.h"

namespace pb {

inline constexpr int64_t kPanelDepth = 1024;      // steps of k in a panel
inline constexpr int64_t kBlockRows = 256;        // of a in one block: with padding a third of a second-level cache
inline constexpr int64_t kPanelRows = 512;        // of a in a panel
inline constexpr int64_t kPanelColumns = 1024;    // of b in a panel, or in one task
inline constexpr int64_t kPieceBytes = 1 << 16;   // packed by one thread in one go
inline constexpr int64_t kDirectBytes = 1 << 18;  // a block of b that need not be packed
// a in rows is read in place for so few columns; a longer stride would bring its rows together in few sets of L1
inline constexpr int64_t kRowsColumns = kMaxRows > 8 ? 256 : 128, kRowsStride = kMaxRows > 8 ? 3072 : 1024;
// a bfloat16 b is read in place for so few rows
template <class S>
inline constexpr int64_t kHalvesRows = 0;
template <>
inline constexpr int64_t kHalvesRows<float> = kMaxRows;
inline constexpr int64_t kTaskWork = 1 << 19;    // products worth a task of their own
inline constexpr int64_t kThreadWork = 1 << 20;  // below, one thread does all

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
constexpr int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// Steps in a block of k: nearly equal blocks. A function of k alone.
constexpr int64_t block_depth(int64_t k) { return k <= kDepth ? k : round_up(ceil_div(k, ceil_div(k, kDepth)), 16); }

inline double products(const GemmArgs& g) { return double(g.m) * double(g.n) * double(g.k) * double(g.batch); }

// Strips that are packed in one go.
template <class S>
constexpr int64_t piece_strips(int64_t pitch) {
  return at_least(1, kPieceBytes / (pitch * kDepth * int64_t(sizeof(S))));
}

struct Plan {
  int64_t depth;                  // of a block of k
  bool direct_b;                  // b is not packed
  bool by_rows;                   // tasks are ranges of rows and share b; otherwise ranges of columns, and share a
  bool shared;                    // false: a task packs what it needs of both operands
  int64_t tasks;                  // per panel
  int64_t cut, lines;             // lines of the operand that is cut; of those a task begins at a multiple of `lines`
  int64_t panels, panel;          // along the shared operand: how many, and their lines
  int64_t deeps, deep;            // along k: how many panels, and their steps
  int64_t pieces, piece, strips;  // packing tasks per panel, strips of one, strips of a whole panel

  int64_t begin(int64_t task) const {
    int64_t at = round_up(task * cut / tasks, lines);
    return at < cut ? at : cut;
  }
  int64_t longest() const { return at_most(cut, round_up(ceil_div(cut, tasks), lines)); }
};

// Four tasks per thread where the work is worth it, more where blocks would outgrow the caches.
template <class S>
Plan make_plan(const GemmArgs& g) {
  constexpr int64_t kCols = kColumns<S>, kPitch = round_up(kMaxRows, 8), kSize = sizeof(S);
  Plan p{};
  int64_t team = pb_num_threads();
  double work = products(g), wish = 1;
  if (team > 1 && work >= kThreadWork) {
    wish = work / kTaskWork < double(4 * team) ? work / kTaskWork : double(4 * team);
    wish = (wish < 2 ? 2 : wish) / double(g.batch);
  }
  auto wished = int64_t(wish + 0.999);
  p.depth = block_depth(g.k);
  bool few = g.m <= 2 * kMaxRows || p.depth * g.b_row <= kDirectBytes / kSize;
  p.direct_b = g.b_col == 1 && (g.b_form == Form::Same ? few : g.b_form == Form::BF16 && g.m <= kHalvesRows<S>);
  p.by_rows = g.m >= g.n || (p.direct_b && g.m >= 2 * kMaxRows * wished);
  p.cut = p.by_rows ? g.m : g.n;
  p.lines = !p.by_rows ? kCols : kMaxRows < 8 ? kMaxRows : 1;  // short tiles are slower, tall ones hardly
  int64_t whole = p.by_rows ? g.n : g.m, most = p.by_rows ? kBlockRows : kPanelColumns;
  p.tasks = at_least(ceil_div(p.cut, most), at_most(wished, p.cut / (p.by_rows ? 2 * kMaxRows : kCols)));
  p.shared = p.by_rows ? p.tasks > 1 && !p.direct_b : p.tasks > 1 || whole > kPanelRows;
  p.panels = p.deeps = 1;
  p.panel = whole;
  p.deep = g.k;
  if (!p.shared) return p;
  p.panels = ceil_div(whole, p.by_rows ? kPanelColumns : kPanelRows);
  p.panel = ceil_div(whole, p.panels);
  if (p.by_rows) p.panel = round_up(p.panel, kCols);
  p.panels = ceil_div(whole, p.panel);
  p.deep = at_least(1, kPanelDepth / p.depth) * p.depth;
  p.deeps = ceil_div(g.k, p.deep);
  p.deep = at_most(p.deep, g.k);
  p.strips = ceil_div(p.panel, p.by_rows ? kCols : int64_t(kMaxRows));
  p.piece = piece_strips<S>(p.by_rows ? kCols : kPitch);
  p.pieces = ceil_div(p.deep, p.depth) * ceil_div(p.strips, p.piece);
  return p;
}

}  // namespace pb
