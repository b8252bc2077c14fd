// Scaled dot-product attention.
#pragma once
#include "families/map.h"

namespace pb {

struct AttentionOptions {
  bool causal = false;  // query i sees keys 0..i
  double scale = 0;     // 0: 1 / sqrt(width)
  bool has_scale = false;
  double dropout = 0;
  Generator* rng = nullptr;
  int saved = 0;  // bits of q, k, v and the result that backward keeps, 4 or 8; 0 as pb.saving says
};
// q (..., L, D), k (..., S, D), v (..., S, E) to (..., L, E). A bool mask is True where a query attends, a float mask
// is added. A query that may attend to nothing gets 0.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, const AttentionOptions& o);

}  // namespace pb
