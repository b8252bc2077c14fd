// Packing: a strip of an operand, any strides, becomes neighbouring numbers per step of k.
#pragma once
#include "cpu/gemm_load.h"

namespace pb {

template <class S>
void store_block(S* p, typename BlockOf<S>::type v) {
  *reinterpret_cast<typename BlockOf<S>::unaligned*>(p) = v;
}

// r[i][j] becomes r[j][i].
#if defined(__AVX2__)
template <class V>
void transpose(V (&r)[8]) {
  using M = decltype(r[0] == r[0]);
  V t[8], u[8];
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
template <class V>
void transpose(V (&r)[4]) {
  using M = decltype(r[0] == r[0]);
  V t[4];
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
template <class V>
void transpose(V (&r)[4]) {
  using M = decltype(r[0] == r[0]);
  V t[4];
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
template <class V>
void transpose(V (&r)[2]) {
  using M = decltype(r[0] == r[0]);
  V t = __builtin_shuffle(r[0], r[1], M{0, 2});
  r[1] = __builtin_shuffle(r[0], r[1], M{1, 3});
  r[0] = t;
}
#endif

// Lines [first, first + lines) of an operand in packed form: `count` strips of up to `pitch` lines, each with `pitch`
// numbers per step of k. A step of 0 means strips of nearly equal width.
struct Strips {
  int64_t first, lines, count, pitch, step, base, extra;
  Strips(int64_t first_, int64_t lines_, int64_t most, int64_t pitch_, bool equal)
      : first(first_),
        lines(lines_),
        count((lines_ + most - 1) / most),
        pitch(pitch_),
        step(equal ? 0 : most),
        base(lines_ / count),
        extra(lines_ % count) {}
  int64_t begin(int64_t s) const {
    int64_t at = step ? s * step : s * base + (s < extra ? s : extra);
    return at < lines ? at : lines;
  }
  int64_t width(int64_t s) const { return begin(s + 1) - begin(s); }
};

// Steps [p, p + steps) of one strip, read along the lines: N whole blocks, and one that overlaps if width asks for it.
template <int N, class S, class Load>
void copy_steps(S* to, int64_t pitch, const Load& load, int64_t i, int64_t width, int64_t p, int64_t steps) {
  constexpr int T = kSquare<S>;
  bool rest = width > N * T;
  for (int64_t end = p + steps; p < end; p++, to += pitch) {
    auto from = load.step(p);
    load.step(p + 16).prefetch(i);  // rows far apart escape the hardware's prefetcher
#pragma GCC unroll 4
    for (int b = 0; b < N; b++) store_block(to + b * T, from.block(i + b * T));
    if (rest) store_block(to + width - T, from.block(i + width - T));
  }
}

// The same for strips [s0, s1) of N blocks each, step after step: memory is read in long runs.
template <int N, class S, class Load>
void copy_whole(S* dst, int64_t strip, const Load& load, int64_t k0, int64_t k, const Strips& t, int64_t s0,
                int64_t s1) {
  constexpr int T = kSquare<S>;
  for (int64_t p = 0; p < k; p++) {
    auto from = load.step(k0 + p);
    S* to = dst + p * N * T;
    int64_t i = t.first + s0 * N * T;
    for (int64_t s = s0; s < s1; s++, to += strip, i += N * T) {
#pragma GCC unroll 4
      for (int b = 0; b < N; b++) store_block(to + b * T, from.block(i + b * T));
    }
  }
}

// Neighbours along the lines. Strips that are not full go sixteen steps at a time, so that a line of memory which two
// of them share is read once.
template <class S, class Load>
void pack_copy(S* dst, int64_t strip, const Load& load, int64_t k0, int64_t k, const Strips& t, int64_t s0,
               int64_t s1) {
  constexpr int T = kSquare<S>;
  if (t.step == t.pitch) {
    int64_t full = at_most(s1, t.lines / t.step);
    if (full > s0) {
      if (t.pitch == 4 * T)
        copy_whole<4>(dst, strip, load, k0, k, t, s0, full);
      else if (t.pitch == 2 * T)
        copy_whole<2>(dst, strip, load, k0, k, t, s0, full);
      else
        full = s0;
    }
    if (full > s0) dst += (full - s0) * strip, s0 = full;
  }
  for (int64_t p = 0; p < k; p += 16) {
    int64_t steps = k - p < 16 ? k - p : 16;
    for (int64_t s = s0; s < s1; s++) {
      int64_t i = t.first + t.begin(s), width = t.width(s);
      S* to = dst + (s - s0) * strip + p * t.pitch;
      if (width < T && t.begin(s) + T <= t.lines) width = T;  // some lines of the next strip come along
      switch (width / T) {
        case 0:
          for (int64_t q = 0; q < steps; q++)
            for (int64_t x = 0; x < width; x++) to[q * t.pitch + x] = load.at(i + x, k0 + p + q);
          break;
        case 1:
          copy_steps<1>(to, t.pitch, load, i, width, k0 + p, steps);
          break;
        case 2:
          copy_steps<2>(to, t.pitch, load, i, width, k0 + p, steps);
          break;
        case 3:
          copy_steps<3>(to, t.pitch, load, i, width, k0 + p, steps);
          break;
        default:
          copy_steps<4>(to, t.pitch, load, i, width, k0 + p, steps);
          break;
      }
    }
  }
}

// Neighbours along k: up to T lines are transposed, two blocks at a time, so that a line of memory is read once.
// Lines beyond `width` repeat the last one.
template <class S, class Load>
void pack_transpose(S* dst, int64_t pitch, const Load& load, int64_t line, int64_t width, int64_t k0, int64_t k) {
  constexpr int T = kSquare<S>;
  using V = typename BlockOf<S>::type;
  decltype(load.line(0)) rows[T];
  for (int i = 0; i < T; i++) rows[i] = load.line(line + (i < width ? i : width - 1));
  int64_t p = 0, whole = at_most(k, load.whole_steps() - k0);
  for (; p + 2 * T <= whole; p += 2 * T) {
    V r[T], s[T];
#pragma GCC unroll 8
    for (int i = 0; i < T; i++) {
      r[i] = rows[i].block(k0 + p);
      s[i] = rows[i].block(k0 + p + T);
    }
    transpose(r);
    transpose(s);
#pragma GCC unroll 8
    for (int i = 0; i < T; i++) store_block(dst + (p + i) * pitch, r[i]);
#pragma GCC unroll 8
    for (int i = 0; i < T; i++) store_block(dst + (p + T + i) * pitch, s[i]);
  }
  for (; p < k; p++)
    for (int64_t i = 0; i < T; i++) dst[p * pitch + i] = rows[i].at(k0 + p);
}

// Strips [s0, s1) of steps [k0, k0 + k): number i of strip s at step p goes to dst[(s - s0) * strip + p * pitch + i].
// pitch is a multiple of the block. What lies between a strip's width and its pitch are numbers of no meaning.
template <class S, class Load>
void pack(S* dst, int64_t strip, const Load& load, int64_t k0, int64_t k, const Strips& t, int64_t s0, int64_t s1) {
  constexpr int T = kSquare<S>;
  if (load.along_lines()) return pack_copy(dst, strip, load, k0, k, t, s0, s1);
  for (int64_t s = s0; s < s1; s++, dst += strip) {
    int64_t width = t.width(s), i = t.first + t.begin(s);
    if (load.along_steps())
      for (int64_t x = 0; x < width; x += T)
        pack_transpose(dst + x, t.pitch, load, i + x, width - x < T ? width - x : T, k0, k);
    else
      for (int64_t p = 0; p < k; p++)
        for (int64_t x = 0; x < width; x++) dst[p * t.pitch + x] = load.at(i + x, k0 + p);
  }
}

}  // namespace pb
