// A stack of matrices anywhere in memory, and its batch axes as few as they can be: what products share on any device.
#pragma once
#include "cpu/gemm_args.h"
#include "tensor/tensor.h"

namespace pb {

struct Stack {
  const void* data;
  Form form;
  int64_t bytes;  // of a number
  int64_t row, col;
  Shape batch;
  Strides strides;
};
inline Form form_of(DType d) { return d == DType::BF16 ? Form::BF16 : d == DType::F16 ? Form::F16 : Form::Same; }
inline Stack stack_of(const Tensor& t, bool transposed) {
  int n = t.ndim();
  Stack s{t.raw(),   form_of(t.dtype()), itemsize(t.dtype()), n > 1 ? t.strides()[n - 2] : 0, t.strides()[n - 1],
          t.shape(), t.strides()};
  s.batch.resize(n > 2 ? n - 2 : 0);
  s.strides.resize(n > 2 ? n - 2 : 0);
  if (transposed) std::swap(s.row, s.col);
  return s;
}

// Axes of the batch that advance together in both operands become one; size 1 disappears. c is contiguous, of
// matrices with `matrix` elements.
struct Batches {
  Dims size, a, b, c;
};
inline Batches coalesce(const Shape& batch, const Strides& a, const Strides& b, int64_t matrix) {
  Batches r;
  Strides c = contiguous_strides(batch);
  for (int i = 0; i < batch.size(); i++) {
    if (batch[i] == 1) continue;
    int last = r.size.size() - 1;
    if (last >= 0 && r.a[last] == a[i] * batch[i] && r.b[last] == b[i] * batch[i]) {
      r.size[last] *= batch[i];
      r.a[last] = a[i], r.b[last] = b[i], r.c[last] = c[i] * matrix;
    } else {
      r.size.push_back(batch[i]);
      r.a.push_back(a[i]), r.b.push_back(b[i]), r.c.push_back(c[i] * matrix);
    }
  }
  return r;
}

// Rows of a that share one b are rows of one product: the last batch axis goes into m.
inline void fold_rows(Batches& r, int64_t& m, int64_t& a_row) {
  int n = r.size.size();
  if (!n || r.b[n - 1] != 0 || (m != 1 && r.a[n - 1] != m * a_row)) return;
  if (m == 1) a_row = r.a[n - 1];
  m *= r.size[n - 1];
  for (Dims* d : {&r.size, &r.a, &r.b, &r.c}) d->resize(n - 1);
}

}  // namespace pb
