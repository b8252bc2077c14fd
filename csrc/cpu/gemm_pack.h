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
template <class S> struct BlockOf;
template <> struct BlockOf<float> {
  typedef float type __attribute__((vector_size(kBlockBytes)));
  typedef float unaligned __attribute__((vector_size(kBlockBytes), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(kBlockBytes)));
};
template <> struct BlockOf<double> {
  typedef double type __attribute__((vector_size(kBlockBytes)));
  typedef double unaligned __attribute__((vector_size(kBlockBytes), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(kBlockBytes)));
};
template <class S> inline constexpr int kBlock = kBlockBytes / int(sizeof(S));

template <class S> struct LoadIdentity {
  using Source = S;
  static constexpr bool direct = true;  // the kernel may read the source where it lies
  static S at(const S* p) { return *p; }
  static typename BlockOf<S>::type block(const S* p) {
    return *reinterpret_cast<const typename BlockOf<S>::unaligned*>(p);
  }
};

template <class S> void store_block(S* p, typename BlockOf<S>::type v) {
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

// Neighbours along the width: whole blocks, the last one overlapping its predecessor.
template <class Load, class S>
void pack_copy(S* dst, int64_t pitch, const typename Load::Source* src, int64_t k_step, int64_t width, int64_t k) {
  constexpr int T = kBlock<S>;
  for (int64_t p = 0; p < k; p++, dst += pitch, src += k_step) {
    __builtin_prefetch(src + pitch);  // the strip that is packed next
    if (width < T) {
      for (int64_t i = 0; i < width; i++) dst[i] = Load::at(src + i);
      continue;
    }
    for (int64_t i = 0; i + T <= width; i += T) store_block(dst + i, Load::block(src + i));
    if (width % T) store_block(dst + width - T, Load::block(src + width - T));
  }
}

// Neighbours along k: B blocks of T rows by T steps are transposed together. Rows beyond `width` repeat the last one;
// what they write beyond the strip is overwritten by the next step, so dst needs T elements of slack at its end.
template <class Load, int B, class S>
void pack_transpose(S* dst, int64_t pitch, const typename Load::Source* src, int64_t row, int64_t width, int64_t k) {
  constexpr int T = kBlock<S>;
  using V = typename BlockOf<S>::type;
  int64_t p = 0;
  for (; p + T <= k; p += T) {
    V r[B][T];
#pragma GCC unroll 4
    for (int b = 0; b < B; b++) {
#pragma GCC unroll 8
      for (int i = 0; i < T; i++) {
        int64_t at = b * T + i < width ? b * T + i : width - 1;
        r[b][i] = Load::block(src + at * row + p);
      }
      transpose(r[b]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < T; i++)
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) store_block(dst + (p + i) * pitch + b * T, r[b][i]);
  }
  for (; p < k; p++)
    for (int64_t i = 0; i < width; i++) dst[p * pitch + i] = Load::at(src + i * row + p);
}

// dst[p * pitch + i] = src[i * row + p * k_step] for i < width, p < k. Columns from width to pitch become 0.
template <class Load, class S>
void pack(S* dst, int64_t pitch, const typename Load::Source* src, int64_t row, int64_t k_step, int64_t width,
          int64_t k) {
  constexpr int T = kBlock<S>;
  if (row == 1) {
    pack_copy<Load>(dst, pitch, src, k_step, width, k);
  } else if (k_step == 1 && (width + T - 1) / T * T == pitch && width > 2 * T) {
    int64_t i = 0;  // strips of b: a pitch of whole blocks
    for (; i + T < width; i += 2 * T)
      pack_transpose<Load, 2>(dst + i, pitch, src + i * row, row, width - i < 2 * T ? width - i : 2 * T, k);
    if (i < width) pack_transpose<Load, 1>(dst + i, pitch, src + i * row, row, width - i, k);
  } else if (k_step == 1 && width <= T) {
    pack_transpose<Load, 1>(dst, pitch, src, row, width, k);
  } else if (k_step == 1 && width <= 2 * T) {
    pack_transpose<Load, 2>(dst, pitch, src, row, width, k);
  } else if (k_step == 1 && width <= 4 * T) {
    pack_transpose<Load, 4>(dst, pitch, src, row, width, k);
  } else {
    for (int64_t p = 0; p < k; p++)
      for (int64_t i = 0; i < width; i++) dst[p * pitch + i] = Load::at(src + i * row + p * k_step);
  }
  if (width < pitch)
    for (int64_t p = 0; p < k; p++)
      for (int64_t i = width; i < pitch; i++) dst[p * pitch + i] = S(0);
}

}  // namespace pb
