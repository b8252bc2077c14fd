// The loops of the Row family for one ISA level. A row is read again and again from cache; sums run in kRowLanes
// partial results merged pairwise, so the bits depend neither on the threads nor on the level (Note [Fixed trees]).
#pragma once
#include "cpu/row_table.h"
#include "cpu/stream.h"
#include "families/row_op.h"
#include "value/half.h"

namespace pb {

inline constexpr int kRowLanes = 32;

template <Fold F, class S>
PB_FN S fold_start() {
  if constexpr (F == Fold::Max)
    return -std::numeric_limits<S>::infinity();
  else
    return S(0);
}
template <Fold F, class S>
PB_FN S fold_step(S a, S v) {
  if constexpr (F == Fold::Max)
    return v > a ? v : a;
  else
    return a + v;
}

struct Nothing {
  PB_FN void operator()(int64_t) const {}
};
// value(i) is called once for every i in [0, n), between(i) now and then.
template <Fold F, class S, class Value, class Between = Nothing>
PB_FN S fold_row(int64_t n, Value value, Between between = {}) {
  S lane[kRowLanes];
  for (int j = 0; j < kRowLanes; j++) lane[j] = fold_start<F, S>();
  int64_t i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) {
#pragma GCC ivdep
    for (int j = 0; j < kRowLanes; j++) lane[j] = fold_step<F>(lane[j], value(i + j));
    between(i);
  }
#pragma GCC ivdep
  for (int j = 0; j < int(n - i); j++) lane[j] = fold_step<F>(lane[j], value(i + j));
  for (int w = kRowLanes / 2; w; w /= 2)
    for (int j = 0; j < w; j++) lane[j] = fold_step<F>(lane[j], lane[j + w]);
  return lane[0];
}

// Where the rows [begin, end) of an output go, one after the other. Rows of an output that leaves the cache are made in
// a buffer, several at a time when they are short, and streamed (Note [Streaming stores]): a long row bit by bit while
// the next one is computed, so that memory and arithmetic overlap.
template <class S>
class RowSink {
 public:
  RowSink(void* out, int64_t rows, int64_t n) : out_(static_cast<S*>(out)), n_(n) {
    const int64_t row = n * kItem;
    if (rows * row < kStreamBytes || row > kLongest) return;
    group_ = row < kShort ? kShort / row : 1;
    half_ = (group_ * n + kLine / kItem - 1) / (kLine / kItem) * (kLine / kItem);
    buffer_ = static_cast<S*>(pb_scratch(kRowSlot, size_t(2 * half_ * kItem)));
  }
  RowSink(const RowSink&) = delete;
  RowSink& operator=(const RowSink&) = delete;
  ~RowSink() {
    if (!buffer_) return;
    finish();
    hand_over();
    finish();
    stream_done();
  }
  S* row(int64_t r) {
    if (!buffer_) return out_ + r * n_;
    if (held_ == group_) {
      finish();
      hand_over();
    }
    if (held_ == 0) first_ = r;
    return buffer_ + held_++ * n_;
  }
  // Called when i elements of a row are done: streams as many of the rows before, and fetches the row after `x`.
  PB_FN void drip(int64_t i, const S* x) {
    if (!buffer_) return;
    for (int64_t b = 0; b < kStep; b += kLine) __builtin_prefetch(reinterpret_cast<const char*>(x + n_ + i) + b);
    for (int64_t b = 0; b < kStep && sent_ + kLine <= size_; b += kLine, sent_ += kLine)
      stream_line(to_ + sent_, from_ + sent_);
  }

 private:
  static constexpr int64_t kItem = sizeof(S), kLine = 64, kStep = kRowLanes * kItem;
  static constexpr int64_t kShort = 4096, kLongest = 1 << 18;  // two buffers stay in L2
  static constexpr int kRowSlot = 6;

  // The rows in the buffer are from now on those that drip.
  void hand_over() {
    to_ = reinterpret_cast<char*>(out_ + first_ * n_);
    from_ = reinterpret_cast<const char*>(buffer_);
    size_ = held_ * n_ * kItem;
    sent_ = -reinterpret_cast<intptr_t>(to_) & (kLine - 1);
    if (sent_ > size_) sent_ = size_;
    std::memcpy(to_, from_, size_t(sent_));
    buffer_ += odd_ ? -half_ : half_;
    odd_ = !odd_;
    held_ = 0;
  }
  void finish() {
    if (sent_ < size_) stream(to_ + sent_, from_ + sent_, size_ - sent_);
    sent_ = size_;
  }

