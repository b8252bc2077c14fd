// Two readings of a row op: row_run hands contiguous memory to the kernel, row_graph evaluates the same formulas with
// V = Tensor, where every step is a recorded op.
#pragma once
#include "cpu/dispatch.h"
#include "cpu/row_table.h"
#include "cuda/row_call.h"
#include "families/map.h"
#include "families/reduce.h"
#include "families/row_op.h"
#include "families/view.h"

namespace pb {
template <class Op>
struct RowId;
constexpr int kFirstRow = __COUNTER__ + 1;
}  // namespace pb
#undef PB_OP
#define PB_OP(Op)                                         \
  template <>                                             \
  struct RowId<Op> {                                      \
    static constexpr int value = __COUNTER__ - kFirstRow; \
  };
#include "ops/rows.h"
#undef PB_OP
#define PB_OP(Op)

namespace pb {

inline const RowTable& row_table() {
  static const auto* t = static_cast<const RowTable*>(isa_table("row"));
  return *t;
}

// Contiguous, outside the graph, in the type that the kernel computes in.
inline Tensor plain(const Tensor& t, DType dtype) {
  GradMode off(false);
  return contiguous(cast(detach(t), dtype));
}

inline Half half_of(DType t) {
  return t == DType::BF16 ? Half::BFloat16 : t == DType::F16 ? Half::Float16 : Half::None;
}

// The type that rows of t are computed in.
inline DType row_compute(DType t) { return t == DType::F64 ? DType::F64 : DType::F32; }

// x for the kernels of channels and groups. Those of a CUDA device read and write 16-bit floats as they are; float64
// goes by the composed definitions there.
inline Tensor operand_of_rows(const Tensor& x, DType compute) {
  return on_cuda(x) ? cuda::staged(x) : plain(x, compute);
}
inline bool composed_only(const Tensor& x, DType compute) { return on_cuda(x) && compute == DType::F64; }
// What such a kernel writes where `result` is wanted in the end.
inline DType written_by_rows(const Tensor& x, DType compute, DType result) {
  return on_cuda(x) && half_of(result) != Half::None ? result : compute;
}

struct RowResult {
  Tensor y, stat[2], column[2];
};

// x for row_run: 16-bit rows that are computed in float32 stay as they are.
inline Tensor rows_of(const Tensor& x, DType compute) {
  return half_of(x.dtype()) != Half::None && compute == DType::F32 ? x : plain(x, compute);
}

// The composed definition for row_run, outside the graph: float64 on a CUDA device has no kernel.
template <class Op>
RowResult row_composed(std::initializer_list<Tensor> x, std::initializer_list<Tensor> c,
                       std::initializer_list<Tensor> given, double k, bool want_sums);

// x: (..., n), c: (n), given: (...). 16-bit rows are read as they are and computed in float32; so is everything else,
// and y, unless `result` asks for the 16-bit type.
template <class Op>
RowResult row_run(std::initializer_list<Tensor> x, std::initializer_list<Tensor> c, std::initializer_list<Tensor> given,
                  double k = 0, bool want_sums = false, DType result = DType::F32) {
  GradMode off(false);
  const Tensor& first = *x.begin();
  const DType dtype = row_compute(first.dtype());
  if (on_cuda(first)) {
    if (dtype == DType::F64) return row_composed<Op>(x, c, given, k, want_sums);
    return cuda::run_rows({Op::name.data(), RowId<Op>::value, kStats<Op>, Op::sums}, x, c, given, k, want_sums, result);
  }
  int64_t n = first.shape().back();
  RowCall call{};
  call.n = n;
  call.rows = n ? first.size() / n : 0;
  call.k = k;
  std::vector<Tensor> hold;  // keeps copies alive until the kernel is done
  auto put = [&](const void** to, std::initializer_list<Tensor> list) {
    for (const Tensor& t : list) {
      hold.push_back(plain(t, dtype));
      *to++ = hold.back().raw();
    }
  };
  int j = 0;
  for (const Tensor& t : x) {
    call.half[j] = half_of(t.dtype());
    hold.push_back(plain(t, call.half[j] == Half::None ? dtype : t.dtype()));
    call.x[j++] = hold.back().raw();
  }
  put(call.c, c);
  put(call.given, given);
  RowResult r;
  call.half_out = half_of(result);
  r.y = empty(first.shape(), call.half_out == Half::None ? dtype : result);
  call.out = r.y.raw();
  for (int i = 0; i < kStats<Op>; i++) {
    r.stat[i] = empty({call.rows}, dtype);
    call.stat[i] = r.stat[i].raw();
  }
  if (want_sums) {
    call.block_rows = block_rows_of(call.rows);
    int64_t blocks = (call.rows + call.block_rows - 1) / call.block_rows;
    for (int i = 0; i < Op::sums; i++) {
      r.column[i] = empty({blocks, n}, dtype);
      call.column[i] = r.column[i].raw();
    }
  }
  row_table().ops[RowId<Op>::value].fn[dtype == DType::F64](call);
  if (want_sums)
    for (int i = 0; i < Op::sums; i++) r.column[i] = clone(alias(r.column[i], {n}, {1}, r.column[i]->offset));
  return r;
}

template <class Op, int P>
void graph_passes(At<Tensor>& e) {
  if constexpr (P < kPasses<Op>) {
    Tensor v = Op::template pass<P, Tensor>(e), s;
    if constexpr (Op::kept == P) e.kept = v;
    if constexpr (Op::folds[P] == Fold::Max) {
      GradMode off(false);
      s = max_over(detach(v), {-1}, true);
    } else {
      s = sum(v, {-1}, true);
    }
    e.s[Op::given + P] = row_finish<Op, P, Tensor>(s, e);
    graph_passes<Op, P + 1>(e);
  }
}

// `given` have the row axis as size 1. After it, e.s holds the numbers of the rows.
template <class Op>
At<Tensor> row_numbers(std::initializer_list<Tensor> x, std::initializer_list<Tensor> c,
                       std::initializer_list<Tensor> given, double k = 0) {
  At<Tensor> e;
  std::copy(x.begin(), x.end(), e.x);
  std::copy(c.begin(), c.end(), e.c);
  std::copy(given.begin(), given.end(), e.s);
  e.n = Tensor(double(e.x[0].shape().back()));
  e.k = Tensor(k);
  graph_passes<Op, 0>(e);
  return e;
}
template <class Op>
Tensor row_graph(std::initializer_list<Tensor> x, std::initializer_list<Tensor> c, std::initializer_list<Tensor> given,
                 double k = 0) {
  return Op::template out<Tensor>(row_numbers<Op>(x, c, given, k));
}

// Sum over all axes but the last.
inline Tensor sum_rows(const Tensor& t) {
  Dims axes;
  for (int i = 0; i + 1 < t.ndim(); i++) axes.push_back(i);
  return axes.size() ? sum(t, axes) : t;
}

template <class Op, int I = 0>
void composed_columns(RowResult& r, const At<Tensor>& e) {
  if constexpr (I < Op::sums) {
    r.column[I] = sum_rows(Op::template column<I, Tensor>(e));
    composed_columns<Op, I + 1>(r, e);
  }
}
template <class Op>
RowResult row_composed(std::initializer_list<Tensor> x, std::initializer_list<Tensor> c,
                       std::initializer_list<Tensor> given, double k, bool want_sums) {
  Shape per_row = x.begin()->shape();
  per_row[per_row.size() - 1] = 1;
  At<Tensor> e;
  int i = 0;
  for (const Tensor& t : x) e.x[i++] = detach(t);
  i = 0;
  for (const Tensor& t : c) e.c[i++] = detach(t);
  i = 0;
  for (const Tensor& t : given) e.s[i++] = reshape(detach(t), per_row);
  e.n = Tensor(double(e.x[0].shape().back()));
  e.k = Tensor(k);
  graph_passes<Op, 0>(e);
  RowResult r;
  r.y = Op::template out<Tensor>(e);
  for (int j = 0; j < kStats<Op>; j++) r.stat[j] = reshape(e.s[Op::stats[j]], {e.s[Op::stats[j]].size()});
  if (want_sums) composed_columns<Op>(r, e);
  return r;
}

// A pull runs its kernel only when nobody differentiates through it.
template <class... T>
bool plain_pull(const T&... t) {
  return !mode().grad && !(has_tangent(t) || ...);
}

// Runs f with `axis` moved to the end; 0-d tensors are one row of one element.
template <class F>
Tensor on_last_axis(const Tensor& x, int64_t axis, const char* op, F f) {
  if (x.ndim() == 0) {
    normalize_axis(axis, 1, op);
    return reshape(f(reshape(x, {1})), {});
  }
  int a = normalize_axis(axis, x.ndim(), op), last = x.ndim() - 1;
  if (a == last) return f(x);
  return swap_axes(f(swap_axes(x, a, last)), a, last);
}

// A float tensor: integers and bools become float32, as in the Map family.
inline Tensor as_float(const Tensor& x) {
  Tensor t = is_float(x.dtype()) && !x.weak() ? x : cast(x, DType::F32);
  if (t.weak()) {
    t = detach(t);
    t->weak = false;
  }
  return t;
}

}  // namespace pb
