#include "families/linear.h"

#include "cpu/code_table.h"
#include "cpu/dispatch.h"
#include "cpu/gemm_table.h"
#include "cpu/threads.h"
#include "cuda/calls.h"
#include "families/map.h"
#include "families/reduce.h"
#include "families/stack.h"
#include "families/view.h"
#include "fewbit/block.h"
#include "tape/onto.h"
#include "tensor/profile.h"

namespace pb {

void gemm(Compute compute, const GemmArgs& args) {
  static const auto& kernels = *static_cast<const GemmKernels*>(isa_table("gemm"));
  static const bool has_pairs = kernels.pairs && cpu_has_bf16();
  LongKernel unlocked(0.02 * double(args.m) * double(args.n) * double(args.k) * double(args.batch));  // 100 GFLOP/s
  if (has_pairs && args.a_form == Form::BF16 && args.b_form == Form::BF16) return kernels.pairs(args);
  kernels.run[int(compute)](args);
}

namespace {

// c of shape batch + (m, n), contiguous. Rows of a that share one b are folded into m; one batch axis goes to the
// kernel, any further ones are walked here.
void multiply(Compute compute, GemmArgs g, const Stack& a, const Stack& b, const Shape& batch) {
  int64_t bytes = itemsize(dtype_of(compute)), bytes_c = g.c_form == Form::Same ? bytes : 2;
  g.a_form = a.form, g.b_form = b.form;
  Batches r = coalesce(batch, broadcast_strides(a.batch, a.strides, batch),
                       broadcast_strides(b.batch, b.strides, batch), g.m * g.n);
  g.a_row = a.row, g.a_col = a.col;
  g.b_row = b.row, g.b_col = b.col;
  g.c_row = g.n;
  fold_rows(r, g.m, g.a_row);
  int n = r.size.size(), wide = 0;  // the longest axis is the kernel's
  for (int i = 1; i < n; i++)
    if (r.size[i] > r.size[wide]) wide = i;
  int64_t calls = 1;
  for (int i = 0; i < n; i++)
    if (i != wide) calls *= r.size[i];
  if (n) g.batch = r.size[wide], g.a_batch = r.a[wide], g.b_batch = r.b[wide], g.c_batch = r.c[wide];
  for (int64_t call = 0; call < calls; call++) {
    int64_t at_a = 0, at_b = 0, at_c = 0, rest = call;
    for (int i = n - 1; i >= 0; i--) {
      if (i == wide) continue;
      int64_t x = rest % r.size[i];
      rest /= r.size[i];
      at_a += x * r.a[i], at_b += x * r.b[i], at_c += x * r.c[i];
    }
    GemmArgs one = g;
    one.a = static_cast<const char*>(a.data) + at_a * a.bytes;
    one.b = static_cast<const char*>(b.data) + at_b * b.bytes;
    one.c = static_cast<char*>(g.c) + at_c * bytes_c;
    if (g.sums) one.sums = static_cast<char*>(g.sums) + at_c * bytes;
    gemm(compute, one);
  }
}

// What a product reads: 16-bit floats as they are, where the sums are float.
Tensor readable(const Tensor& t, Compute c) {
  bool as_is = t.dtype() == dtype_of(c) || (c == Compute::F32 && form_of(t.dtype()) != Form::Same);
  return as_is ? t : cast(detach(t), dtype_of(c));
}
Tensor dense_bias(const Tensor& bias, Compute c) {
  Tensor b = bias.dtype() == dtype_of(c) ? bias : cast(detach(bias), dtype_of(c));
  return b.contiguous() ? b : clone(b);
}

// a (..., m, k) times b (..., k, n), or b (n, k) when `transposed`; outside the graph. out_shape ends in n. With
// `onto`, of the compute type and contiguous, the product is added to what stands there.
Tensor product(const Tensor& a0, const Tensor& b0, bool transposed, const Tensor& bias0, const Shape& batch,
               const Shape& out_shape, DType dtype, const Tensor& onto = Tensor()) {
  GradMode off(false);
  if (on_cuda(a0) || on_cuda(b0)) return cuda::product(a0, b0, transposed, bias0, batch, out_shape, dtype, onto);
  Compute compute = compute_of(dtype);
  Tensor a = readable(a0, compute), b = readable(b0, compute), bias, sums;
  bool narrows = form_of(dtype) != Form::Same;
  Tensor out = onto ? onto : empty(out_shape, narrows ? dtype : dtype_of(compute));
  if (out.size()) {
    GemmArgs g;
    g.accumulate = bool(onto);
    g.m = a.ndim() > 1 ? a.shape()[a.ndim() - 2] : 1;
    g.k = a.shape().back();
    g.n = out_shape.back();
    g.c = out.raw();
    g.c_form = form_of(dtype);
    if (needs_sums(g)) sums = empty(out_shape, DType::F32), g.sums = sums.raw();
    if (bias0) bias = dense_bias(bias0, compute), g.bias = bias.raw();
    multiply(compute, g, stack_of(a, false), stack_of(b, transposed), batch);
  }
  return out.dtype() == dtype ? out : cast(out, dtype);
}

Tensor transposed(const Tensor& t) { return swap_axes(t, -1, -2); }

// All leading axes as one.
Tensor flat(const Tensor& t) {
  if (t.ndim() == 2) return t;
  int64_t rows = 1;
  for (int i = 0; i + 1 < t.ndim(); i++) rows *= t.shape()[i];
  return reshape(t, {rows, t.shape().back()});
}

// gin[i] = a b (..., m, k) (..., k, n), whose rows together are those of input i: added to the cotangent that the input
// has already, where there is one, so that its memory is passed over once.
void pull_product(const PullArgs& p, int i, const Tensor& a, const Tensor& b) {
  DType dtype = a.dtype();
  bool plain = a.ndim() >= 2 && b.ndim() == 2 && b.dtype() == dtype && dtype_of(compute_of(dtype)) == dtype &&
               is_constant(a) && is_constant(b);
  auto add = [&](const Tensor& sum) {
    if (sum->storage == a->storage || sum->storage == b->storage) return false;
    Shape batch = a.shape(), shape = a.shape();
    batch.resize(a.ndim() - 2);
    shape[a.ndim() - 1] = b.shape()[1];
    product(a, b, false, Tensor(), batch, shape, dtype, sum);
    return true;
  };
  if (!plain || !add_onto(p, i, dtype, add)) p.gin[i] = matmul(a, b);
}

// g^T x for a float32 g (rows, out) and an x kept in blocks, which packing decodes: no dense x exists.
Tensor product_with_blocks(const Tensor& g, const BlockRows& x, const Tensor& onto = Tensor()) {
  Tensor out = onto ? onto : empty({g.shape()[1], x.length}, DType::F32);
  GemmArgs p;
  p.accumulate = bool(onto);
  p.m = g.shape()[1], p.n = x.length, p.k = x.rows;
  p.a = g.raw(), p.a_row = g.strides()[1], p.a_col = g.strides()[0];
  p.b = x.words, p.b_row = block_row_bytes(x.length, x.bits), p.b_col = 1;
  p.b_form = x.bits == 8 ? Form::Int8 : Form::Int4;
  p.b_length = x.length;
  p.c = out.raw(), p.c_row = x.length;
  gemm(Compute::F32, p);
  return out;
}

Tensor plus(const Tensor& a, const Tensor& b) { return a && b ? a + b : a ? a : b; }

// The tangent of a product whose operands both have one, made in one buffer: da b + bias, then a db is added.
Tensor product_tangent(const Tensor& a, const Tensor& da, const Tensor& b, const Tensor& db, bool transposed,
                       const Tensor& bias, const Shape& batch, const Tensor& y) {
  Tensor r = product(da, b, transposed, bias, batch, y.shape(), y.dtype());
  return product(a, db, transposed, Tensor(), batch, y.shape(), y.dtype(), r);
}
// Whether that buffer may be used: nothing looks at the tangent but its reader, and no 16-bit float is rounded twice.
bool in_one_buffer(const Tensor* p, const Tensor* t, int n, const Tensor& y) {
  if (!t[0] || !t[1] || dtype_of(compute_of(y.dtype())) != y.dtype()) return false;
  for (int i = 0; i < n; i++)
    if (!is_constant(p[i]) || !is_constant(t[i])) return false;
  return true;
}

Tensor matmul_stacks(const Tensor& a, const Tensor& b, DType dtype) {
  Shape batch_a = a.shape(), batch_b = b.shape();
  batch_a.resize(a.ndim() - 2);
  batch_b.resize(b.ndim() - 2);
  Shape batch = broadcast(batch_a, batch_b, "matmul"), shape = batch;
  shape.push_back(a.shape()[a.ndim() - 2]);
  shape.push_back(b.shape().back());
  count(shape, "matmul");
  Tensor out = product(a, b, false, Tensor(), batch, shape, dtype);
  if (!is_float(dtype)) return out;
  std::vector<Saved> saved;
  if (any_wants(a, b))
    saved = {wants_node(b) ? Saved::operand(a) : Saved(), wants_node(a) ? Saved::operand(b) : Saved()};
  Shape shape_a = a.shape(), shape_b = b.shape();
  record("matmul", {a, b}, out, std::move(saved), [shape_a, shape_b](const Slots& s, const PullArgs& p) {
    const Tensor& g = p.g[0];
    bool shared = shape_b.size() == 2;  // one product over all leading axes instead of a sum of products
    if (p.need(0) && shared)
      pull_product(p, 0, g, transposed(s[1]));
    else if (p.need(0))
      p.gin[0] = sum_to_shape(matmul(g, transposed(s[1])), shape_a);
    if (!p.need(1)) return;
    Tensor a = s[0];
    if (shared)
      pull_product(p, 1, transposed(flat(a)), flat(g));
    else
      p.gin[1] = sum_to_shape(matmul(transposed(a), g), shape_b);
  });
  push_forward({a, b}, out, [&batch](const Tensor* p, const Tensor* t, const Tensor& y) {
    if (in_one_buffer(p, t, 2, y)) return product_tangent(p[0], t[0], p[1], t[1], false, Tensor(), batch, y);
    return plus(t[0] ? matmul(t[0], p[1]) : Tensor(), t[1] ? matmul(p[0], t[1]) : Tensor());
  });
  return out;
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  Profiled scope("matmul");
  if (a.ndim() == 0 || b.ndim() == 0)
    fail<ShapeError>("matmul", "a 0-d operand has no axis to sum over", "scale by a number with *", a, b);
  int64_t inner = b.shape()[b.ndim() > 1 ? b.ndim() - 2 : 0];
  if (a.shape().back() != inner)
    fail<ShapeError>("matmul",
                     "inner sizes differ, " + std::to_string(a.shape().back()) + " and " + std::to_string(inner),
                     "the last axis of the first operand meets the last but one of the second (its only one if it is "
                     "1-d); x.mT swaps the last two",
                     a, b);
  const Tensor both[] = {a, b};
  DType dtype = result_dtype(both, "matmul");
  Tensor x = is_float(dtype) ? cast(a, dtype) : a, y = is_float(dtype) ? cast(b, dtype) : b;
  if (x.ndim() > 1 && y.ndim() > 1) return matmul_stacks(x, y, dtype);
  bool row = x.ndim() == 1, column = y.ndim() == 1;
  if (row) x = reshape(x, {1, inner});
  if (column) y = reshape(y, {inner, 1});
  Tensor out = matmul_stacks(x, y, dtype);
  Shape shape = out.shape();
  if (row) shape.erase(shape.size() - 2);
  if (column) shape.erase(shape.size() - 1);
  return reshape(out, shape);
}

Tensor linear(const Tensor& x0, const Tensor& weight0, const Tensor& bias0, int saved_bits) {
  Profiled scope("linear");
  saved_bits = operand_bits("linear", saved_bits);
  if (weight0.ndim() != 2) fail<ShapeError>("linear", "the weight must be 2-d, (out, in)", "reshape it", weight0);
  if (x0.ndim() == 0 || x0.shape().back() != weight0.shape()[1])
    fail<ShapeError>("linear", "inner sizes differ: the last axis of x must be the weight's second",
                     "the weight has shape (out, in)", x0, weight0);
  if (bias0 && !(bias0.shape() == Shape{weight0.shape()[0]}))
    fail<ShapeError>("linear", "the bias must have one element per row of the weight", "its shape is (out,)", bias0,
                     weight0);
  const Tensor all[] = {x0, weight0, bias0 ? bias0 : weight0};
  DType dtype = result_dtype(all, "linear");
  if (!is_float(dtype)) {
    Tensor y = matmul(x0, transposed(weight0));
    return bias0 ? y + bias0 : y;
  }
  Tensor x = cast(x0, dtype), weight = cast(weight0, dtype), bias = bias0 ? cast(bias0, dtype) : Tensor();
  Shape batch = x.shape(), shape = x.shape();
  batch.resize(x.ndim() > 2 ? x.ndim() - 2 : 0);
  shape[x.ndim() - 1] = weight.shape()[0];
  count(shape, "linear");
  Tensor out = product(x, weight, true, bias, batch, shape, dtype);
  std::vector<Saved> saved;
  if (any_wants(x, weight))
    saved = {wants_node(weight) ? saved_operand(x, saved_bits) : Saved(), wants_node(x) ? Saved(weight) : Saved()};
  record("linear", {x, weight, bias}, out, std::move(saved), [](const Slots& s, const PullArgs& p) {
    const Tensor& g = p.g[0];
    if (p.need(0)) pull_product(p, 0, g, s[1]);
    if (p.need(1)) {
      BlockRows x = block_rows(s.slot(0));
      bool fused = x.words && g.dtype() == DType::F32 && !has_tangent(g);
      auto add = [&](const Tensor& sum) {
        if (sum->storage == g->storage) return false;
        product_with_blocks(flat(g), x, sum);
        return true;
      };
      if (!fused)
        pull_product(p, 1, transposed(flat(g)), flat(s[0]));
      else if (!add_onto(p, 1, DType::F32, add))
        p.gin[1] = product_with_blocks(flat(g), x);
    }
    if (p.need(2)) p.gin[2] = g.ndim() > 1 ? sum(flat(g), {0}) : g;
  });
  push_forward({x, weight, bias}, out, [&batch](const Tensor* p, const Tensor* t, const Tensor& y) {
    if (in_one_buffer(p, t, 3, y)) return product_tangent(p[0], t[0], p[1], t[1], true, t[2], batch, y);
    Tensor r = plus(t[0] ? linear(t[0], p[1], Tensor()) : Tensor(), t[1] ? linear(p[0], t[1], Tensor()) : Tensor());
    return t[2] ? r ? r + t[2] : broadcast_to(t[2], y.shape()) : r;
  });
  return out;
}

Tensor tensordot(const Tensor& a, const Tensor& b, const Dims& axes_a, const Dims& axes_b) {
  if (axes_a.size() != axes_b.size())
    fail<ShapeError>("tensordot", "the two lists of axes have different lengths", "pair each axis of a with one of b",
                     a, b);
  Dims order_a, order_b, used_a(a.ndim(), 0), used_b(b.ndim(), 0), sum_a, sum_b;
  int64_t inner = 1, rows = 1, cols = 1;
  for (int i = 0; i < axes_a.size(); i++) {
    int p = normalize_axis(axes_a[i], a.ndim(), "tensordot"), q = normalize_axis(axes_b[i], b.ndim(), "tensordot");
    if (used_a[p]++ || used_b[q]++)
      fail<ShapeError>("tensordot", "an axis is named twice", "name each axis once", a, b);
    if (a.shape()[p] != b.shape()[q])
      fail<ShapeError>("tensordot",
                       "axis " + std::to_string(p) + " of the first and axis " + std::to_string(q) +
                           " of the second operand have different sizes",
                       "paired axes must have the same size", a, b);
    sum_a.push_back(p), sum_b.push_back(q);
    inner *= a.shape()[p];
  }
  Shape shape;
  for (int i = 0; i < a.ndim(); i++)
    if (!used_a[i]) order_a.push_back(i), shape.push_back(a.shape()[i]), rows *= a.shape()[i];
  for (int64_t i : sum_a) order_a.push_back(i);
  for (int64_t i : sum_b) order_b.push_back(i);
  for (int i = 0; i < b.ndim(); i++)
    if (!used_b[i]) order_b.push_back(i), shape.push_back(b.shape()[i]), cols *= b.shape()[i];
  Tensor x = reshape(permute(a, order_a), {rows, inner}), y = reshape(permute(b, order_b), {inner, cols});
  return reshape(matmul(x, y), shape);
}

Tensor vecdot(const Tensor& a, const Tensor& b, int64_t axis) {
  Profiled scope("vecdot");
  int n = a.ndim() > b.ndim() ? a.ndim() : b.ndim();
  if (a.ndim() == 0 || b.ndim() == 0)
    fail<ShapeError>("vecdot", "a 0-d operand has no axis to sum over", "scale by a number with *", a, b);
  int at = normalize_axis(axis, n, "vecdot");
  auto last = [&](const Tensor& t) {  // the summed axis goes to the end
    Shape s = t.shape();
    while (s.size() < n) s.insert(0, 1);
    Dims order;
    for (int i = 0; i < n; i++)
      if (i != at) order.push_back(i);
    order.push_back(at);
    return permute(s.size() == t.ndim() ? t : reshape(t, s), order);
  };
  Tensor x = last(a), y = last(b);
  if (x.shape().back() != y.shape().back())
    fail<ShapeError>("vecdot", "the summed axes have different sizes", "only the other axes broadcast", a, b);
  Tensor r = matmul(expand_dims(x, -2), expand_dims(y, -1));
  Shape shape = r.shape();
  shape.resize(shape.size() - 2);
  return reshape(r, shape);
}

Tensor outer(const Tensor& a, const Tensor& b) {
  if (a.ndim() != 1 || b.ndim() != 1)
    fail<ShapeError>("outer", "both operands must be 1-d", "flatten them with reshape(x, -1)", a, b);
  return reshape(a, {a.size(), 1}) * b;
}

}  // namespace pb
