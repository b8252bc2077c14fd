// The grid driver of element-wise ops. A thread takes eight neighbours: loads by type and layout, one formula in float,
// a store. Layout and types are uniform over the grid, so they are branches and not further kernels.
#pragma once
#include "cuda/device.h"
#include "families/op.h"
#include "value/dual.h"

namespace pb::cuda {

// Where element i of the call lies in an operand.
PB_DEVICE int64_t place(const MapArgs& a, const Operand& x, int64_t i) {
  if (a.contiguous) return i;
  int64_t at = 0;
#pragma unroll 1
  for (int d = a.ndim; d-- > 0;) {
    int64_t q = i / a.shape[d];
    at += (i - q * a.shape[d]) * x.strides[d];
    i = q;
  }
  return at;
}

// The uniform numbers of elements i .. i + 7: two blocks of the stream that the CPU draws.
PB_DEVICE void vector_draw(const MapArgs& a, int64_t i, float (&v)[kVec]) {
#pragma unroll
  for (int half = 0; half < kVec / 4; half++) {
    uint64_t block = uint64_t(i) / 4 + uint64_t(half);
    uint32_t c[4] = {uint32_t(block), uint32_t(block >> 32), uint32_t(a.offset), uint32_t(a.offset >> 32)};
    philox_block(c, uint32_t(a.seed), uint32_t(a.seed >> 32));
#pragma unroll
    for (int j = 0; j < 4; j++) v[4 * half + j] = uniform01(c[j]);
  }
}
PB_DEVICE float draw_one(const MapArgs& a, int64_t i) {
  uint64_t block = uint64_t(i) / 4;
  uint32_t c[4] = {uint32_t(block), uint32_t(block >> 32), uint32_t(a.offset), uint32_t(a.offset >> 32)};
  philox_block(c, uint32_t(a.seed), uint32_t(a.seed >> 32));
  return uniform01(i % 4 == 0 ? c[0] : i % 4 == 1 ? c[1] : i % 4 == 2 ? c[2] : c[3]);
}

template <class Op>
PB_DEVICE ParamOf<float> params_of(const MapArgs& a) {
  ParamOf<float> k{};
#pragma unroll
  for (int i = 0; i < kMaxArgs; i++) k.v[i] = i < arg_count<Op>() ? a.params[i] : 0.0f;
  return k;
}

// Calls one(i) for every element, or where memory is contiguous eight(i) for whole groups, spread over the grid.
template <class Eight, class One>
PB_DEVICE void each(const MapArgs& a, Eight eight, One one) {
  int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x, threads = int64_t(gridDim.x) * kThreads;
  int64_t whole = a.contiguous ? a.n / kVec : 0;
#pragma unroll 1
  for (int64_t i = thread; i < whole; i += threads) eight(i * kVec);
#pragma unroll 1
  for (int64_t i = whole * kVec + thread; i < a.n; i += threads) one(i);
}

// Input J of an op: memory, or for the last one of a random op its uniform number.
template <class Op, int J, int Shift>
PB_DEVICE void input8(const MapArgs& a, int64_t i, float (&v)[kVec]) {
  if constexpr (J < Op::inputs)
    vector_load(a.in[J + Shift].data, a.in[J + Shift].type, i, v);
  else
    vector_draw(a, i, v);
}
template <class Op, int J, int Shift>
PB_DEVICE float input1(const MapArgs& a, int64_t i) {
  if constexpr (J < Op::inputs)
    return load_one(a.in[J + Shift].data, a.in[J + Shift].type, place(a, a.in[J + Shift], i));
  else
    return draw_one(a, i);
}

template <class Op, size_t... J>
PB_DEVICE void forward(const MapArgs& a, std::index_sequence<J...>) {
  const ParamOf<float> k = params_of<Op>(a);
  each(
      a,
      [&](int64_t i) {
        float x[sizeof...(J) + 1][kVec], y[kVec];
        (input8<Op, int(J), 0>(a, i, x[J]), ...);
#pragma unroll
        for (int e = 0; e < kVec; e++) y[e] = float(call_fwd<Op, float>(k, x[J][e]...));
        vector_store(a.out.data, a.out.type, i, y);
      },
      [&](int64_t i) {
        float y = float(call_fwd<Op, float>(k, input1<Op, int(J), 0>(a, i)...));
        store_one(a.out.data, a.out.type, place(a, a.out, i), y);
      });
}
template <class Op>
__global__ void __launch_bounds__(kThreads) map_fwd(const __grid_constant__ MapArgs a) {
  forward<Op>(a, std::make_index_sequence<size_t(kInputs<Op>)>{});
}

// Operands: g, the op's inputs, its output. What the pull does not read is not loaded.
template <class Op, int I, size_t... J>
PB_DEVICE void backward(const MapArgs& a, std::index_sequence<J...>) {
  constexpr unsigned used = uses<Op, I>();
  constexpr int output = 1 + Op::inputs;
  const ParamOf<float> k = params_of<Op>(a);
  each(
      a,
      [&](int64_t i) {
        float g[kVec], x[sizeof...(J) + 1][kVec] = {}, y[kVec] = {};
        vector_load(a.in[0].data, a.in[0].type, i, g);
        (
            [&] {
              if constexpr (used >> J & 1) input8<Op, int(J), 1>(a, i, x[J]);
            }(),
            ...);
        if constexpr (used >> 7 & 1) vector_load(a.in[output].data, a.in[output].type, i, y);
#pragma unroll
        for (int e = 0; e < kVec; e++) g[e] = call_pull<Op, I, float>(k, g[e], y[e], x[J][e]...);
        vector_store(a.out.data, a.out.type, i, g);
      },
      [&](int64_t i) {
        float g = load_one(a.in[0].data, a.in[0].type, place(a, a.in[0], i)), x[sizeof...(J) + 1] = {}, y = 0.0f;
        (
            [&] {
              if constexpr (used >> J & 1) x[J] = input1<Op, int(J), 1>(a, i);
            }(),
            ...);
        if constexpr (used >> 7 & 1) y = load_one(a.in[output].data, a.in[output].type, place(a, a.in[output], i));
        g = call_pull<Op, I, float>(k, g, y, x[J]...);
        store_one(a.out.data, a.out.type, place(a, a.out, i), g);
      });
}
template <class Op, int I>
__global__ void __launch_bounds__(kThreads) map_pull(const __grid_constant__ MapArgs a) {
  backward<Op, I>(a, std::make_index_sequence<size_t(kInputs<Op>)>{});
}

template <class Op, int I>
Kernel pull_of() {
  if constexpr (I >= Op::inputs || !kDifferentiable<Op>)
    return nullptr;
  else if constexpr (passes<Op, I>() == 1)
    return nullptr;  // the cotangent is handed on
  else
    return reinterpret_cast<Kernel>(&map_pull<Op, I>);
}
template <class Op>
MapEntry entry_of() {
  if constexpr (Op::no_floats)
    return {};
  else
    return {reinterpret_cast<Kernel>(&map_fwd<Op>), {pull_of<Op, 0>(), pull_of<Op, 1>(), pull_of<Op, 2>()}};
}
template <class Unit, size_t... I>
const MapEntry* entries_of(std::index_sequence<I...>) {
  static const MapEntry rows[] = {entry_of<typename OpAt<Unit, int(I)>::type>()...};
  return rows;
}

}  // namespace pb::cuda