  S *out_, *buffer_ = nullptr;
  int64_t n_, half_ = 0, group_ = 0, held_ = 0, first_ = 0;
  char* to_ = nullptr;
  const char* from_ = nullptr;
  int64_t size_ = 0, sent_ = 0;
  bool odd_ = false;
};

// n 16-bit floats at `p` from element `at` on, as floats in `to`.
inline const float* widen(Half type, const void* p, int64_t at, int64_t n, float* to) {
  const uint16_t* h = static_cast<const uint16_t*>(p) + at;
  if (type == Half::BFloat16)
    for (int64_t i = 0; i < n; i++) to[i] = bf16_to_float(h[i]);
  else
    for (int64_t i = 0; i < n; i++) to[i] = f16_to_float(h[i]);
  return to;
}
inline void narrow(Half type, void* p, int64_t at, int64_t n, const float* from) {
  uint16_t* h = static_cast<uint16_t*>(p) + at;
  if (type == Half::BFloat16)
    for (int64_t i = 0; i < n; i++) h[i] = float_to_bf16(from[i]);
  else
    for (int64_t i = 0; i < n; i++) h[i] = float_to_f16(from[i]);
}

template <class Op, class S>
struct RowJob {
  const RowCall& call;

  // A row of input j, widened into the j-th of three rows of scratch memory.
  PB_FN const S* input(int j, int64_t r) const {
    if constexpr (std::is_same_v<S, float>)
      if (call.half[j] != Half::None) return widen(call.half[j], call.x[j], r * call.n, call.n, scratch_row(j));
    return static_cast<const S*>(call.x[j]) + r * call.n;
  }
  // Rows that the sink may stream: narrowed ones go straight out.
  int64_t sunk_rows() const { return call.half_out == Half::None ? call.rows : 0; }
  float* scratch_row(int j) const {
    return static_cast<float*>(pb_scratch(7, size_t(3 * call.n) * sizeof(float))) + j * call.n;
  }

  struct Pointers {
    const S *x0, *x1, *c0, *c1;
    S* y;
    PB_FN At<S> read(At<S> e, int64_t i) const {
      e.x[0] = x0[i];
      if constexpr (Op::inputs > 1) e.x[1] = x1[i];
      if constexpr (Op::columns > 0) e.c[0] = c0[i];
      if constexpr (Op::columns > 1) e.c[1] = c1[i];
      return e;
    }
  };

  template <int P>
  static PB_FN void passes(const Pointers& p, At<S>& e, int64_t n, RowSink<S>& sink) {
    if constexpr (P < kPasses<Op>) {
      S s = fold_row<Op::folds[P], S>(
          n,
          [&](int64_t i) __attribute__((always_inline)) {
            S v = Op::template pass<P, S>(p.read(e, i));
            if constexpr (Op::kept == P) p.y[i] = v;
            return v;
          },
          [&](int64_t i) __attribute__((always_inline)) {
            if constexpr (P + 1 == kPasses<Op>) sink.drip(i, p.x0);
          });
      e.s[Op::given + P] = row_finish<Op, P, S>(s, e);
      passes<P + 1>(p, e, n, sink);
    }
  }

  PB_FN void row(int64_t r, RowSink<S>& sink, S* sum0, S* sum1) const {
    int64_t n = call.n;
    Pointers p{input(0, r), nullptr, static_cast<const S*>(call.c[0]), static_cast<const S*>(call.c[1]), nullptr};
    if constexpr (std::is_same_v<S, float>) p.y = call.half_out == Half::None ? sink.row(r) : scratch_row(2);
    if constexpr (!std::is_same_v<S, float>) p.y = sink.row(r);
    if constexpr (Op::inputs > 1) p.x1 = input(1, r);
    At<S> e{};
    e.n = S(n);
    e.k = S(call.k);
    for (int i = 0; i < Op::given; i++) e.s[i] = static_cast<const S*>(call.given[i])[r];
    passes<0>(p, e, n, sink);
    for (int i = 0; i < kStats<Op>; i++)
      if (call.stat[i]) static_cast<S*>(call.stat[i])[r] = e.s[Op::stats[i]];
    write(p, e, n, sum0, sum1);
    if constexpr (std::is_same_v<S, float>)
      if (call.half_out != Half::None) narrow(call.half_out, call.out, r * n, n, p.y);
  }

