// Attention in tiles of queries and keys: the scores of a tile live in shared memory and registers, forward keeps the
// logarithm of each row's sum, backward makes the probabilities anew from it.
//
// Note [Two roles]
// In backward a block owns either keys, and sums gk and gv over the queries, or queries, and sums gq over the keys.
// Both compute the scores of their tiles, so nothing is added by several blocks and the bits are fixed.
#include "cuda/api_attention.h"
#include "cuda/tile.h"

namespace pb::cuda {

namespace {

// A thread stands at (down, across) of a grid 16 wide and has four rows of every product.
constexpr int kAcross = 16;
constexpr float kNever = -kInf<float>;

// Lines of a tile, and floats of a row in shared memory.
template <int Lines, int Width>
struct Shape {
  static constexpr int kLines = Lines, kThreadsOf = Lines / 4 * kAcross, kWidth = Width, kPitch = Width + kPad;
  static constexpr int kKeys = Lines / kAcross;  // of a thread: across, across + 16, ...
  static constexpr int kFours = Width / 64;      // of columns of a thread: 4 across, 64 + 4 across
  static constexpr int kScores = Lines + kPad;   // floats of a row of scores
  static constexpr int kTile = Lines * kPitch;
};

struct Offsets {
  int64_t q = 0, k = 0, v = 0, y = 0, mask = 0, gy = 0, gq = 0, gk = 0, gv = 0;
};
PB_DEVICE Offsets offsets_of(const AttentionArgs& a, int64_t head) {
  Offsets o;
#pragma unroll 1
  for (int d = a.axes; d-- > 0;) {
    int64_t rest = head / a.batch[d], i = head - rest * a.batch[d];
    o.q += i * a.q.batch[d], o.k += i * a.k.batch[d], o.v += i * a.v.batch[d], o.y += i * a.y.batch[d];
    o.mask += i * a.mask_batch[d], o.gy += i * a.gy.batch[d];
    o.gq += i * a.gq.batch[d], o.gk += i * a.gk.batch[d], o.gv += i * a.gv.batch[d];
    head = rest;
  }
  return o;
}

PB_DEVICE int down() { return int(threadIdx.x) / kAcross; }
PB_DEVICE int across() { return int(threadIdx.x) % kAcross; }

// Rows first .. first + Lines - 1 of an operand to shared memory; what does not exist is 0.
template <class S>
PB_DEVICE void load_rows(float* to, const HeadsOperand& x, int64_t base, int64_t first, int64_t rows, int64_t width) {
  constexpr int units = S::kWidth / 8;
#pragma unroll 2
  for (int u = int(threadIdx.x); u < S::kLines * units; u += S::kThreadsOf) {
    int line = u / units, col = u % units * 8;
    int64_t at = base + (first + line) * x.row + col;
    float v[8];
    if (first + line < rows && col + 8 <= width && x.aligned) {
      vector_load(x.data, x.type, at, v);
    } else {
#pragma unroll
      for (int e = 0; e < 8; e++)
        v[e] = first + line < rows && col + e < width ? load_one(x.data, x.type, at + e) : 0.0f;
    }
    auto* p = reinterpret_cast<float4*>(to + line * S::kPitch + col);
    p[0] = make_float4(v[0], v[1], v[2], v[3]);
    p[1] = make_float4(v[4], v[5], v[6], v[7]);
  }
}

// s[i][j] = row 4 down + i of a times row across + 16 j of b.
template <class S>
PB_DEVICE void row_products(const float* a, const float* b, int width, float (&s)[4][S::kKeys]) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < S::kKeys; j++) s[i][j] = 0.0f;
  a += down() * 4 * S::kPitch, b += across() * S::kPitch;
#pragma unroll 2
  for (int d = 0; d < width; d += 4) {
    float4 x[4], y[S::kKeys];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = *reinterpret_cast<const float4*>(a + i * S::kPitch + d);
#pragma unroll
    for (int j = 0; j < S::kKeys; j++) y[j] = *reinterpret_cast<const float4*>(b + j * kAcross * S::kPitch + d);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < S::kKeys; j++)
        s[i][j] = fma(x[i].w, y[j].w, fma(x[i].z, y[j].z, fma(x[i].y, y[j].y, fma(x[i].x, y[j].x, s[i][j]))));
  }
}

