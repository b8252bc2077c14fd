// The tile of a matrix product: a block of threads makes M x N sums, panels of kDepth steps in shared memory at a time.
// Matrix products and convolutions differ in where an element of a panel comes from (a loader) and where a sum goes.
//
// Note [Two panels]
// While the threads multiply one pair of panels, the elements of the next are on their way from memory to registers, of
// a during the first half and of b during the second; they are put into the other pair, so one barrier a panel is
// enough. A thread brings eight elements of each panel.
#pragma once
#include "cuda/device.h"

namespace pb::cuda {

inline constexpr int kDepth = 16;  // steps of a panel
inline constexpr int kPad = 4;     // floats beside a line of a panel: the next step starts in other banks

// Lines of the two panels and threads: two threads a line, each with kDepth / 2 elements of it.
template <int Lines>
struct Tile {
  static constexpr int kLines = Lines, kTileThreads = 2 * Lines;
  static constexpr int kGroups = Lines / 8;  // threads that share a step of a panel
  static constexpr int kRows = 8;            // sums of a thread, in fours that are far apart
  static constexpr int kCols = Lines * Lines / kTileThreads / kRows;
  static constexpr int kAcross = Lines / kCols;       // threads beside each other
  static constexpr int kBlocks = 512 / kTileThreads;  // on a multiprocessor: 128 registers a thread
};
using SmallTile = Tile<64>;   // 128 threads of 8 x 4 sums
using LargeTile = Tile<128>;  // 256 threads of 8 x 8

// Which eight elements a thread brings: neighbours in memory along steps or along lines, eight at once or one per lane,
// or eight steps of one line while its neighbours have the lines beside it.
enum class Walk : uint8_t { StepsAtOnce, LinesAtOnce, Steps, Lines, OneLine };
struct Spot {
  int line, step, lines, steps;  // the first element, and the way to the next
};
template <class T>
PB_DEVICE Spot spot_of(Walk walk) {
  int t = int(threadIdx.x);
  if (walk == Walk::StepsAtOnce) return {t / 2, t % 2 * 8, 0, 1};
  if (walk == Walk::LinesAtOnce) return {t % T::kGroups * 8, t / T::kGroups, 1, 0};
  if (walk == Walk::OneLine) return {t % T::kLines, t / T::kLines * 8, 0, 1};
  if (walk == Walk::Steps) return {t / kDepth, t % kDepth, T::kGroups, 0};
  return {t % T::kGroups, t / T::kGroups, T::kGroups, 0};
}

// Eight elements on their way: the bits of floats, or of a 16-bit type one or, if packed, two in a word. They are made
// floats when they are put down, so that nothing waits for memory before the threads multiply.
struct Eight {
  uint32_t raw[8];
  bool packed;
};

// The elements from `p` on, `stride` bytes apart, where bit e of `mask` is set, else 0.
PB_DEVICE void gather8(const char* p, Type t, int64_t stride, unsigned mask, Eight& v) {
  v.packed = false;
  if (t == Type::F32) {
#pragma unroll
    for (int e = 0; e < 8; e++, p += stride) v.raw[e] = mask >> e & 1 ? *reinterpret_cast<const uint32_t*>(p) : 0u;
  } else {
#pragma unroll
    for (int e = 0; e < 8; e++, p += stride) v.raw[e] = mask >> e & 1 ? *reinterpret_cast<const uint16_t*>(p) : 0u;
  }
}
PB_DEVICE void load8(const char* p, Type t, Eight& v) {
  auto* from = reinterpret_cast<const uint4*>(p);
  uint4 a = from[0];
  v.raw[0] = a.x, v.raw[1] = a.y, v.raw[2] = a.z, v.raw[3] = a.w;
  v.packed = t != Type::F32;
  if (v.packed) return;
  a = from[1];
  v.raw[4] = a.x, v.raw[5] = a.y, v.raw[6] = a.z, v.raw[7] = a.w;
}
PB_DEVICE void unpack8(const Eight& v, Type t, float (&x)[8]) {
#pragma unroll
  for (int e = 0; e < 8; e++) {
    if (t == Type::F32)
      x[e] = float_of(v.raw[e]);
    else
      x[e] = widen(uint16_t(v.packed ? v.raw[e / 2] >> 16 * (e % 2) : v.raw[e]), t);
  }
}

// A matrix anywhere in memory; strides in bytes. With an AtOnce walk lines (or steps) start at multiples of 16 bytes.
struct DenseLoad {
  const char* data;
  Type type;
  Walk walk;
  int64_t line_stride, step_stride, lines;

