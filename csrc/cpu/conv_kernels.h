// The convolution loops of one ISA level.
//
// Note [Convolution on a grid]
// A tap k of an axis with stride s and dilation d reads the padded input at s*y + k*d = s*(y + shift) + residue. So the
// input is copied once, padded and split by residue, into planes of a common width; then every tap of every channel is
// the same plane seen from another offset, and a row of the matrix that im2col would build is a contiguous run that
// starts at off[k]. The products read these runs in place: memory of kh*kw times the input is neither written nor read.
// Output rows are as wide as the planes; the few surplus columns are computed and dropped when the rows are stored.
// Zeros at the end of a row and at the start of the next are kept once: a run that leaves a row on the right finds
// them.
//
//   forward      y[o, p]   = sum over (c, tap) of weight[o, c, tap] x[off + p]
//   input_grad   the same on a grid of g, one product per residue, the taps of that residue, rows = input channels
//   weight_grad  dw[k, o]  = sum over positions of x[off[k] + position] g[position, o]
//
// The order of every sum depends on shapes only, not on threads or on the width of vectors.
#pragma once
#include "cpu/conv_table.h"
#include "cpu/conv_tiles.h"

namespace pb {

inline int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

enum Slots {
  kPanels,
  kOffsets,
  kPartials,
  kPlanes,
  kWide,
  kTurned,
  kCopied
};  // scratch of the caller, then of each thread
template <class T>
T* scratch(Slots slot, int64_t n) {
  return static_cast<T*>(pb_scratch(slot, size_t(n) * sizeof(T)));
}

struct Axis {
  int64_t s, d, p, k;  // stride, dilation, padding, taps
  int64_t phases;      // distinct residues in use: tap i has the residue of tap i % phases
  int64_t reach;       // the largest shift
  Axis(int64_t s_, int64_t d_, int64_t p_, int64_t k_) : s(s_), d(d_), p(p_), k(k_) {
    int64_t a = s, b = d;
    while (b) {
      int64_t r = a % b;
      a = b;
      b = r;
    }
    phases = at_most(k, s / a);
    reach = shift(k - 1);
  }
  int64_t shift(int64_t tap) const { return tap * d / s; }
  int64_t residue(int64_t phase) const { return phase * d % s; }
  int64_t taps(int64_t phase) const { return (k - phase + phases - 1) / phases; }
};

// to[r, q] = from[i0 + s*r, j0 + s*q], zero outside the h x w plane; `shared` more zeros follow the last row.
template <class S>
void pack_plane(S* to, int64_t rows, int64_t cols, int64_t shared, const S* from, int64_t h, int64_t w, int64_t i0,
                int64_t si, int64_t j0, int64_t sj) {
  int64_t lo = j0 < 0 ? at_most(ceil_div(-j0, sj), cols) : 0;
  int64_t hi = at_least(lo, at_most(cols, w > j0 ? ceil_div(w - j0, sj) : 0));
  for (int64_t r = 0; r < rows; r++, to += cols) {
    int64_t i = i0 + si * r;
    if (i < 0 || i >= h) {
      for (int64_t q = 0; q < cols; q++) to[q] = S(0);
      continue;
    }
    const S* row = from + i * w + j0;
    for (int64_t q = 0; q < lo; q++) to[q] = S(0);
    if (sj == 1)
      for (int64_t q = lo; q < hi; q++) to[q] = row[q];
    else
      for (int64_t q = lo; q < hi; q++) to[q] = row[q * sj];
    for (int64_t q = hi; q < cols; q++) to[q] = S(0);
  }
  for (int64_t q = 0; q < shared; q++) to[q] = S(0);
}

// Rows of the output that one task takes: planes and result stay in L2, and there are tasks for many threads.
inline int64_t block_rows(int64_t row_bytes, int64_t rows, int64_t tasks) {
  int64_t fit = at_least(at_least(int64_t(384) << 10, row_bytes * 4) / at_least(row_bytes, 1), 1);
  int64_t wish = at_least(ceil_div(rows, fit), at_most(ceil_div(16, at_least(tasks, 1)), rows / 4));
  return ceil_div(rows, at_least(wish, 1));
}
// Tasks that make a piece of work worth a thread.
inline int64_t task_grain(double flops, int64_t tasks) {
  double each = flops / double(at_least(tasks, 1));
  return each > 5e5 ? 1 : int64_t(5e5 / (each + 1)) + 1;
}

// The grid of the input for a block of output rows, and the offset of each (channel, tap) in it.
template <class S>
struct InputGrid {
  Axis y, x;
  int64_t h, w, rows, shared, width, plane;
  InputGrid(const ConvShape& s, int64_t block)
      : y(s.sh, s.dh, s.ph, s.kh),
        x(s.sw, s.dw, s.pw, s.kw),
        h(s.h),
        w(s.w),
        rows(block + y.reach),
        shared(s.sw == 1 ? at_most(s.pw, x.reach) : 0),
        width(s.ow + x.reach - shared),
        plane(rows * width + shared) {}
  int64_t per_channel() const { return y.phases * x.phases * plane; }
  int64_t slack() const { return x.reach + 2 * kTileCols<S>; }
  void offsets(int64_t* off, int64_t channels) const {
    for (int64_t c = 0; c < channels; c++)
      for (int64_t i = 0; i < y.k; i++)
        for (int64_t j = 0; j < x.k; j++)
          *off++ = ((c * y.phases + i % y.phases) * x.phases + j % x.phases) * plane + y.shift(i) * width + x.shift(j);
  }
  void pack(S* to, const S* from, int64_t channels, int64_t y0) const {
    for (int64_t c = 0; c < channels; c++, from += h * w)
      for (int64_t a = 0; a < y.phases; a++)
        for (int64_t b = 0; b < x.phases; b++, to += plane)
          pack_plane(to, rows, width, shared, from, h, w, y.s * y0 + y.residue(a) - y.p, y.s, x.residue(b) - x.p, x.s);
  }
};

// ---- forward

template <class S>
struct Forward {
  const ConvShape& s;
  int64_t block, blocks;
  InputGrid<S> grid;
  int64_t depth, together, ldc;  // images of a task, 0: part of one (Note [Small planes])
  S* y;
  const S *x, *bias;
  S* panels;
  int64_t* off;

