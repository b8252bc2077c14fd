// Packing: a strip of an operand, any strides, becomes `width` neighbouring elements per step of k.
// A Load policy reads the source; it is the place where stored codes (int8, int4, bf16) become numbers.
#pragma once

namespace pb {

// Square blocks that transpose in registers.
#if defined(__AVX2__)
inline constexpr int kBlockBytes = 32;
#else
inline constexpr int kBlockBytes = 16;
#endif
template <class S>
struct BlockOf;
template <>
struct BlockOf<float> {
  typedef float type __attribute__((vector_size(kBlockBytes)));
  typedef float unaligned __attribute__((vector_size(kBlockBytes), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(kBlockBytes)));
};
template <>
struct BlockOf<double> {
  typedef double type __attribute__((vector_size(kBlockBytes)));
  typedef double unaligned __attribute__((vector_size(kBlockBytes), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(kBlockBytes)));
};
template <class S>
inline constexpr int kBlock = kBlockBytes / int(sizeof(S));

template <class S>
struct LoadIdentity {
  using Source = S;
  static constexpr bool direct = true;  // the kernel may read the source where it lies
  static S at(const S* p) { return *p; }
  static typename BlockOf<S>::type block(const S* p) {
    return *reinterpret_cast<const typename BlockOf<S>::unaligned*>(p);
  }
};

template <class S>
void store_block(S* p, typename BlockOf<S>::type v) {
  *reinterpret_cast<typename BlockOf<S>::unaligned*>(p) = v;
}

// r[i][j] becomes r[j][i].
#if defined(__AVX2__)
inline void transpose(BlockOf<float>::type (&r)[8]) {
  using M = BlockOf<float>::mask;
  BlockOf<float>::type t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shuffle(r[i], r[i + 1], M{0, 8, 1, 9, 4, 12, 5, 13});
    t[i + 1] = __builtin_shuffle(r[i], r[i + 1], M{2, 10, 3, 11, 6, 14, 7, 15});
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      u[i + 2 * j] = __builtin_shuffle(t[i + j], t[i + j + 2], M{0, 1, 8, 9, 4, 5, 12, 13});
      u[i + 2 * j + 1] = __builtin_shuffle(t[i + j], t[i + j + 2], M{2, 3, 10, 11, 6, 7, 14, 15});
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = __builtin_shuffle(u[i], u[i + 4], M{0, 1, 2, 3, 8, 9, 10, 11});
    r[i + 4] = __builtin_shuffle(u[i], u[i + 4], M{4, 5, 6, 7, 12, 13, 14, 15});
  }
}
inline void transpose(BlockOf<double>::type (&r)[4]) {
  using M = BlockOf<double>::mask;
  BlockOf<double>::type t[4];
#pragma GCC unroll 2
  for (int i = 0; i < 4; i += 2) {
    t[i] = __builtin_shuffle(r[i], r[i + 1], M{0, 4, 2, 6});
    t[i + 1] = __builtin_shuffle(r[i], r[i + 1], M{1, 5, 3, 7});
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    r[i] = __builtin_shuffle(t[i], t[i + 2], M{0, 1, 4, 5});
    r[i + 2] = __builtin_shuffle(t[i], t[i + 2], M{2, 3, 6, 7});
  }
}
#else
inline void transpose(BlockOf<float>::type (&r)[4]) {
  using M = BlockOf<float>::mask;
  BlockOf<float>::type t[4];
#pragma GCC unroll 2
  for (int i = 0; i < 4; i += 2) {
    t[i] = __builtin_shuffle(r[i], r[i + 1], M{0, 4, 1, 5});
    t[i + 1] = __builtin_shuffle(r[i], r[i + 1], M{2, 6, 3, 7});
  }
#pragma GCC unroll 2
  for (int j = 0; j < 2; j++) {
    r[2 * j] = __builtin_shuffle(t[j], t[j + 2], M{0, 1, 4, 5});
    r[2 * j + 1] = __builtin_shuffle(t[j], t[j + 2], M{2, 3, 6, 7});
  }
}
inline void transpose(BlockOf<double>::type (&r)[2]) {
  using M = BlockOf<double>::mask;
  BlockOf<double>::type t = __builtin_shuffle(r[0], r[1], M{0, 2});
  r[1] = __builtin_shuffle(r[0], r[1], M{1, 3});
  r[0] = t;
}
#endif

