// The grid driver of element-wise ops. In the float kernels a thread takes eight neighbours: loads by type and layout,
// one formula in float, a store; the kernels of double and the integers take one. Layout and types are uniform over the
// grid, so they are branches and not further kernels.
#pragma once
#include "cuda/device.h"
#include "families/op.h"
#include "value/dual.h"

namespace pb::cuda {

// ---- where elements lie

// The offsets of element i of the iteration space in the output (last) and in each input that is an array.
template <int N>
struct Places {
  int64_t at[N + 1];
};
template <int N, class Index>
PB_DEVICE void walk(const MapArgs& a, Index i, Places<N>& p) {
#pragma unroll 1
  for (int d = a.ndim; d-- > 0;) {
    Index size = Index(a.shape[d]), q = i / size;
    int64_t r = int64_t(i - q * size);
#pragma unroll
    for (int j = 0; j < N; j++) p.at[j] += r * a.in[j].strides[d];
    p.at[N] += r * a.out.strides[d];
    i = q;
  }
}
template <int N>
PB_DEVICE Places<N> places(const MapArgs& a, int64_t i) {
  Places<N> p{};
  if (a.contiguous) {
#pragma unroll
    for (int j = 0; j <= N; j++) p.at[j] = i;
  } else if (a.n <= INT32_MAX) {
    walk<N>(a, uint32_t(i), p);
  } else {
    walk<N>(a, i, p);
  }
  return p;
}

// ---- operands

template <class S>
PB_DEVICE S load_exact(const void* p, Type t, int64_t i) {
  if constexpr (std::is_same_v<S, float>)
    return load_one(p, t, i);
  else
    return static_cast<const S*>(p)[i];
}
template <class S, class R>
PB_DEVICE void store_exact(void* p, Type t, int64_t i, R v) {
  if constexpr (std::is_same_v<R, bool>)
    static_cast<uint8_t*>(p)[i] = v;
  else if constexpr (std::is_same_v<S, float>)
    store_one(p, t, i, v);
  else
    static_cast<S*>(p)[i] = v;
}
template <class S>
PB_DEVICE S number_of(uint64_t bits) {
  if constexpr (sizeof(S) == 4)
    return __builtin_bit_cast(S, uint32_t(bits));
  else
    return __builtin_bit_cast(S, bits);
}
template <class S>
PB_DEVICE S read(const Operand& x, int64_t at) {
  if (x.kind == Kind::Number) return number_of<S>(x.bits);
  return load_exact<S>(x.data, x.type, x.kind == Kind::One ? 0 : at);
}
PB_DEVICE void read8(const Operand& x, int64_t i, float (&v)[kVec]) {
  if (x.kind == Kind::Array) return vector_load(x.data, x.type, i, v);
  float one = read<float>(x, 0);
#pragma unroll
  for (int e = 0; e < kVec; e++) v[e] = one;
}

// ---- uniform numbers: word w of the stream is that of block w / 4 (value/philox.h)

PB_DEVICE uint64_t draw_start(const MapArgs& a) { return a.offset + (a.shift ? *a.shift : 0); }
PB_DEVICE void draw_block(const MapArgs& a, uint64_t block, uint32_t (&c)[4]) {
  c[0] = uint32_t(block), c[1] = uint32_t(block >> 32), c[2] = 0, c[3] = 0;
  philox_block(c, uint32_t(a.seed), uint32_t(a.seed >> 32));
}
// Elements i .. i + 7, i a multiple of 8.
PB_DEVICE void draw8(const MapArgs& a, int64_t i, float (&v)[kVec]) {
#pragma unroll
  for (int half = 0; half < kVec / 4; half++) {
    uint32_t c[4];
    draw_block(a, draw_start(a) + uint64_t(i) / 4 + uint64_t(half), c);
#pragma unroll
    for (int j = 0; j < 4; j++) v[4 * half + j] = uniform01(c[j]);
  }
}
template <class S>
PB_DEVICE S draw(const MapArgs& a, int64_t i) {
  uint32_t c[4];
  if constexpr (std::is_same_v<S, double>) {
    draw_block(a, draw_start(a) + uint64_t(i) / 2, c);
    return i % 2 == 0 ? uniform01_double(c[0], c[1]) : uniform01_double(c[2], c[3]);
  } else {
    draw_block(a, draw_start(a) + uint64_t(i) / 4, c);
    return S(uniform01(i % 4 == 0 ? c[0] : i % 4 == 1 ? c[1] : i % 4 == 2 ? c[2] : c[3]));
  }
}

template <class Op, class S>
PB_DEVICE ParamOf<S> params_of(const MapArgs& a) {
  ParamOf<S> k{};
#pragma unroll
  for (int i = 0; i < kMaxArgs; i++) k.v[i] = i < arg_count<Op>() ? S(a.params[i]) : S(0);
  return k;
}

// Calls one(i) for every element, or for floats in contiguous memory eight(i) for whole groups, spread over the grid.
template <class S, class Eight, class One>
PB_DEVICE void each(const MapArgs& a, Eight eight, One one) {
  int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x, threads = int64_t(gridDim.x) * kThreads, whole = 0;
  if constexpr (std::is_same_v<S, float>) {
    whole = a.contiguous ? a.n / kVec : 0;
#pragma unroll 1
    for (int64_t i = thread; i < whole; i += threads) eight(i * kVec);
  }
#pragma unroll 1
  for (int64_t i = whole * kVec + thread; i < a.n; i += threads) one(i);
}

// ---- forward

// Input J of an op: an operand, or for the last one of a random op its uniform number.
template <class Op, int J, int Shift>
PB_DEVICE void input8(const MapArgs& a, int64_t i, float (&v)[kVec]) {
  if constexpr (J < Op::inputs)
    read8(a.in[J + Shift], i, v);
  else
    draw8(a, i, v);
}
template <class Op, class S, int J, int Shift, int N>
PB_DEVICE S input1(const MapArgs& a, int64_t i, const Places<N>& p) {
  if constexpr (J < Op::inputs)
    return read<S>(a.in[J + Shift], p.at[J + Shift]);
  else
    return draw<S>(a, i);
}

template <class Op, class S, size_t... J>
PB_DEVICE void forward(const MapArgs& a, std::index_sequence<J...>) {
  const ParamOf<S> k = params_of<Op, S>(a);
  auto eight = [&](int64_t i) {
    if constexpr (std::is_same_v<S, float>) {
      float x[sizeof...(J) + 1][kVec], y[kVec];
      (input8<Op, int(J), 0>(a, i, x[J]), ...);
#pragma unroll
      for (int e = 0; e < kVec; e++) y[e] = float(call_fwd<Op, float>(k, x[J][e]...));
      vector_store(a.out.data, a.out.type, i, y);
    }
  };
  each<S>(a, eight, [&](int64_t i) {
    Places<Op::inputs> p = places<Op::inputs>(a, i);
    auto y = call_fwd<Op, S>(k, input1<Op, S, int(J), 0>(a, i, p)...);
    store_exact<S>(a.out.data, a.out.type, p.at[Op::inputs], y);
  });
}
template <class Op, class S>
__global__ void __launch_bounds__(kThreads) map_fwd(const __grid_constant__ MapArgs a) {
  forward<Op, S>(a, std::make_index_sequence<size_t(kInputs<Op>)>{});
}

// ---- backward: operands g, the op's inputs, its output. What the pull does not read is not loaded.

template <class Op, int I, class S, size_t... J>
PB_DEVICE void backward(const MapArgs& a, std::index_sequence<J...>) {
  constexpr unsigned used = uses<Op, I>();
  constexpr int output = 1 + Op::inputs;
  const ParamOf<S> k = params_of<Op, S>(a);
  auto eight = [&](int64_t i) {
    if constexpr (std::is_same_v<S, float>) {
      float g[kVec], x[sizeof...(J) + 1][kVec] = {}, y[kVec] = {};
      read8(a.in[0], i, g);
      (
          [&] {
            if constexpr (used >> J & 1) input8<Op, int(J), 1>(a, i, x[J]);
          }(),
          ...);
      if constexpr (used >> 7 & 1) read8(a.in[output], i, y);
#pragma unroll
      for (int e = 0; e < kVec; e++) g[e] = call_pull<Op, I, float>(k, g[e], y[e], x[J][e]...);
      vector_store(a.out.data, a.out.type, i, g);
    }
  };
  each<S>(a, eight, [&](int64_t i) {
    Places<Op::inputs + 2> p = places<Op::inputs + 2>(a, i);
    S g = read<S>(a.in[0], p.at[0]), x[sizeof...(J) + 1] = {}, y = S(0);
    (
        [&] {
          if constexpr (used >> J & 1) x[J] = input1<Op, S, int(J), 1>(a, i, p);
        }(),
        ...);
    if constexpr (used >> 7 & 1) y = read<S>(a.in[output], p.at[output]);
    store_exact<S>(a.out.data, a.out.type, p.at[Op::inputs + 2], call_pull<Op, I, S>(k, g, y, x[J]...));
  });
}
template <class Op, int I, class S>
__global__ void __launch_bounds__(kThreads) map_pull(const __grid_constant__ MapArgs a) {
  backward<Op, I, S>(a, std::make_index_sequence<size_t(kInputs<Op>)>{});
}

// From the output alone: operands {g, output}.
template <class Op, class S>
__global__ void __launch_bounds__(kThreads) map_pull_y(const __grid_constant__ MapArgs a) {
  const ParamOf<S> k = params_of<Op, S>(a);
  auto eight = [&](int64_t i) {
    if constexpr (std::is_same_v<S, float>) {
      float g[kVec], y[kVec];
      read8(a.in[0], i, g);
      read8(a.in[1], i, y);
#pragma unroll
      for (int e = 0; e < kVec; e++) g[e] = call_pull_y<Op, float>(k, g[e], y[e]);
      vector_store(a.out.data, a.out.type, i, g);
    }
  };
  each<S>(a, eight, [&](int64_t i) {
    Places<2> p = places<2>(a, i);
    S g = call_pull_y<Op, S>(k, read<S>(a.in[0], p.at[0]), read<S>(a.in[1], p.at[1]));
    store_exact<S>(a.out.data, a.out.type, p.at[2], g);
  });
}

// The code of each element, a byte.
template <class Op, class S, size_t... J>
PB_DEVICE void codes(const MapArgs& a, std::index_sequence<J...>) {
  const ParamOf<S> k = params_of<Op, S>(a);
  int64_t threads = int64_t(gridDim.x) * kThreads;
#pragma unroll 1
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < a.n; i += threads) {
    Places<Op::inputs> p = places<Op::inputs>(a, i);
    static_cast<uint8_t*>(a.out.data)[p.at[Op::inputs]] = uint8_t(call_code<Op, S>(k, read<S>(a.in[J], p.at[J])...));
  }
}
template <class Op, class S>
__global__ void __launch_bounds__(kThreads) map_code(const __grid_constant__ MapArgs a) {
  codes<Op, S>(a, std::make_index_sequence<size_t(Op::inputs)>{});
}

