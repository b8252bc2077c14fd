// The activations. Parameter names are PyTorch's.
//
// At infinity they have their limits, silu(-inf) = 0 among them: a factor x is limited where the other factor is 0 or
// its slope is, so that inf * 0 does not arise. The bounds hold for float and double (exp(-746) = 0).
#pragma once
#include "families/op.h"

namespace pb {

// x, or 0 from |x| = bound on; NaN goes to 0 and must come through the other factor.
template <Value V>
PB_FN V inside(V x, V bound) {
  return where(abs(x) < bound, x, V(0));
}

struct Relu : Map<1> {
  static constexpr std::string_view name = "relu", doc = "max(x, 0); derivative 0 at 0.";
  static constexpr bool by_sign = true;
  template <Value V>
  PB_FN static V fwd(V x) {
    return where(x < V(0), V(0), x);
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y) {
    return where(y > V(0), g, V(0));
  }
};
PB_OP(Relu)

struct LeakyRelu : Map<1> {
  static constexpr std::string_view name = "leaky_relu", doc = "x for x > 0, else negative_slope * x.";
  static constexpr Arg args[] = {{"negative_slope", 0.01}};
  static constexpr bool by_sign = true;
  static constexpr int code_bits = 1;  // where the output does not tell
  static bool from_output(const double* k) { return k[0] > 0; }
  static double code_value(int c, const double*) { return c ? 1 : -1; }
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(0), V(1), V(0));
  }
  template <Value V>
  PB_FN static V fwd(V x, const ParamOf<V>& k) {
    return where(x > V(0), x, k[0] * x);
  }
  template <Value V>
  PB_FN static V pull(V g, V x, const ParamOf<V>& k) {
    return where(x > V(0), g, k[0] * g);
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y, const ParamOf<V>& k) {
    return where(y > V(0), g, k[0] * g);
  }
};
PB_OP(LeakyRelu)

struct Elu : Map<1> {
  static constexpr std::string_view name = "elu", doc = "x for x > 0, else alpha * (exp(x) - 1).";
  static constexpr Arg args[] = {{"alpha", 1.0}};
  static bool from_output(const double* k) { return k[0] >= 0; }
  template <Value V>
  PB_FN static V fwd(V x, const ParamOf<V>& k) {
    return where(x > V(0), x, k[0] * expm1(min(x, V(0))));
  }
  template <Value V>
  PB_FN static V pull(V g, V x, const ParamOf<V>& k) {
    return where(x > V(0), g, g * k[0] * exp(min(x, V(0))));
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y, const ParamOf<V>& k) {
    return where(y > V(0), g, g * (y + k[0]));
  }
};
PB_OP(Elu)

struct Celu : Map<1> {
  static constexpr std::string_view name = "celu", doc = "x for x > 0, else alpha * (exp(x / alpha) - 1).";
  static constexpr Arg args[] = {{"alpha", 1.0}};
  static bool from_output(const double* k) { return k[0] > 0; }
  template <Value V>
  PB_FN static V fwd(V x, const ParamOf<V>& k) {
    return where(x > V(0), x, k[0] * expm1(min(x, V(0)) / k[0]));
  }
  template <Value V>
  PB_FN static V pull(V g, V x, const ParamOf<V>& k) {
    return where(x > V(0), g, g * exp(min(x, V(0)) / k[0]));
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y, const ParamOf<V>& k) {
    return where(y > V(0), g, g * (y / k[0] + V(1)));
  }
};
PB_OP(Celu)

struct Selu : Map<1> {
  static constexpr std::string_view name = "selu", doc = "Self-normalising ELU: scale * (x or alpha * (exp(x) - 1)).";
  static constexpr double scale = 1.0507009873554804934193349852946, alpha = 1.6732632423543772848170429916717;
  template <Value V>
  PB_FN static V fwd(V x) {
    return where(x > V(0), V(scale) * x, V(scale * alpha) * expm1(min(x, V(0))));
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y) {
    return where(y > V(0), V(scale) * g, g * (y + V(scale * alpha)));
  }
};
PB_OP(Selu)

// Forward reads x, writes y; the pullback reads (g, x), writes gx.
struct Gelu : Map<1> {
  static constexpr std::string_view name = "gelu", doc = "x * Phi(x), Phi the normal distribution function.";
  static constexpr Domain domain{-8, 8};
  static constexpr std::string_view inverse = "_gelu_inverse";
  static constexpr int code_bits = 1;  // the side of the minimum
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(-0.75179152469356447), V(1), V(0));
  }
  template <Value V>
  PB_FN static V density(V x) {
    return V(0.398942280401432677940) * exp(V(-0.5) * x * x);
  }
  template <Value V>
  PB_FN static V fwd(V x) {
    return times_normal_cdf(x);
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    return g * (normal_cdf(x) + inside(x, V(40)) * density(x));
  }
};
PB_OP(Gelu)

