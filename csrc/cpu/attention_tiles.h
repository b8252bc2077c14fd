// Products of small blocks that lie in the first two cache levels, and the copies that bring their operands there.
#pragma once
#include "cpu/attention_table.h"
#include "cpu/row_kernels.h"

namespace pb {

#if defined(__AVX512F__)
typedef float Wide __attribute__((vector_size(64)));
inline constexpr int kTileRows = 8;
#else
typedef float Wide __attribute__((vector_size(32)));
inline constexpr int kTileRows = 4;
#endif
inline constexpr int kWide = int(sizeof(Wide) / sizeof(float));
inline constexpr int kPanel = 32, kPad = 16;  // keys lie in panels of 32 columns, widths are padded to 16

inline int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

PB_FN Wide load_wide(const float* p) {
  Wide v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
PB_FN void store_wide(float* p, Wide v) { __builtin_memcpy(p, &v, sizeof v); }

// One operand of a product: element [i, k] stands at p + i * row + k * col.
struct Left {
  const float* p;
  int64_t row, col;
};
// The other: element [k, j] stands at p + k * row + j / kPanel * panel + j % kPanel.
struct Right {
  const float* p;
  int64_t row, panel;
};

// c (Rows, NV vectors) += or = a (Rows, depth) b (depth, NV vectors).
template <int Rows, int NV>
PB_FN void tile(float* c, int64_t ldc, Left a, const float* b, int64_t ldb, int64_t depth, bool add) {
  Wide acc[Rows][NV];
  for (int i = 0; i < Rows; i++)
    for (int j = 0; j < NV; j++) acc[i][j] = add ? load_wide(c + i * ldc + j * kWide) : Wide{};
  for (int64_t k = 0; k < depth; k++, b += ldb, a.p += a.col) {
    Wide row[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) row[j] = load_wide(b + j * kWide);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; i++) {
      float x = a.p[i * a.row];
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) acc[i][j] += x * row[j];
    }
  }
  for (int i = 0; i < Rows; i++)
    for (int j = 0; j < NV; j++) store_wide(c + i * ldc + j * kWide, acc[i][j]);
}

// What a block on the diagonal of causal attention leaves out; rows and columns are counted from the diagonal.
enum class Skip {
  Nothing,
  Above,  // row i of the result is wanted up to column i
  After,  // row i of a is zero after column i
  Before  // row i of a is zero before column i
};

template <int Rows, int NV>
PB_FN void tile_at(float* c, int64_t ldc, Left a, const float* b, int64_t ldb, int64_t i, int64_t depth, bool add,
                   Skip skip) {
  int64_t first = skip == Skip::Before ? i : 0;
  int64_t last = skip == Skip::After && i + Rows < depth ? i + Rows : depth;
  tile<Rows, NV>(c + i * ldc, ldc, {a.p + i * a.row + first * a.col, a.row, a.col}, b + first * ldb, ldb, last - first,
                 add);
}

// c (m, n) from a (m, depth) and b (depth, n); n is a multiple of kPad.
template <int NV>
inline void strip(float* c, int64_t ldc, Left a, const float* b, int64_t ldb, int64_t i, int64_t m, int64_t depth,
                  bool add, Skip skip) {
  for (; i + kTileRows <= m; i += kTileRows) tile_at<kTileRows, NV>(c, ldc, a, b, ldb, i, depth, add, skip);
  for (; i < m; i++) tile_at<1, NV>(c, ldc, a, b, ldb, i, depth, add, skip);
}
inline void product(float* c, int64_t ldc, Left a, Right b, int64_t m, int64_t n, int64_t depth, bool add,
                    Skip skip = Skip::Nothing) {
  for (int64_t j = 0; j < n; j += 2 * kWide) {
    const float* at = b.p + j / kPanel * b.panel + j % kPanel;
    int64_t i = skip == Skip::Above ? j : 0;
    if (n - j >= 2 * kWide)
      strip<2>(c + j, ldc, a, at, b.row, i, m, depth, add, skip);
    else
      strip<1>(c + j, ldc, a, at, b.row, i, m, depth, add, skip);
  }
}

// Rows of a head, times `scale`, one after the other with zeros up to ld.
inline void copy_rows(float* to, HeadRows from, int64_t rows, int64_t width, int64_t ld, float scale) {
  for (int64_t r = 0; r < rows; r++, to += ld) {
    const float* x = from.data + r * from.row;
    for (int64_t c = 0; c < width; c++) to[c] = x[c] * scale;
    for (int64_t c = width; c < ld; c++) to[c] = 0;
  }
}
inline void copy_back(HeadRows to, const float* from, int64_t rows, int64_t width, int64_t ld, float scale) {
  for (int64_t r = 0; r < rows; r++, from += ld) {
    float* y = to.data + r * to.row;
    for (int64_t c = 0; c < width; c++) y[c] = from[c] * scale;
  }
}

// Rows (keys) become columns, in panels of kPanel: row r, element c goes to panel r / kPanel, [c, r % kPanel].
inline void turn_rows(float* to, HeadRows from, int64_t rows, int64_t width) {
  typedef float Four __attribute__((vector_size(16)));
  typedef int32_t Pick __attribute__((vector_size(16)));
  int64_t whole = rows & ~int64_t(3), across = width & ~int64_t(3);
  for (int64_t r = 0; r < whole; r += 4) {
    float* panel = to + r / kPanel * width * kPanel + r % kPanel;
    const float* x = from.data + r * from.row;
    for (int64_t c = 0; c < across; c += 4) {
      Four a[4], u[4];
      for (int i = 0; i < 4; i++) __builtin_memcpy(&a[i], x + i * from.row + c, sizeof(Four));
      u[0] = __builtin_shuffle(a[0], a[1], Pick{0, 4, 1, 5});
      u[1] = __builtin_shuffle(a[0], a[1], Pick{2, 6, 3, 7});
      u[2] = __builtin_shuffle(a[2], a[3], Pick{0, 4, 1, 5});
      u[3] = __builtin_shuffle(a[2], a[3], Pick{2, 6, 3, 7});
      a[0] = __builtin_shuffle(u[0], u[2], Pick{0, 1, 4, 5});
      a[1] = __builtin_shuffle(u[0], u[2], Pick{2, 3, 6, 7});
      a[2] = __builtin_shuffle(u[1], u[3], Pick{0, 1, 4, 5});
      a[3] = __builtin_shuffle(u[1], u[3], Pick{2, 3, 6, 7});
      for (int i = 0; i < 4; i++) __builtin_memcpy(panel + (c + i) * kPanel, &a[i], sizeof(Four));
    }
    for (int64_t c = across; c < width; c++)
      for (int i = 0; i < 4; i++) panel[c * kPanel + i] = x[i * from.row + c];
  }
  for (int64_t r = whole; r < padded(rows, kPanel); r++)
    for (int64_t c = 0; c < width; c++)
      to[r / kPanel * width * kPanel + c * kPanel + r % kPanel] = r < rows ? from.data[r * from.row + c] : 0.0f;
}

}  // namespace pb