// ---- the table

template <class Op, class S>
Kernel fwd_of() {
  if constexpr (std::is_floating_point_v<S> ? Op::no_floats : !Op::integers)
    return nullptr;
  else
    return reinterpret_cast<Kernel>(&map_fwd<Op, S>);
}
template <class Op, int I, class S>
Kernel pull_of() {
  if constexpr (I >= Op::inputs || !kDifferentiable<Op>)
    return nullptr;
  else if constexpr (passes<Op, I>() == 1)
    return nullptr;  // the cotangent is handed on
  else
    return reinterpret_cast<Kernel>(&map_pull<Op, I, S>);
}
template <class Op, class S>
Kernel pull_y_of() {
  if constexpr (kEither<Op> && kDifferentiable<Op>)
    return reinterpret_cast<Kernel>(&map_pull_y<Op, S>);
  else
    return nullptr;
}
template <class Op, class S>
Kernel code_of() {
  if constexpr (code_bits<Op>() > 0)
    return reinterpret_cast<Kernel>(&map_code<Op, S>);
  else
    return nullptr;
}
template <class Op>
MapEntry entry_of() {
  return {{fwd_of<Op, float>(), fwd_of<Op, double>(), fwd_of<Op, int64_t>(), fwd_of<Op, uint64_t>()},
          {{pull_of<Op, 0, float>(), pull_of<Op, 0, double>()},
           {pull_of<Op, 1, float>(), pull_of<Op, 1, double>()},
           {pull_of<Op, 2, float>(), pull_of<Op, 2, double>()}},
          {pull_y_of<Op, float>(), pull_y_of<Op, double>()},
          {code_of<Op, float>(), code_of<Op, double>()}};
}
template <class Unit, size_t... I>
const MapEntry* entries_of(std::index_sequence<I...>) {
  static const MapEntry rows[] = {entry_of<typename OpAt<Unit, int(I)>::type>()...};
  return rows;
}

}  // namespace pb::cuda
