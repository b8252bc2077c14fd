// Reductions: (init, step, merge, finish) over the scalars of a slice, and the cotangent of x over V.
#pragma once
#include "families/reduce_op.h"

namespace pb {

struct Sum : Reduce {
  static constexpr std::string_view name = "sum", doc = "Sum over axes; integers and bools give 64-bit integers.";
  static constexpr bool integers = true, reads_x = false;
  template <class S>
  PB_FN static S init() {
    return S(0);
  }
  template <class S>
  PB_FN static S step(S a, S x) {
    return a + x;
  }
  template <class S>
  PB_FN static S merge(S a, S b) {
    return a + b;
  }
  template <class S>
  PB_FN static S finish(S a, S) {
    return a;
  }
  template <Value V>
  static V pull(V g, V, V, V) {
    return g;
  }
};
PB_OP(Sum)

struct Mean : Reduce {
  static constexpr std::string_view name = "mean", doc = "Arithmetic mean over axes.";
  static constexpr bool reads_x = false;
  template <class S>
  PB_FN static S init() {
    return S(0);
  }
  template <class S>
  PB_FN static S step(S a, S x) {
    return a + x;
  }
  template <class S>
  PB_FN static S merge(S a, S b) {
    return a + b;
  }
  template <class S>
  PB_FN static S finish(S a, S n) {
    return a / n;
  }
  template <Value V>
  static V pull(V g, V, V, V n) {
    return g / n;
  }
};
PB_OP(Mean)

struct Prod : Reduce {
  static constexpr std::string_view name = "_prod", doc = "Product over axes.";
  static constexpr bool integers = true, no_pull = true;
  template <class S>
  PB_FN static S init() {
    return S(1);
  }
  template <class S>
  PB_FN static S step(S a, S x) {
    return a * x;
  }
  template <class S>
  PB_FN static S merge(S a, S b) {
    return a * b;
  }
  template <class S>
  PB_FN static S finish(S a, S) {
    return a;
  }
};
PB_OP(Prod)

// Ties share the cotangent equally.
struct Max : Reduce {
  static constexpr std::string_view name = "max", doc = "Largest element over axes; NaN propagates; ties share.";
  static constexpr bool integers = true, keeps_dtype = true, needs_elements = true;
  template <class S>
  PB_FN static S init() {
    if constexpr (std::is_integral_v<S>)
      return std::numeric_limits<S>::lowest();
    else
      return -std::numeric_limits<S>::infinity();
  }
  template <class S>
  PB_FN static S step(S a, S x) {
    return (x > a) | (x != x) ? x : a;
  }
  template <class S>
  PB_FN static S merge(S a, S b) {
    return (b > a) | (b != b) ? b : a;
  }
  template <class S>
  PB_FN static S finish(S a, S) {
    return a;
  }
  template <Value V>
  static V pull(V g, V x, V y, V) {
    return shared(g, where(x == y, V(1), V(0)));
  }
};
PB_OP(Max)

struct Min : Reduce {
  static constexpr std::string_view name = "min", doc = "Smallest element over axes; NaN propagates; ties share.";
  static constexpr bool integers = true, keeps_dtype = true, needs_elements = true;
  template <class S>
  PB_FN static S init() {
    if constexpr (std::is_integral_v<S>)
      return std::numeric_limits<S>::max();
    else
      return std::numeric_limits<S>::infinity();
  }
  template <class S>
  PB_FN static S step(S a, S x) {
    return (x < a) | (x != x) ? x : a;
  }
  template <class S>
  PB_FN static S merge(S a, S b) {
    return (b < a) | (b != b) ? b : a;
  }
  template <class S>
  PB_FN static S finish(S a, S) {
    return a;
  }
  template <Value V>
  static V pull(V g, V x, V y, V) {
    return shared(g, where(x == y, V(1), V(0)));
  }
};
PB_OP(Min)

struct Any : Reduce {
  static constexpr std::string_view name = "any", doc = "At least one element is non-zero.";
  static constexpr bool integers = true, mask = true, no_pull = true;
  template <class S>
  PB_FN static S init() {
    return S(0);
  }
  template <class S>
  PB_FN static S step(S a, S x) {
    return x != S(0) ? S(1) : a;
  }
  template <class S>
  PB_FN static S merge(S a, S b) {
    return b != S(0) ? S(1) : a;
  }
  template <class S>
  PB_FN static S finish(S a, S) {
    return a;
  }
};
PB_OP(Any)

struct All : Reduce {
  static constexpr std::string_view name = "all", doc = "Every element is non-zero.";
  static constexpr bool integers = true, mask = true, no_pull = true;
  template <class S>
  PB_FN static S init() {
    return S(1);
  }
  template <class S>
  PB_FN static S step(S a, S x) {
    return x != S(0) ? a : S(0);
  }
  template <class S>
  PB_FN static S merge(S a, S b) {
    return b != S(0) ? a : S(0);
  }
  template <class S>
  PB_FN static S finish(S a, S) {
    return a;
  }
};
PB_OP(All)

}  // namespace pb
