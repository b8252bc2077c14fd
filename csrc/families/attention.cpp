#include "families/attention.h"

#include <cmath>

#include "families/linear.h"
#include "families/reduce.h"
#include "families/row.h"
#include "families/view.h"

namespace pb {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  const char* op = "scaled_dot_product_attention";
  if (q.ndim() < 2 || k.ndim() < 2 || v.ndim() < 2)
    fail<ShapeError>(op, "q, k and v must have shape (..., length, width)", "add the missing axes", q, k, v);
  for (const Tensor* t : {&q, &k, &v})
    if (!is_float(t->dtype())) fail<DTypeError>(op, "q, k and v must be floating", "cast them with .astype", q, k, v);
  if (q.shape().back() != k.shape().back())
    fail<ShapeError>(op, "q and k have different widths", "the last axes of q and k must agree", q, k);
  if (k.shape()[k.ndim() - 2] != v.shape()[v.ndim() - 2])
    fail<ShapeError>(op, "k and v have different lengths", "there is one value per key", k, v);
  if (bool(mask) && mask.dtype() != DType::Bool && !is_float(mask.dtype()))
    fail<DTypeError>(op, "the mask must be bool or floating", "True means attend; a float mask is added", mask);
}

// Query i sees key j where j <= i.
Tensor causal_mask(int64_t queries, int64_t keys) {
  return expand_dims(arange(queries), 1) >= expand_dims(arange(keys), 0);
}

// Softmax over the keys; a row without any finite score is 0.
Tensor weights_of(const Tensor& scores, bool masked) {
  if (!masked) return softmax(scores);
  Tensor dead;
  {
    GradMode off(false);
    dead = max_over(detach(scores), {-1}, true) == Tensor(kNever);
  }
  return where(dead, Tensor(0.0), softmax(where(dead, Tensor(0.0), scores)));
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, const AttentionOptions& o) {
  check(q, k, v, mask);
  int64_t queries = q.shape()[q.ndim() - 2], keys = k.shape()[k.ndim() - 2], width = q.shape().back();
  if (!(o.dropout >= 0 && o.dropout < 1))
    fail<ValueError>("scaled_dot_product_attention", "dropout must be in [0, 1), got " + std::to_string(o.dropout),
                     "0 means no dropout");
  double scale = o.has_scale ? o.scale : width ? 1 / std::sqrt(double(width)) : 1;
  Tensor scores = matmul(q * Tensor(scale), swap_axes(k, -1, -2));
  if (keys == 0) return matmul(scores, v);  // nothing to attend to: zeros
  if (o.causal) scores = where(causal_mask(queries, keys), scores, Tensor(kNever));
  if (bool(mask) && mask.dtype() == DType::Bool) scores = where(mask, scores, Tensor(kNever));
  else if (mask) scores = scores + mask;
  Tensor p = weights_of(scores, bool(mask));
  if (o.dropout > 0) {
    const Tensor in[] = {p};
    const double params[] = {o.dropout};
    p = map_call(find_map("_dropout"), in, params, o.rng);
  }
  return matmul(p, v);
}

}  // namespace pb
