// Steps that taught something about attention under the causal mask, one head on one thread, each checked against sums
// in double.
//   g++ -std=c++20 -O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -ffp-contract=fast
//       -Wno-psabi -Icsrc tools/ladder/attention.cpp -o attention && ./attention 128 512 1024
// (one line). Prints GFLOP/s of the half square that counts, and the share of the peak.
#include <math.h>

#include "ladder.h"

namespace {
#include "cpu/attention_kernels.h"

constexpr int64_t kWidth = 64;

struct Head {
  int64_t n;
  std::vector<float> q, k, v, y, scores, lse;
};

constexpr float kScale = 0.125f;  // 1 / sqrt(64)

// 1. The definition: all scores in memory, one pass each for products, maximum, exponentials and the second product.
void definition(Head& s) {
  int64_t n = s.n;
  for (int64_t i = 0; i < n; i++) {
    float* p = &s.scores[size_t(i * n)];
    for (int64_t j = 0; j < n; j++) {
      float sum = 0;
      for (int64_t c = 0; c < kWidth; c++) sum += s.q[size_t(i * kWidth + c)] * s.k[size_t(j * kWidth + c)];
      p[j] = j <= i ? sum * kScale : -INFINITY;
    }
    float top = -INFINITY, total = 0;
    for (int64_t j = 0; j < n; j++) top = p[j] > top ? p[j] : top;
    for (int64_t j = 0; j < n; j++) total += p[j] = expf(p[j] - top);
    float* y = &s.y[size_t(i * kWidth)];
    for (int64_t c = 0; c < kWidth; c++) y[c] = 0;
    for (int64_t j = 0; j < n; j++)
      for (int64_t c = 0; c < kWidth; c++) y[c] += p[j] / total * s.v[size_t(j * kWidth + c)];
  }
}

// 2. One walk over the keys that are seen, with a running maximum: no matrix of scores, half the work, and the row of y
// is scaled anew whenever the maximum grows. The row's products are still one chain of adds each.
void running_maximum(Head& s) {
  for (int64_t i = 0; i < s.n; i++) {
    float y[kWidth] = {}, top = -INFINITY, total = 0;
    for (int64_t j = 0; j <= i; j++) {
      float sum = 0;
      for (int64_t c = 0; c < kWidth; c++) sum += s.q[size_t(i * kWidth + c)] * s.k[size_t(j * kWidth + c)];
      float z = sum * kScale, new_top = z > top ? z : top, shrink = expf(top - new_top), e = expf(z - new_top);
      total = total * shrink + e, top = new_top;
      for (int64_t c = 0; c < kWidth; c++) y[c] = y[c] * shrink + e * s.v[size_t(j * kWidth + c)];
    }
    for (int64_t c = 0; c < kWidth; c++) s.y[size_t(i * kWidth + c)] = y[c] / total;
  }
}

// 3. Keys in blocks, transposed once: the scores of a row against a block are lanes of vectors, so neither sum is a
// chain along the lanes, and the exponentials vectorise.
void blocks_of_keys(Head& s) {
  constexpr int64_t kKeys = 64;
  int64_t n = s.n, blocks = (n + kKeys - 1) / kKeys;
  std::vector<float> turned(size_t(blocks * kKeys * kWidth));
  for (int64_t j = 0; j < n; j++)
    for (int64_t c = 0; c < kWidth; c++)
      turned[size_t((j / kKeys * kWidth + c) * kKeys + j % kKeys)] = s.k[size_t(j * kWidth + c)];
  for (int64_t i = 0; i < n; i++) {
    float y[kWidth] = {}, top = -INFINITY, total = 0;
    for (int64_t b = 0; b <= i / kKeys; b++) {
      alignas(64) float z[kKeys] = {};
      const float* k = &turned[size_t(b * kKeys * kWidth)];
      for (int64_t c = 0; c < kWidth; c++)
        for (int64_t j = 0; j < kKeys; j++) z[j] += s.q[size_t(i * kWidth + c)] * k[c * kKeys + j];
      int64_t see = i - b * kKeys + 1 < kKeys ? i - b * kKeys + 1 : kKeys;
      float new_top = top;
      for (int64_t j = 0; j < see; j++) new_top = z[j] * kScale > new_top ? z[j] * kScale : new_top;
      float shrink = expf(top - new_top);
      for (int64_t j = 0; j < kKeys; j++) z[j] = j < see ? pb::exp_negative(z[j] * kScale - new_top) : 0.0f;
      for (int64_t j = 0; j < kKeys; j++) total = j ? total + z[j] : total * shrink + z[0];
      top = new_top;
      for (int64_t c = 0; c < kWidth; c++) y[c] *= shrink;
      for (int64_t j = 0; j < see; j++)
        for (int64_t c = 0; c < kWidth; c++) y[c] += z[j] * s.v[size_t((b * kKeys + j) * kWidth + c)];
    }
    for (int64_t c = 0; c < kWidth; c++) s.y[size_t(i * kWidth + c)] = y[c] / total;
  }
}

// 4. The kernel of the library: blocks of queries too, so that both products run in register tiles of several rows,
// and tiles above the diagonal are skipped.
void library(Head& s) {
  pb::AttentionCall c{};
  c.heads = c.many = 1;
  c.queries = c.keys = s.n;
  c.width = c.out_width = kWidth;
  c.scale = kScale;
  c.causal = true;
  auto rows = [&](std::vector<float>& t) { return pb::HeadRows{t.data(), 0, 0, kWidth}; };
  c.q = rows(s.q), c.k = rows(s.k), c.v = rows(s.v), c.y = rows(s.y);
  c.lse = s.lse.data();
  pb::attention_forward(c);
}

bool right(const Head& s) {
  std::vector<double> p(size_t(s.n));
  for (int64_t i = 0; i < s.n; i += 13) {
    double total = 0, top = -1e300;
    for (int64_t j = 0; j <= i; j++) {
      double sum = 0;
      for (int64_t c = 0; c < kWidth; c++)
        sum += double(s.q[size_t(i * kWidth + c)]) * double(s.k[size_t(j * kWidth + c)]);
      p[size_t(j)] = sum * double(kScale);
      top = p[size_t(j)] > top ? p[size_t(j)] : top;
    }
    for (int64_t j = 0; j <= i; j++) total += p[size_t(j)] = exp(p[size_t(j)] - top);
    for (int64_t c = 0; c < kWidth; c++) {
      double want = 0;
      for (int64_t j = 0; j <= i; j++) want += p[size_t(j)] / total * double(s.v[size_t(j * kWidth + c)]);
      if (!(size_of(want - double(s.y[size_t(i * kWidth + c)])) <= 3e-6)) return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  struct {
    const char* name;
    void (*run)(Head&);
  } steps[] = {{"definition", definition},
               {"running maximum", running_maximum},
               {"blocks of keys", blocks_of_keys},
               {"library", library}};
  const std::vector<int64_t> list = sizes(argc, argv);
  double top = peak();
  std::printf("peak of one thread: %.1f GFLOP/s\n", top);
  for (int64_t n : list) {
    Head s{n,
           {},
           {},
           {},
           std::vector<float>(size_t(n * kWidth)),
           std::vector<float>(size_t(n * n)),
           std::vector<float>(size_t(n))};
    for (int64_t i = 0; i < n * kWidth; i++) {
      s.q.push_back(float(i * 37 % 2001) / 1000 - 1);
      s.k.push_back(float(i * 91 % 1999) / 1000 - 1);
      s.v.push_back(float(i * 53 % 1997) / 1000 - 1);
    }
    for (const auto& step : steps) {
      for (float& x : s.y) x = -1e30f;
      step.run(s);
      if (!right(s)) return std::printf("%s is WRONG at %d\n", step.name, int(n)), 1;
      double gflops = 2e-9 * double(n * n * kWidth) / shortest([&] { step.run(s); });
      std::printf("%5d  %-16s %6.1f GFLOP/s  %.2f of the peak\n", int(n), step.name, gflops, gflops / top);
    }
  }
}
