// Steps that taught something about the matrix product, one thread, each checked against sums in double.
//   g++ -std=c++20 -O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -ffp-contract=fast
//       -Wno-psabi -Icsrc tools/ladder/matmul.cpp -o matmul && ./matmul 128 256 512 1024
// (one line). Prints GFLOP/s and the share of the peak that a loop of multiply-adds in registers reaches.
#include <sched.h>

#include "cpu/isa_std.h"
// more headers of the outside
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {
#include "cpu/gemm_driver.h"
}

extern "C" {
void pb_parallel_for(int64_t n, int64_t, void (*body)(void*, int64_t, int64_t), void* ctx) { body(ctx, 0, n); }
int pb_num_threads() { return 1; }
void* pb_scratch(int slot, size_t bytes) {
  static void* data[8];
  static size_t size[8];
  if (size[slot] < bytes) {
    std::free(data[slot]);
    data[slot] = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    size[slot] = bytes;
  }
  return data[slot];
}
}

namespace {

using pb::kColumns;
using pb::kMaxRows;
constexpr int64_t kCols = kColumns<float>;

struct Square {
  int64_t n;
  std::vector<float> a, b, c;
};

// 1. Rows of b are added up; the compiler vectorises the inner loop, every step loads and stores a row of c.
void three_loops(Square& s) {
  int64_t n = s.n;
  for (float& x : s.c) x = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < n; k++)
      for (int64_t j = 0; j < n; j++) s.c[i * n + j] += s.a[i * n + k] * s.b[k * n + j];
}

// 2. A tile of c stays in registers for a block of k; operands are read where they lie. Fast while b fits L2 and rows
// are short; at 1024 the rows of b fall into few sets of the caches and cost a page each.
void register_tile(Square& s) {
  int64_t n = s.n, depth = pb::block_depth(n);
  pb::TileArgs<float> t{};
  t.a_row = t.b_step = t.c_row = n;
  t.a_step = 1;
  t.width = kCols;
  for (int64_t k0 = 0; k0 < n; k0 += depth)
    for (int64_t j = 0; j < n; j += kCols)
      for (int64_t i = 0; i < n; i += kMaxRows) {
        int64_t rows = n - i < kMaxRows ? n - i : kMaxRows;
        t.k = n - k0 < depth ? n - k0 : depth;
        t.add = k0 > 0;
        t.a = &s.a[size_t(i * n + k0)], t.b = &s.b[size_t(k0 * n + j)], t.c = &s.c[size_t(i * n + j)];
        t.ahead = t.b;
        pb::kTiles<float>.fn[1][1][rows - 1](t);
      }
}

// 3. Both operands are packed first: the tiles then run at one speed for every size, and packing is what is left.
void packed_blocks(Square& s) {
  int64_t n = s.n, depth = pb::block_depth(n), pitch = pb::round_up(kMaxRows, pb::kSquare<float>);
  pb::Strips sa(0, n, kMaxRows, pitch, true), sb(0, n, kCols, kCols, false);
  auto* pa = static_cast<float*>(pb_scratch(0, size_t(sa.count * pitch * depth) * sizeof(float)));
  auto* pb = static_cast<float*>(pb_scratch(1, size_t(sb.count * kCols * depth) * sizeof(float)));
  pb::LoadDense<float> a{s.a.data(), n, 1, 0}, b{s.b.data(), 1, n, 0};
  pb::TileArgs<float> t{};
  t.a_row = 1, t.a_step = pitch, t.b_step = kCols, t.c_row = n, t.width = kCols;
  for (int64_t k0 = 0; k0 < n; k0 += depth) {
    t.k = n - k0 < depth ? n - k0 : depth;
    t.add = k0 > 0;
    pb::pack(pa, t.k * pitch, a, k0, t.k, sa, 0, sa.count);
    pb::pack(pb, t.k * kCols, b, k0, t.k, sb, 0, sb.count);
    for (int64_t j = 0; j < sb.count; j++)
      for (int64_t i = 0; i < sa.count; i++) {
        t.a = pa + i * t.k * pitch, t.b = pb + j * t.k * kCols, t.c = &s.c[size_t(sa.begin(i) * n + j * kCols)];
        t.ahead = t.b;
        pb::kTiles<float>.fn[0][1][sa.width(i) - 1](t);
      }
  }
}

