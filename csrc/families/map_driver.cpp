#include "families/map_driver.h"

#include <cstring>

#include "cpu/isa_std.h"
#include "cpu/stream.h"
#include "cuda/copy_call.h"
#include "cuda/map_call.h"
#include "families/reduce.h"
#include "fewbit/codec.h"

namespace pb {

namespace {

// Merges neighbouring dimensions that every operand walks with one stride.
void coalesce(MapPlan& p) {
  Shape shape;
  Strides st[6];
  MapOperand* ops[6];
  int n = 0;
  for (int j = 0; j < p.inputs; j++)
    if (p.in[j].data) ops[n++] = &p.in[j];  // an input that the kernel does not read has no strides
  ops[n++] = &p.out;
  for (int d = 0; d < p.shape.size(); d++) {
    if (p.shape[d] == 1) continue;
    bool merge = shape.size() > 0;
    int last = shape.size() - 1;
    for (int j = 0; merge && j < n; j++)
      if (!ops[j]->single) merge = st[j][last] == ops[j]->strides[d] * p.shape[d];
    if (merge) {
      shape[last] *= p.shape[d];
      for (int j = 0; j < n; j++)
        if (!ops[j]->single) st[j][last] = ops[j]->strides[d];
    } else {
      shape.push_back(p.shape[d]);
      for (int j = 0; j < n; j++) st[j].push_back(ops[j]->single ? 0 : ops[j]->strides[d]);
    }
  }
  p.shape = shape;
  for (int j = 0; j < n; j++) ops[j]->strides = st[j];
}

// Calls f(address, stride, count) for the runs of an operand that cover elements [first, first + n).
template <class F>
void walk(const MapOperand& o, const Shape& shape, int64_t first, int64_t n, F f) {
  int nd = shape.size();
  int item = itemsize(o.dtype);
  if (nd == 0) {
    f(o.data, int64_t(1), int64_t(1));
    return;
  }
  int64_t index[kMaxDims], at = 0, rest = first;
  for (int d = nd - 1; d >= 0; d--) {
    index[d] = rest % shape[d];
    rest /= shape[d];
    at += index[d] * o.strides[d];
  }
  int64_t inner = shape[nd - 1], step = o.strides[nd - 1];
  while (n > 0) {
    int64_t run = inner - index[nd - 1];
    if (run > n) run = n;
    f(o.data + at * item, step, run);
    n -= run;
    index[nd - 1] += run;
    at += run * step;
    for (int d = nd - 1; d > 0 && index[d] == shape[d]; d--) {
      at -= index[d] * o.strides[d];
      index[d] = 0;
      index[d - 1]++;
      at += o.strides[d - 1];
    }
  }
}

void gather(const CastKernels& k, Compute c, const MapOperand& o, const Shape& shape, int64_t first, int64_t n,
            void* tile) {
  auto* dst = static_cast<char*>(tile);
  int item = itemsize(dtype_of(c));
  walk(o, shape, first, n, [&](char* src, int64_t stride, int64_t run) {
    k.load[int(c)][int(o.dtype)](dst, src, stride, run);
    dst += run * item;
  });
}

void scatter(const CastKernels& k, Compute c, const MapOperand& o, const Shape& shape, int64_t first, int64_t n,
             const void* tile) {
  auto* src = static_cast<const char*>(tile);
  int item = itemsize(dtype_of(c));
  walk(o, shape, first, n, [&](char* dst, int64_t stride, int64_t run) {
    k.store[int(c)][int(o.dtype)](dst, stride, src, run);
    src += run * item;
  });
}

struct Tiles {
  alignas(64) char in[5][kTile * 8];
  alignas(64) char out[kTile * 8];
};

// The values of single operands, converted once per launch.
struct Singles {
  alignas(8) char value[5][8];
};

void splat(void* tile, const void* value, Compute c, int64_t n = kTile) {
  if (c == Compute::F32) {
    float v;
    std::memcpy(&v, value, 4);
    for (int64_t i = 0; i < n; i++) static_cast<float*>(tile)[i] = v;
  } else {
    int64_t v;
    std::memcpy(&v, value, 8);
    for (int64_t i = 0; i < n; i++) static_cast<int64_t*>(tile)[i] = v;
  }
}

// Note [Streaming stores]
bool streams(const MapPlan& p) {
  if (!p.out.direct || p.size * itemsize(p.out.dtype) < kStreamBytes) return false;
  for (int j = 0; j < p.inputs; j++)
    if (p.in[j].data == p.out.data) return false;
  return true;
}

// One tile of codes; `at` is a multiple of kTile, so of kGroup.
void encode_tile(const MapPlan& p, const float* x, int64_t at, int64_t n) {
  const MapCodes& c = *p.codes;
  uint32_t* words = c.words + at / kGroup * c.table->bits;
  if (!c.round) return code_kernels().encode(words, x, n, *c.table);
  alignas(64) float u[kTile], g[kTile], one[kTile], y[kTile];
  for (int64_t i = 0; i < n; i++) one[i] = 1;
  const void* in[] = {one, x, y};
  if (c.derivative->uses[0] >> 7 & 1) p.fn(y, in + 1, p.params, n, 0);
  c.derivative->kernels->pull[0][0](g, in, p.params, n, 0);
  cast_kernels().uniform[0](u, c.round->seed, c.round->offset, uint64_t(at), n);
  code_kernels().encode_random(words, g, u, n, c.ascending, c.ranks, c.table->bits);
}

// What the plan computes of one tile, besides codes.
void run_tile(const MapPlan& p, void* out, const void* const* in, int64_t at, int64_t n, unsigned scalars) {
  const MapCodes* c = p.codes;
  if (c && !c->write)
    code_kernels().decode(static_cast<float*>(out), static_cast<const float*>(in[0]),
                          c->words + at / kGroup * c->table->bits, n, c->level, c->table->bits);
  else
    p.fn(out, in, p.params, n, scalars);
}

void run_range(const MapPlan& p, const Singles& singles, unsigned scalars, int64_t begin, int64_t end) {
  const CastKernels& k = cast_kernels();
  Tiles tiles;
  const void* in[6] = {};
  const int item = itemsize(dtype_of(p.compute));
  bool all_direct = p.out.direct && !p.random && !p.codes;
  for (int j = 0; j < p.inputs; j++) {
    bool in_register = scalars >> j & 1;
    if (p.in[j].single && in_register)
      in[j] = singles.value[j];
    else if (p.in[j].single) {
      splat(tiles.in[j], singles.value[j], p.compute);
      in[j] = tiles.in[j];
      all_direct = false;
    } else {
      all_direct = all_direct && (p.in[j].direct || !p.in[j].data);
    }
  }
  const bool past_cache = streams(p);
  // The stores of a short tile drain while the next one is computed.
  int64_t step = !all_direct ? kTile : past_cache ? kStreamTile : end - begin;
  for (int64_t at = begin; at < end; at += step) {
    int64_t n = end - at < step ? end - at : step;
    for (int j = 0; j < p.inputs; j++) {
      const MapOperand& o = p.in[j];
      if (o.single || !o.data) continue;
      if (o.direct) {
        in[j] = o.data + at * item;
      } else {
        gather(k, p.compute, o, p.shape, at, n, tiles.in[j]);
        in[j] = tiles.in[j];
      }
    }
    if (p.random) {
      k.uniform[p.compute == Compute::F64](tiles.in[p.inputs], p.random->seed, p.random->offset, uint64_t(at), n);
      in[p.inputs] = tiles.in[p.inputs];
    }
    if (p.codes && p.codes->write) encode_tile(p, static_cast<const float*>(in[0]), at, n);
    if (past_cache) {
      const int out_item = itemsize(p.out.dtype);
      run_tile(p, tiles.out, in, at, n, scalars);
      stream(p.out.data + at * out_item, tiles.out, n * out_item);
    } else if (p.out.direct) {
      run_tile(p, p.out.data + at * itemsize(p.out.dtype), in, at, n, scalars);
    } else if (p.mask) {
      run_tile(p, tiles.out, in, at, n, scalars);
      const char* src = tiles.out;
      walk(p.out, p.shape, at, n, [&](char* dst, int64_t stride, int64_t run) {
        alignas(64) int64_t wide[kTile];
        k.load[int(Compute::I64)][int(DType::Bool)](wide, src, 1, run);
        k.store[int(Compute::I64)][int(p.out.dtype)](dst, stride, wide, run);
        src += run;
      });
    } else {
      run_tile(p, tiles.out, in, at, n, scalars);
      scatter(k, p.compute, p.out, p.shape, at, n, tiles.out);
    }
  }
  if (past_cache) stream_done();
}

}  // namespace

void load_operand(Compute c, const MapOperand& o, const Shape& shape, int64_t first, int64_t n, void* tile) {
  const CastKernels& k = cast_kernels();
  if (!o.single) return gather(k, c, o, shape, first, n, tile);
  alignas(8) char value[8];
  k.load[int(c)][int(o.dtype)](value, o.data, 1, 1);
  splat(tile, value, c, n);
}

void store_operand(Compute c, const MapOperand& o, const Shape& shape, int64_t first, int64_t n, const void* tile) {
  const CastKernels& k = cast_kernels();
  if (!o.single) return scatter(k, c, o, shape, first, n, tile);
  k.store[int(c)][int(o.dtype)](o.data, 1, tile, 1);
}

void spread_value(void* tile, const Tensor& t, Compute compute, int64_t n) {
  alignas(8) char value[8];
  cast_kernels().load[int(compute)][int(t.dtype())](value, t.raw(), 1, 1);
  splat(tile, value, compute, n);
}

MapOperand operand_of(const Tensor& t, const Shape& shape) {
  MapOperand o;
  o.data = static_cast<char*>(t.raw());
  o.dtype = t.dtype();
  o.single = t.size() == 1;
  o.direct = t.contiguous() && t.shape() == shape;
  if (!o.single) o.strides = broadcast_strides(t.shape(), t.strides(), shape);
  return o;
}

void run_plan(MapPlan& p) {
  if (p.size == 0) return;
  const CastKernels& k = cast_kernels();
  DType compute_dtype = dtype_of(p.compute);
  bool need_walk = false;
  Singles singles;
  unsigned scalars = 0;
  for (int j = 0; j < p.inputs; j++) {
    MapOperand& o = p.in[j];
    if (!o.data) continue;
    if (p.size == 1 && o.dtype == compute_dtype) {
      o.direct = true;
      o.single = false;
    }
    if (o.single) {
      k.load[int(p.compute)][int(o.dtype)](singles.value[j], o.data, 1, 1);
      if (p.inputs == 2 && !p.random && scalars == 0) scalars |= 1u << j;
    } else {
      o.direct = o.direct && o.dtype == compute_dtype;
      need_walk = need_walk || !o.direct;
    }
  }
  p.out.single = false;
  p.out.direct = p.out.direct && p.out.dtype == (p.mask ? DType::Bool : compute_dtype);
  if (need_walk || !p.out.direct) coalesce(p);
  struct Job {
    const MapPlan& p;
    const Singles& s;
    unsigned scalars;
  } job{p, singles, scalars};
  // Cut between tiles, so that a thread has whole groups of codes.
  auto body = [](void* ctx, int64_t begin, int64_t end) {
    const Job& j = *static_cast<Job*>(ctx);
    run_range(j.p, j.s, j.scalars, begin * kTile, end * kTile < j.p.size ? end * kTile : j.p.size);
  };
  int64_t count = (p.size + kTile - 1) / kTile;
  if (p.size <= kGrain)
    body(&job, 0, count);
  else
    pb_parallel_for(count, kGrain / kTile, body, &job);
}

// ---- raw helpers

void map_fill(const Tensor& t, const void* value, Compute c) {
  if (t.size() == 0) return;
  if (on_cuda(t)) return cuda::fill_tensor(t, value, c);
  const CastKernels& k = cast_kernels();
  MapOperand o = operand_of(t, t.shape());
  if (o.single) {
    k.store[int(c)][int(t.dtype())](o.data, 1, value, 1);
    return;
  }
  alignas(64) char tile[kTile * 8];
  splat(tile, value, c);
  for (int64_t at = 0; at < t.size(); at += kTile)
    scatter(k, c, o, t.shape(), at, t.size() - at < kTile ? t.size() - at : kTile, tile);
}

void map_read(const Tensor& t, void* value, Compute c) {
  if (on_cuda(t)) return cuda::read_value(t, value, c);
  cast_kernels().load[int(c)][int(t.dtype())](value, t.raw(), 1, 1);
}

// Copies with a cast through the compute type of the source, so an integer reaches a float in one rounding.
void copy_into(const Tensor& dst, const Tensor& src) {
  if (dst.size() == 0) return;
  if (on_cuda(dst) || on_cuda(src)) return cuda::copy_tensor(dst, src);
  if (dst.dtype() == src.dtype() && dst.contiguous() && src.contiguous() && dst.shape() == src.shape()) {
    std::memcpy(dst.raw(), src.raw(), size_t(dst.size()) * itemsize(dst.dtype()));
    return;
  }
  struct Job {
    MapOperand d, s;
    Shape shape;
    Compute c;
  } job{operand_of(dst, dst.shape()), operand_of(src, dst.shape()), dst.shape(), compute_of(src.dtype())};
  MapPlan plan;  // borrow the coalescing
  plan.shape = dst.shape();
  plan.inputs = 1;
  plan.in[0] = job.s;
  plan.in[0].single = false;
  if (job.s.single) plan.in[0].strides = Strides(dst.ndim(), 0);
  plan.out = job.d;
  plan.out.single = false;
  if (job.d.single) plan.out.strides = dst.strides();
  coalesce(plan);
  job.s = plan.in[0];
  job.d = plan.out;
  job.shape = plan.shape;
  pb_parallel_for(
      dst.size(), kGrain,
      [](void* ctx, int64_t begin, int64_t end) {
        const Job& j = *static_cast<Job*>(ctx);
        const CastKernels& k = cast_kernels();
        alignas(64) char tile[kTile * 8];
        for (int64_t at = begin; at < end; at += kTile) {
          int64_t n = end - at < kTile ? end - at : kTile;
          gather(k, j.c, j.s, j.shape, at, n, tile);
          scatter(k, j.c, j.d, j.shape, at, n, tile);
        }
      },
      &job);
}

Tensor uniform_of(RandomState state, const Shape& shape, DType dtype, Device device) {
  bool wide = dtype == DType::F64;
  Tensor u = empty(shape, wide ? DType::F64 : DType::F32, device);
  if (on_cuda(u)) {
    cuda::map_forward(find_map("_uniform"), u, {}, compute_of(u.dtype()), nullptr, &state);
    return u;
  }
  cast_kernels().uniform[wide](u.raw(), state.seed, state.offset, 0, u.size());
  return u;
}

bool all_finite(const Tensor& t) {
  if (!is_float(t.dtype())) return true;
  if (on_cuda(t)) {
    GradMode off(false);
    Dims axes(t.ndim());
    for (int d = 0; d < t.ndim(); d++) axes[d] = d;
    return item_int(sum(cast(isfinite(detach(t)), DType::I64))) == t.size();
  }
  const CastKernels& k = cast_kernels();
  MapOperand o = operand_of(t, t.shape());
  if (o.single) return std::isfinite(item_double(t));
  alignas(64) double tile[kTile];
  for (int64_t at = 0; at < t.size(); at += kTile) {
    int64_t n = t.size() - at < kTile ? t.size() - at : kTile;
    gather(k, Compute::F64, o, t.shape(), at, n, tile);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += tile[i] * 0.0;
    if (!(sum == 0)) return false;
  }
  return true;
}

}  // namespace pb