struct GeluTanh : Map<1> {
  static constexpr std::string_view name = "gelu_tanh", doc = "The tanh approximation of gelu.";
  static constexpr Domain domain{-8, 8};
  static constexpr std::string_view inverse = "_gelu_tanh_inverse";
  static constexpr int code_bits = 1;  // the side of the minimum
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(-0.75246142207101618), V(1), V(0));
  }
  template <Value V>
  PB_FN static V inner(V x) {  // 2 * sqrt(2 / pi) * (x + 0.044715 x^3)
    return V(1.595769121605730711759) * (x + V(0.044715) * x * x * x);
  }
  template <Value V>
  PB_FN static V fwd(V x) {
    return max(x, V(-40)) * sigmoid(inner(x));
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    V s = sigmoid(inner(x));
    V c = inside(x, V(40));
    V d = V(1.595769121605730711759) * (V(1) + V(3 * 0.044715) * c * c);
    return g * (s + c * s * (V(1) - s) * d);
  }
};
PB_OP(GeluTanh)

// x * sigmoid(x). Forward reads x, writes y; the pullback reads (g, x), writes gx.
struct Silu : Map<1> {
  static constexpr std::string_view name = "silu", doc = "Sigmoid-weighted linear unit, x * sigmoid(x).";
  static constexpr Domain domain{-8, 8};
  static constexpr std::string_view inverse = "_silu_inverse";
  static constexpr int code_bits = 1;  // the side of the minimum
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(-1.2784645427610739), V(1), V(0));
  }
  template <Value V>
  PB_FN static V fwd(V x) {
    return max(x, V(-800)) * sigmoid(x);
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    V s = sigmoid(x);
    return g * (s * (V(1) + inside(x, V(800)) * (V(1) - s)));
  }
};
PB_OP(Silu)

// tanh(log(1 + e)) = n / (n + 2) with e = exp(x), n = e (e + 2); from x = 20 on it is 1.
struct Mish : Map<1> {
  static constexpr std::string_view name = "mish", doc = "x * tanh(softplus(x)).";
  static constexpr Domain domain{-8, 8};
  static constexpr std::string_view inverse = "_mish_inverse";
  static constexpr int code_bits = 1;  // the side of the minimum
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(-1.1924312145154952), V(1), V(0));
  }
  template <Value V>
  PB_FN static V fwd(V x) {
    V e = exp(min(x, V(20))), n = e * (e + V(2));
    return max(x, V(-800)) * (n / (n + V(2)));
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    V e = exp(min(x, V(20))), n = e * (e + V(2)), r = recip(n + V(2));
    return g * (n * r + inside(x, V(800)) * (V(4) * e * (e + V(1)) * r * r));
  }
};
PB_OP(Mish)

struct Softplus : Map<1> {
  static constexpr std::string_view name = "softplus",
                                    doc = "log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold.";
  static constexpr Arg args[] = {{"beta", 1.0}, {"threshold", 20.0}};
  // From a threshold of 20 on the two branches meet; below, one output may come from either.
  static bool from_output(const double* k) { return k[1] >= 20 && k[0] != 0; }
  template <Value V>
  PB_FN static V fwd(V x, const ParamOf<V>& k) {
    V z = k[0] * x;
    return where(z > k[1], x, softplus(z) / k[0]);
  }
  template <Value V>
  PB_FN static V pull(V g, V x, const ParamOf<V>& k) {
    V z = k[0] * x;
    return where(z > k[1], g, g * sigmoid(z));
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y, const ParamOf<V>& k) {
    V z = k[0] * y;
    return where(z > k[1], g, -(g * expm1(-z)));
  }
};
PB_OP(Softplus)

struct Softsign : Map<1> {
  static constexpr std::string_view name = "softsign", doc = "x / (1 + |x|).";
  static constexpr bool only_asked = true;
  static bool from_output(const double*) { return true; }
  template <Value V>
  PB_FN static V fwd(V x) {
    return x / (V(1) + abs(x));
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    V r = recip(V(1) + abs(x));
    return g * r * r;
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y) {
    V r = V(1) - abs(y);
    return g * r * r;
  }
};
PB_OP(Softsign)

struct Tanh : Map<1> {
  static constexpr std::string_view name = "tanh", doc = "Hyperbolic tangent.";
  template <Value V>
  PB_FN static V fwd(V x) {
    return tanh(x);
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y) {
    return g * (V(1) - y * y);
  }
};
PB_OP(Tanh)