// c[i][4 q + e] += sum over l of p[l][4 down + i] rows[l][64 q + 4 across + e].
template <class S>
PB_DEVICE void column_products(const float* p, const float* rows, float (&c)[4][4 * S::kFours]) {
  p += down() * 4, rows += across() * 4;
#pragma unroll 4
  for (int l = 0; l < S::kLines; l++, p += S::kScores, rows += S::kPitch) {
    float4 x = *reinterpret_cast<const float4*>(p);
    const float xs[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int q = 0; q < S::kFours; q++) {
      float4 y = *reinterpret_cast<const float4*>(rows + 64 * q);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        c[i][4 * q] = fma(xs[i], y.x, c[i][4 * q]);
        c[i][4 * q + 1] = fma(xs[i], y.y, c[i][4 * q + 1]);
        c[i][4 * q + 2] = fma(xs[i], y.z, c[i][4 * q + 2]);
        c[i][4 * q + 3] = fma(xs[i], y.w, c[i][4 * q + 3]);
      }
    }
  }
}

template <class S>
PB_DEVICE void clear(float (&c)[4][4 * S::kFours]) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4 * S::kFours; j++) c[i][j] = 0.0f;
}
// Rows first + 4 down + i of a result, each times its factor.
template <class S>
PB_DEVICE void store_rows(const HeadsOperand& x, int64_t base, int64_t first, int64_t rows, int64_t width,
                          const float (&c)[4][4 * S::kFours], const float (&factor)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int64_t row = first + down() * 4 + i;
    if (row >= rows) continue;
#pragma unroll
    for (int q = 0; q < S::kFours; q++) {
      int col = 64 * q + 4 * across();
      float v[4];
#pragma unroll
      for (int e = 0; e < 4; e++) v[e] = c[i][4 * q + e] * factor[i];
      int64_t at = base + row * x.row + col;
      if (x.aligned && col + 4 <= width) {
        store4(x.data, x.type, at, v);
      } else {
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (col + e < width) store_one(x.data, x.type, at + e, v[e]);
      }
    }
  }
}

// The score of a query and a key from their product; -inf where the query does not attend.
PB_DEVICE float score(const AttentionArgs& a, int64_t mask, int64_t query, int64_t key, float product) {
  if (query >= a.queries || key >= a.keys || (a.causal && key > query)) return kNever;
  float s = product * a.scale;
  if (!a.mask) return s;
  float m = load_one(a.mask, a.mask_type, mask + query * a.mask_row + key * a.mask_col);
  if (a.mask_type == Type::Bool) return m != 0.0f ? s : kNever;
  return s + m;
}
// Which probabilities of a thread dropout keeps, as the CPU draws it: bit kKeys i + j of row i and key j.
template <class S>
PB_DEVICE unsigned kept_bits(const AttentionArgs& a, int64_t head, int64_t q0, int64_t k0) {
  unsigned bits = 0;
  if (!(a.dropout > 0.0f)) return ~0u;
#pragma unroll 1
  for (int n = 0; n < 4 * S::kKeys; n++) {
    int64_t query = q0 + down() * 4 + n / S::kKeys, key = k0 + across() + n % S::kKeys * kAcross;
    uint64_t i = uint64_t((head * a.queries + query) * a.keys + key), block = i / 4;
    uint32_t c[4] = {uint32_t(block), uint32_t(block >> 32), uint32_t(a.offset), uint32_t(a.offset >> 32)};
    philox_block(c, uint32_t(a.seed), uint32_t(a.seed >> 32));
    float u = uniform01(i % 4 == 0 ? c[0] : i % 4 == 1 ? c[1] : i % 4 == 2 ? c[2] : c[3]);
    bits |= unsigned(!(u < a.dropout)) << n;
  }
  return bits;
}
// What it makes of 1 where it keeps.
PB_DEVICE float raised(const AttentionArgs& a) { return a.dropout > 0.0f ? 1.0f / (1.0f - a.dropout) : 1.0f; }

