// float16 and bfloat16 bits, every value and every rounding boundary; Philox against the Random123 known answers.
#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "value/half.h"
#include "value/philox.h"

namespace {

double f16_ref(uint32_t h) {
  int e = int(h >> 10 & 31), m = int(h & 1023);
  double v = e == 31 ? (m ? NAN : INFINITY) : e == 0 ? std::ldexp(m, -24) : std::ldexp(1024 + m, e - 25);
  return h & 0x8000 ? -v : v;
}
double bf16_ref(uint32_t h) {
  int e = int(h >> 7 & 255), m = int(h & 127);
  double v = e == 255 ? (m ? NAN : INFINITY) : e == 0 ? std::ldexp(m, -133) : std::ldexp(128 + m, e - 134);
  return h & 0x8000 ? -v : v;
}

// Widening is exact, narrowing its inverse; a value between two neighbours goes to the nearer, a tie to the even one.
template <class Narrow, class Widen>
void format(Narrow narrow, Widen widen, double (*ref)(uint32_t), uint32_t infinity, uint32_t quiet) {
  for (uint32_t h = 0; h < 65536; h++) {
    float x = widen(uint16_t(h));
    double want = ref(h);
    if (std::isnan(want)) {
      CHECK(std::isnan(x) && narrow(x) == (h | quiet));
      continue;
    }
    CHECK(double(x) == want && std::signbit(x) == std::signbit(want) && narrow(x) == h);
    if ((h & 0x7fff) >= infinity) continue;
    // The next value away from zero; past the largest one, where it would be without an infinity.
    double next = (h & 0x7fff) + 1 == infinity ? 2 * want - ref(h - 1) : ref(h + 1);
    auto middle = float((want + next) / 2);
    CHECK(double(middle) == (want + next) / 2);
    CHECK(narrow(middle) == (h & 1 ? h + 1 : h));
    CHECK(narrow(std::nextafter(middle, x)) == h);
    CHECK(narrow(std::nextafter(middle, float(2 * next - want))) == h + 1);
  }
  CHECK(narrow(INFINITY) == infinity && narrow(-INFINITY) == (infinity | 0x8000));
  CHECK(narrow(3.4e38f) == infinity && narrow(-3.4e38f) == (infinity | 0x8000));
  CHECK(narrow(1e-45f) == 0 && narrow(-1e-45f) == 0x8000);
  CHECK(std::isnan(widen(narrow(pb::float_of(0x7f800001u)))) && std::isnan(widen(narrow(pb::float_of(0xffffffffu)))));
}

void known_answers() {
  struct Answer {
    uint32_t counter[4], key[2], want[4];
  };
  const Answer answers[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Answer& a : answers) {
    uint32_t c[4];
    std::memcpy(c, a.counter, sizeof c);
    pb::philox_block(c, a.key[0], a.key[1]);
    CHECK(std::memcmp(c, a.want, sizeof c) == 0);
    // The same block through the stream interface: word 4 * (low counter) of stream (high counter).
    uint64_t block = uint64_t(a.counter[1]) << 32 | a.counter[0], stream = uint64_t(a.counter[3]) << 32 | a.counter[2];
    uint64_t seed = uint64_t(a.key[1]) << 32 | a.key[0];
    if (block >> 62) continue;  // 4 * block does not fit
    uint32_t words[4];
    pb::philox_fill(seed, stream, 4 * block, 4, words);
    CHECK(std::memcmp(words, a.want, sizeof words) == 0);
  }
}

// Any cut of a stream gives the same words.
void cuts() {
  std::vector<uint32_t> whole(1000);
  pb::philox_fill(42, 7, 0, 1000, whole.data());
  for (int64_t first : {0, 1, 2, 3, 4, 63, 64, 65, 500})
    for (int64_t n : {0, 1, 2, 3, 5, 63, 64, 65, 130, 499}) {
      std::vector<uint32_t> part(size_t(n) + 1, 0xdeadbeef);
      pb::philox_fill(42, 7, uint64_t(first), n, part.data());
      CHECK(std::memcmp(part.data(), whole.data() + first, size_t(n) * 4) == 0 && part[size_t(n)] == 0xdeadbeef);
    }
  uint32_t a[4], b[8];
  pb::philox_fill(1, 0, (uint64_t(1) << 34) - 4, 8, b);  // over the carry of the low counter word
  pb::philox_fill(1, 0, uint64_t(1) << 34, 4, a);
  CHECK(std::memcmp(a, b + 4, sizeof a) == 0);
}

void uniforms() {
  CHECK(pb::uniform01(0) == 0x1p-24f && pb::uniform01(0xffffffffu) == 1 - 0x1p-24f);
  CHECK(pb::uniform01_double(0, 0) == 0x1p-53 && pb::uniform01_double(0xffffffffu, 0xffffffffu) == 1 - 0x1p-53);
  CHECK(pb::uniform01(0x80000000u) == 0.5f + 0x1p-24f);
  constexpr int n = 1 << 18;
  std::vector<uint32_t> w(n);
  pb::philox_fill(3, 0, 0, n, w.data());
  double sum = 0, squares = 0;
  for (uint32_t x : w) {
    double u = double(pb::uniform01(x)) - 0.5;
    sum += u, squares += u * u;
  }
  CHECK_AT_MOST(std::fabs(sum / n), 5 / std::sqrt(12.0 * n));
  CHECK_AT_MOST(std::fabs(squares / n - 1.0 / 12), 5 / std::sqrt(180.0 * n));
}

}  // namespace

int main() {
  format([](float x) { return uint32_t(pb::float_to_f16(x)); }, [](uint16_t h) { return pb::f16_to_float(h); }, f16_ref,
         0x7c00, 0x200);
  format([](float x) { return uint32_t(pb::float_to_bf16(x)); }, [](uint16_t h) { return pb::bf16_to_float(h); },
         bf16_ref, 0x7f80, 0x40);
  known_answers();
  cuts();
  uniforms();
  return failures() != 0;
}
