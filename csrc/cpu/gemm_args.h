// What a matrix product is given; read by host code and kernels alike.
#pragma once
#include <cstdint>

namespace pb {

// How numbers are stored: in the type of the sums, as 16-bit floats, or as rows of blocks (Note [Blocks],
// cpu/code_table.h). Other forms than Same have float sums.
enum class Form : uint8_t { Same, F16, BF16, Int8, Int4 };

struct GemmArgs {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  int64_t a_row = 0, a_col = 0;  // strides in numbers; of quantised rows 1 and the bytes of a row
  const void* b = nullptr;
  int64_t b_row = 0, b_col = 0;
  void* c = nullptr;
  int64_t c_row = 0;           // rows of c are contiguous
  bool accumulate = false;     // c += a b instead of c = a b; only in the type of the sums
  const void* bias = nullptr;  // Store policy: n values added to every row, or none; in the type of the sums
  // Batched use: `batch` products; strides between them (0: shared operand).
  int64_t batch = 1, a_batch = 0, b_batch = 0, c_batch = 0;
  Form a_form = Form::Same, b_form = Form::Same;
  Form c_form = Form::Same;            // 16-bit floats are rounded once, from the complete sum
  int64_t a_length = 0, b_length = 0;  // numbers of a quantised row
  void* sums = nullptr;  // of c where c_form is of 16 bits and needs_sums: as many numbers, laid out as in c
};

inline constexpr int64_t kDepth = 256;  // products summed before the sum meets c
// Whether sums of 16-bit results meet memory before they are complete.
inline bool needs_sums(const GemmArgs& g) {
  return g.c_form != Form::Same && (g.m == 1 || g.n == 1 || g.k > kDepth || g.k <= 0);
}

}  // namespace pb
