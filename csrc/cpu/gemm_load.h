// Load policies: how packing reads an operand.
//
// Note [Load policies]
// Packing reads an operand through a Load policy only. Lines are what the register tile keeps apart (rows of a, columns
// of b), steps run along k. A policy offers
//   batch(b)              the policy of the b-th product
//   at(line, step)        one number
//   line(i), step(k)      a cursor along the line or the step; its block(x) is kSquare<P> neighbouring numbers from x
//   on
//                         and at(x) one number. Asked for only where along_lines() or along_steps() says so
//   whole_steps()         steps beyond it are read by at() only
//   direct(line, step)    where the number lies in memory: the kernel may skip packing if `dense`, or as a plan says
// Operands of another format have dense = false and are decoded in block(): nothing but the packed block ever holds
// them in the type of the tile. A cursor is made once per line and strip, so it is the place to find a line's codes.
#pragma once
#include "cpu/code_table.h"
#include "cpu/gemm_plan.h"
#include "value/half.h"

namespace pb {

// Square blocks that transpose in registers.
#if defined(__AVX2__)
inline constexpr int kBlockBytes = 32;
#else
inline constexpr int kBlockBytes = 16;
#endif
template <class P>
struct BlockOf {
  typedef P type __attribute__((vector_size(kBlockBytes)));
  typedef P unaligned __attribute__((vector_size(kBlockBytes), aligned(sizeof(P)), may_alias));
};
template <class P>
inline constexpr int kSquare = kBlockBytes / int(sizeof(P));

template <class S>
struct DenseCursor {
  const S* p;
  typename BlockOf<S>::type block(int64_t x) const {
    return *reinterpret_cast<const typename BlockOf<S>::unaligned*>(p + x);
  }
  S at(int64_t x) const { return p[x]; }
  void prefetch(int64_t x) const { __builtin_prefetch(p + x); }
};
template <class S>
struct LoadDense {
  static constexpr bool dense = true;
  const S* data;
  int64_t line_stride, step_stride, batch_stride;
  LoadDense batch(int64_t b) const { return {data + b * batch_stride, line_stride, step_stride, batch_stride}; }
  bool along_lines() const { return line_stride == 1; }  // neighbouring lines are neighbours in memory
  bool along_steps() const { return step_stride == 1; }
  int64_t whole_steps() const { return INT64_MAX; }
  S at(int64_t i, int64_t k) const { return *direct(i, k); }
  DenseCursor<S> line(int64_t i) const { return {data + i * line_stride}; }
  DenseCursor<S> step(int64_t k) const { return {data + k * step_stride}; }
  const S* direct(int64_t i, int64_t k) const { return data + i * line_stride + k * step_stride; }
};

// Two bfloat16 numbers of neighbouring steps, the earlier in the low half: what vdpbf16ps multiplies.
using Pair = uint32_t;
typedef uint32_t any_pair __attribute__((aligned(2), may_alias));
typedef typename BlockOf<Pair>::type PairBlock;
typedef uint16_t HalfBlock __attribute__((vector_size(kBlockBytes / 2)));
typedef uint16_t any_half_block __attribute__((vector_size(kBlockBytes / 2), aligned(2), may_alias));
typedef uint32_t any_pair_block __attribute__((vector_size(kBlockBytes), aligned(2), may_alias));
inline PairBlock widened(const uint16_t* p) {
  return __builtin_convertvector(HalfBlock(*reinterpret_cast<const any_half_block*>(p)), PairBlock);
}

// A step is a pair; with an odd k the last one has a zero above.
struct LoadPairs {
  static constexpr bool dense = false;
  const uint16_t* data;
  int64_t line_stride, step_stride, batch_stride, numbers;  // strides in bfloat16 numbers, of which k has `numbers`
  struct Line {
    const uint16_t* p;
    int64_t whole;
    PairBlock block(int64_t x) const { return *reinterpret_cast<const any_pair_block*>(p + 2 * x); }
    Pair at(int64_t x) const { return x < whole ? *reinterpret_cast<const any_pair*>(p + 2 * x) : p[2 * x]; }
    void prefetch(int64_t x) const { __builtin_prefetch(p + 2 * x); }
  };
  struct Step {
    const uint16_t *low, *high;
    Pair mask;
    PairBlock block(int64_t x) const { return widened(low + x) | (widened(high + x) << 16 & mask); }
    Pair at(int64_t x) const { return low[x] | (Pair(high[x]) << 16 & mask); }
    void prefetch(int64_t x) const {
      __builtin_prefetch(low + x);
      __builtin_prefetch(high + x);
    }
  };
  LoadPairs batch(int64_t b) const {
    return {data + b * batch_stride, line_stride, step_stride, batch_stride, numbers};
  }
  bool along_lines() const { return line_stride == 1; }
  bool along_steps() const { return step_stride == 1; }
  int64_t whole_steps() const { return numbers / 2; }
  Line line(int64_t i) const { return {data + i * line_stride, numbers / 2}; }
  const Pair* direct(int64_t, int64_t) const { return nullptr; }  // never
  Step step(int64_t k) const {
    const uint16_t* low = data + 2 * k * step_stride;
    bool both = 2 * k + 1 < numbers;
    return {low, both ? low + step_stride : low, both ? 0xffff0000u : 0u};
  }
  Pair at(int64_t i, int64_t k) const { return step(k).at(i * line_stride); }
};

// Floats stored otherwise. Quantised rows (Note [Blocks], code_table.h) run along the lines or along k.
inline float coded_number(const char* row, int64_t x, Form form, int64_t length) {
  auto* half = reinterpret_cast<const uint16_t*>(row);
  if (form == Form::BF16) return bf16_to_float(half[x]);
  if (form == Form::F16) return f16_to_float(half[x]);
  int64_t blocks = (length + kBlock - 1) / kBlock, at = x / kBlock;
  int i = int(x % kBlock), m = int(at_most(kBlock, length - at * kBlock));
  if (form == Form::Int8) {
    auto* body = reinterpret_cast<const uint8_t*>(half + blocks) + at * kBlock;
    return float(int32_t(body[i]) - 127) * bf16_to_float(half[at]);
  }
  auto* body = reinterpret_cast<const uint8_t*>(half + 2 * blocks) + at * (kBlock / 2);
  int middle = (m + 1) / 2, code = i < middle ? body[i] & 15 : body[i - middle] >> 4;
  return bf16_to_float(half[2 * at]) + float(int32_t(code)) * bf16_to_float(half[2 * at + 1]);
}

struct LoadCoded {
  static constexpr bool dense = false;
  static constexpr int T = kSquare<float>;
  typedef typename BlockOf<float>::type Floats;
  typedef int32_t Ints __attribute__((vector_size(kBlockBytes)));
  typedef uint8_t Bytes __attribute__((vector_size(T)));
  typedef uint8_t any_bytes __attribute__((vector_size(T), aligned(1), may_alias));

