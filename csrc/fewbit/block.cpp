#include "fewbit/block.h"

#include <string>

#include "cpu/isa_std.h"
#include "families/map.h"
#include "families/map_saved.h"
#include "fewbit/codec.h"
#include "value/philox.h"

namespace pb {

namespace {

int64_t row_length(const Shape& s) { return s.size() ? s.back() : 1; }

template <class F>
void over_rows(int64_t rows, int64_t n, F f) {
  pb_parallel_for(
      rows, 65536 / (n + 1) + 1,
      [](void* ctx, int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; r++) (*static_cast<F*>(ctx))(r);
      },
      &f);
}

// A row as floats: itself, or cast into the thread's buffer.
float* row_buffer(int64_t n) { return static_cast<float*>(pb_scratch(7, size_t(n) * sizeof(float))); }

// The words of one tensor, shared by all slots that keep it. `place` has the tensor's place in the graph and no data.
class Blocks final : public Late {
 public:
  Blocks(const Tensor& x, int bits)
      : words(block_quantise(x, bits)),
        version(x->storage->version),
        offset(x->offset),
        shape_(x.shape()),
        dtype_(x.dtype()),
        bits_(bits) {
    if (!wants_node(x)) return;
    place_ = x->node ? empty({0}, x.dtype()) : x;
    if (x->node) attach(place_, x->node, x->out_index);
  }

  Tensor get(const Tensor&, const char*) const override {
    Tensor x = block_restore(words, shape_, dtype_, bits_);
    if (place_) record("restore", {place_}, x, [](const PullArgs& a) { a.gin[0] = a.g[0]; });
    return x;
  }
  const char* scheme() const override { return bits_ == 8 ? "int8 blocks" : "int4 blocks"; }
  const char* error() const override { return "unbiased"; }

  bool holds(const Tensor& x, int bits) const {
    bool same = place_ ? wants_node(x) && place_->node == x->node && (x->node || place_.is(x)) : !wants_node(x);
    return same && bits == bits_ && version == x->storage->version && offset == x->offset && dtype_ == x.dtype() &&
           shape_ == x.shape();
  }

  const Tensor words;
  const uint32_t version;
  const int64_t offset;

 private:
  Shape shape_;
  DType dtype_;
  int bits_;
  Tensor place_;
};

}  // namespace

Tensor block_quantise(const Tensor& input, int bits) {
  GradMode off(false);
  Tensor x = contiguous(detach(input));
  int64_t n = row_length(x.shape()), rows = n ? x.size() / n : 0, bytes = block_row_bytes(n, bits);
  Tensor words = empty({rows * bytes}, DType::U8);
  RandomState s = default_generator().rounding();
  uint32_t c[4] = {uint32_t(s.offset >> 40), uint32_t(s.offset >> 32) >> 8, 0, 0};
  philox_block(c, uint32_t(s.seed), uint32_t(s.seed >> 32));
  uint64_t key = uint64_t(c[0]) << 32 | c[1];
  auto* to = words.data<uint8_t>();
  auto* from = static_cast<const char*>(x.raw());
  const auto load = cast_kernels().load[0][int(x.dtype())];
  int item = itemsize(x.dtype());
  bool direct = x.dtype() == DType::F32;
  over_rows(rows, n, [&](int64_t r) {
    const char* row = from + r * n * item;
    float* buffer = direct ? nullptr : row_buffer(n);
    if (!direct) load(buffer, row, 1, n);
    code_kernels().block_encode(to + r * bytes, direct ? reinterpret_cast<const float*>(row) : buffer, n, bits,
                                uint64_t(r * n), key);
  });
  return words;
}

Tensor block_restore(const Tensor& words, const Shape& shape, DType dtype, int bits) {
  Tensor x = empty(shape, dtype);
  int64_t n = row_length(shape), rows = n ? x.size() / n : 0, bytes = block_row_bytes(n, bits);
  auto* from = words.data<uint8_t>();
  auto* to = static_cast<char*>(x.raw());
  const auto store = cast_kernels().store[0][int(dtype)];
  int item = itemsize(dtype);
  bool direct = dtype == DType::F32;
  over_rows(rows, n, [&](int64_t r) {
    char* row = to + r * n * item;
    float* buffer = direct ? reinterpret_cast<float*>(row) : row_buffer(n);
    code_kernels().block_decode(buffer, from + r * bytes, n, bits);
    if (!direct) store(row, 1, buffer, n);
  });
  return x;
}

Saved saved_operand(const Tensor& x, int bits) {
  if (!bits || !x || !is_float(x.dtype()) || x.dtype() == DType::F64 || has_tangent(x) || x.weak())
    return Saved::operand(x);
  if (x->meta && x->meta->base) refresh_view(x);
  std::weak_ptr<const void>& slot = x->storage->packed;
  auto blocks = std::static_pointer_cast<const Blocks>(slot.lock());
  if (!blocks || !blocks->holds(x, bits)) {
    blocks = std::make_shared<const Blocks>(x, bits);
    slot = blocks;
  }
  return Saved::packed(blocks->words, blocks);
}

int operand_bits(const char* op, int of_call) {
  if (of_call < 0) return 0;
  int bits = of_call ? of_call : saving_state().inputs;
  if (bits != 0 && bits != 4 && bits != 8)
    fail<ValueError>(op, "saved= takes 4 or 8, the bits of a block-quantised input, got " + std::to_string(bits),
                     "leave saved= out to keep the input exactly");
  return bits;
}

}  // namespace pb