// 4. The kernel of the library: packs only what pays, in blocks for L2, and fetches what comes next while tiles run.
void library(Square& s) {
  pb::GemmArgs g;
  g.m = g.n = g.k = g.a_row = g.b_row = g.c_row = s.n;
  g.a_col = g.b_col = 1;
  g.a = s.a.data(), g.b = s.b.data(), g.c = s.c.data();
  pb::run_gemm<float>(g);
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

template <class F>
double shortest(F f, double seconds) {
  double best = 1e30;
  for (double end = now() + seconds, start; (start = now()) < end;) {
    f();
    double t = now() - start;
    best = t < best ? t : best;
  }
  return best;
}

double peak() {
  typedef pb::VectorOf<float>::type V;
  constexpr int64_t steps = 20000;
  V x = V{} + 0.9999f, y = V{} + 1e-4f;
  V v0 = y, v1 = y, v2 = y, v3 = y, v4 = y, v5 = y, v6 = y, v7 = y, v8 = y, v9 = y;
  double t = shortest(
      [&] {
        for (int64_t i = 0; i < steps; i++) {
#define STEP(v)  \
  v = v * x + y; \
  __asm__ volatile("" : "+x"(v));
          STEP(v0) STEP(v1) STEP(v2) STEP(v3) STEP(v4) STEP(v5) STEP(v6) STEP(v7) STEP(v8) STEP(v9)
#undef STEP
        }
      },
      0.2);
  return double(steps) * 10 * 2 * pb::kLanes<float> / t * 1e-9;
}

bool right(const Square& s) {
  for (int64_t q = 0; q < 500; q++) {
    int64_t i = q * 7919 % s.n, j = q * 104729 % s.n;
    double sum = 0, size = 0;
    for (int64_t k = 0; k < s.n; k++) {
      double x = double(s.a[size_t(i * s.n + k)]) * double(s.b[size_t(k * s.n + j)]);
      sum += x;
      size += x < 0 ? -x : x;
    }
    double error = sum - double(s.c[size_t(i * s.n + j)]);
    if (!((error < 0 ? -error : error) <= 2e-6 * size)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  struct Step {
    const char* name;
    void (*run)(Square&);
  } steps[] = {{"three loops", three_loops},
               {"register tile", register_tile},
               {"packed blocks", packed_blocks},
               {"library", library}};
  double top = peak();
  std::printf("peak of one thread: %.1f GFLOP/s\n", top);
  for (int arg = 1; arg < argc; arg++) {
    int64_t n = std::atol(argv[arg]) / kCols * kCols;
    if (n <= 0) return std::fprintf(stderr, "sizes are at least %d\n", int(kCols)), 2;
    Square s{n, {}, {}, std::vector<float>(size_t(n * n))};
    for (int64_t i = 0; i < n * n; i++) {
      s.a.push_back(float(i * 37 % 2001) / 1000 - 1);
      s.b.push_back(float(i * 91 % 1999) / 1000 - 1);
    }
    for (const Step& step : steps) {
      for (float& x : s.c) x = -1e30f;
      step.run(s);
      if (!right(s)) return std::printf("%s is WRONG at %d\n", step.name, int(n)), 1;
      double gflops = 2e-9 * double(n * n * n) / shortest([&] { step.run(s); }, 0.3);
      std::printf("%5d  %-14s %6.1f GFLOP/s  %.2f of the peak\n", int(n), step.name, gflops, gflops / top);
    }
  }
}
