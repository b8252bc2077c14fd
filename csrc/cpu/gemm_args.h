// What a matrix product is given; read by host code and kernels alike.
#pragma once
#include <cstdint>

namespace pb {

struct GemmArgs {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  int64_t a_row = 0, a_col = 0;
  const void* b = nullptr;
  int64_t b_row = 0, b_col = 0;
  void* c = nullptr;
  int64_t c_row = 0;           // rows of c are contiguous
  bool accumulate = false;     // c += a b instead of c = a b
  const void* bias = nullptr;  // Store policy: n values added to every row, or none
  // Batched use: `batch` products; strides between them (0: shared operand).
  int64_t batch = 1, a_batch = 0, b_batch = 0, c_batch = 0;
};

}  // namespace pb
