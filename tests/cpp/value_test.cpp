// The scalar primitives against long double arithmetic: the largest error of dense sweeps, and special values.
// `value_test sums` prints a checksum of the results per primitive instead, to compare instruction sets.
#include "value/value.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>

#include "check.h"
#include "ops/activations.h"

namespace {

using Wide = long double;
constexpr float kHuge = std::numeric_limits<float>::max();
constexpr float inf = std::numeric_limits<float>::infinity();
constexpr double inf_d = std::numeric_limits<double>::infinity();
constexpr float nan_f = std::numeric_limits<float>::quiet_NaN();

// Without fused products the polynomials round once more per step.
constexpr double kSlack = PB_HAS_FMA ? 1 : 1.3;

// ---- references
Wide sigmoid_ref(Wide x) { return 1 / (1 + expl(-x)); }
Wide softplus_ref(Wide x) { return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x)); }
Wide rsqrt_ref(Wide x) { return 1 / sqrtl(x); }
Wide recip_ref(Wide x) { return 1 / x; }
Wide normal_cdf_ref(Wide x) { return erfcl(-x / sqrtl(2)) / 2; }
Wide ndtri_ref(Wide p) {
  Wide q = p < 0.5L ? p : 1 - p, z;
  if (fabsl(p - 0.5L) < 0.1L)
    z = (q - 0.5L) * 2.5066L;
  else
    z = -sqrtl(-2 * logl(q)) * 0.9L;
  for (int i = 0; i < 60; i++) {
    Wide off = q > 0.3L ? (0.5L - q) - 0.5L * erfl(-z / sqrtl(2)) : 0.5L * erfcl(-z / sqrtl(2)) - q;
    Wide e = off * sqrtl(2 * acosl(-1)) * expl(z * z / 2), step = e / (1 + z * e / 2);
    step = step > 1 ? 1 : step < -1 ? -1 : step;
    z -= step;
    if (fabsl(step) < 1e-18L * fabsl(z)) break;
  }
  return p < 0.5L ? z : -z;
}

// ---- sweeps
template <class S>
double ulp_error(S y, Wide want) {
  if (std::isnan(want)) return std::isnan(y) ? 0 : INFINITY;
  constexpr int digits = std::numeric_limits<S>::digits, lowest = std::numeric_limits<S>::min_exponent;
  S rounded = S(want);
  if (std::isinf(rounded) || std::isinf(y)) {
    if (y == rounded) return 0;
    return std::isinf(rounded) && std::isinf(y) ? INFINITY
                                                : double(fabsl(Wide(y) - want) / fabsl(want)) * ldexp(1, digits);
  }
  int e;
  frexpl(want, &e);
  if (e < lowest) e = lowest;
  return double(fabsl(Wide(y) - want) / ldexpl(1, e - digits));
}
float at_position(int64_t i) { return i < 0 ? -pb::float_of(uint32_t(-i)) : pb::float_of(uint32_t(i)); }
int64_t position(float x) { return x < 0 ? -int64_t(pb::bits_of(-x)) : int64_t(pb::bits_of(x)); }

constexpr int kTile = 1024;
struct Case {
  const char* name;
  void (*f)(float* y, const float* x);  // kTile elements, vectorised as in the kernels
  void (*d)(double* y, const double* x);
  Wide (*ref)(Wide);
  float lo, hi;  // the sweep takes every k-th float between
  double ulp, ulp_double;
};
#define PB_CASE(name, ref, lo, hi, ulp, ulp_double)         \
  {#name,                                                   \
   [](float* y, const float* x) {                           \
     for (int i = 0; i < kTile; i++) y[i] = pb::name(x[i]); \
   },                                                       \
   [](double* y, const double* x) {                         \
     for (int i = 0; i < kTile; i++) y[i] = pb::name(x[i]); \
   },                                                       \
   ref,                                                     \
   lo,                                                      \
   hi,                                                      \
   ulp,                                                     \
   ulp_double}

