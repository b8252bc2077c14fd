// The primitives of V = float: one branch-free text for CPU vector lanes and CUDA threads. A range is reduced, a
// polynomial or quotient of polynomials evaluated (coefficients: minimax fits, rounded in order of their power), and
// every alternative is a select, so that loops over a formula vectorise. Bounds are measured in
// tests/cpp/value_test.cpp. Included by value.h only.
#pragma once

namespace pb {

PB_FN float copysign(float size, float sign) {
  return float_of((bits_of(size) & 0x7fffffffu) | (bits_of(sign) & 0x80000000u));
}
// x * y - p for p = x * y rounded.
PB_FN float product_error(float x, float y, float p) {
#if PB_HAS_FMA
  return fma(x, y, -p);
#else
  return float(double(x) * double(y) - double(p));
#endif
}

// ---- exponentials
//
// x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 * 2^23 + Bias leaves n + Bias in the low bits of the sum, where a shift
// by 23 makes it an exponent field; the rest is shifted out.
struct ExpParts {
  float r;
  uint32_t biased;
};
template <int Bias>
PB_FN ExpParts exp_parts(float x) {
  constexpr float magic = 12582912.0f + float(Bias);
  float t = fma(x, 1.44269504f, magic);
  float n = t - magic;
  return {fma(n, 2.12194440e-4f, fma(n, -0.693359375f, x)), bits_of(t)};
}
PB_FN float exp_polynomial(float r) {
  float q = polynomial(r, 0.49999994f, 0.166665211f, 0.0416682661f, 0.00836867746f, 0.00138207339f);
  return fma(r * r, q, r) + 1.0f;
}
// 2^K exp(x), x in [-105, 90] (or NaN): the scale is applied as two factors, so that the result underflows gradually.
template <int K>
PB_FN float exp_scaled(float x) {
  ExpParts e = exp_parts<254 + K>(x);
  uint32_t half = e.biased >> 1;
  return exp_polynomial(e.r) * float_of(half << 23) * float_of((e.biased - half) << 23);
}
PB_FN float exp(float x) {
  float c = x > 89.0f ? 89.0f : x;
  return exp_scaled<0>(x < -104.0f ? -104.0f : c);
}
// exp(x) for x <= 0.
PB_FN float exp_negative(float x) { return exp_scaled<0>(x < -104.0f ? -104.0f : x); }
// (2^n exp(r) - 1) with 2^n = 2 half, in halves so that 2^128 does not overflow too early.
PB_FN float expm1(float x) {
  float c = x > 89.0f ? 89.0f : x;
  c = x < -20.0f ? -20.0f : c;
  ExpParts e = exp_parts<126>(c);
  float half = float_of(e.biased << 23);
  float q = polynomial(e.r, 0.5f, 0.16666545f, 0.0416664034f, 0.00836640596f, 0.0013940658f);
  float p = fma(e.r * e.r, q, e.r);
  return copysign(2.0f * fma(half, p, half - 0.5f), x);
}
// 1 / (1 + exp(-x)) with both terms of the sum 2^-24 times their value, so that exp(104) is finite and one scale does.
PB_FN float sigmoid(float x) {
  float c = x > 70.0f ? 70.0f : x;
  ExpParts e = exp_parts<127 - 24>(c < -104.0f ? 104.0f : -c);
  return 0x1p-24f / fma(exp_polynomial(e.r), float_of(e.biased << 23), 0x1p-24f);
}
PB_FN float tanh(float x) {
  float t = -2.0f * abs(x);
  t = expm1(t);
  return copysign(t / (2.0f + t), x);
}
PB_FN float sinh(float x) {
  float a = abs(x), s = x * x;
  float small = fma(x * s, polynomial(s, 0.166666672f, 0.00833331048f, 0.000198428956f, 2.78221319e-6f), x);
  float e = exp_scaled<-1>(a > 90.0f ? 90.0f : a);
  return a < 1.0f ? small : copysign(e - 0.25f / e, x);
}
PB_FN float cosh(float x) {
  float a = abs(x);
  float e = exp_scaled<-1>(a > 90.0f ? 90.0f : a);
  return e + 0.25f / e;
}

// ---- logarithms
//
// x = 2^n (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).
struct LogParts {
  float f, n;
};
PB_FN LogParts log_parts(float x) {
  float up = x < 0x1p-126f ? 0x1p23f : 1.0f;
  uint32_t t = bits_of(x * up) - 0x3f3504f3u;
  int32_t n = (int32_t(t) >> 23) + 127 - int32_t(bits_of(up) >> 23);
  return {float_of((t & 0x7fffffu) + 0x3f3504f3u) - 1.0f, float(n)};
}
// log(1 + f) - f
PB_FN float log_rest(float f) {
  float q = polynomial(f, 0.333333313f, -0.250008225f, 0.200012505f, -0.166233152f, 0.14201273f, -0.1316019f,
                       0.127647623f, -0.0763818473f);
  return f * f * fma(f, q, -0.5f);
}
PB_FN float log_sum(LogParts p) { return fma(p.n, 0.693359375f, p.f + fma(p.n, -2.12194440e-4f, log_rest(p.f))); }
// Of a logarithm r of x: x = 0, x < 0, infinity and NaN.
PB_FN float log_ends(float x, float r) {
  r = x < kInf<float> ? r : x;
  r = x < 0.0f ? kNaN<float> : r;
  return x == 0.0f ? -kInf<float> : r;
}
PB_FN float log(float x) { return log_ends(x, log_sum(log_parts(x))); }
PB_FN float log2(float x) {
  LogParts p = log_parts(x);
  return log_ends(x, fma(p.f + log_rest(p.f), 1.44269504f, p.n));
}
// 1 + x only chooses n; f = x 2^-n + (2^-n - 1) keeps the digits of x. The factor 1/4 keeps 2^-n normal for n = 128.
PB_FN float log1p(float x) {
  uint32_t t = bits_of(1.0f + x) - 0x3f3504f3u;
  int32_t n = int32_t(t) >> 23;
  float scale = float_of(uint32_t(129 - n) << 23);
  float r = log_sum({fma(0.25f * x, scale, fma(0.25f, scale, -1.0f)), float(n)});
  r = abs(x) < 0x1p-30f ? x : r;
  r = x < kInf<float> ? r : x;
  r = x < -1.0f ? kNaN<float> : r;
  return x == -1.0f ? -kInf<float> : r;
}
PB_FN float softplus(float x) {
  float e = exp_negative(-abs(x));  // in (0, 1]: log1p needs n = 0 or 1 only
  bool big = e > 0.414213562f;
  float r = log_sum({big ? fma(0.5f, e, -0.5f) : e, big ? 1.0f : 0.0f});
  return max(x, 0.0f) + r;
}

// ---- powers
PB_FN float rsqrt(float x) { return 1.0f / sqrt(x); }
// exp2(b log2|a|), the logarithm and the product in double: 128 log2 needs 32 bits.
PB_FN float pow(float a, float b) {
  float size = abs(a);
  LogParts l = log_parts(size);
  double f = l.f;
  double log2f = f * polynomial(f, 1.4426950409393484, -0.7213475252133725, 0.48089832072851424, -0.36067280052054823,
                                0.28854064359279363, -0.24050417528711582, 0.2060962567921456, -0.17904693340105682,
                                0.1590014701899542, -0.15698235888595446, 0.1548577430726425, -0.08634605966736711);
  double y = double(b) * (double(l.n) + log2f);
  y = y > 129.0 ? 129.0 : y;
  y = y < -151.0 ? -151.0 : y;
  double t = y + (6755399441055744.0 + 254.0);
  auto r = float(y - (t - (6755399441055744.0 + 254.0)));
  auto biased = uint32_t(bits_of(t)), half = biased >> 1 & 0xffu;
  float p =
      fma(r, polynomial(r, 0.693147182f, 0.240226477f, 0.0555035956f, 0.00961850304f, 0.00133909972f, 0.00015327803f),
          1.0f);
  p = p * float_of(half << 23) * float_of((biased - half) << 23);
  // |a| = 0 or infinity: the limit that the sign of b picks.
  bool zero = size == 0.0f, endless = size == kInf<float>;
  p = zero | endless ? (zero == (b > 0.0f) ? 0.0f : kInf<float>) : p;
  float half_b = 0.5f * b;
  bool whole = floor(b) == b, odd = whole & (floor(half_b) != half_b) & (abs(b) < 0x1p24f);
  p = odd ? copysign(p, a) : p;
  p = (a < 0.0f) & !whole & !endless ? kNaN<float> : p;
  p = (size == 1.0f) & (abs(b) == kInf<float>) ? 1.0f : p;
  p = (a != a) | (b != b) ? a + b : p;
  return (b == 0.0f) | (a == 1.0f) ? 1.0f : p;
}

// ---- trigonometry
//
// x = q pi/2 + r, |r| <= pi/4, reduced in double. From 2^48 on, x = m 2^k with a whole m below 2^43, and 2^k gives way
// to its remainder modulo 2 pi in two parts.
struct Angle {
  float r;
  uint32_t quadrant;
};
PB_FN Angle angle_of(float x) {
  float a = abs(x), scale = 1.0f;
  double high = 1.0, low = 0.0;
#define PB_BAND(from, factor, remainder, rest) \
  scale = a >= from ? factor : scale;          \
  high = a >= from ? remainder : high;         \
  low = a >= from ? rest : low;
  PB_BAND(0x1p48f, 0x1p-25f, -1.7879377333603939, -7.976019722750976e-18)
  PB_BAND(0x1p68f, 0x1p-45f, 0.8016307510169894, 4.145724229161417e-17)
  PB_BAND(0x1p88f, 0x1p-65f, -0.047201401495815684, 9.4726518555505e-19)
  PB_BAND(0x1p108f, 0x1p-85f, -1.606110222823117, 3.7016562050339816e-17)
#undef PB_BAND
  double m = x * scale, d = m * high, rest = fma(m, low, fma(m, high, -d));
  constexpr double magic = 6755399441055744.0;
  double t = fma(d, 0.63661977236758134308, magic);
  double n = t - magic;
  double r = fma(-n, 6.123233995736766036e-17, fma(-n, 1.570796326794896558, d));
  return {float(r + rest), uint32_t(bits_of(t))};
}
PB_FN float sin_polynomial(float r) {
  float s = r * r;
  return fma(r * s, polynomial(s, -0.166666552f, 0.00833218824f, -0.000195181041f), r);
}
PB_FN float cos_polynomial(float r) {
  float s = r * r;
  return fma(s * s, polynomial(s, 0.0416666456f, -0.00138873106f, 2.44325583e-5f), fma(-0.5f, s, 1.0f));
}
PB_FN float sin_quadrant(Angle a, uint32_t shift) {
  uint32_t q = a.quadrant + shift;
  float y = q & 1u ? cos_polynomial(a.r) : sin_polynomial(a.r);
  return float_of(bits_of(y) ^ (q & 2u) << 30);
}
#if PB_HAS_FMA
PB_FN float sin(float x) {
  float y = sin_quadrant(angle_of(x), 0);
  return x == 0.0f ? x : y;
}
PB_FN float cos(float x) { return sin_quadrant(angle_of(x), 1); }
PB_FN float tan(float x) {
  Angle a = angle_of(x);
  float s = sin_polynomial(a.r), c = cos_polynomial(a.r);
  bool odd = a.quadrant & 1u;
  float y = (odd ? -c : s) / (odd ? s : c);
  return x == 0.0f ? x : y;
}
#else  // the reduction needs a fused product
PB_FN float sin(float x) { return ::sinf(x); }
PB_FN float cos(float x) { return ::cosf(x); }
PB_FN float tan(float x) { return ::tanf(x); }
#endif

// The inverse functions are base + factor * p(s) with base, factor and s selected together, so that the polynomial is
// evaluated once. For |x| > 1/2: asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2)).
constexpr float kHalfPi = 1.57079637f, kHalfPiRest = -4.37113883e-8f;

PB_FN float asin_polynomial(float s, float z) {  // z = s^2
  return fma(s * z, polynomial(z, 0.166667521f, 0.0749530643f, 0.0454697721f, 0.0241807755f, 0.0421664044f), s);
}
PB_FN float asin(float x) {
  float a = abs(x), z = min(x * x, fma(-0.5f, a, 0.5f));
  bool big = a > 0.5f;
  float s = big ? sqrt(z) : a, base = big ? kHalfPi : 0.0f, rest = big ? kHalfPiRest : 0.0f;
  float factor = big ? -2.0f : 1.0f;
  return copysign(base + fma(factor, asin_polynomial(s, z), rest), x);
}
PB_FN float acos(float x) {
  float a = abs(x), z = min(x * x, fma(-0.5f, a, 0.5f));
  float left = x < 0.0f ? 2.0f : 0.0f, sign = 1.0f - left;
  bool big = a > 0.5f;
  float s = big ? sqrt(z) : a, halves = big ? left : 1.0f, factor = big ? 2.0f * sign : -sign;
  return fma(halves, kHalfPi, fma(factor, asin_polynomial(s, z), halves * kHalfPiRest));
}
PB_FN float atan(float x) {
  float a = abs(x);
  bool big = a > 1.0f;
  float t = big ? 1.0f / a : a, base = big ? kHalfPi : 0.0f, rest = big ? kHalfPiRest : 0.0f;
  float factor = big ? -1.0f : 1.0f, s = t * t;
  float q = polynomial(s, -0.333331525f, 0.199937671f, -0.142110035f, 0.106657855f, -0.0755172372f, 0.0432058573f,
                       -0.016364133f, 0.00291972281f);
  return copysign(base + fma(factor, fma(t * s, q, t), rest), x);
}

// ---- the normal distribution
//
// x where its sign bit is clear, else 0, by integer steps, which vector units have to spare. NaN may become 0.
PB_FN float positive_part(float x) {
  auto bits = int32_t(bits_of(x));
  return float_of(uint32_t(bits & ~(bits >> 31)));
}
// The tail of the distribution beyond a in [0, 6], to an absolute 2e-7, 0 from 5.62 on. Its fourth root is a
// polynomial: raising to the fourth power shrinks its errors where the tail is small, so 9 coefficients do, without
// exponential and quotient. `rest` is what the rounding of the root took, which the power would multiply by four.
PB_FN float normal_tail(float a) {
  constexpr float first = 0.840896428f;
  float p = polynomial(a, -0.167733952f, -0.0501982011f, 0.00465087546f, 0.00379415858f, -3.42535095e-5f,
                       -0.000307735871f, 5.84609224e-5f, -3.40232987e-6f);
  float root = fma(p, a, first), rest = fma(p, a, first - root);
  root = positive_part(root);
  float s = root * root, twice = root + root;
  return s * fma(twice + twice, rest, s);
}
PB_FN float normal_cdf(float x) {
  float tail = normal_tail(min(abs(x), 6.0f));
  return x < 0.0f ? tail : 1.0f - tail;
}
// x times the distribution function: no choice by the sign of x, and nothing cancels in the tail.
PB_FN float times_normal_cdf(float x) {
  float a = min(abs(x), 6.0f);
  return fma(a, -normal_tail(a), positive_part(x));
}
PB_FN float erf(float x) {
  float a = abs(x), s = x * x;
  float small = fma(x,
                    polynomial(s, 0.128379166f, -0.376126289f, 0.112836182f, -0.026855126f, 0.00519073382f,
                               -0.000803076138f, 7.92036808e-5f),
                    x);
  float b = a > 4.1f ? 4.1f : a;  // 1 - exp(-b q), b q = -log(erfc(b)), with the rounding of b q made good in r
  float q = polynomial(b, 1.12848628f, 0.635811746f, 0.105140552f, -0.0228132233f, 0.00319130742f, -0.000211146762f);
  float l = b * q;
  ExpParts e = exp_parts<127>(-l);
  float r = e.r - product_error(b, q, l);
  float big = fma(-exp_polynomial(r), float_of(e.biased << 23), 1.0f);
  return a < 1.0f ? small : copysign(big, x);
}
PB_FN float erfc(float x) {
  float a = abs(x);
  a = a > 11.0f ? 11.0f : a;
  float square = a * a;
  float e = exp_negative(-square);
  e = fma(-e, product_error(a, a, square), e);
  float p = polynomial(a, 1.0f, 1.24541759f, 0.738967776f, 0.232737884f, 0.0335383937f);
  float q = polynomial(a, 1.0f, 2.37379742f, 2.41750073f, 1.33911765f, 0.412540287f, 0.0594446696f);
  float tail = e * (p / q);
  return x < 0.0f ? 2.0f - tail : tail;
}
}  // namespace pb