  Forward(void* out, const void* in, const void* b, const ConvShape& shape, int64_t rows)
      : s(shape),
        block(rows),
        blocks(ceil_div(shape.oh, rows)),
        grid(shape, rows),
        depth(shape.c * shape.kh * shape.kw),
        together(s.groups == 1 && blocks == 1 ? images_together<S>(s.n, s.o, s.oh * s.ow, s.oh * grid.width) : 0),
        ldc(together ? copied_pitch<S>(together * s.oh * s.ow)
                     : ceil_div(rows * grid.width, kTileCols<S>) * kTileCols<S>),
        y(static_cast<S*>(out)),
        x(static_cast<const S*>(in)),
        bias(static_cast<const S*>(b)) {}

  void prepare(const S* weight) {
    panels = scratch<S>(kPanels, s.groups * s.o * depth);
    off = scratch<int64_t>(kOffsets, depth);
    grid.offsets(off, s.c);
    Split ms(s.o, kRows);
    S* to = panels;
    for (int64_t g = 0; g < s.groups; g++, weight += s.o * depth)
      for (int64_t i = 0; i < ms.count; i++)
        for (int64_t k = 0; k < depth; k++)
          for (int64_t r = 0; r < ms.size(i); r++) *to++ = weight[(ms.start(i) + r) * depth + k];
  }

