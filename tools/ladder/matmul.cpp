// Steps that taught something about the matrix product, one thread, each checked against sums in double: of floats, and
// of bfloat16 numbers.
//   g++ -std=c++20 -O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -ffp-contract=fast
//       -Wno-psabi -Icsrc tools/ladder/matmul.cpp -o matmul && ./matmul 128 256 512 1024
// (one line). Prints GFLOP/s and the share of the peak that a loop of multiply-adds in registers reaches.
#include "ladder.h"

namespace {
#include "cpu/gemm_driver.h"

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

// ---- bfloat16

struct Narrow {
  int64_t n;
  std::vector<uint16_t> a, b, z;  // z: the result rounded
  std::vector<float> c, sums;
};
pb::GemmArgs args_of(Narrow& s) {
  pb::GemmArgs g;
  g.m = g.n = g.k = g.a_row = g.b_row = g.c_row = s.n;
  g.a_col = g.b_col = 1;
  g.a = s.a.data(), g.b = s.b.data(), g.c = s.c.data();
  g.a_form = g.b_form = pb::Form::BF16;
  return g;
}

// 1. Packing widens; the tiles are those of floats. Never faster than floats, which is what half the bytes promise.
void widened(Narrow& s) { pb::run_gemm<float>(args_of(s)); }

#if defined(__AVX512BF16__)
// 2. Two neighbouring steps of k are packed as one 32-bit number, so that the packing, blocking and tile of floats
// serve unchanged and one instruction multiplies two pairs a lane: twice the products for the same traffic.
void pairs(Narrow& s) { pb::run_pairs(args_of(s)); }

// 3. The result rounded to bfloat16 while its tile is in L1, instead of a pass over the sums.
void pairs_rounded(Narrow& s) {
  pb::GemmArgs g = args_of(s);
  g.c = s.z.data();
  g.c_form = pb::Form::BF16;
  g.sums = s.sums.data();
  pb::run_pairs(g);
  for (size_t i = 0; i < s.c.size(); i += 977) s.c[i] = pb::bf16_to_float(s.z[i]);
}
#endif

#if defined(__AVX512BF16__)
double peak_of_pairs() {
  typedef pb::VectorOf<float>::type V;
  constexpr int64_t steps = 20000;
  pb::VectorOf<pb::Pair>::type x = {}, y = x;
  V v0{}, v1{}, v2{}, v3{}, v4{}, v5{}, v6{}, v7{}, v8{}, v9{}, w0{}, w1{}, w2{}, w3{}, w4{}, w5{};
  double t = shortest([&] {
    for (int64_t i = 0; i < steps; i++) {
#define STEP(v) __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(v) : "v"(x), "v"(y));
      STEP(v0)
      STEP(v1)
      STEP(v2)
      STEP(v3)
      STEP(v4) STEP(v5) STEP(v6) STEP(v7) STEP(v8) STEP(v9) STEP(w0) STEP(w1) STEP(w2) STEP(w3) STEP(w4) STEP(w5)
#undef STEP
    }
  });
  return double(steps) * 16 * 4 * pb::kLanes<float> / t * 1e-9;
}
#endif

// Places of c that are looked at: a stride that meets every row and column.
template <class A>
bool right(int64_t n, const std::vector<A>& a, const std::vector<A>& b, const std::vector<float>& c, double tolerance,
           double (*value)(A)) {
  for (size_t q = 0; q < c.size(); q += 977) {
    auto i = int64_t(q) / n, j = int64_t(q) % n;
    double sum = 0, size = 0;
    for (int64_t k = 0; k < n; k++) {
      double x = value(a[size_t(i * n + k)]) * value(b[size_t(k * n + j)]);
      sum += x;
      size += x < 0 ? -x : x;
    }
    double error = sum - double(c[q]);
    if (!((error < 0 ? -error : error) <= tolerance * size)) return false;
  }
  return true;
}

template <class State>
struct Step {
  const char* name;
  void (*run)(State&);
  double tolerance;
};
template <class State, class A>
bool climb(State& s, const Step<State>& step, double top, double (*value)(A)) {
  for (float& x : s.c) x = -1e30f;
  step.run(s);
  if (!right<A>(s.n, s.a, s.b, s.c, step.tolerance, value))
    return std::printf("%s is WRONG at %d\n", step.name, int(s.n)), false;
  double gflops = 2e-9 * double(s.n * s.n * s.n) / shortest([&] { step.run(s); });
  std::printf("%5d  %-14s %6.1f GFLOP/s  %.2f of the peak\n", int(s.n), step.name, gflops, gflops / top);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<int64_t> list = sizes(argc, argv);
  const Step<Square> steps[] = {{"three loops", three_loops, 2e-6},
                                {"register tile", register_tile, 2e-6},
                                {"packed blocks", packed_blocks, 2e-6},
                                {"library", library, 2e-6}};
  const Step<Narrow> narrow[] = {{"widened", widened, 2e-6},
#if defined(__AVX512BF16__)
                                 {"pairs", pairs, 2e-6},
                                 {"pairs, rounded", pairs_rounded, 4e-3}
#endif
  };
  double top = peak(), top16 = top;
  std::printf("peak of one thread: %.1f GFLOP/s\n", top);
#if defined(__AVX512BF16__)
  top16 = peak_of_pairs();
  std::printf("in pairs of bfloat16: %.1f GFLOP/s\n", top16);
#endif
  for (int64_t size : list) {
    int64_t n = size / kCols * kCols;
    if (n <= 0) return std::fprintf(stderr, "sizes are at least %d\n", int(kCols)), 2;
    auto all = size_t(n * n);
    Square s{n, {}, {}, std::vector<float>(all)};
    Narrow w{n, {}, {}, std::vector<uint16_t>(all), std::vector<float>(all), std::vector<float>(all)};
    for (int64_t i = 0; i < n * n; i++) {
      s.a.push_back(float(i * 37 % 2001) / 1000 - 1);
      s.b.push_back(float(i * 91 % 1999) / 1000 - 1);
      w.a.push_back(pb::float_to_bf16(s.a.back()));
      w.b.push_back(pb::float_to_bf16(s.b.back()));
    }
    for (const Step<Square>& step : steps)
      if (!climb<Square, float>(s, step, top, [](float x) { return double(x); })) return 1;
    for (const Step<Narrow>& step : narrow)
      if (!climb<Narrow, uint16_t>(w, step, top16, [](uint16_t x) { return double(pb::bf16_to_float(x)); })) return 1;
  }
}
