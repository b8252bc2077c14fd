// Dual and Dual<Dual> against closed forms: d/dx and d2/dx2 of every primitive in double, and the chain rule.
#include "value/dual.h"

#include <cmath>
#include <initializer_list>

#include "check.h"

namespace {

using pb::Dual;
using D = Dual<double>;
using DD = Dual<D>;

struct Case {
  const char* name;
  D (*first)(D);
  DD (*second)(DD);
  double (*want1)(double);
  double (*want2)(double);
  double lo, hi;
};
#define PB_CASE(f, d1, d2, lo, hi)                         \
  {#f,                                                     \
   [](D x) { return f(x); },                               \
   [](DD x) { return f(x); },                              \
   []([[maybe_unused]] double x) -> double { return d1; }, \
   []([[maybe_unused]] double x) -> double { return d2; }, \
   lo,                                                     \
   hi}

double s(double x) { return 1 / (1 + std::exp(-x)); }
const double kRoot = std::sqrt(2 / std::acos(-1.0)) * std::sqrt(2.0);  // 2 / sqrt(pi)
double gauss(double x) { return kRoot * std::exp(-x * x); }
double density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)); }

const Case cases[] = {
    PB_CASE(-, -1, 0, -3, 3),
    PB_CASE(exp, std::exp(x), std::exp(x), -3, 3),
    PB_CASE(expm1, std::exp(x), std::exp(x), -3, 3),
    PB_CASE(log, 1 / x, -1 / (x * x), 0.1, 5),
    PB_CASE(log1p, 1 / (1 + x), -1 / ((1 + x) * (1 + x)), -0.8, 5),
    PB_CASE(log2, 1 / (x * M_LN2), -1 / (x * x * M_LN2), 0.1, 5),
    PB_CASE(sqrt, 0.5 / std::sqrt(x), -0.25 * std::pow(x, -1.5), 0.1, 5),
    PB_CASE(rsqrt, -0.5 * std::pow(x, -1.5), 0.75 * std::pow(x, -2.5), 0.1, 5),
    PB_CASE(recip, -1 / (x * x), 2 / (x * x * x), 0.1, 5),
    PB_CASE(square, 2 * x, 2, -3, 3),
    PB_CASE(sin, std::cos(x), -std::sin(x), -6, 6),
    PB_CASE(cos, -std::sin(x), -std::cos(x), -6, 6),
    PB_CASE(tan, 1 / std::pow(std::cos(x), 2), 2 * std::tan(x) / std::pow(std::cos(x), 2), -1.4, 1.4),
    PB_CASE(sinh, std::cosh(x), std::sinh(x), -3, 3),
    PB_CASE(cosh, std::sinh(x), std::cosh(x), -3, 3),
    PB_CASE(tanh, 1 / std::pow(std::cosh(x), 2), -2 * std::tanh(x) / std::pow(std::cosh(x), 2), -3, 3),
    PB_CASE(asin, 1 / std::sqrt(1 - x * x), x* std::pow(1 - x * x, -1.5), -0.9, 0.9),
    PB_CASE(acos, -1 / std::sqrt(1 - x * x), -x* std::pow(1 - x * x, -1.5), -0.9, 0.9),
    PB_CASE(atan, 1 / (1 + x * x), -2 * x / std::pow(1 + x * x, 2), -3, 3),
    PB_CASE(erf, gauss(x), -2 * x * gauss(x), -3, 3),
    PB_CASE(erfc, -gauss(x), 2 * x * gauss(x), -3, 3),
    PB_CASE(sigmoid, s(x) * s(-x), s(x) * s(-x) * (s(-x) - s(x)), -5, 5),
    PB_CASE(softplus, s(x), s(x) * s(-x), -5, 5),
    PB_CASE(normal_cdf, density(x), -x* density(x), -4, 4),
    PB_CASE(ndtri, 1 / density(pb::ndtri(x)), pb::ndtri(x) / std::pow(density(pb::ndtri(x)), 2), 0.01, 0.99),
    PB_CASE(abs, x < 0 ? -1 : 1, 0, -3, 3),
    PB_CASE(sign, 0, 0, -3, 3),
    PB_CASE(floor, 0, 0, -3, 3),
    PB_CASE(ceil, 0, 0, -3, 3),
    PB_CASE(round, 0, 0, -3, 3),
    PB_CASE(trunc, 0, 0, -3, 3),
};

