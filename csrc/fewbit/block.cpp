#include "fewbit/block.h"

#include <string>

#include "cpu/isa_std.h"
#include "cuda/engine.h"
#include "families/map.h"
#include "families/map_saved.h"
#include "families/view.h"
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

// The words of some memory, shared by all slots that keep it.
struct Words {
  Tensor words;
  uint32_t version;
  int64_t offset;
  Shape shape;
  DType dtype;
  int bits;
  bool of(const Tensor& x, int b) const {
    return bits == b && version == x->storage->version && offset == x->offset && dtype == x.dtype() &&
           shape == x.shape();
  }
};

std::shared_ptr<const Words> words_of(const Tensor& x, int bits) {
  std::weak_ptr<const void>& slot = x->storage->packed;
  auto known = std::static_pointer_cast<const Words>(slot.lock());
  if (known && x.contiguous() && known->of(x, bits)) return known;
  auto made = std::make_shared<const Words>(
      Words{block_quantise(x, bits), x->storage->version, x->offset, x.shape(), x.dtype(), bits});
  if (x.contiguous()) slot = made;
  return made;
}

// `place` has the tensor's place in the graph and no data; without one the tensor is a constant, or what the slot's
// reader does not differentiate. `strides` make a view of the restored memory.
class Blocks final : public Late {
 public:
  Blocks(std::shared_ptr<const Words> words, const Tensor& place) : words_(std::move(words)) {
    if (!wants_node(place)) return;
    place_ = place->node ? empty({0}, place.dtype()) : place;
    if (place->node) attach(place_, place->node, place->out_index);
  }
  Blocks(std::shared_ptr<const Words> words, const Shape& shape, const Strides& strides)
      : words_(std::move(words)), shape_(shape), strides_(strides), view_(true) {}

  Tensor get(const Tensor&, const char*) const override {
    Tensor x = block_restore(words_->words, words_->shape, words_->dtype, words_->bits);
    if (view_) x = alias(x, shape_, strides_, 0);
    if (place_) record("restore", {place_}, x, [](const PullArgs& a) { a.gin[0] = a.g[0]; });
    return x;
  }
  BlockRows rows() const {
    if (view_ || words_->dtype != DType::F32) return {};
    int64_t n = row_length(words_->shape);
    return {words_->words.data<uint8_t>(), words_->bits, n ? count(words_->shape) / n : 0, n};
  }
  const char* scheme() const override { return words_->bits == 8 ? "int8 blocks" : "int4 blocks"; }
  const char* error() const override { return "unbiased"; }

 private:
  std::shared_ptr<const Words> words_;
  Tensor place_;
  Shape shape_;
  Strides strides_;
  bool view_ = false;
};

bool packs(const Tensor& x, int bits) {
  if (!bits || !x || !is_float(x.dtype()) || x.dtype() == DType::F64 || has_tangent(x) || x.weak()) return false;
  return !x->wants_grad;  // a leaf that asks for its gradient is held by its owner anyway
}

}  // namespace

Tensor block_quantise(const Tensor& input, int bits) {
  if (on_cuda(input)) cuda::no_kernel("block_quantise", input);
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
  if (!packs(x, bits)) return Saved::operand(x);
  refresh_view(x);
  Node* n = x->node;
  if (n && (n->late & kRebuildsForProducts) && !x->out_index && !x->storage->version) return Saved::operand(x);
  return saved_whole(x, bits);
}

Saved saved_whole(const Tensor& x, int bits) {
  if (!packs(x, bits)) return Saved::whole(x);
  refresh_view(x);
  auto words = words_of(x, bits);
  return Saved::packed(words->words, std::make_shared<const Blocks>(words, x));
}

Saved saved_result(const Tensor& y, const Shape& memory, int bits) {
  Tensor flat = alias(y, memory, contiguous_strides(memory), y->offset);
  auto words = words_of(flat, bits);
  return Saved::packed(words->words, std::make_shared<const Blocks>(words, y.shape(), y.strides()));
}

BlockRows block_rows(const Saved& s) {
  const Tensor& t = s.peek();
  if (mode().grad || !t || !t->meta) return {};
  auto* blocks = dynamic_cast<const Blocks*>(t->meta->late.get());
  return blocks ? blocks->rows() : BlockRows{};
}

int operand_bits(const char* op, int of_call) {
  if (of_call < 0) return 0;  // exactly
  const SavingState& s = saving_state();
  int bits = of_call ? of_call : s.inputs ? s.inputs : s.policy_inputs;
  if (bits != 0 && bits != 4 && bits != 8)
    fail<ValueError>(op, "saved= takes 4 or 8, the bits of a block-quantised input, got " + std::to_string(bits),
                     "leave saved= out to keep the input exactly");
  return bits;
}

}  // namespace pb