const Case cases[] = {
    PB_CASE(exp, expl, -110, 95, 1.1, 1.1),
    PB_CASE(expm1, expm1l, -110, 95, 1.6, 1.6),
    PB_CASE(log, logl, 0, kHuge, 1, 1.1),
    PB_CASE(log2, log2l, 0, kHuge, 2, 1.1),
    PB_CASE(log1p, log1pl, -1, kHuge, 1.5, 1.6),
    PB_CASE(sqrt, sqrtl, 0, kHuge, 0.5, 0.5),
    PB_CASE(rsqrt, rsqrt_ref, 0, kHuge, 1.5, 1.5),
    PB_CASE(recip, recip_ref, -kHuge, kHuge, 0.5, 0.5),
    PB_CASE(sin, sinl, -kHuge, kHuge, 1.6, 1.1),
    PB_CASE(sin, sinl, -10, 10, 1.5, 1.1),
    PB_CASE(cos, cosl, -kHuge, kHuge, 1.6, 1.1),
    PB_CASE(cos, cosl, -10, 10, 1.5, 1.1),
    PB_CASE(tan, tanl, -kHuge, kHuge, 3.5, 1.1),
    PB_CASE(tan, tanl, -10, 10, 3.5, 1.1),
    PB_CASE(sinh, sinhl, -95, 95, 2.5, 2.5),
    PB_CASE(cosh, coshl, -95, 95, 2, 2),
    PB_CASE(tanh, tanhl, -100, 100, 2.5, 2.5),
    PB_CASE(asin, asinl, -1, 1, 2.5, 1.1),
    PB_CASE(acos, acosl, -1, 1, 2, 1.1),
    PB_CASE(atan, atanl, -kHuge, kHuge, 2, 1.1),
    PB_CASE(erf, erfl, -20, 20, 4, 1.5),
    PB_CASE(erfc, erfcl, -12, 12, 5, 2.5),
    PB_CASE(sigmoid, sigmoid_ref, -120, 120, 3, 3),
    PB_CASE(softplus, softplus_ref, -120, 120, 2, 2.5),
    PB_CASE(normal_cdf, normal_cdf_ref, 0, 20, 4, 2),
    PB_CASE(ndtri, ndtri_ref, 1e-44f, 0.99999994f, 8, 4),
};

struct Sweep {
  double worst = 0, at = 0;
  void add(double error, double x) {
    if (!(error <= worst)) worst = error, at = x;  // keeps NaN
  }
};

void sweep(const Case& c, int tiles) {
  Sweep f, d;
  int64_t first = position(c.lo), last = position(c.hi), step = (last - first) / (int64_t(tiles) * kTile) + 1;
  float x[kTile], y[kTile];
  double xd[kTile], yd[kTile];
  for (int64_t at = first; at <= last; at += kTile * step) {
    for (int i = 0; i < kTile; i++) x[i] = at_position(std::min(at + i * step, last)), xd[i] = x[i];
    c.f(y, x);
    c.d(yd, xd);
    for (int i = 0; i < kTile; i++) {
      Wide want = c.ref(x[i]);
      f.add(ulp_error(y[i], want), x[i]);
      if (i % 4 == 0) d.add(ulp_error(yd[i], want), x[i]);
    }
  }
  std::printf("%-10s [%10.4g, %10.4g]  float %.3f ulp at %.9g   double %.3f ulp at %.9g\n", c.name, double(c.lo),
              double(c.hi), f.worst, f.at, d.worst, d.at);
  if (!(f.worst <= kSlack * c.ulp)) std::printf("%s: float ", c.name);
  CHECK_AT_MOST(f.worst, kSlack * c.ulp);
  if (!(d.worst <= c.ulp_double)) std::printf("%s: double ", c.name);
  CHECK_AT_MOST(d.worst, c.ulp_double);
}

