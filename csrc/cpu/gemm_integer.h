// Products of integers: exact modulo 2^64, the same text for signed and unsigned.
#pragma once
#include "cpu/gemm_args.h"

namespace pb {

struct IntegerRows {
  const GemmArgs& g;
  static void body(void* self, int64_t begin, int64_t end) {
    const GemmArgs& g = static_cast<IntegerRows*>(self)->g;
    for (int64_t r = begin; r < end; r++) {
      int64_t batch = r / g.m, i = r % g.m;
      auto* a = static_cast<const uint64_t*>(g.a) + batch * g.a_batch + i * g.a_row;
      auto* b = static_cast<const uint64_t*>(g.b) + batch * g.b_batch;
      auto* c = static_cast<uint64_t*>(g.c) + batch * g.c_batch + i * g.c_row;
      auto* bias = static_cast<const uint64_t*>(g.bias);
      for (int64_t j = 0; j < g.n; j++) c[j] = (g.accumulate ? c[j] : 0) + (bias ? bias[j] : 0);
      for (int64_t p = 0; p < g.k; p++) {
        uint64_t x = a[p * g.a_col];
        const uint64_t* row = b + p * g.b_row;
        if (g.b_col == 1)
          for (int64_t j = 0; j < g.n; j++) c[j] += x * row[j];
        else
          for (int64_t j = 0; j < g.n; j++) c[j] += x * row[j * g.b_col];
      }
    }
  }
};

inline void run_integers(const GemmArgs& g) {
  IntegerRows rows{g};
  double row_work = double(g.n) * double(g.k) + 1;
  auto grain = int64_t(65536.0 / row_work) + 1;
  pb_parallel_for(g.m * g.batch, grain, &IntegerRows::body, &rows);
}

}  // namespace pb
