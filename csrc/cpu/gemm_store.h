// Store policy: what happens to the sums of a tile when they are complete, while they are in L1.
#pragma once
#include "cpu/gemm_args.h"
#include "value/half.h"

namespace pb {

inline void narrow_row(uint16_t* to, const float* from, int64_t n, Form form) {
  if (form == Form::BF16)
    for (int64_t i = 0; i < n; i++) to[i] = float_to_bf16(from[i]);
  else
    for (int64_t i = 0; i < n; i++) to[i] = float_to_f16(from[i]);
}
inline void narrow_row(uint16_t*, const double*, int64_t, Form) {}  // sums of 16-bit floats are float

template <class S>
struct Store {
  const GemmArgs& g;
  const S* bias;
  bool narrows;  // the sums lie elsewhere than the result

  explicit Store(const GemmArgs& args)
      : g(args), bias(static_cast<const S*>(args.bias)), narrows(args.c_form != Form::Same) {}
  S* sums() const { return static_cast<S*>(narrows ? g.sums : g.c); }
  // Columns [j, j + cols) of rows [i, i + rows) of product `batch`.
  void finish(S* c, int64_t c_row, int64_t batch, int64_t i, int64_t rows, int64_t j, int64_t cols) const {
    if (bias)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t x = 0; x < cols; x++) c[r * c_row + x] += bias[j + x];
    if (!narrows) return;
    uint16_t* to = static_cast<uint16_t*>(g.c) + batch * g.c_batch + i * g.c_row + j;
    for (int64_t r = 0; r < rows; r++) narrow_row(to + r * g.c_row, c + r * c_row, cols, g.c_form);
  }
};

}  // namespace pb
