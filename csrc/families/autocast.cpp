#include "families/autocast.h"

#include <unordered_map>

#include "families/map.h"
#include "tape/node.h"

namespace pb {

int autocasts_open = 0;

namespace {

constexpr CastTo own = CastTo::Own, lower = CastTo::Lower, float32 = CastTo::Float32, widest = CastTo::Widest;

// Names as in pb.ops(); a leading underscore is the step of a function that is written in Python. PyTorch's lists for
// the CPU keep the element-wise functions, softmax and the norms in the type of their input; those for CUDA do not.
constexpr AutocastRow kTable[] = {
    {"matmul", lower, lower},
    {"linear", lower, lower},
    {"_linear_act", lower, lower},
    {"vecdot", lower, lower},
    {"einsum", lower, lower},
    {"tensordot", lower, widest},
    {"conv1d", lower, lower},
    {"conv2d", lower, lower},
    {"conv_transpose2d", lower, lower},
    {"scaled_dot_product_attention", lower, lower},
    {"prelu", lower, lower},
    {"prod", float32, float32},
    {"_pad_by_index", float32, own},
    {"_cross_entropy", float32, float32},
    {"_nll", float32, float32},
    {"_linear_cross_entropy", float32, float32},  // no logits exist that could be rounded
    {"_squared_error", float32, float32},
    {"_absolute_error", float32, float32},
    {"_huber", float32, float32},
    {"_smooth_l1", float32, float32},
    {"_kl_div", float32, float32},
    {"_bce_with_logits", float32, float32},
    {"losses.bce_with_logits", float32, float32},
    {"losses.kl_div", float32, float32},
    {"losses.hinge", float32, float32},
    {"losses.cosine_embedding", float32, float32},
    {"concat", widest, widest},
    {"stack", widest, widest},
    {"scatter_add", own, widest},
    {"acos", own, float32},
    {"asin", own, float32},
    {"cosh", own, float32},
    {"exp", own, float32},
    {"expm1", own, float32},
    {"log", own, float32},
    {"log10", own, float32},
    {"log1p", own, float32},
    {"log2", own, float32},
    {"pow", own, float32},
    {"square", own, float32},
    {"reciprocal", own, float32},
    {"rsqrt", own, float32},
    {"sinh", own, float32},
    {"softplus", own, float32},
    {"tan", own, float32},
    {"layer_norm", own, float32},
    {"rms_norm", own, float32},
    {"group_norm", own, float32},
    {"norm", own, float32},
    {"softmax", own, float32},
    {"log_softmax", own, float32},
    {"logsumexp", own, float32},
    {"cumulative_sum", own, float32},
    {"sum", own, float32},
};

// A cast of a leaf, good while the leaf is what it was.
struct Kept {
  Tensor leaf, cast;
  Storage* memory;
  uint32_t version;
  bool recorded;
};

struct Here {
  Autocast state;
  int depth = 0;
  std::unordered_map<TensorImpl*, Kept> kept;
};
thread_local Here here;

bool good(const Kept& k, const Tensor& t, DType to) {
  if (k.cast.dtype() != to || k.memory != t->storage || k.version != t->storage->version) return false;
  // A backward frees the node of the cast with the rest of its graph.
  return k.recorded == mode().grad && (!k.recorded || (k.cast->node && !k.cast->node->released));
}

Tensor lowered(const Tensor& t, DType to) {
  const bool leaf = t.dtype() == DType::F32 && t->wants_grad && !t->node && !(t->meta && t->meta->base);
  if (!leaf || has_tangent(t)) return cast(t, to);
  Kept& k = here.kept[t.impl()];
  if (!k.cast || !good(k, t, to)) k = {t, cast(t, to), t->storage, t->storage->version, mode().grad};
  return k.cast;
}

}  // namespace

const std::vector<AutocastRow>& autocast_table() {
  static const auto* table = new std::vector<AutocastRow>(std::begin(kTable), std::end(kTable));
  return *table;
}

CastTo cast_policy(std::string_view op, bool cuda) {
  static const auto* rows = [] {
    auto* m = new std::unordered_map<std::string_view, const AutocastRow*>;
    for (const AutocastRow& r : kTable) m->emplace(r.op, &r);
    return m;
  }();
  auto it = rows->find(op);
  return it == rows->end() ? own : cuda ? it->second->cuda : it->second->cpu;
}

Autocast autocast_state() { return here.state; }

Autocast enter_autocast(Autocast state) {
  autocasts_open++;
  here.depth++;
  return std::exchange(here.state, state);
}

void leave_autocast(Autocast before) {
  autocasts_open--;
  here.state = before;
  if (!--here.depth) here.kept.clear();
}

Tensor autocast(std::string_view op, const Tensor& t) {
  if (!t || t.weak() || !is_float(t.dtype()) || t.dtype() == DType::F64) return t;
  switch (cast_policy(op, false)) {
    case CastTo::Lower:
      return t.dtype() == here.state.lower ? t : lowered(t, here.state.lower);
    case CastTo::Float32:
      return cast(t, DType::F32);
    default:
      return t;
  }
}

}  // namespace pb