  Form form;
  const char* data;
  int64_t line_stride, step_stride, batch_stride;  // in numbers of 16 bits; of quantised rows 1 and the bytes of a row
  int64_t length;                                  // numbers of a quantised row

  struct Cursor {
    const char* row;
    Form form;
    int64_t length;
    float at(int64_t x) const { return coded_number(row, x, form, length); }
    void prefetch(int64_t) const {}
    static Ints codes(const uint8_t* p) {
      return __builtin_convertvector(Bytes(*reinterpret_cast<const any_bytes*>(p)), Ints);
    }
    // Numbers [x, x + T) where they lie in one block of 64; of 4 bits also in one half of a full block.
    bool whole(uint64_t x) const {
      uint64_t i = x % kBlock;
      if (form == Form::Int8) return i + T <= kBlock;
      return i % (kBlock / 2) + T <= kBlock / 2 && int64_t(x - i) + kBlock <= length;
    }
    Floats block(int64_t x) const {
      auto* half = reinterpret_cast<const uint16_t*>(row);
      if (form == Form::BF16) return (Floats)(widened(half + x) << 16);
#if defined(__F16C__)
      if (form == Form::F16)
        return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half + x)));
#endif
      if (form == Form::F16 || !whole(x)) {
        Floats v{};
        for (int i = 0; i < T; i++) v[i] = at(x + i);
        return v;
      }
      uint64_t blocks = uint64_t(length + kBlock - 1) / kBlock, b = uint64_t(x) / kBlock, i = uint64_t(x) % kBlock;
      if (form == Form::Int8) {
        auto* body = reinterpret_cast<const uint8_t*>(half + blocks);
        return __builtin_convertvector(codes(body + x) - 127, Floats) * bf16_to_float(half[b]);
      }
      auto* body = reinterpret_cast<const uint8_t*>(half + 2 * blocks) + b * (kBlock / 2) + i % (kBlock / 2);
      Ints q = i < kBlock / 2 ? codes(body) & 15 : codes(body) >> 4;
      return bf16_to_float(half[2 * b]) + __builtin_convertvector(q, Floats) * bf16_to_float(half[2 * b + 1]);
    }
  };

  const float* direct(int64_t i, int64_t k) const {  // of 16-bit numbers
    return reinterpret_cast<const float*>(data + 2 * (i * line_stride + k * step_stride));
  }
  bool quantised() const { return form == Form::Int8 || form == Form::Int4; }
  bool along_lines() const { return line_stride == 1; }
  bool along_steps() const { return step_stride == 1; }
  int64_t whole_steps() const { return INT64_MAX; }
  int64_t bytes(int64_t stride) const { return quantised() ? stride : 2 * stride; }
  LoadCoded batch(int64_t b) const {
    LoadCoded r = *this;
    r.data += bytes(b * batch_stride);
    return r;
  }
  Cursor line(int64_t i) const { return {data + bytes(i * line_stride), form, length}; }
  Cursor step(int64_t k) const { return {data + bytes(k * step_stride), form, length}; }
  float at(int64_t i, int64_t k) const {
    return quantised() && along_lines() ? step(k).at(i) : line(i).at(k * step_stride);
  }
};

}  // namespace pb
