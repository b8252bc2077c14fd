// Softmax and the norms: passes over a row, and the same for the cotangent. `e.x` are the elements of the arrays,
// `e.c` of the shared vectors, `e.s` the numbers of the row.
#pragma once
#include "families/row_op.h"

namespace pb {

// Reads x three times from cache, writes y twice.
struct Softmax : Row {
  static constexpr std::string_view name = "softmax", doc = "exp(x - max) / sum(exp(x - max)).";
  static constexpr Fold folds[] = {Fold::Max, Fold::Sum};
  static constexpr int kept = 1;
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    if constexpr (P == 0)
      return e.x[0];
    else
      return exp(e.x[0] - e.s[0]);
  }
  template <int P, class V>
  PB_FN static V finish(V s, const At<V>&) {
    if constexpr (P == 0)
      return s;
    else
      return recip(s);
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return e.kept * e.s[1];
  }
};
PB_OP(Softmax)

// x = {g, y}. The Jacobian is symmetric, so this is the pushforward too.
struct SoftmaxPull : Row {
  static constexpr std::string_view name = "softmax_pull", doc = "y * (g - sum(g * y)).";
  static constexpr int inputs = 2;
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    return e.x[0] * e.x[1];
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return e.x[1] * (e.x[0] - e.s[0]);
  }
};
PB_OP(SoftmaxPull)

struct LogSoftmax : Row {
  static constexpr std::string_view name = "log_softmax", doc = "x - max - log(sum(exp(x - max))).";
  static constexpr Fold folds[] = {Fold::Max, Fold::Sum};
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    if constexpr (P == 0)
      return e.x[0];
    else
      return exp(e.x[0] - e.s[0]);
  }
  template <int P, class V>
  PB_FN static V finish(V s, const At<V>&) {
    if constexpr (P == 0)
      return s;
    else
      return log(s);
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return (e.x[0] - e.s[0]) - e.s[1];
  }
};
PB_OP(LogSoftmax)

// x = {g, y}.
struct LogSoftmaxPull : Row {
  static constexpr std::string_view name = "log_softmax_pull", doc = "g - exp(y) * sum(g).";
  static constexpr int inputs = 2;
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    return e.x[0];
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return e.x[0] - exp(e.x[1]) * e.s[0];
  }
};
PB_OP(LogSoftmaxPull)

// c = {weight, bias}, k = eps; mean and 1 / deviation of the row are kept.
struct LayerNorm : Row {
  static constexpr std::string_view name = "layer_norm", doc = "(x - mean) / sqrt(var + eps) * weight + bias.";
  static constexpr int columns = 2;
  static constexpr Fold folds[] = {Fold::Sum, Fold::Sum};
  static constexpr int stats[] = {0, 1};
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    if constexpr (P == 0)
      return e.x[0];
    else
      return square(e.x[0] - e.s[0]);
  }
  template <int P, class V>
  PB_FN static V finish(V s, const At<V>& e) {
    if constexpr (P == 0)
      return s / e.n;
    else
      return rsqrt(s / e.n + e.k);
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return (e.x[0] - e.s[0]) * e.s[1] * e.c[0] + e.c[1];
  }
};
PB_OP(LayerNorm)

// x = {g, x}, c = {weight}, s = {mean, 1 / deviation}; column sums: cotangents of weight and bias.
struct LayerNormPull : Row {
  static constexpr std::string_view name = "layer_norm_pull", doc = "Cotangents of x, weight and bias.";
  static constexpr int inputs = 2, columns = 1, given = 2, sums = 2;
  static constexpr Fold folds[] = {Fold::Sum, Fold::Sum};
  template <class V>
  PB_FN static V normal(const At<V>& e) {
    return (e.x[1] - e.s[0]) * e.s[1];
  }
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    V g = e.x[0] * e.c[0];
    if constexpr (P == 0)
      return g;
    else
      return g * normal(e);
  }
  template <int P, class V>
  PB_FN static V finish(V s, const At<V>& e) {
    return s / e.n;
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return e.s[1] * ((e.x[0] * e.c[0] - e.s[2]) - normal(e) * e.s[3]);
  }
  template <int I, class V>
  PB_FN static V column(const At<V>& e) {
    if constexpr (I == 0)
      return e.x[0] * normal(e);
    else
      return e.x[0];
  }
};
PB_OP(LayerNormPull)

// c = {weight}, k = eps; 1 / root mean square of the row is kept.
struct RmsNorm : Row {
  static constexpr std::string_view name = "rms_norm", doc = "x / sqrt(mean(x * x) + eps) * weight.";
  static constexpr int columns = 1;
  static constexpr int stats[] = {0};
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    return square(e.x[0]);
  }
  template <int P, class V>
  PB_FN static V finish(V s, const At<V>& e) {
    return rsqrt(s / e.n + e.k);
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return e.x[0] * e.s[0] * e.c[0];
  }
};
PB_OP(RmsNorm)

// x = {g, x}, c = {weight}, s = {1 / root mean square}; column sum: cotangent of weight.
struct RmsNormPull : Row {
  static constexpr std::string_view name = "rms_norm_pull", doc = "Cotangents of x and weight.";
  static constexpr int inputs = 2, columns = 1, given = 1, sums = 1;
  template <int P, class V>
  PB_FN static V pass(const At<V>& e) {
    return e.x[0] * e.c[0] * e.x[1];
  }
  template <int P, class V>
  PB_FN static V finish(V s, const At<V>& e) {
    return s / e.n * e.s[0] * e.s[0];
  }
  template <class V>
  PB_FN static V out(const At<V>& e) {
    return e.s[0] * (e.x[0] * e.c[0] - e.x[1] * e.s[1]);
  }
  template <int I, class V>
  PB_FN static V column(const At<V>& e) {
    return e.x[0] * e.x[1] * e.s[0];
  }
};
PB_OP(RmsNormPull)

}  // namespace pb