  struct State {
    const char* from;  // the thread's first element of step 0
    unsigned lines;    // which of its elements lie on lines that exist
  };
  PB_DEVICE State state(const Spot& s, int64_t line0) const {
    State r{data + (line0 + s.line) * line_stride + s.step * step_stride, 0};
#pragma unroll
    for (int e = 0; e < 8; e++) r.lines |= unsigned(line0 + s.line + e * s.lines < lines) << e;
    return r;
  }
  // Elements of the panel that starts at `step`; what lies behind step `end` is 0.
  PB_DEVICE void fetch(const State& st, const Spot& s, int64_t step, int64_t end, Eight& v) const {
    const char* from = st.from + step * step_stride;
    int left = int(end - step < kDepth ? end - step : kDepth) - s.step;  // steps from the first one on
    bool along = walk == Walk::StepsAtOnce;
    unsigned mask = left > 0 ? st.lines : 0;
    if (along && left < 8) mask &= (1u << (left < 0 ? 0 : left)) - 1;
    if (mask == 0xff && (along || walk == Walk::LinesAtOnce)) return load8(from, type, v);
    gather8(from, type, s.lines * line_stride + s.steps * step_stride, mask, v);
  }
};

// Four neighbours to memory that starts at a multiple of 16 bytes (8 of a 16-bit type).
PB_DEVICE void store4(void* p, Type t, int64_t i, const float (&v)[4]) {
  if (t == Type::F32)
    *reinterpret_cast<float4*>(static_cast<float*>(p) + i) = make_float4(v[0], v[1], v[2], v[3]);
  else
    *reinterpret_cast<uint2*>(static_cast<uint16_t*>(p) + i) = make_uint2(
        uint32_t(narrow(v[1], t)) << 16 | narrow(v[0], t), uint32_t(narrow(v[3], t)) << 16 | narrow(v[2], t));
}

template <class T>
using Panel = float[kDepth][T::kLines + kPad];

template <class T>
PB_DEVICE void put(Panel<T>& panel, const Spot& s, const Eight& eight, Type type) {
  float v[8];
  unpack8(eight, type, v);
  float* to = &panel[s.step][s.line];
  if (s.lines == 1) {
    reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
  } else {
    int stride = s.steps * (T::kLines + kPad) + s.lines;
#pragma unroll
    for (int e = 0; e < 8; e++) to[e * stride] = v[e];
  }
}

// Row i and column j of a thread's sums in the tile: fours at a distance, so that neighbouring threads read
// neighbouring fours.
template <class T>
PB_DEVICE int row_of(int i) {
  return int(threadIdx.x) / T::kAcross * 4 + i / 4 * (T::kLines / 2) + i % 4;
}
template <class T>
PB_DEVICE int col_of(int j) {
  return int(threadIdx.x) % T::kAcross * 4 + j / 4 * (T::kLines / 2) + j % 4;
}

// Adds the products of half a panel.
template <class T>
PB_DEVICE void multiply_half(const Panel<T>& a, const Panel<T>& b, int first, float (&acc)[T::kRows][T::kCols]) {
#pragma unroll
  for (int k = first; k < first + kDepth / 2; k++) {
    float x[T::kRows], y[T::kCols];
#pragma unroll
    for (int i = 0; i < T::kRows; i += 4) {
      float4 v = *reinterpret_cast<const float4*>(&a[k][row_of<T>(i)]);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
#pragma unroll
    for (int j = 0; j < T::kCols; j += 4) {
      float4 v = *reinterpret_cast<const float4*>(&b[k][col_of<T>(j)]);
      y[j] = v.x, y[j + 1] = v.y, y[j + 2] = v.z, y[j + 3] = v.w;
    }
#pragma unroll
    for (int i = 0; i < T::kRows; i++)
#pragma unroll
      for (int j = 0; j < T::kCols; j++) acc[i][j] = fma(x[i], y[j], acc[i][j]);
  }
}

// acc = sums over steps [k0, k1) for lines from m0 of a and from n0 of b, in ascending order.
template <class T, class A, class B>
PB_DEVICE void multiply(const A& a, const B& b, int64_t m0, int64_t n0, int64_t k0, int64_t k1,
                        float (&acc)[T::kRows][T::kCols]) {
  PB_SHARED(float, pa, [2][kDepth][T::kLines + kPad]);
  PB_SHARED(float, pb_, [2][kDepth][T::kLines + kPad]);
#pragma unroll
  for (int i = 0; i < T::kRows; i++)
#pragma unroll
    for (int j = 0; j < T::kCols; j++) acc[i][j] = 0.0f;
  const Spot sa = spot_of<T>(a.walk), sb = spot_of<T>(b.walk);
  const auto from_a = a.state(sa, m0);
  const auto from_b = b.state(sb, n0);
  Eight eight;
  a.fetch(from_a, sa, k0, k1, eight);
  put<T>(pa[0], sa, eight, a.type);
  b.fetch(from_b, sb, k0, k1, eight);
  put<T>(pb_[0], sb, eight, b.type);
  __syncthreads();
  int half = 0;
#pragma unroll 1
  for (int64_t k = k0; k < k1; k += kDepth, half ^= 1) {
    bool more = k + kDepth < k1;
    if (more) a.fetch(from_a, sa, k + kDepth, k1, eight);
    multiply_half<T>(pa[half], pb_[half], 0, acc);
    if (more) {
      put<T>(pa[half ^ 1], sa, eight, a.type);
      b.fetch(from_b, sb, k + kDepth, k1, eight);
    }
    multiply_half<T>(pa[half], pb_[half], kDepth / 2, acc);
    if (more) put<T>(pb_[half ^ 1], sb, eight, b.type);
    __syncthreads();
  }
}

// Note [Parts of a sum]
// Few tiles with long sums leave most of the device idle, so the steps are cut into parts, by shape alone. Each part
// leaves float sums in scratch memory, and a second launch adds them in order.
struct Parts {
  int count = 1;
  int64_t length = 0;  // steps of one, a multiple of kDepth
};
inline Parts parts_of(int64_t tiles, int64_t k) {
  constexpr int64_t kEnough = 192, kLeast = 256, kMost = 64;  // tiles at once; steps of a part; parts
  int64_t parts = tiles * 2 > kEnough ? 1 : (kEnough + tiles - 1) / tiles;
  if (parts > (k + kLeast - 1) / kLeast) parts = (k + kLeast - 1) / kLeast;
  if (parts > kMost) parts = kMost;
  if (parts < 1) parts = 1;
  int64_t length = ((k + parts - 1) / parts + kDepth - 1) / kDepth * kDepth;
  if (length == 0) return {1, kDepth};
  return {int((k + length - 1) / length), length};
}

// Division by a number that is known before the launch: n / d for 0 <= n < 2^31.
struct Divisor {
  uint32_t d = 1, mul = 1, shift = 0;
  Divisor() = default;
  explicit Divisor(int64_t by) : d(uint32_t(by)) {
    while (shift < 31 && (uint64_t(1) << shift) < d) shift++;
    mul = uint32_t((((uint64_t(1) << shift) - d) << 32) / d + 1);
  }
  PB_DEVICE int divide(int n) const {
    uint64_t high = uint64_t(uint32_t(n)) * mul >> 32;
    return int((high + uint32_t(n)) >> shift);
  }
};

}  // namespace pb::cuda