  static void run(void* ctx, int64_t begin, int64_t end) {
    const Forward& f = *static_cast<Forward*>(ctx);
    S* planes = scratch<S>(kPlanes, at_least(f.together, 1) * f.s.c * f.grid.per_channel() + f.grid.slack());
    S* wide = scratch<S>(kWide, f.s.o * f.ldc);
    if (f.together) {
      S* copied = scratch<S>(kCopied, kDepth * f.ldc + 8);
      for (int64_t t = begin; t < end; t++) f.whole_images(t * f.together, planes, wide, copied);
      return;
    }
    for (int64_t t = begin; t < end; t++) f.task(t / f.blocks, t % f.blocks * f.block, planes, wide);
  }
  void task(int64_t image, int64_t y0, S* planes, S* wide) const {
    int64_t group = image % s.groups, rows = at_most(block, s.oh - y0);
    grid.pack(planes, x + image * s.c * s.h * s.w, s.c, y0);
    grid_product(wide, ldc, panels + group * s.o * depth, s.o, planes, off, depth, rows * grid.width);
    for (int64_t o = 0; o < s.o; o++) {
      S* to = y + ((image * s.o + o) * s.oh + y0) * s.ow;
      S b = bias ? bias[group * s.o + o] : S(0);
      for (int64_t r = 0; r < rows; r++, to += s.ow) {
        const S* from = wide + o * ldc + r * grid.width;
        for (int64_t q = 0; q < s.ow; q++) to[q] = from[q] + b;
      }
    }
  }
  void whole_images(int64_t first, S* planes, S* wide, S* copied) const {
    int64_t size = s.oh * s.ow;
    Positions p{at_most(together, s.n - first), s.c * grid.per_channel(), s.oh, s.ow, grid.width};
    for (int64_t i = 0; i < p.count; i++) grid.pack(planes + i * p.image, x + (first + i) * s.c * s.h * s.w, s.c, 0);
    copied_product(wide, ldc, panels, s.o, planes, off, depth, p, copied);
    for (int64_t i = 0; i < p.count; i++)
      for (int64_t o = 0; o < s.o; o++) {
        S *to = y + ((first + i) * s.o + o) * size, *from = wide + o * ldc + i * size, b = bias ? bias[o] : S(0);
        for (int64_t q = 0; q < size; q++) to[q] = from[q] + b;
      }
  }
  int64_t tasks() const { return together ? ceil_div(s.n, together) : s.n * s.groups * blocks; }
};

template <class S>
void conv_forward(void* y, const void* x, const void* weight, const void* bias, const ConvShape& s) {
  InputGrid<S> one(s, 1);
  int64_t row_bytes = (s.c * one.y.phases * one.x.phases + s.o) * one.width * int64_t(sizeof(S));
  Forward<S> f(y, x, bias, s, block_rows(row_bytes, s.oh, s.n * s.groups));
  f.prepare(static_cast<const S*>(weight));
  int64_t tasks = f.tasks();
  double flops = 2.0 * double(s.n * s.groups * s.o) * double(f.depth) * double(s.oh * s.ow);
  pb_parallel_for(tasks, task_grain(flops, tasks), &Forward<S>::run, &f);
}

// ---- gradient of the input

template <class S>
struct InputGrad {
  const ConvShape& s;
  Axis ya, xa;
  int64_t qy, qx, nqy, nqx;  // first grid row and column that hold input, and how many do
  int64_t shared, width, taps;
  int64_t block, blocks, rows, plane, together, ldc;
  S* dx;
  const S* g;
  S* panels;
  int64_t* off;

  InputGrad(void* out, const void* in, const ConvShape& shape)
      : s(shape),
        ya(s.sh, s.dh, s.ph, s.kh),
        xa(s.sw, s.dw, s.pw, s.kw),
        qy(s.ph / s.sh),
        qx(s.pw / s.sw),
        nqy((s.ph + s.h - 1) / s.sh - qy + 1),
        nqx((s.pw + s.w - 1) / s.sw - qx + 1),
        shared(at_least(0, at_most(xa.reach - qx, qx + nqx - s.ow))),
        width(nqx + xa.reach - shared),
        taps(s.kh * s.kw),
        dx(static_cast<S*>(out)),
        g(static_cast<const S*>(in)) {
    block = block_rows((s.o + s.c) * width * int64_t(sizeof(S)), nqy, s.n * s.groups);
    blocks = ceil_div(nqy, block);
    rows = block + ya.reach;
    plane = rows * width + shared;
    bool plain = s.groups == 1 && blocks == 1 && s.sh == 1 && s.sw == 1;
    together = plain ? images_together<S>(s.n, s.c, s.h * s.w, s.h * width) : 0;
    ldc = together ? copied_pitch<S>(together * s.h * s.w) : ceil_div(block * width, kTileCols<S>) * kTileCols<S>;
  }

  // Panels and offsets of the phases one after another; within a phase k runs over (o, taps of the phase).
  void prepare(const S* weight) {
    panels = scratch<S>(kPanels, s.groups * s.c * s.o * taps);
    off = scratch<int64_t>(kOffsets, s.o * taps);
    int64_t* at = off;
    S* to = panels;
    for (int64_t a = 0; a < ya.phases; a++)
      for (int64_t b = 0; b < xa.phases; b++) {
        for (int64_t o = 0; o < s.o; o++)
          for (int64_t i = a; i < s.kh; i += ya.phases)
            for (int64_t j = b; j < s.kw; j += xa.phases)
              *at++ = o * plane + (ya.reach - ya.shift(i)) * width + xa.reach - xa.shift(j);
        to = pack_phase(to, weight, a, b);
      }
  }
  S* pack_phase(S* to, const S* weight, int64_t a, int64_t b) const {
    Split ms(s.c, kRows);
    for (int64_t group = 0; group < s.groups; group++)
      for (int64_t m = 0; m < ms.count; m++)
        for (int64_t o = 0; o < s.o; o++)
          for (int64_t i = a; i < s.kh; i += ya.phases)
            for (int64_t j = b; j < s.kw; j += xa.phases) {
              const S* from = weight + ((group * s.o + o) * s.c + ms.start(m)) * taps + i * s.kw + j;
              for (int64_t r = 0; r < ms.size(m); r++) *to++ = from[r * taps];
            }
    return to;
  }