struct Tanhshrink : Map<1> {
  static constexpr std::string_view name = "tanhshrink", doc = "x - tanh(x).";
  static constexpr std::string_view inverse = "_tanhshrink_inverse";
  template <Value V>
  PB_FN static V fwd(V x) {
    return x - tanh(x);
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    V t = tanh(x);
    return g * t * t;
  }
};
PB_OP(Tanhshrink)

struct Sigmoid : Map<1> {
  static constexpr std::string_view name = "sigmoid", doc = "1 / (1 + exp(-x)).";
  template <Value V>
  PB_FN static V fwd(V x) {
    return sigmoid(x);
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y) {
    return g * y * (V(1) - y);
  }
};
PB_OP(Sigmoid)

struct LogSigmoid : Map<1> {
  static constexpr std::string_view name = "log_sigmoid", doc = "log(sigmoid(x)), finite for every finite x.";
  template <Value V>
  PB_FN static V fwd(V x) {
    return -softplus(-x);
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y) {
    return -(g * expm1(y));
  }
};
PB_OP(LogSigmoid)

struct Hardtanh : Map<1> {
  static constexpr std::string_view name = "hardtanh", doc = "x limited to [min_val, max_val].";
  static constexpr Arg args[] = {{"min_val", -1.0}, {"max_val", 1.0}};
  static constexpr bool exact_params = true;
  static bool from_output(const double*) { return true; }
  template <Value V>
  PB_FN static V fwd(V x, const ParamOf<V>& k) {
    return min(max(x, k[0]), k[1]);
  }
  template <Value V>
  PB_FN static V pull(V g, V x, const ParamOf<V>& k) {
    return where(x > k[0], where(x < k[1], g, V(0)), V(0));
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y, const ParamOf<V>& k) {
    return where(y > k[0], where(y < k[1], g, V(0)), V(0));
  }
};
PB_OP(Hardtanh)

struct Relu6 : Map<1> {
  static constexpr std::string_view name = "relu6", doc = "x limited to [0, 6].";
  static constexpr Domain domain{-3, 9};
  template <Value V>
  PB_FN static V fwd(V x) {
    return min(max(x, V(0)), V(6));
  }
  template <Value V>
  PB_FN static V pull_y(V g, V y) {
    return where(y > V(0), where(y < V(6), g, V(0)), V(0));
  }
};
PB_OP(Relu6)

struct Hardsigmoid : Map<1> {
  static constexpr std::string_view name = "hardsigmoid", doc = "relu6(x + 3) / 6.";
  static constexpr Domain domain{-5, 5};
  static constexpr int code_bits = 1;
  static double code_value(int c, const double*) { return c ? 0 : 4; }
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(-3), where(x < V(3), V(1), V(0)), V(0));
  }
  template <Value V>
  PB_FN static V fwd(V x) {
    return min(max(x + V(3), V(0)), V(6)) * V(1.0 / 6);
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    return where(x > V(-3), where(x < V(3), g * V(1.0 / 6), V(0)), V(0));
  }
};
PB_OP(Hardsigmoid)

struct Hardswish : Map<1> {
  static constexpr std::string_view name = "hardswish", doc = "x * relu6(x + 3) / 6.";
  static constexpr Domain domain{-5, 5};
  static constexpr std::string_view inverse = "_hardswish_inverse";
  static constexpr int code_bits = 1;  // the side of the minimum
  template <Value V>
  PB_FN static V code(V x) {
    return where(x > V(-1.5), V(1), V(0));
  }
  template <Value V>
  PB_FN static V fwd(V x) {
    return max(x, V(-3)) * (min(max(x + V(3), V(0)), V(6)) * V(1.0 / 6));
  }
  template <Value V>
  PB_FN static V pull(V g, V x) {
    return where(x <= V(-3), V(0), where(x < V(3), g * (x * V(1.0 / 3) + V(0.5)), g));
  }
};
PB_OP(Hardswish)

// The gate of a GLU: backward keeps a and b, and a product that reads the result makes it anew.
template <class Act>
struct Gated : Map<2> {
  static constexpr unsigned uses[] = {0b11, 0b01};
  static constexpr bool rebuilds = true;
  template <Value V>
  PB_FN static V fwd(V a, V b) {
    return Act::template fwd<V>(a) * b;
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    if constexpr (I == 0)
      return Act::template pull<V>(g * b, a);
    else
      return g * Act::template fwd<V>(a);
  }
};
struct SiluMul : Gated<Silu> {
  static constexpr std::string_view name = "silu_mul", doc = "silu(a) * b, the gate of SwiGLU.";
};
PB_OP(SiluMul)
struct GeluMul : Gated<Gelu> {
  static constexpr std::string_view name = "gelu_mul", doc = "gelu(a) * b, the gate of GEGLU.";
};
PB_OP(GeluMul)

}  // namespace pb

#include "ops/inverses.h"
