// The weight gradient of one ISA level (Note [Convolution on a grid]).
//
// Images go in blocks, each with partial sums of its own, and channels in chunks; both cuts depend on shapes only. The
// partial sums are added in the order of the blocks. The bias is the weight of a channel of ones, row 0 of the sums.
// Vectors run along the output channels of a group; when these are few, along the positions of a row.
#pragma once
#include "cpu/conv_kernels.h"

namespace pb {

// Four positions by four channels at a time: to[p * width + o] = from[o * ld + p].
template <class S>
void turn(S* to, int64_t width, const S* from, int64_t ld, int64_t channels, int64_t positions) {
  typedef S Four __attribute__((vector_size(4 * sizeof(S))));
  typedef std::conditional_t<sizeof(S) == 4, int32_t, int64_t> Index;
  typedef Index Pick __attribute__((vector_size(4 * sizeof(S))));
  int64_t o = 0;
  for (; o + 4 <= channels; o += 4) {
    const S* f = from + o * ld;
    int64_t p = 0;
    for (; p + 4 <= positions; p += 4) {
      Four r[4], u[4];
      for (int i = 0; i < 4; i++) __builtin_memcpy(&r[i], f + i * ld + p, sizeof(Four));
      u[0] = __builtin_shuffle(r[0], r[1], Pick{0, 4, 1, 5});
      u[1] = __builtin_shuffle(r[0], r[1], Pick{2, 6, 3, 7});
      u[2] = __builtin_shuffle(r[2], r[3], Pick{0, 4, 1, 5});
      u[3] = __builtin_shuffle(r[2], r[3], Pick{2, 6, 3, 7});
      r[0] = __builtin_shuffle(u[0], u[2], Pick{0, 1, 4, 5});
      r[1] = __builtin_shuffle(u[0], u[2], Pick{2, 3, 6, 7});
      r[2] = __builtin_shuffle(u[1], u[3], Pick{0, 1, 4, 5});
      r[3] = __builtin_shuffle(u[1], u[3], Pick{2, 3, 6, 7});
      for (int i = 0; i < 4; i++) __builtin_memcpy(to + (p + i) * width + o, &r[i], sizeof(Four));
    }
    for (; p < positions; p++)
      for (int i = 0; i < 4; i++) to[p * width + o + i] = f[i * ld + p];
  }
  for (; o < channels; o++)
    for (int64_t p = 0; p < positions; p++) to[p * width + o] = from[o * ld + p];
  for (; o < width; o++)
    for (int64_t p = 0; p < positions; p++) to[p * width + o] = S(0);
}

template <class S>
struct WeightGrad {
  const ConvShape& s;
  int64_t taps, depth, ldd;
  Split images, chunks, strips;  // strips: the output channels of a group, kDotVecs vectors at a time
  int64_t block;                 // output rows per pass
  InputGrid<S> grid;
  S *dw, *db;
  const S *x, *g;
  bool few;      // output channels
  S* sums;       // [images.count, groups, 1 + depth, ldd]
  int64_t* off;  // of the ones, then of (channel of a chunk, tap)

  static int64_t vectors(const ConvShape& s) { return ceil_div(s.o, kLanes<S>); }
  static int64_t lane_channels(const ConvShape& s) { return ceil_div(s.o, 16) * 16; }
  static int64_t image_blocks(const ConvShape& s) {
    int64_t bytes = s.groups * (1 + s.c * s.kh * s.kw) * lane_channels(s) * int64_t(sizeof(S));
    return at_least(1, at_most(at_most(s.n, 16), (int64_t(16) << 20) / bytes));
  }
  static int64_t chunk_channels(const ConvShape& s) {
    int64_t few = ceil_div(128, s.kh * s.kw), pieces = ceil_div(16, image_blocks(s) * s.groups);
    return at_most(at_least(few, ceil_div(s.c, pieces)), at_least(s.c, 1));
  }
  static int64_t rows_of(const ConvShape& s) {
    InputGrid<S> one(s, 1);
    int64_t row = chunk_channels(s) * one.y.phases * one.x.phases * one.width + s.ow * lane_channels(s);
    return block_rows(row * int64_t(sizeof(S)), s.oh, 16);
  }

  WeightGrad(void* dw_, void* db_, const void* x_, const void* g_, const ConvShape& shape)
      : s(shape),
        taps(s.kh * s.kw),
        depth(s.c * taps),
        ldd(vectors(s) * kLanes<S>),
        images(s.n, ceil_div(s.n, image_blocks(s))),
        chunks(s.c, chunk_channels(s)),
        strips(vectors(s), kDotVecs),
        block(rows_of(s)),
        grid(s, block),
        dw(static_cast<S*>(dw_)),
        db(static_cast<S*>(db_)),
        x(static_cast<const S*>(x_)),
        g(static_cast<const S*>(g_)),
        few(s.o <= 4) {
    if (chunks.count == 0) chunks = Split(1, 1), chunks.base = 0;
    int64_t most = chunks.size(0);
    sums = scratch<S>(kPartials, images.count * s.groups * (1 + depth) * ldd);
    off = scratch<int64_t>(kOffsets, 1 + most * taps);
    off[0] = most * grid.per_channel();
    grid.offsets(off + 1, most);
  }
  int64_t filled() const { return ceil_div(s.ow, kWideLanes<S>) * kWideLanes<S>; }
  int64_t tasks() const { return images.count * s.groups * chunks.count; }

