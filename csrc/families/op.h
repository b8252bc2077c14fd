// What the text of an op may say about itself, shared by kernels, host code and CUDA.
//
// An element-wise op is a struct deriving from Map<N>:
//   name, doc                      strings
//   args[] = {Arg{"alpha", 1.0}}   optional constants, handed to fwd and pull as `k[0]`, `k[1]`, ...
//   domain                         where tests and benches sample (default -3..3)
//   fwd<V>(x..., k)                the formula; returns V, or Mask<V> with the member `mask = true`: a bool result
//   pull<V>(g, x, k)               N = 1: cotangent of x from that of the output; omitted: derived by Dual numbers
//   pull_y<V>(g, y, k)             N = 1: the same from the output, which is then what backward keeps; beside pull,
//                                  from_output(k) says for which constants, and only_asked that saved="output" is
//                                  needed
//   pull<I, V>(g, x..., k)         N > 1: cotangent of input I, with `uses[I]` = bit mask of the inputs it reads
// What else backward may keep (families/map_keep.cpp):
//   code<V>(x..., k), code_bits    a few bits that decide the derivative, code_value(c, k) an input with that code, for
//                                  input `coded` (0); the pull reads the others only by comparing: they become 0
//   inverse                        the op that gives x from the output and, with code_bits = 1, the code of its side
//   rebuilds                       consumers that are matrix products make the output anew from the inputs
//   by_sign                        pull_y reads the sign of y only
//   exact_params                   pull_y compares with the constants: they must be numbers of the output's dtype
// and flags: integers (has exact integer kernels), no_floats, zero_derivative (gradient 0), no_derivative
// (GraphError when an input requires grad), random (a uniform in (0, 1) per element follows the inputs).
#pragma once
#include <cstdint>
#include <string_view>

#include "value/value.h"

namespace pb {

struct Arg {
  std::string_view name;
  double value;
};
struct Domain {
  double lo = -3, hi = 3;
};
inline constexpr int kMaxArgs = 8;  // 64 bytes of constants per op
inline constexpr int kMaxInputs = 3;

// The constants of one call in the scalar type of V.
template <class V>
struct ParamOf {
  ScalarOf<V> v[kMaxArgs];
  PB_FN V operator[](int i) const { return V(v[i]); }
};

template <int N>
struct Map {
  static constexpr int inputs = N;
  static constexpr Domain domain{};
  static constexpr bool integers = false, no_floats = false, zero_derivative = false, no_derivative = false,
                        random = false;
};

template <class Op>
constexpr int arg_count() {
  if constexpr (requires { Op::args; })
    return int(sizeof(Op::args) / sizeof(Arg));
  else
    return 0;
}
template <class Op>
constexpr int kInputs = Op::inputs + (Op::random ? 1 : 0);

// Calls Op::fwd with or without the constants.
template <class Op, class V, class... X>
PB_FN auto call_fwd(const ParamOf<V>& k, X... x) {
  if constexpr (requires { Op::template fwd<V>(x..., k); })
    return Op::template fwd<V>(x..., k);
  else
    return Op::template fwd<V>(x...);
}

template <class Op>
constexpr bool kPullY = requires(double g, double y, ParamOf<double> k) { Op::template pull_y<double>(g, y, k); } ||
                        requires(double g, double y) { Op::template pull_y<double>(g, y); };
// Both pulls are there, and the constants of a call decide.
template <class Op>
constexpr bool kEither = kPullY<Op> && requires(const double* k) { Op::from_output(k); };
template <class Op>
constexpr bool kFromOutput = kPullY<Op> && !kEither<Op>;

template <class Op, class V>
PB_FN V call_pull_y(const ParamOf<V>& k, V g, V y) {
  if constexpr (requires { Op::template pull_y<V>(g, y, k); })
    return Op::template pull_y<V>(g, y, k);
  else
    return Op::template pull_y<V>(g, y);
}

template <class Op>
constexpr int code_bits() {
  if constexpr (requires { Op::code_bits; })
    return Op::code_bits;
  else
    return 0;
}
// As for call_fwd the result's type is deduced: with V written out nvcc 13.0 finds the requirement unsatisfied.
template <class Op, class V, class... X>
PB_FN auto call_code(const ParamOf<V>& k, X... x) {
  if constexpr (requires { Op::template code<V>(x..., k); })
    return Op::template code<V>(x..., k);
  else
    return Op::template code<V>(x...);
}

// Bit j: the pull of input I reads input j. Bit 7: it reads the output.
template <class Op, int I>
constexpr unsigned uses() {
  if constexpr (kFromOutput<Op>)
    return 128u;
  else if constexpr (requires { Op::uses; })
    return Op::uses[I];
  else
    return (1u << kInputs<Op>)-1u;
}
// +1 or -1: the pull of input I hands the cotangent on, with that sign; no kernel runs for +1.
template <class Op, int I>
constexpr int passes() {
  if constexpr (requires { Op::passes; })
    return Op::passes[I];
  else
    return 0;
}

template <class Op, int I, class V, class... X>
PB_FN V derived_pull(V g, const ParamOf<V>& k, X... x) {
  using D = Dual<V>;
  ParamOf<D> kd;
  for (int i = 0; i < kMaxArgs; i++) kd.v[i] = k.v[i];
  int at = 0;
  auto lift = [&](V v) { return at++ == I ? D{v, V(1)} : D{v, V(0)}; };
  D in[] = {lift(x)...};
  if constexpr (sizeof...(X) == 1)
    return g * call_fwd<Op, D>(kd, in[0]).d;
  else if constexpr (sizeof...(X) == 2)
    return g * call_fwd<Op, D>(kd, in[0], in[1]).d;
  else
    return g * call_fwd<Op, D>(kd, in[0], in[1], in[2]).d;
}

// The cotangent of input I. `y` is read only by pull_y.
template <class Op, int I, class V, class... X>
PB_FN V call_pull(const ParamOf<V>& k, V g, V y, X... x) {
  if constexpr (kFromOutput<Op>) {
    return call_pull_y<Op, V>(k, g, y);
  } else if constexpr (requires { Op::template pull<V>(g, x..., k); }) {
    return Op::template pull<V>(g, x..., k);
  } else if constexpr (requires { Op::template pull<V>(g, x...); }) {
    return Op::template pull<V>(g, x...);
  } else if constexpr (requires { Op::template pull<I, V>(g, x..., k); }) {
    return Op::template pull<I, V>(g, x..., k);
  } else if constexpr (requires { Op::template pull<I, V>(g, x...); }) {
    return Op::template pull<I, V>(g, x...);
  } else {
    return derived_pull<Op, I, V>(g, k, x...);
  }
}

template <class Op>
constexpr bool kMask = requires { Op::mask; };  // the result is a truth value

template <class Op>
constexpr bool kDifferentiable = !Op::no_derivative && !Op::zero_derivative && !Op::no_floats && !kMask<Op>;

// Ops of one file are numbered by PB_OP in the order of the text. The unit that includes the file defines PB_UNIT to a
// tag of its own, so that two units never share a specialisation.
template <class Unit, int I>
struct OpAt;

}  // namespace pb

#ifndef PB_UNIT
#define PB_OP(Op)
#else
#define PB_OP(Op)                                \
  template <>                                    \
  struct OpAt<PB_UNIT, __COUNTER__ - kFirstOp> { \
    using type = Op;                             \
  };
#endif