// gelu and silu as the ops compose them: absolute error relative to max(1, |x|).
void activations() {
  Sweep gelu, gelu_pull, silu;
  for (int64_t i = -1000000; i <= 1000000; i++) {
    float x = float(i) * 1.5e-5f;
    Wide w = x, cdf = erfcl(-w / sqrtl(2)) / 2, density = expl(-w * w / 2) / sqrtl(2 * acosl(-1));
    double scale = std::fmax(1.0, std::fabs(double(x)));
    gelu.add(double(fabsl(pb::Gelu::fwd<float>(x) - w * cdf)) / scale, x);
    gelu_pull.add(double(fabsl(pb::Gelu::pull<float>(1.0f, x) - (cdf + w * density))), x);
    silu.add(double(fabsl(pb::Silu::fwd<float>(x) - w * sigmoid_ref(w))) / scale, x);
  }
  std::printf("gelu %.3g at %.6g, its pull %.3g at %.6g, silu %.3g at %.6g\n", gelu.worst, gelu.at, gelu_pull.worst,
              gelu_pull.at, silu.worst, silu.at);
  CHECK_AT_MOST(gelu.worst, 2.5e-7);
  CHECK_AT_MOST(gelu_pull.worst, 2.5e-7);
  CHECK_AT_MOST(silu.worst, 1.5e-7);
  CHECK(pb::Gelu::fwd<float>(inf) == inf && pb::Silu::fwd<float>(inf) == inf);
  CHECK(pb::Gelu::fwd<float>(-inf) == 0 && pb::Silu::fwd<float>(-inf) == 0 && pb::Mish::fwd<double>(-inf) == 0);
  for (float x : {inf, -inf, 1e30f, -1e30f, 1000.0f, -1000.0f}) {
    float want = x > 0;
    CHECK(pb::Gelu::pull<float>(1.0f, x) == want && pb::GeluTanh::pull<float>(1.0f, x) == want);
    CHECK(pb::Silu::pull<float>(1.0f, x) == want && pb::Mish::pull<float>(1.0f, x) == want);
    CHECK(pb::Gelu::pull<double>(1.0, x) == want && pb::Mish::pull<double>(1.0, x) == want);
  }
  for (auto pull : {pb::Gelu::pull<float>, pb::GeluTanh::pull<float>, pb::Silu::pull<float>, pb::Mish::pull<float>})
    CHECK(std::isnan(pull(1.0f, nan_f)));
  CHECK(pb::Silu::fwd<float>(-3e38f) == 0 && pb::Gelu::fwd<float>(-3e38f) == 0);
}

// Absolute bounds, which the ulp of small results does not show.
void absolute() {
  Sweep e, cdf;
  for (int64_t i = -600000; i <= 600000; i++) {
    float x = float(i) * 1e-5f;
    e.add(double(fabsl(pb::erf(x) - erfl(x))), x);
    cdf.add(double(fabsl(pb::normal_cdf(x) - normal_cdf_ref(x))), x);
  }
  std::printf("absolute: erf %.3g at %.6g, normal_cdf %.3g at %.6g\n", e.worst, e.at, cdf.worst, cdf.at);
  CHECK_AT_MOST(e.worst, kSlack * 6e-8);
  CHECK_AT_MOST(cdf.worst, kSlack * 2e-7);
  CHECK(pb::normal_cdf(-6.0f) == 0 && pb::normal_cdf(-inf) == 0 && pb::normal_cdf(inf) == 1);
  CHECK(pb::normal_cdf(-inf_d) == 0 && pb::normal_cdf(inf_d) == 1 && std::isnan(pb::normal_cdf(nan_f)));
}