  static void run(void* ctx, int64_t begin, int64_t end) {
    const InputGrad& f = *static_cast<InputGrad*>(ctx);
    S* planes = scratch<S>(kPlanes, at_least(f.together, 1) * f.s.o * f.plane + f.xa.reach + 2 * kTileCols<S>);
    S* wide = scratch<S>(kWide, f.s.c * f.ldc);
    if (f.together) {
      S* copied = scratch<S>(kCopied, kDepth * f.ldc + 8);
      for (int64_t t = begin; t < end; t++) f.whole_images(t * f.together, planes, wide, copied);
      return;
    }
    for (int64_t t = begin; t < end; t++) f.task(t / f.blocks, t % f.blocks * f.block, planes, wide);
  }
  void task(int64_t image, int64_t first, S* planes, S* wide) const {
    int64_t group = image % s.groups, count = at_most(block, nqy - first), y0 = qy + first;
    for (int64_t o = 0; o < s.o; o++)
      pack_plane(planes + o * plane, rows, width, shared, g + (image * s.o + o) * s.oh * s.ow, s.oh, s.ow,
                 y0 - ya.reach, 1, qx - xa.reach, 1);
    if (ya.phases < s.sh || xa.phases < s.sw) clear(image, y0, count);
    const S* part = panels;
    const int64_t* at = off;
    for (int64_t a = 0; a < ya.phases; a++)
      for (int64_t b = 0; b < xa.phases; b++) {
        int64_t depth = s.o * ya.taps(a) * xa.taps(b);
        grid_product(wide, ldc, part + group * s.c * depth, s.c, planes, at, depth, count * width);
        store_phase(image, wide, y0, count, ya.residue(a), xa.residue(b));
        part += s.groups * s.c * depth;
        at += depth;
      }
  }
  // Stride 1: rows and columns of the grid are those of the input.
  void whole_images(int64_t first, S* planes, S* wide, S* copied) const {
    Positions p{at_most(together, s.n - first), s.o * plane, s.h, s.w, width};
    for (int64_t i = 0; i < p.count * s.o; i++)
      pack_plane(planes + i * plane, rows, width, shared, g + (first * s.o + i) * s.oh * s.ow, s.oh, s.ow,
                 qy - ya.reach, 1, qx - xa.reach, 1);
    copied_product(wide, ldc, panels, s.c, planes, off, s.o * taps, p, copied);
    for (int64_t i = 0; i < p.count; i++)
      for (int64_t c = 0; c < s.c; c++)
        __builtin_memcpy(dx + ((first + i) * s.c + c) * s.h * s.w, wide + c * ldc + i * s.h * s.w,
                         size_t(s.h * s.w) * sizeof(S));
  }
  int64_t tasks() const { return together ? ceil_div(s.n, together) : s.n * s.groups * blocks; }
  // Input positions that no tap reads have gradient zero.
  void clear(int64_t image, int64_t y0, int64_t count) const {
    int64_t lo = at_least(y0 * s.sh - s.ph, 0), hi = at_most((y0 + count) * s.sh - s.ph, s.h);
    for (int64_t c = 0; c < s.c && lo < hi; c++)
      __builtin_memset(dx + ((image * s.c + c) * s.h + lo) * s.w, 0, size_t((hi - lo) * s.w) * sizeof(S));
  }
  void store_phase(int64_t image, const S* wide, int64_t y0, int64_t count, int64_t ry, int64_t rx) const {
    int64_t j0 = qx * s.sw + rx - s.pw;  // column of q = 0
    int64_t lo = j0 < 0 ? ceil_div(-j0, s.sw) : 0, hi = at_most(nqx, s.w > j0 ? ceil_div(s.w - j0, s.sw) : 0);
    for (int64_t c = 0; c < s.c; c++)
      for (int64_t r = 0; r < count; r++) {
        int64_t i = (y0 + r) * s.sh + ry - s.ph;
        if (i < 0 || i >= s.h) continue;
        S* to = dx + ((image * s.c + c) * s.h + i) * s.w + j0;
        const S* from = wide + c * ldc + r * width;
        if (s.sw == 1)
          for (int64_t q = lo; q < hi; q++) to[q] = from[q];
        else
          for (int64_t q = lo; q < hi; q++) to[q * s.sw] = from[q];
      }
  }
};

template <class S>
void conv_input_grad(void* dx, const void* g, const void* weight, const ConvShape& s) {
  InputGrad<S> f(dx, g, s);
  f.prepare(static_cast<const S*>(weight));
  int64_t tasks = f.tasks();
  double flops = 2.0 * double(s.n * s.groups * s.o) * double(s.c * f.taps) * double(s.oh * s.ow);
  pb_parallel_for(tasks, task_grain(flops, tasks), &InputGrad<S>::run, &f);
}

}  // namespace pb
