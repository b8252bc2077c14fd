// Steps that taught something about a 3x3 convolution of eight images, one thread, each checked against sums in double.
//   g++ -std=c++20 -O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -ffp-contract=fast
//       -Wno-psabi -Icsrc tools/ladder/conv.cpp -o conv && ./conv 12 26 56
// (one line; the sizes are those of the square output). Prints GFLOP/s and the share of the peak.
#include "ladder.h"

namespace {
#include "cpu/conv_kernels.h"

constexpr int64_t kImages = 8, kIn = 32, kOut = 64, kTaps = 3;

struct Images {
  int64_t n, side;  // of the output, of the input
  std::vector<float> x, w, y;
  const float* row(int64_t image, int64_t c, int64_t i) const {
    return &x[size_t(((image * kIn + c) * side + i) * side)];
  }
  float* out(int64_t image, int64_t o) { return &y[size_t((image * kOut + o) * n * n)]; }
  float weight(int64_t o, int64_t c, int64_t a, int64_t b) const {
    return w[size_t(((o * kIn + c) * kTaps + a) * kTaps + b)];
  }
};

// 1. The definition: a sum of 288 products for every output, read from nine places of 32 planes.
void definition(Images& s) {
  for (int64_t image = 0; image < kImages; image++)
    for (int64_t o = 0; o < kOut; o++)
      for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < s.n; j++) {
          float sum = 0;
          for (int64_t k = 0; k < kIn * 9; k++)
            sum += s.weight(o, k / 9, k / 3 % 3, k % 3) * s.row(image, k / 9, i + k / 3 % 3)[j + k % 3];
          s.out(image, o)[i * s.n + j] = sum;
        }
}

// 2. A tap at a time over whole rows: the inner loop is a vector multiply-add, but loads and stores y for each.
void rows_at_once(Images& s) {
  for (float& v : s.y) v = 0;
  for (int64_t image = 0; image < kImages; image++)
    for (int64_t o = 0; o < kOut; o++)
      for (int64_t k = 0; k < kIn * 9; k++) {
        float w = s.weight(o, k / 9, k / 3 % 3, k % 3);
        for (int64_t i = 0; i < s.n; i++) {
          float* y = s.out(image, o) + i * s.n;
          const float* x = s.row(image, k / 9, i + k / 3 % 3) + k % 3;
          for (int64_t j = 0; j < s.n; j++) y[j] += w * x[j];
        }
      }
}

// 3. The columns of im2col of one image in memory, then a product of two matrices with eight output channels to a
// loaded column: nine copies of the input, which stay in L2, and no surplus columns.
void columns(Images& s) {
  constexpr int64_t kRows = 8, kLanes = LADDER_WIDTH / 4;
  typedef float Loose __attribute__((vector_size(LADDER_WIDTH), aligned(4), may_alias));
  int64_t points = s.n * s.n, depth = kIn * kTaps * kTaps;
  static std::vector<float> m;
  m.resize(size_t(depth * points));
  for (int64_t image = 0; image < kImages; image++) {
    for (int64_t k = 0; k < depth; k++)
      for (int64_t i = 0; i < s.n; i++) {
        const float* x = s.row(image, k / 9, i + k / 3 % 3) + k % 3;
        for (int64_t j = 0; j < s.n; j++) m[size_t(k * points + i * s.n + j)] = x[j];
      }
    for (int64_t o = 0; o < kOut; o += kRows)
      for (int64_t q = 0; q < points; q += kLanes) {
        int64_t at = q + kLanes <= points ? q : points - kLanes;  // the last one overlaps
        Loose sum[kRows] = {};
        for (int64_t k = 0; k < depth; k++) {
          Loose x = *reinterpret_cast<const Loose*>(&m[size_t(k * points + at)]);
#pragma GCC unroll 8
          for (int64_t r = 0; r < kRows; r++) sum[r] += s.w[size_t((o + r) * depth + k)] * x;
        }
        for (int64_t r = 0; r < kRows; r++) *reinterpret_cast<Loose*>(s.out(image, o + r) + at) = sum[r];
      }
  }
}

// 4. The kernel of the library: the same product, its columns read where they lie (Note [Convolution on a grid]). No
// copies, but two surplus columns a row: for rows of 26 they still cost more than the copies, for 56 less.
void library(Images& s) {
  pb::ConvShape shape;
  shape.n = kImages;
  shape.c = kIn, shape.o = kOut;
  shape.h = shape.w = s.side, shape.oh = shape.ow = s.n;
  shape.kh = shape.kw = kTaps;
  pb::conv_forward<float>(s.y.data(), s.x.data(), s.w.data(), nullptr, shape);
}

bool right(Images& s) {
  for (int64_t q = 0; q < kImages * kOut * s.n * s.n; q += 977) {
    int64_t j = q % s.n, i = q / s.n % s.n, o = q / (s.n * s.n) % kOut, image = q / (s.n * s.n) / kOut;
    double sum = 0, size = 0;
    for (int64_t k = 0; k < kIn * 9; k++) {
      double w = double(s.weight(o, k / 9, k / 3 % 3, k % 3));
      double x = w * double(s.row(image, k / 9, i + k / 3 % 3)[j + k % 3]);
      sum += x;
      size += size_of(x);
    }
    if (!(size_of(sum - double(s.y[size_t(q)])) <= 2e-6 * size)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  struct {
    const char* name;
    void (*run)(Images&);
  } steps[] = {{"definition", definition}, {"rows at once", rows_at_once}, {"columns", columns}, {"library", library}};
  const std::vector<int64_t> list = sizes(argc, argv);
  double top = peak();
  std::printf("peak of one thread: %.1f GFLOP/s\n", top);
  for (int64_t n : list) {
    if (n < 4) return std::fprintf(stderr, "sizes are at least 4\n"), 2;
    Images s{n, n + kTaps - 1, {}, {}, std::vector<float>(size_t(kImages * kOut * n * n))};
    for (int64_t i = 0; i < kImages * kIn * s.side * s.side; i++) s.x.push_back(float(i * 37 % 2001) / 1000 - 1);
    for (int64_t i = 0; i < kOut * kIn * kTaps * kTaps; i++) s.w.push_back(float(i * 91 % 1999) / 1000 - 1);
    for (const auto& step : steps) {
      for (float& v : s.y) v = -1e30f;
      step.run(s);
      if (!right(s)) return std::printf("%s is WRONG at %d\n", step.name, int(n)), 1;
      double gflops = 2e-9 * double(kImages * kOut * kIn * kTaps * kTaps * n * n) / shortest([&] { step.run(s); });
      std::printf("%5d  %-14s %6.1f GFLOP/s  %.2f of the peak\n", int(n), step.name, gflops, gflops / top);
    }
  }
}