  static PB_FN void write(const Pointers& p, const At<S>& row, int64_t n, S* sum0, S* sum1) {
    if (Op::sums == 0 || !sum0) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; i++) {
        At<S> e = p.read(row, i);
        if constexpr (Op::kept >= 0) e.kept = p.y[i];
        p.y[i] = Op::template out<S>(e);
      }
      return;
    }
    if constexpr (Op::sums > 0) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; i++) {
        At<S> e = p.read(row, i);
        p.y[i] = Op::template out<S>(e);
        sum0[i] += Op::template column<0, S>(e);
        if constexpr (Op::sums > 1) sum1[i] += Op::template column<1, S>(e);
      }
    }
  }

  static void rows(void* ctx, int64_t begin, int64_t end) {
    const RowJob& j = *static_cast<RowJob*>(ctx);
    RowSink<S> sink(j.call.out, j.sunk_rows(), j.call.n);
    for (int64_t r = begin; r < end; r++) j.row(r, sink, nullptr, nullptr);
  }
  static void blocks(void* ctx, int64_t begin, int64_t end) {
    const RowJob& j = *static_cast<RowJob*>(ctx);
    int64_t n = j.call.n;
    RowSink<S> sink(j.call.out, j.sunk_rows(), n);
    for (int64_t b = begin; b < end; b++) {
      S* sum[2] = {};
      for (int i = 0; i < Op::sums; i++) {
        sum[i] = static_cast<S*>(j.call.column[i]) + b * n;
        for (int64_t c = 0; c < n; c++) sum[i][c] = S(0);
      }
      int64_t first = b * j.call.block_rows, last = first + j.call.block_rows;
      if (last > j.call.rows) last = j.call.rows;
      for (int64_t r = first; r < last; r++) j.row(r, sink, sum[0], sum[1]);
    }
  }
};

template <class S>
struct MergeJob {
  S* sum;
  int64_t blocks, n;
  static void run(void* ctx, int64_t begin, int64_t end) {
    const MergeJob& j = *static_cast<MergeJob*>(ctx);
    for (int64_t b = 1; b < j.blocks; b++) {
      const S* from = j.sum + b * j.n;
#pragma GCC ivdep
      for (int64_t c = begin; c < end; c++) j.sum[c] += from[c];
    }
  }
};

inline int64_t row_grain(int64_t n) { return 65536 / (n + 1) + 1; }

// The total column sums end in the first block.
template <class Op, class S>
void row_kernel(const RowCall& call) {
  RowJob<Op, S> job{call};
  if (!call.column[0]) {
    pb_parallel_for(call.rows, row_grain(call.n), &RowJob<Op, S>::rows, &job);
    return;
  }
  int64_t blocks = (call.rows + call.block_rows - 1) / call.block_rows;
  pb_parallel_for(blocks, row_grain(call.n * call.block_rows), &RowJob<Op, S>::blocks, &job);
  for (int i = 0; i < Op::sums; i++) {
    MergeJob<S> merge{static_cast<S*>(call.column[i]), blocks, call.n};
    pb_parallel_for(call.n, 65536 / (blocks + 1) + 1, &MergeJob<S>::run, &merge);
  }
}

// The ops of ops/rows.h in the order of the text.
template <int I>
struct RowAt;
template <int N>
struct RowKernelTable {
  RowKernels row[N];
};
template <size_t... I>
constexpr RowKernelTable<int(sizeof...(I))> row_kernel_table(std::index_sequence<I...>) {
  return {{RowKernels{
      {&row_kernel<typename RowAt<int(I)>::type, float>, &row_kernel<typename RowAt<int(I)>::type, double>}}...}};
}

}  // namespace pb