// Over the 16 threads that share rows.
PB_DEVICE float max_across(float v) {
#pragma unroll
  for (int w = kAcross / 2; w; w /= 2) {
    float o = __shfl_xor_sync(0xffffffffu, v, w);
    v = o > v ? o : v;
  }
  return v;
}
PB_DEVICE float sum_across(float v) {
#pragma unroll
  for (int w = kAcross / 2; w; w /= 2) v += __shfl_xor_sync(0xffffffffu, v, w);
  return v;
}

// ---- forward

template <class S>
constexpr size_t kForwardBytes = (2 * S::kTile + S::kLines * S::kScores) * sizeof(float);

// One step of the running softmax: scores to probabilities, in shared memory as p[key][query].
template <class S>
PB_DEVICE void soften(const AttentionArgs& a, int64_t head, int64_t mask, int64_t q0, int64_t k0,
                      float (&s)[4][S::kKeys], float (&top)[4], float (&total)[4], float (&o)[4][4 * S::kFours],
                      float* p) {
  const unsigned bits = kept_bits<S>(a, head, q0, k0);
  const float raise = raised(a);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int64_t query = q0 + down() * 4 + i;
    float best = top[i];
#pragma unroll
    for (int j = 0; j < S::kKeys; j++) {
      s[i][j] = score(a, mask, query, k0 + across() + kAcross * j, s[i][j]);
      best = s[i][j] > best ? s[i][j] : best;
    }
    best = max_across(best);
    float base = best == kNever ? 0.0f : best, keep = exp(top[i] - base), sum = 0.0f;
#pragma unroll
    for (int j = 0; j < S::kKeys; j++) {
      float e = s[i][j] == kNever ? 0.0f : exp(s[i][j] - base);
      sum += e;
      p[(across() + kAcross * j) * S::kScores + down() * 4 + i] = bits >> (S::kKeys * i + j) & 1 ? e * raise : 0.0f;
    }
    total[i] = total[i] * keep + sum_across(sum);
    top[i] = best;
#pragma unroll
    for (int c = 0; c < 4 * S::kFours; c++) o[i][c] *= keep;
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreadsOf, 2) forward_kernel(const __grid_constant__ AttentionArgs a) {
  PB_DYN_SHARED(float, shared);
  float *q = shared, *kv = q + S::kTile, *p = kv + S::kTile;
  int64_t blocks = (a.queries + S::kLines - 1) / S::kLines, head = int64_t(blockIdx.x) / blocks;
  int64_t q0 = int64_t(blockIdx.x) % blocks * S::kLines;
  const Offsets at = offsets_of(a, head);
  float top[4], total[4], o[4][4 * S::kFours];
  clear<S>(o);
#pragma unroll
  for (int i = 0; i < 4; i++) top[i] = kNever, total[i] = 0.0f;
  load_rows<S>(q, a.q, at.q, q0, a.queries, a.width);
  int64_t last = a.causal && q0 + S::kLines < a.keys ? q0 + S::kLines : a.keys;
#pragma unroll 1
  for (int64_t k0 = 0; k0 < last; k0 += S::kLines) {
    float s[4][S::kKeys];
    load_rows<S>(kv, a.k, at.k, k0, a.keys, a.width);
    __syncthreads();
    row_products<S>(q, kv, int(a.width), s);
    soften<S>(a, head, at.mask, q0, k0, s, top, total, o, p);
    __syncthreads();
    load_rows<S>(kv, a.v, at.v, k0, a.keys, a.out_width);
    __syncthreads();
    column_products<S>(p, kv, o);
    __syncthreads();
  }
  float factor[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int64_t query = q0 + down() * 4 + i;
    factor[i] = a.mask && top[i] == kNever ? 0.0f : 1.0f / total[i];
    if (a.lse && across() == 0 && query < a.queries) a.lse[head * a.queries + query] = top[i] + log(total[i]);
  }
  store_rows<S>(a.y, at.y, q0, a.queries, a.out_width, o, factor);
}

// ---- backward

template <class S>
constexpr size_t kBackwardBytes = (4 * S::kTile + S::kLines * S::kScores) * sizeof(float);

