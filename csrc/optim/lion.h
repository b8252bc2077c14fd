// Lion and its family: p - lr grad_kappa(c), where c mixes the old mean with the gradient by beta1, and the mean moves
// by beta2. Reads p g m, writes p m: 20 bytes per float32 parameter; the two forms with a norm read g and m twice.
#pragma once
#include "optim/rule.h"

namespace pb::optim {

struct LionBase {
  static constexpr std::string_view doc = "p - lr grad kappa(beta1 m + (1 - beta1) g).";
  static constexpr HyperInfo hyper[] = {learning_rate(1e-4),
                                        {"beta1", 0.9, Range::Unit},
                                        {"beta2", 0.99, Range::Unit},
                                        {"kappa_param", 1.0, Range::NonNegative}};
  static constexpr std::string_view slots[] = {"exp_avg"};
  template <class S>
  struct Hyper {
    S lr, beta1, beta2, param;
  };
  template <class S>
  struct Step {
    S lr, w1, w2, param, scale;
  };
  template <class S>
  static Step<S> prepare(const Hyper<S>& h, int64_t) {
    return {h.lr, S(1.0) - h.beta1, S(1.0) - h.beta2, h.param, S(1.0)};
  }
};

template <class Kappa>
struct LionOf : LionBase {
  template <Value V>
  PB_FN static V rule(V p, V g, Slots<V, 1>& m, const Step<V>& k) {
    V c = toward(m[0], g, k.w1);
    m[0] = toward(m[0], g, k.w2);
    return p - k.lr * Kappa::template slope<V>(c, k);
  }
};

struct Lion : LionOf<Lion> {
  static constexpr std::string_view name = "lion";
  template <Value V>
  PB_FN static V slope(V c, const Step<V>&) {
    return sign(c);
  }
};
PB_OPTIMIZER(Lion)

struct LionHuber : LionOf<LionHuber> {
  static constexpr std::string_view name = "lion_huber";
  template <Value V>
  PB_FN static V slope(V c, const Step<V>& k) {
    return where(abs(c) < k.param, c / where(k.param > V(0), k.param, V(1)), sign(c));
  }
};
PB_OPTIMIZER(LionHuber)

struct LionHinge : LionOf<LionHinge> {
  static constexpr std::string_view name = "lion_hinge";
  template <Value V>
  PB_FN static V slope(V c, const Step<V>& k) {
    return where(abs(c) > k.param, sign(c), V(0));
  }
};
PB_OPTIMIZER(LionHinge)

struct LionQuad : LionOf<LionQuad> {
  static constexpr std::string_view name = "lion_quad";
  template <Value V>
  PB_FN static V slope(V c, const Step<V>&) {
    return c;
  }
};
PB_OPTIMIZER(LionQuad)

struct LionL2 : LionOf<LionL2> {
  static constexpr std::string_view name = "lion_l2";
  static constexpr int sums = 1;
  static constexpr Scope scope = Scope::Tensor;
  template <Value V>
  PB_FN static Slots<V, 1> measure(V, V g, const Slots<V, 1>& m, const Step<V>& k) {
    V c = toward(m[0], g, k.w1);
    return {{c * c}};
  }
  template <class S>
  static void finish(const Hyper<S>&, int64_t, Slots<S, 0>&, const Slots<S, 1>& sums, Step<S>& k) {
    auto some = sums[0] > S(0.0);
    k.scale = where(some, S(1.0) / sqrt(where(some, sums[0], S(1.0))), S(0.0));
  }
  template <Value V>
  PB_FN static V slope(V c, const Step<V>& k) {
    return k.scale * c;
  }
};
PB_OPTIMIZER(LionL2)

// The gradient of |c|_p: sign(c) |c|^(p-1) / |c|_p^(p-1).
struct LionLp : LionOf<LionLp> {
  static constexpr std::string_view name = "lion_lp";
  static constexpr int sums = 1;
  static constexpr Scope scope = Scope::Tensor;
  template <Value V>
  PB_FN static V raised(V x, V exponent) {
    auto some = x > V(0);
    return where(some, exp(exponent * log(where(some, x, V(1)))), V(0));
  }
  template <Value V>
  PB_FN static Slots<V, 1> measure(V, V g, const Slots<V, 1>& m, const Step<V>& k) {
    return {{raised(abs(toward(m[0], g, k.w1)), k.param)}};
  }
  template <class S>
  static void finish(const Hyper<S>& h, int64_t, Slots<S, 0>&, const Slots<S, 1>& sums, Step<S>& k) {
    auto some = sums[0] > S(0.0);
    S norm = exp(log(where(some, sums[0], S(1.0))) / h.param);
    k.scale = where(some, S(1.0) / norm, S(0.0));
  }
  template <Value V>
  PB_FN static V slope(V c, const Step<V>& k) {
    return sign(c) * raised(abs(c) * k.scale, k.param - V(1));
  }
};
PB_OPTIMIZER(LionLp)

}  // namespace pb::optim