double error(double y, double want) { return std::fabs(y - want) / std::fmax(1, std::fabs(want)); }

void unary() {
  for (const Case& c : cases) {
    double worst1 = 0, worst2 = 0;
    for (int i = 0; i < 1000; i++) {
      double x = c.lo + (c.hi - c.lo) * (i + 0.37) / 1000;
      D y = c.first(D{x, 3.0});
      worst1 = std::fmax(worst1, error(y.d, 3 * c.want1(x)));
      DD z = c.second(DD{D{x, 1.0}, D{1.0, 0.0}});
      CHECK(z.v.v == y.v && error(z.v.d, c.want1(x)) < 1e-12 && error(z.d.v, c.want1(x)) < 1e-12);
      worst2 = std::fmax(worst2, error(z.d.d, c.want2(x)));
      CHECK(!std::isnan(y.d) && !std::isnan(z.d.d));
    }
    if (worst1 > 1e-13 || worst2 > 1e-12) std::printf("%s:\n", c.name);
    CHECK_AT_MOST(worst1, 1e-13);
    CHECK_AT_MOST(worst2, 1e-12);
  }
}

// Two inputs: the derivative of each, from one Dual with its d set.
void binary() {
  for (double a : {0.3, 1.7, 2.0})
    for (double b : {-1.5, 0.4, 2.0, 3.0}) {
      D x{a, 1.0}, y{b, 0.0}, u{a, 0.0}, v{b, 1.0};
      CHECK((x + y).d == 1 && (u + v).d == 1 && (x - y).d == 1 && (u - v).d == -1);
      CHECK((x * y).d == b && (u * v).d == a);
      CHECK_AT_MOST(error((x / y).d, 1 / b), 1e-15);
      CHECK_AT_MOST(error((u / v).d, -a / (b * b)), 1e-15);
      CHECK_AT_MOST(error(pow(x, y).d, b * std::pow(a, b - 1)), 1e-14);
      CHECK_AT_MOST(error(pow(u, v).d, std::pow(a, b) * std::log(a)), 1e-14);
      CHECK_AT_MOST(error(fma(x, y, y).d, b), 1e-15);
      double tie = a == b ? 0.5 : a < b;
      CHECK(min(x, y).d == tie && max(x, y).d == 1 - tie && min(x, y).v == std::fmin(a, b));
      CHECK(where(x < y, x, y).v == (a < b ? a : b) && where(x < y, x, y).d == (a < b));
      CHECK((x <= y) == (a <= b) && (x > y) == (a > b) && (x >= y) == (a >= b) && (x == y) == (a == b) &&
            (x != y) == (a != b));
      // d2/da db of a^b
      DD p{D{a, 1.0}, D{0.0, 0.0}}, q{D{b, 0.0}, D{1.0, 0.0}};
      CHECK_AT_MOST(error(pow(p, q).d.d, std::pow(a, b - 1) * (1 + b * std::log(a))), 1e-13);
    }
  CHECK(pow(D{0.0, 1.0}, D(0)).d == 0 && pow(D{-2.0, 1.0}, D(3)).d == 12);
  CHECK(pow(D{0.0, 0.0}, D{2.0, 1.0}).d == 0 && pow(D{-2.0, 0.0}, D{3.0, 1.0}).d == 0);
  CHECK(isnan(D{NAN, 0.0}) && isinf(D{INFINITY, 0.0}) && isfinite(D{1.0, NAN}));
  CHECK(D(2).v == 2 && D(2).d == 0 && DD(2).v.v == 2 && DD(2).d.d == 0);
}

void chain() {
  auto f = [](auto x) {
    using V = decltype(x);
    return exp(sin(x) * V(0.5)) / (V(1) + x * x);
  };
  double x = 0.8, h = 1e-5;
  DD y = f(DD{D{x, 1.0}, D{1.0, 0.0}});
  CHECK_AT_MOST(error(y.d.v, (f(x + h) - f(x - h)) / (2 * h)), 1e-9);
  CHECK_AT_MOST(error(y.d.d, (f(D{x + h, 1.0}).d - f(D{x - h, 1.0}).d) / (2 * h)), 1e-9);
  static_assert(pb::Value<float> && pb::Value<double> && pb::Value<Dual<float>> && pb::Value<DD>);
  static_assert(!pb::Value<int64_t>);
}

}  // namespace

int main() {
  unary();
  binary();
  chain();
  return failures() != 0;
}
