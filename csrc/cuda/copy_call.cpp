#include "cuda/copy_call.h"

#include <cstring>

#include "cuda/allocator.h"
#include "cuda/api_copy.h"
#include "cuda/api_memory.h"
#include "cuda/capture.h"
#include "cuda/faults.h"
#include "cuda/layout.h"
#include "families/map.h"

namespace pb::cuda {

Layout merged(const Shape& shape, const Strides* strides, int operands, const char* op) {
  Layout l;
  l.operands = operands;
  for (int d = 0; d < shape.size(); d++) {
    if (shape[d] == 1) continue;
    int last = l.ndim - 1;
    bool merge = l.ndim > 0;
    for (int j = 0; merge && j < operands; j++) merge = l.strides[j][last] == strides[j][d] * shape[d];
    if (merge) {
      l.shape[last] *= shape[d];
    } else {
      if (l.ndim == kMaxDims)
        fail<DeviceError>(op, "a CUDA launch has at most " + std::to_string(kMaxDims) + " dimensions that do not merge",
                          "make the tensor contiguous or merge dimensions with reshape");
      last = l.ndim++;
      l.shape[last] = shape[d];
    }
    for (int j = 0; j < operands; j++) l.strides[j][last] = strides[j][d];
  }
  return l;
}

namespace {

// Both on one device.
void copy_within(const Tensor& dst, const Tensor& src) {
  Device device = dst.device();
  void* stream = stream_of(device);
  const Table& t = need_table("copy");
  bool same = dst.dtype() == src.dtype(), flat = dst.contiguous() && src.contiguous() && dst.shape() == src.shape();
  if (same && flat)
    return check(t.memory->copy(dst.raw(), src.raw(), size_t(dst.size()) * itemsize(dst.dtype()), stream), "copy");
  CopyArgs a{};
  a.out = dst.raw();
  a.in = src.raw();
  a.out_type = dst.dtype();
  a.in_type = src.dtype();
  a.n = dst.size();
  a.contiguous = flat && aligned16(a.out) && aligned16(a.in);
  Strides strides[2] = {dst.strides(), broadcast_strides(src.shape(), src.strides(), dst.shape())};
  Layout l = merged(dst.shape(), strides, 2, "copy");
  a.ndim = l.ndim;
  for (int d = 0; d < l.ndim; d++) {
    a.shape[d] = l.shape[d];
    a.out_strides[d] = l.strides[0][d];
    a.in_strides[d] = l.strides[1][d];
  }
  check(t.copy->copy(a, stream), "copy");
}

// Contiguous, of one dtype, between two places. From pageable memory the driver has read `src` when the call returns.
void move_bytes(const Tensor& dst, const Tensor& src) {
  const MemoryApi& m = *need_table("to").memory;
  size_t bytes = size_t(dst.size()) * itemsize(dst.dtype());
  if (on_cuda(dst) && on_cuda(src)) {
    // The source's stream waits for the target's, where the block may still be in use, and the target's for the copy.
    void *to = stream_of(dst.device()), *event = nullptr;
    check(m.event_create(&event, false), "to");
    check(m.event_record(event, to), "to");
    void* from = stream_of(src.device());
    check(m.stream_wait(from, event), "to");
    check(m.copy_peer(dst.raw(), dst.device().index, src.raw(), src.device().index, bytes, from), "to");
    check(m.event_destroy(event), "to");
    check(m.event_create(&event, false), "to");
    check(m.event_record(event, from), "to");
    to = stream_of(dst.device());
    check(m.stream_wait(to, event), "to");
    check(m.event_destroy(event), "to");
  } else if (on_cuda(dst)) {
    refuse_in_capture("to", "data of the CPU is copied to the device");
    check(m.copy(dst.raw(), src.raw(), bytes, stream_of(dst.device())), "to");
  } else {
    read_bytes(dst.raw(), src.raw(), bytes, src.device(), "to");
  }
}

}  // namespace

void read_bytes(void* to, const void* from, size_t bytes, Device device, const char* op) {
  refuse_in_capture(op, "a value of a device tensor is read");
  void* stream = stream_of(device);
  const Table& t = need_table(op);
  check(t.memory->copy(to, from, bytes, stream), op);
  check(t.synchronize(stream), op);
  raise_faults(device);
}

void copy_tensor(const Tensor& dst, const Tensor& src) {
  if (dst.size() == 0) return;
  if (dst.device() == src.device()) return copy_within(dst, src);
  // The cast and the layout are made where the data comes from, except that a broadcast travels before it grows.
  Tensor from = src;
  if (!src.contiguous() || src.dtype() != dst.dtype()) {
    from = empty(src.shape(), dst.dtype(), src.device());
    copy_into(from, src);
  }
  if (dst.contiguous() && dst.shape() == src.shape()) return move_bytes(dst, from);
  Tensor there = empty(src.shape(), dst.dtype(), dst.device());
  move_bytes(there, from);
  copy_into(dst, there);
}

void fill_tensor(const Tensor& t, const void* value, Compute c) {
  if (t.size() == 0) return;
  void* stream = stream_of(t.device());
  const Table& table = need_table("fill");
  FillArgs a{};
  cast_kernels().store[int(c)][int(t.dtype())](&a.bits, 1, value, 1);
  a.out = t.raw();
  a.item = itemsize(t.dtype());
  a.n = t.size();
  a.contiguous = t.contiguous();
  if (a.contiguous && a.bits == 0)
    return check(table.memory->set(a.out, 0, size_t(a.n) * size_t(a.item), stream), "fill");
  Layout l = merged(t.shape(), &t.strides(), 1, "fill");
  a.ndim = l.ndim;
  for (int d = 0; d < l.ndim; d++) a.shape[d] = l.shape[d], a.strides[d] = l.strides[0][d];
  check(table.copy->fill(a, stream), "fill");
}

void read_value(const Tensor& t, void* value, Compute c) {
  alignas(8) char bits[8];
  read_bytes(bits, t.raw(), size_t(itemsize(t.dtype())), t.device(), "item");
  cast_kernels().load[int(c)][int(t.dtype())](value, bits, 1, 1);
}

namespace {
PackArgs packed(const Tensor& words, int64_t n, int bits) {
  PackArgs a{};
  a.words = words.data<uint32_t>();
  a.n = n;
  a.bits = bits;
  return a;
}
}  // namespace

void pack_tensor(const Tensor& words, const Tensor& codes, int bits) {
  PackArgs a = packed(words, codes.size(), bits);
  a.codes = codes.data<uint8_t>();
  check(need_table("pack").copy->pack(a, stream_of(words.device())), "pack");
}

void unpack_tensor(const Tensor& codes, const Tensor& words, int bits) {
  PackArgs a = packed(words, codes.size(), bits);
  a.codes = codes.data<uint8_t>();
  check(need_table("unpack").copy->unpack(a, stream_of(words.device())), "unpack");
}

void unpack_levels(const Tensor& out, const Tensor& words, int bits, const float* level) {
  PackArgs a = packed(words, out.size(), bits);
  a.out = out.data<float>();
  for (int c = 0; c < 1 << bits; c++) a.level[c] = level[c];
  check(need_table("unpack").copy->unpack(a, stream_of(words.device())), "unpack");
}

}  // namespace pb::cuda