// delta = sum of gy * y, a row a warp.
__global__ void __launch_bounds__(kThreads) delta_kernel(const __grid_constant__ AttentionArgs a) {
  int64_t row = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (row >= a.heads * a.queries) return;
  int64_t head = row / a.queries, query = row - head * a.queries;
  const Offsets at = offsets_of(a, head);
  float sum = 0.0f;
  for (int64_t e = threadIdx.x % 32; e < a.out_width; e += 32)
    sum = fma(load_one(a.gy.data, a.gy.type, at.gy + query * a.gy.row + e),
              load_one(a.y.data, a.y.type, at.y + query * a.y.row + e), sum);
#pragma unroll
  for (int w = 16; w; w /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, w);
  if (threadIdx.x % 32 == 0) a.delta[row] = sum;
}

// s becomes the probabilities with dropout, d (products of gy and v) the derivative by the scores without scale.
template <class S>
PB_DEVICE void derive(const AttentionArgs& a, int64_t head, int64_t mask, int64_t q0, int64_t k0,
                      float (&s)[4][S::kKeys], float (&d)[4][S::kKeys]) {
  const unsigned bits = kept_bits<S>(a, head, q0, k0);
  const float raise = raised(a);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int64_t query = q0 + down() * 4 + i, row = head * a.queries + query;
    bool there = query < a.queries;
    float lse = there ? a.lse[row] : 0.0f, delta = there ? a.delta[row] : 0.0f;
#pragma unroll
    for (int j = 0; j < S::kKeys; j++) {
      int64_t key = k0 + across() + kAcross * j;
      float x = score(a, mask, query, key, s[i][j]);
      float e = x == kNever ? 0.0f : exp(x - lse), keep = bits >> (S::kKeys * i + j) & 1 ? raise : 0.0f;
      s[i][j] = e * keep;
      d[i][j] = e == 0.0f ? 0.0f : e * (d[i][j] * keep - delta);
    }
  }
}

template <class S>
PB_DEVICE void keys_role(const AttentionArgs& a, int64_t head, int64_t k0, float* shared) {
  float *k = shared, *v = k + S::kTile, *q = v + S::kTile, *gy = q + S::kTile, *p = gy + S::kTile;
  const Offsets at = offsets_of(a, head);
  float gk[4][4 * S::kFours], gv[4][4 * S::kFours];
  clear<S>(gk);
  clear<S>(gv);
  load_rows<S>(k, a.k, at.k, k0, a.keys, a.width);
  load_rows<S>(v, a.v, at.v, k0, a.keys, a.out_width);
#pragma unroll 1
  for (int64_t q0 = a.causal ? k0 / S::kLines * S::kLines : 0; q0 < a.queries; q0 += S::kLines) {
    float s[4][S::kKeys], d[4][S::kKeys];
    load_rows<S>(q, a.q, at.q, q0, a.queries, a.width);
    load_rows<S>(gy, a.gy, at.gy, q0, a.queries, a.out_width);
    __syncthreads();
    row_products<S>(q, k, int(a.width), s);
    row_products<S>(gy, v, int(a.out_width), d);
    derive<S>(a, head, at.mask, q0, k0, s, d);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < S::kKeys; j++) p[(down() * 4 + i) * S::kScores + across() + kAcross * j] = s[i][j];
    __syncthreads();
    column_products<S>(p, gy, gv);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < S::kKeys; j++) p[(down() * 4 + i) * S::kScores + across() + kAcross * j] = d[i][j];
    __syncthreads();
    column_products<S>(p, q, gk);
    __syncthreads();
  }
  const float scale[4] = {a.scale, a.scale, a.scale, a.scale}, one[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  store_rows<S>(a.gk, at.gk, k0, a.keys, a.width, gk, scale);
  store_rows<S>(a.gv, at.gv, k0, a.keys, a.out_width, gv, one);
}