void powers() {
  Sweep s, d;
  uint32_t seed = 1;
  for (int i = 0; i < 400000; i++) {
    seed = seed * 1664525u + 1013904223u;
    float a = pb::float_of((seed >> 1) % 0x7f800000u);
    seed = seed * 1664525u + 1013904223u;
    float b = float(int32_t(seed)) * (i % 2 ? 2e-8f : 2e-9f);
    Wide want = powl(a, b);
    s.add(ulp_error(pb::pow(a, b), want), a);
    d.add(ulp_error(pb::pow(double(a), double(b)), want), a);
  }
  std::printf("pow float %.3f ulp at %.9g, double %.3f\n", s.worst, s.at, d.worst);
  CHECK_AT_MOST(s.worst, 1.5);
  CHECK_AT_MOST(d.worst, 1.1);
  const float special[] = {0.0f,       -0.0f, 1,     -1,     2,       -2,          0.5f,
                           -0.5f,      3,     -3,    1e30f,  -1e30f,  16777215.0f, -16777218.0f,
                           inf,        -inf,  nan_f, 1e-40f, -1e-40f, 2.5f,        1073741824.0f,
                           33554430.0f};
  for (float a : special)
    for (float b : special) {
      float want = std::pow(a, b), y = pb::pow(a, b);
      bool same =
          std::isnan(want) ? std::isnan(y) : std::signbit(y) == std::signbit(want) && ulp_error(y, Wide(want)) <= 2;
      if (!CHECK(same)) std::printf("    pow(%g, %g) is %g, want %g\n", double(a), double(b), double(y), double(want));
    }
}

// Where the mathematics has an exact answer: the same special value as the C library, sign of zero included.
void specials() {
  struct Special {
    const char* name;
    float (*f)(float);
    double (*d)(double);
    double (*ref)(double);
  };
#define PB_SPECIAL(f)                                                                                           \
  {                                                                                                             \
    #f, [](float x) { return pb::f(x); }, [](double x) { return pb::f(x); }, [](double x) { return std::f(x); } \
  }
  const Special list[] = {PB_SPECIAL(exp),  PB_SPECIAL(expm1), PB_SPECIAL(log),   PB_SPECIAL(log1p), PB_SPECIAL(log2),
                          PB_SPECIAL(sqrt), PB_SPECIAL(sin),   PB_SPECIAL(cos),   PB_SPECIAL(tan),   PB_SPECIAL(sinh),
                          PB_SPECIAL(cosh), PB_SPECIAL(tanh),  PB_SPECIAL(asin),  PB_SPECIAL(acos),  PB_SPECIAL(atan),
                          PB_SPECIAL(erf),  PB_SPECIAL(erfc),  PB_SPECIAL(floor), PB_SPECIAL(ceil),  PB_SPECIAL(trunc)};
  const double points[] = {0.0,   -0.0,   inf,   -inf,   NAN,  1,     -1,    2,     -2,
                           1e-45, -1e-45, 1e-39, -1e-39, 3e38, -3e38, 1e-20, -1e-20};
  auto same = [](double y, float want) {
    return std::isnan(want)
               ? std::isnan(y)
               : std::signbit(y) == std::signbit(want) && (float(y) == want || ulp_error(float(y), Wide(want)) <= 3);
  };
  for (const Special& s : list)
    for (double x : points) {
      auto want = float(s.ref(double(float(x))));
      if (!CHECK(same(s.f(float(x)), want)))
        std::printf("    %s(%g): %g, want %g\n", s.name, x, double(s.f(float(x))), double(want));
      if (!CHECK(same(s.d(double(float(x))), want))) std::printf("    double %s(%g)\n", s.name, x);
    }
  CHECK(pb::exp(-103.98f) == 0 && pb::exp(-103.9f) > 0 && pb::exp(88.73f) == inf && pb::exp(88.72f) < inf);
  CHECK(pb::sigmoid(-inf) == 0 && pb::sigmoid(inf) == 1 && std::isnan(pb::sigmoid(nan_f)) && pb::sigmoid(-100.0f) > 0);
  CHECK(pb::softplus(-inf) == 0 && pb::softplus(inf) == inf && std::isnan(pb::softplus(nan_f)));
  CHECK(pb::ndtri(0.0f) == -inf && pb::ndtri(1.0f) == inf && pb::ndtri(0.5f) == 0 && std::isnan(pb::ndtri(-0.1f)));
  CHECK(pb::ndtri(0.0) == -inf && pb::ndtri(1.0) == inf && pb::ndtri(0.5) == 0 && std::isnan(pb::ndtri(1.1)));
  CHECK(pb::rsqrt(0.0f) == inf && pb::rsqrt(inf) == 0 && std::isnan(pb::rsqrt(-1.0f)) && pb::recip(-0.0f) == -inf);
  CHECK(pb::round(2.5f) == 2 && pb::round(3.5f) == 4 && pb::round(-2.5) == -2);
  CHECK(std::signbit(pb::sign(-0.0f)) && std::isnan(pb::sign(nan_f)) && pb::sign(-3.0) == -1);
  for (float bad : {nan_f, -nan_f}) {
    CHECK(std::isnan(pb::min(bad, 1.0f)) && std::isnan(pb::min(1.0f, bad)));
    CHECK(std::isnan(pb::max(bad, 1.0f)) && std::isnan(pb::max(1.0f, bad)));
  }
  CHECK(pb::min(1.0f, 2.0f) == 1 && pb::min(2.0f, 1.0f) == 1 && pb::max(1.0, 2.0) == 2 && pb::max(2.0, 1.0) == 2);
  CHECK(pb::isnan(nan_f) && !pb::isnan(inf) && pb::isinf(-inf) && !pb::isinf(nan_f) && pb::isfinite(1.0f) &&
        !pb::isfinite(nan_f));
  constexpr int64_t low = std::numeric_limits<int64_t>::min();
  CHECK(pb::abs(low) == low && pb::abs(int64_t(-3)) == 3 && pb::abs(uint64_t(3)) == 3);
  CHECK(pb::sign(int64_t(-7)) == -1 && pb::sign(uint64_t(7)) == 1 && pb::sign(uint64_t(0)) == 0);
  CHECK(pb::max(int64_t(-1), int64_t(2)) == 2 && pb::min(uint64_t(1), ~uint64_t(0)) == 1);
}

