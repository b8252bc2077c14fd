// The element-wise loops of one ISA level. The compiler vectorises them: V is float or double.
#pragma once
#include "cpu/map_table.h"
#include "families/op.h"
#include "value/dual.h"
#include "value/value.h"

namespace pb {

template <class S>
PB_FN ParamOf<S> narrow(const double* params, int n) {
  ParamOf<S> k{};
  for (int i = 0; i < n; i++) k.v[i] = S(params[i]);
  return k;
}

template <class Op, class S>
using OutOf = std::conditional_t<kMask<Op>, bool, S>;

// One loop: Scalars tells which inputs are a single value held in a register.
template <class Op, class S, unsigned Scalars, size_t... J>
void fwd_loop(void* out, const void* const* in, const ParamOf<S>& k, int64_t n, std::index_sequence<J...>) {
  auto* o = static_cast<OutOf<Op, S>*>(out);
  const S* x[sizeof...(J) + 1] = {static_cast<const S*>(in[J])...};
  const S once[sizeof...(J) + 1] = {((Scalars >> J & 1) ? *static_cast<const S*>(in[J]) : S(0))...};
  (void)x;
  (void)once;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) o[i] = call_fwd<Op, S>(k, ((Scalars >> J & 1) ? once[J] : x[J][i])...);
}

template <class Op, class S>
void fwd_kernel(void* out, const void* const* in, const double* params, int64_t n, unsigned scalars) {
  const ParamOf<S> k = narrow<S>(params, arg_count<Op>());
  constexpr std::make_index_sequence<kInputs<Op>> js;
  if constexpr (kInputs<Op> == 2) {
    if (scalars == 1) return fwd_loop<Op, S, 1>(out, in, k, n, js);
    if (scalars == 2) return fwd_loop<Op, S, 2>(out, in, k, n, js);
  }
  fwd_loop<Op, S, 0>(out, in, k, n, js);
}

template <unsigned Bit, unsigned Uses, class S>
PB_FN S read(const S* p, int64_t i) {
  if constexpr (Uses >> Bit & 1)
    return p[i];
  else
    return S(0);
}

template <class Op, int I, class S, size_t... J>
void pull_loop(void* out, const void* const* in, const ParamOf<S>& k, int64_t n, std::index_sequence<J...>) {
  constexpr unsigned used = uses<Op, I>();
  auto* o = static_cast<S*>(out);
  const S* g = static_cast<const S*>(in[0]);
  const S* x[] = {static_cast<const S*>(in[1 + J])...};
  const S* y = static_cast<const S*>(in[1 + sizeof...(J)]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) o[i] = call_pull<Op, I, S>(k, g[i], read<7, used>(y, i), read<J, used>(x[J], i)...);
}

template <class Op, int I, class S>
void pull_kernel(void* out, const void* const* in, const double* params, int64_t n, unsigned) {
  pull_loop<Op, I, S>(out, in, narrow<S>(params, arg_count<Op>()), n, std::make_index_sequence<kInputs<Op>>{});
}

template <class Op, class S>
void pull_y_kernel(void* out, const void* const* in, const double* params, int64_t n, unsigned) {
  const ParamOf<S> k = narrow<S>(params, arg_count<Op>());
  auto* o = static_cast<S*>(out);
  const S *g = static_cast<const S*>(in[0]), *y = static_cast<const S*>(in[1]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) o[i] = call_pull_y<Op, S>(k, g[i], y[i]);
}

template <class Op, class S, size_t... J>
void code_loop(void* out, const void* const* in, const ParamOf<S>& k, int64_t n, std::index_sequence<J...>) {
  auto* o = static_cast<S*>(out);
  const S* x[] = {static_cast<const S*>(in[J])...};
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) o[i] = call_code<Op, S>(k, x[J][i]...);
}
template <class Op, class S>
void code_kernel(void* out, const void* const* in, const double* params, int64_t n, unsigned) {
  code_loop<Op, S>(out, in, narrow<S>(params, arg_count<Op>()), n, std::make_index_sequence<size_t(Op::inputs)>{});
}

template <class Op, class S>
constexpr MapKernels::Fn pull_y_of() {
  if constexpr (kEither<Op>)
    return &pull_y_kernel<Op, S>;
  else
    return nullptr;
}
template <class Op, class S>
constexpr MapKernels::Fn code_of() {
  if constexpr (code_bits<Op>() > 0)
    return &code_kernel<Op, S>;
  else
    return nullptr;
}

template <class Op, class S>
constexpr MapKernels::Fn fwd_of() {
  if constexpr (std::is_floating_point_v<S> ? Op::no_floats : !Op::integers)
    return nullptr;
  else
    return &fwd_kernel<Op, S>;
}
template <class Op, int I, class S>
constexpr MapKernels::Fn pull_of() {
  if constexpr (I >= Op::inputs || !kDifferentiable<Op>)
    return nullptr;
  else
    return &pull_kernel<Op, I, S>;
}

template <class Op>
constexpr MapKernels map_kernels() {
  return {{fwd_of<Op, float>(), fwd_of<Op, double>(), fwd_of<Op, int64_t>(), fwd_of<Op, uint64_t>()},
          {{pull_of<Op, 0, float>(), pull_of<Op, 0, double>()},
           {pull_of<Op, 1, float>(), pull_of<Op, 1, double>()},
           {pull_of<Op, 2, float>(), pull_of<Op, 2, double>()}},
          {pull_y_of<Op, float>(), pull_y_of<Op, double>()},
          {code_of<Op, float>(), code_of<Op, double>()}};
}

template <int N>
struct MapTable {
  MapKernels row[N];
};
template <class Unit, size_t... I>
constexpr MapTable<int(sizeof...(I))> map_table(std::index_sequence<I...>) {
  return {{map_kernels<typename OpAt<Unit, int(I)>::type>()...}};
}

}  // namespace pb