template <class S>
PB_DEVICE void queries_role(const AttentionArgs& a, int64_t head, int64_t q0, float* shared) {
  float *q = shared, *gy = q + S::kTile, *k = gy + S::kTile, *v = k + S::kTile, *p = v + S::kTile;
  const Offsets at = offsets_of(a, head);
  float gq[4][4 * S::kFours];
  clear<S>(gq);
  load_rows<S>(q, a.q, at.q, q0, a.queries, a.width);
  load_rows<S>(gy, a.gy, at.gy, q0, a.queries, a.out_width);
  int64_t last = a.causal && q0 + S::kLines < a.keys ? q0 + S::kLines : a.keys;
#pragma unroll 1
  for (int64_t k0 = 0; k0 < last; k0 += S::kLines) {
    float s[4][S::kKeys], d[4][S::kKeys];
    load_rows<S>(k, a.k, at.k, k0, a.keys, a.width);
    load_rows<S>(v, a.v, at.v, k0, a.keys, a.out_width);
    __syncthreads();
    row_products<S>(q, k, int(a.width), s);
    row_products<S>(gy, v, int(a.out_width), d);
    derive<S>(a, head, at.mask, q0, k0, s, d);
#pragma unroll
    for (int j = 0; j < S::kKeys; j++)
      *reinterpret_cast<float4*>(p + (across() + kAcross * j) * S::kScores + down() * 4) =
          make_float4(d[0][j], d[1][j], d[2][j], d[3][j]);
    __syncthreads();
    column_products<S>(p, k, gq);
    __syncthreads();
  }
  const float scale[4] = {a.scale, a.scale, a.scale, a.scale};
  store_rows<S>(a.gq, at.gq, q0, a.queries, a.width, gq, scale);
}

template <class S>
__global__ void __launch_bounds__(S::kThreadsOf, S::kLines == 64 ? 1 : 3)
    backward_kernel(const __grid_constant__ AttentionArgs a) {
  PB_DYN_SHARED(float, shared);
  int64_t of_keys = (a.keys + S::kLines - 1) / S::kLines, of_queries = (a.queries + S::kLines - 1) / S::kLines;
  int64_t head = int64_t(blockIdx.x) / (of_keys + of_queries), part = int64_t(blockIdx.x) % (of_keys + of_queries);
  if (part < of_keys)
    keys_role<S>(a, head, part * S::kLines, shared);
  else
    queries_role<S>(a, head, (part - of_keys) * S::kLines, shared);
}

// ---- the host's part

using Narrow = Shape<64, 64>;
using Wide = Shape<64, 128>;
using WideBack = Shape<32, 128>;

template <class S>
int run(Kernel kernel, const AttentionArgs& args, int64_t blocks, size_t bytes, void* stream) {
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  return launch(kernel, dim3(unsigned(blocks)), dim3(S::kThreadsOf), stream, args, bytes);
}
template <class S>
int run_forward(const AttentionArgs& a, void* stream) {
  int64_t blocks = a.heads * ((a.queries + S::kLines - 1) / S::kLines);
  return run<S>(reinterpret_cast<Kernel>(&forward_kernel<S>), a, blocks, kForwardBytes<S>, stream);
}
template <class S>
int run_backward(const AttentionArgs& a, void* stream) {
  int64_t blocks = a.heads * ((a.keys + S::kLines - 1) / S::kLines + (a.queries + S::kLines - 1) / S::kLines);
  return run<S>(reinterpret_cast<Kernel>(&backward_kernel<S>), a, blocks, kBackwardBytes<S>, stream);
}

bool narrow_heads(const AttentionArgs& a) { return a.width <= 64 && a.out_width <= 64; }

int forward(const AttentionArgs& a, void* stream) {
  if (a.heads == 0 || a.queries == 0 || a.out_width == 0) return cudaSuccess;
  return narrow_heads(a) ? run_forward<Narrow>(a, stream) : run_forward<Wide>(a, stream);
}
int backward(const AttentionArgs& a, void* stream) {
  if (a.heads == 0) return cudaSuccess;
  int64_t rows = a.heads * a.queries, blocks = (rows * 32 + kThreads - 1) / kThreads;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  if (rows) {
    cudaError_t e = launch(reinterpret_cast<Kernel>(&delta_kernel), dim3(unsigned(blocks)), dim3(kThreads), stream, a);
    if (e != cudaSuccess) return e;
  }
  return narrow_heads(a) ? run_backward<Narrow>(a, stream) : run_backward<WideBack>(a, stream);
}

}  // namespace

const AttentionApi* attention_api() {
  static const AttentionApi api = {&forward, &backward};
  return &api;
}

}  // namespace pb::cuda