  static void run(void* ctx, int64_t begin, int64_t end) {
    const WeightGrad& f = *static_cast<WeightGrad*>(ctx);
    S* planes = scratch<S>(kPlanes, f.off[0] + f.grid.plane + kWideLanes<S>);
    S* turned = scratch<S>(kTurned, f.block * (f.few ? f.s.o * f.filled() : f.s.ow * f.ldd));
    for (int64_t i = 0; i < f.grid.plane; i++) planes[f.off[0] + i] = S(1);
    for (int64_t t = begin; t < end; t++) f.task(t, planes, turned);
  }
  void task(int64_t t, S* planes, S* turned) const {
    int64_t chunk = t % chunks.count, group = t / chunks.count % s.groups, part = t / chunks.count / s.groups;
    int64_t c0 = chunks.start(chunk), channels = chunks.size(chunk);
    // The first chunk has the row of ones in front of its own.
    int64_t first = chunk ? 1 : 0, rows = 1 - first + channels * taps;
    S* d = sums + ((part * s.groups + group) * (1 + depth) + first + c0 * taps) * ldd;
    __builtin_memset(d, 0, size_t(rows * ldd) * sizeof(S));
    for (int64_t n = images.start(part); n < images.start(part) + images.size(part); n++)
      for (int64_t y0 = 0; y0 < s.oh; y0 += block) {
        int64_t image = n * s.groups + group, height = at_most(block, s.oh - y0);
        grid.pack(planes, x + (image * s.c + c0) * s.h * s.w, channels, y0);
        const S* from = g + image * s.o * s.oh * s.ow + y0 * s.ow;
        if (few) {
          for (int64_t o = 0; o < s.o; o++)
            pack_plane(turned + o * height * filled(), height, filled(), 0, from + o * s.oh * s.ow, height, s.ow, 0, 1,
                       0, 1);
          add_lane_products(d, rows, off + first, planes, turned, height);
        } else {
          turn_strips(turned, from, height * s.ow);
          add_products(d, rows, off + first, planes, turned, height);
        }
      }
  }
  void add_lane_products(S* d, int64_t rows, const int64_t* at, const S* planes, const S* filled_g,
                         int64_t height) const {
    Split rs(rows, kLaneRows);
    for (int64_t o = 0; o < s.o; o++)
      for (int64_t r = 0; r < rs.count; r++)
        lane_dot_of<S>(rs.size(r))(planes, at + rs.start(r), height, s.ow, grid.width, filled_g + o * height * filled(),
                                   d + rs.start(r) * ldd + o, ldd);
  }
  void turn_strips(S* turned, const S* from, int64_t positions) const {
    for (int64_t i = 0; i < strips.count; i++) {
      int64_t o = strips.start(i) * kLanes<S>, width = strips.size(i) * kLanes<S>;
      turn(turned + o * positions, width, from + o * s.oh * s.ow, s.oh * s.ow, at_most(width, s.o - o), positions);
    }
  }
  void add_products(S* d, int64_t rows, const int64_t* at, const S* planes, const S* turned, int64_t height) const {
    int64_t step = ceil_div(64, s.ow);  // the cotangents of so many rows stay in L1 for all taps
    for (int64_t y = 0; y < height; y += step)
      for (int64_t i = 0; i < strips.count; i++) {
        int64_t o = strips.start(i) * kLanes<S>, vecs = strips.size(i);
        const S* gt = turned + o * height * s.ow + y * s.ow * vecs * kLanes<S>;
        Split rs(rows, dot_rows(int(vecs)));
        for (int64_t r = 0; r < rs.count; r++)
          dot_of<S>(rs.size(r), int(vecs))(planes + y * grid.width, at + rs.start(r), at_most(step, height - y), s.ow,
                                           grid.width, gt, d + rs.start(r) * ldd + o, ldd);
      }
  }

  // Row r of every group: adds the image blocks, then writes the weights of that tap.
  static void finish(void* ctx, int64_t begin, int64_t end) {
    const WeightGrad& f = *static_cast<WeightGrad*>(ctx);
    int64_t height = 1 + f.depth, all = f.s.groups * height * f.ldd;
    for (int64_t i = begin; i < end; i++) {
      int64_t group = i / height, r = i % height;
      S* sum = f.sums + i * f.ldd;
      for (int64_t b = 1; b < f.images.count; b++)
        for (int64_t o = 0; o < f.ldd; o++) sum[o] += sum[b * all + o];
      if (r == 0 && f.db)
        for (int64_t o = 0; o < f.s.o; o++) f.db[group * f.s.o + o] = sum[o];
      if (r > 0)
        for (int64_t o = 0; o < f.s.o; o++) f.dw[(group * f.s.o + o) * f.depth + r - 1] = sum[o];
    }
  }
};

template <class S>
void conv_weight_grad(void* dw, void* db, const void* x, const void* g, const ConvShape& s) {
  WeightGrad<S> f(dw, db, x, g, s);
  double flops = 2.0 * double(s.n * s.groups * s.o) * double(f.depth + 1) * double(s.oh * s.ow);
  pb_parallel_for(f.tasks(), task_grain(flops, f.tasks()), &WeightGrad<S>::run, &f);
  pb_parallel_for(s.groups * (1 + f.depth), 65536 / (f.ldd * f.images.count) + 1, &WeightGrad<S>::finish, &f);
}

inline constexpr ConvKernels kConvTable = {{&conv_forward<float>, &conv_forward<double>},
                                           {&conv_input_grad<float>, &conv_input_grad<double>},
                                           {&conv_weight_grad<float>, &conv_weight_grad<double>}};

}  // namespace pb