// FNV-1a over the bits of every result.
void sums() {
  for (const Case& c : cases) {
    uint64_t h = 14695981039346656037u;
    int64_t first = position(c.lo), last = position(c.hi), step = (last - first) / (200 * kTile) + 1;
    float x[kTile], y[kTile];
    for (int64_t at = first; at <= last; at += kTile * step) {
      for (int i = 0; i < kTile; i++) x[i] = at_position(std::min(at + i * step, last));
      c.f(y, x);
      for (float v : y) h = (h ^ pb::bits_of(v)) * 1099511628211u;
    }
    std::printf("%s %016llx\n", c.name, static_cast<unsigned long long>(h));
  }
  uint64_t h = 14695981039346656037u;
  float a[kTile], b[kTile], y[kTile];
  for (int t = 0; t < 100; t++) {
    for (int i = 0; i < kTile; i++) a[i] = float(t * kTile + i) * 1e-3f, b[i] = float(i - 512) * 0.01f;
    for (int i = 0; i < kTile; i++) y[i] = pb::pow(a[i], b[i]);
    for (float v : y) h = (h ^ pb::bits_of(v)) * 1099511628211u;
    for (int i = 0; i < kTile; i++) y[i] = pb::Gelu::pull<float>(a[i], b[i]) + pb::Silu::pull<float>(a[i], b[i]);
    for (float v : y) h = (h ^ pb::bits_of(v)) * 1099511628211u;
    for (int i = 0; i < kTile; i++) y[i] = pb::Mish::pull<float>(a[i], b[i]) + pb::GeluTanh::pull<float>(a[i], b[i]);
    for (float v : y) h = (h ^ pb::bits_of(v)) * 1099511628211u;
  }
  std::printf("formulas %016llx\n", static_cast<unsigned long long>(h));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "sums") == 0) {
    sums();
    return 0;
  }
  int tiles = argc > 1 ? std::atoi(argv[1]) : 200;
  for (const Case& c : cases) sweep(c, tiles);
  specials();
  powers();
  activations();
  absolute();
  return failures() != 0;
}
