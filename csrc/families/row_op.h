// What a row op says about itself, shared by kernels, host code and CUDA.
//
// A row op maps rows of n elements to rows: passes over the row, each folding a formula into one number, then a
// formula for the output. The kernels run the formulas with V = float or double over a row that stays in cache; with
// V = Tensor the same text is the composed definition (families/row_graph.h). A struct deriving from Row gives:
//   name, doc
//   inputs, columns, given       arrays (rows, n); vectors (n) shared by all rows; numbers per row that are handed in
//   folds[]                      Fold::Sum or Fold::Max of pass P; its result is s[given + P]
//   pass<P>(e)                   the formula that pass P folds
//   finish<P>(s, e)              optional: what becomes of the folded number
//   kept                         the pass whose values are stored in the output row for out() to read (-1: none)
//   out(e)                       the output element
//   stats[]                      indices into s of the numbers that are written out per row, for backward
//   sums, column<I>(e)           sums over all rows, one per column: the gradients of the shared vectors
#pragma once
#include <cstdint>
#include <string_view>

#include "value/value.h"

namespace pb {

// A Max is a shift that keeps exp in range: the graph sees it as a constant.
enum class Fold : uint8_t { Sum, Max };

// What a formula reads: elements x of the arrays, c of the shared vectors, s of the row, constants k.
template <class V>
struct At {
  V x[2], c[2], s[4], kept, n, k;
};

struct Row {
  static constexpr int inputs = 1, columns = 0, given = 0, kept = -1, sums = 0;
  static constexpr Fold folds[] = {Fold::Sum};
  static constexpr int stats[] = {-1};
};

template <class Op>
constexpr int kPasses = int(sizeof(Op::folds) / sizeof(Fold));
template <class Op>
constexpr int kStats = Op::stats[0] < 0 ? 0 : int(sizeof(Op::stats) / sizeof(int));

template <class Op, int P, class V>
PB_FN V row_finish(V s, const At<V>& e) {
  if constexpr (requires { Op::template finish<P, V>(s, e); })
    return Op::template finish<P, V>(s, e);
  else
    return s;
}

}  // namespace pb

// Who includes ops/rows.h says what PB_OP does with each struct.
#ifndef PB_OP
#define PB_OP(Op)
#endif
