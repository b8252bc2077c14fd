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
