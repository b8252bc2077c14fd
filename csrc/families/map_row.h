// Builds the registry row of an element-wise op: the same struct, now with V = Tensor.
#pragma once
#include "families/map.h"
#include "value/dual.h"

namespace pb {

template <class Op, int I, size_t... J>
Tensor graph_pull_of(const Tensor& g, const Tensor* in, const Tensor& out, const double* params,
                     std::index_sequence<J...>) {
  ParamOf<Tensor> k{};
  for (int i = 0; i < arg_count<Op>(); i++) k.v[i] = params[i];
  return call_pull<Op, I, Tensor>(k, g, out, in[J]...);
}
template <class Op, int I>
Tensor graph_pull(const Tensor& g, const Tensor* in, const Tensor& out, const double* params) {
  return graph_pull_of<Op, I>(g, in, out, params, std::make_index_sequence<kInputs<Op>>{});
}

template <class Op>
Tensor graph_pull_y(const Tensor& g, const Tensor*, const Tensor& out, const double* params) {
  ParamOf<Tensor> k{};
  for (int i = 0; i < arg_count<Op>(); i++) k.v[i] = params[i];
  return call_pull_y<Op, Tensor>(k, g, out);
}

// What the struct says about backward beyond its pull (op.h).
template <class Op>
void keep_row_of(MapOp& r) {
  r.activation = r.unit == "activations" && Op::name[0] != '_';
  if constexpr (kPullY<Op>) r.pull_y = &graph_pull_y<Op>;
  if constexpr (kEither<Op>) r.from_output = &Op::from_output;
  if constexpr (requires { Op::internal; }) r.internal = Op::internal;
  if constexpr (requires { Op::only_asked; }) r.only_asked = Op::only_asked;
  if constexpr (requires { Op::exact_params; }) r.exact_params = Op::exact_params;
  if constexpr (requires { Op::by_sign; }) r.by_sign = Op::by_sign;
  if constexpr (requires { Op::rebuilds; }) r.rebuilds = Op::rebuilds;
  if constexpr (requires { Op::inverse; }) r.inverse = Op::inverse;
  if constexpr (requires { Op::coded; }) r.coded = Op::coded;
  r.code_bits = code_bits<Op>();
  if constexpr (requires { Op::code_value(0, nullptr); }) r.code_value = &Op::code_value;
  r.keeps_specially = r.activation || r.pull_y || r.code_bits || r.rebuilds || Op::random;
}

template <class Op>
MapOp map_row_of(const char* unit) {
  MapOp r;
  r.name = Op::name;
  r.doc = Op::doc;
  r.unit = unit;
  r.inputs = Op::inputs;
  r.nargs = arg_count<Op>();
  if constexpr (arg_count<Op>() > 0)
    for (int i = 0; i < r.nargs; i++) r.args[i] = Op::args[i];
  r.domain = Op::domain;
  r.mask = kMask<Op>;
  r.integers = Op::integers;
  r.no_floats = Op::no_floats;
  r.zero_derivative = Op::zero_derivative;
  r.no_derivative = Op::no_derivative;
  r.random = Op::random;
  r.differentiable = kDifferentiable<Op>;
  if constexpr (requires { Op::promotes; }) r.promotes = Op::promotes;
  keep_row_of<Op>(r);
  [&]<size_t... I>(std::index_sequence<I...>) {
    if constexpr (kDifferentiable<Op>)
      ((r.uses[I] = uses<Op, I>(), r.passes[I] = passes<Op, I>(), r.pull[I] = &graph_pull<Op, int(I)>), ...);
  }(std::make_index_sequence<size_t(Op::inputs)>{});
  return r;
}

template <class Unit, size_t... I>
std::vector<MapOp> map_rows(const char* unit, std::index_sequence<I...>) {
  return {map_row_of<typename OpAt<Unit, int(I)>::type>(unit)...};
}

}  // namespace pb