// A block of an operand in its packed form: strips of up to `pitch` lines, each with `pitch` elements per step of k.
// Lines are rows of a or columns of b. A step of 0 means strips of nearly equal width.
struct Strips {
  int64_t lines, count, pitch, step;
  int64_t begin(int64_t s) const {
    int64_t at = step ? s * step : s * lines / count;
    return at < lines ? at : lines;
  }
  int64_t width(int64_t s) const { return begin(s + 1) - begin(s); }
};

// Neighbours along the lines: each step of k is read in one go and dealt out to the strips. Whole blocks are copied,
// the last one overlapping its predecessor.
template <class Load, class S>
void pack_copy(S* dst, const typename Load::Source* src, int64_t k_step, int64_t k, const Strips& t) {
  constexpr int T = kBlock<S>;
  constexpr int64_t kGroup = 8;  // strips written together
  for (int64_t s0 = 0; s0 < t.count; s0 += kGroup, dst += kGroup * k * t.pitch) {
    int64_t n = t.count - s0 < kGroup ? t.count - s0 : kGroup, begin[kGroup + 1];
    for (int64_t s = 0; s <= n; s++) begin[s] = t.begin(s0 + s);
    for (int64_t p = 0; p < k; p++)
      for (int64_t s = 0; s < n; s++) {
        int64_t width = begin[s + 1] - begin[s];
        const auto* from = src + p * k_step + begin[s];
        S* to = dst + (s * k + p) * t.pitch;
        __builtin_prefetch(from + 8 * k_step);  // rows far apart escape the hardware's prefetcher
        if (width * int64_t(sizeof(*from)) > 64) __builtin_prefetch(from + 8 * k_step + 64 / sizeof(*from));
        if (width < T) {
          for (int64_t i = 0; i < width; i++) to[i] = Load::at(from + i);
          continue;
        }
        for (int64_t i = 0; i + T <= width; i += T) store_block(to + i, Load::block(from + i));
        if (width % T) store_block(to + width - T, Load::block(from + width - T));
      }
  }
}

// Neighbours along k: up to T rows are transposed, two blocks at a time, so that a line of the source is read once.
// Rows beyond `width` repeat the last one.
template <class Load, class S>
void pack_transpose(S* dst, int64_t pitch, const typename Load::Source* src, int64_t row, int64_t width, int64_t k) {
  constexpr int T = kBlock<S>;
  using V = typename BlockOf<S>::type;
  const typename Load::Source* rows[T];
  for (int i = 0; i < T; i++) rows[i] = src + (i < width ? i : width - 1) * row;
  int64_t p = 0;
  for (; p + 2 * T <= k; p += 2 * T) {
    V r[T], s[T];
#pragma GCC unroll 8
    for (int i = 0; i < T; i++) {
      r[i] = Load::block(rows[i] + p);
      s[i] = Load::block(rows[i] + p + T);
    }
    transpose(r);
    transpose(s);
#pragma GCC unroll 8
    for (int i = 0; i < T; i++) store_block(dst + (p + i) * pitch, r[i]);
#pragma GCC unroll 8
    for (int i = 0; i < T; i++) store_block(dst + (p + T + i) * pitch, s[i]);
  }
  for (; p < k; p++)
    for (int64_t i = 0; i < T; i++) dst[p * pitch + i] = Load::at(rows[i] + p);
}

// Strip s, step p, line i of it: dst[(s * k + p) * pitch + i] = src[(begin(s) + i) * row + p * k_step]. pitch is a
// multiple of the block. What lies between a strip's width and its pitch are numbers of no meaning to anybody.
template <class Load, class S>
void pack(S* dst, const typename Load::Source* src, int64_t row, int64_t k_step, int64_t k, const Strips& t) {
  constexpr int T = kBlock<S>;
  if (row == 1) return pack_copy<Load>(dst, src, k_step, k, t);
  for (int64_t s = 0; s < t.count; s++, dst += k * t.pitch) {
    int64_t width = t.width(s);
    const auto* from = src + t.begin(s) * row;
    if (k_step == 1)
      for (int64_t i = 0; i < width; i += T)
        pack_transpose<Load>(dst + i, t.pitch, from + i * row, row, width - i < T ? width - i : T, k);
    else
      for (int64_t p = 0; p < k; p++)
        for (int64_t i = 0; i < width; i++) dst[p * t.pitch + i] = Load::at(from + i * row + p * k_step);
  }
}

}  // namespace pb
