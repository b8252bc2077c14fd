// x from the output of an activation, for saved="output". Part of the unit of ops/activations.h.
//
// An activation with a minimum has two branches, which a side bit tells apart (side = 1: right). On each, x is analytic
// in a root of the distance from the minimum; a polynomial (tools/inverse_fits.py) starts two Newton steps. At the
// minimum itself the slope vanishes and the polynomial, exact there to first order, stands.
#pragma once

namespace pb {

template <class Act, class Fit, Value V>
PB_FN V invert(V y, V side) {
  V d = max(y - V(Fit::least), V(0)), q = d * V(-1 / Fit::least);
  V u = sqrt(d);
  V depth = where(q < V(0.5), -log1p(-min(q, V(0.5))), log(V(Fit::least) / min(y, V(-1e-37))));
  V w = min(sqrt(depth), V(Fit::w_max));
  auto right = side > V(0.5);
  V root = where(right, u, w), x = where(right, Fit::right(min(u, V(Fit::u_max))), Fit::left(w));
  for (int step = 0; step < 2; step++) {
    V slope = Act::template pull<V>(V(1), x), off = Act::template fwd<V>(x) - y;
    V steep = where(root < V(0.004), V(0), abs(slope));
    x = x - where(steep > V(1e-12), off / where(steep > V(1e-12), slope, V(1)), V(0));
  }
  // Far right y is x; far left it has underflown.
  return where(right, where(u > V(Fit::u_max), y, x), where(y < V(0), x, y + V(-1000)));
}

struct Inverse : Map<2> {
  static constexpr Domain domain{0.1, 1};
  static constexpr bool no_derivative = true, internal = true;
};

struct GeluFit {
  static constexpr double least = -0.16997120747990369, u_max = 2.27, w_max = 8.79;
  template <class V>
  PB_FN static V right(V u) {
    return polynomial(u, V(-0.75179152469356447), V(2.15291866), V(-1.37262016), V(2.09023182), V(-2.43032258),
                      V(2.32938902), V(-1.61788493), V(0.788659767), V(-0.226896366), V(0.0274848141));
  }
  template <class V>
  PB_FN static V left(V w) {
    return polynomial(w, V(-0.75179152469356447), V(-0.887595928), V(-0.238609921), V(0.0668811605), V(-0.00896086762),
                      V(-0.000545831075), V(0.000413839726), V(-6.59671697e-05), V(4.7702758e-06), V(-1.34800565e-07));
  }
};
struct GeluInverse : Inverse {
  static constexpr std::string_view name = "_gelu_inverse", doc = "x from gelu(x) and its side of the minimum.";
  template <Value V>
  PB_FN static V fwd(V y, V side) {
    return invert<Gelu, GeluFit>(y, side);
  }
};
PB_OP(GeluInverse)

struct GeluTanhFit {
  static constexpr double least = -0.17004075057125406, u_max = 2.27, w_max = 8.5;
  template <class V>
  PB_FN static V right(V u) {
    return polynomial(u, V(-0.75246142207101618), V(2.15565284), V(-1.3782027), V(2.10432034), V(-2.4777431),
                      V(2.42290144), V(-1.71366563), V(0.840478577), V(-0.241014003), V(0.0290126301));
  }
  template <class V>
  PB_FN static V left(V w) {
    return polynomial(w, V(-0.75246142207101618), V(-0.888904955), V(-0.23596386), V(0.0552746765), V(0.00474131769),
                      V(-0.00423330534), V(0.000821483309), V(-7.68102199e-05), V(3.48061285e-06), V(-5.79825554e-08));
  }
};
struct GeluTanhInverse : Inverse {
  static constexpr std::string_view name = "_gelu_tanh_inverse", doc = "x from gelu_tanh(x) and its side.";
  template <Value V>
  PB_FN static V fwd(V y, V side) {
    return invert<GeluTanh, GeluTanhFit>(y, side);
  }
};
PB_OP(GeluTanhInverse)

struct SiluFit {
  static constexpr double least = -0.27846454276107385, u_max = 3.5, w_max = 8.62;
  template <class V>
  PB_FN static V right(V u) {
    return polynomial(u, V(-1.2784645427610739), V(3.0302216), V(-2.02022668), V(2.44637315), V(-2.04555031),
                      V(1.19915518), V(-0.414166632), V(0.0805315343), V(-0.00812520843), V(0.000327732041));
  }
  template <class V>
  PB_FN static V left(V w) {
    return polynomial(w, V(-1.2784645427610739), V(-1.59904005), V(-0.574389937), V(-0.0118602492), V(-0.0623554202),
                      V(0.0291522409), V(-0.00646574709), V(0.000786037779), V(-5.03145478e-05), V(1.32757743e-06));
  }
};
struct SiluInverse : Inverse {
  static constexpr std::string_view name = "_silu_inverse", doc = "x from silu(x) and its side of the minimum.";
  template <Value V>
  PB_FN static V fwd(V y, V side) {
    return invert<Silu, SiluFit>(y, side);
  }
};
PB_OP(SiluInverse)

struct MishFit {
  static constexpr double least = -0.30884341301725043, u_max = 2.88, w_max = 8.62;
  template <class V>
  PB_FN static V right(V u) {
    return polynomial(u, V(-1.1924312145154952), V(2.73716975), V(-1.88769635), V(2.19658019), V(-1.67159427),
                      V(0.711214046), V(0.0456500014), V(-0.151666097), V(0.0484954925), V(-0.00497142499));
  }
  template <class V>
  PB_FN static V left(V w) {
    return polynomial(w, V(-1.1924312145154952), V(-1.52114601), V(-0.588439219), V(-0.0628962096), V(-0.01992037),
                      V(0.0136554717), V(-0.00334019501), V(0.000425778735), V(-2.80605116e-05), V(7.55539634e-07));
  }
};
struct MishInverse : Inverse {
  static constexpr std::string_view name = "_mish_inverse", doc = "x from mish(x) and its side of the minimum.";
  template <Value V>
  PB_FN static V fwd(V y, V side) {
    return invert<Mish, MishFit>(y, side);
  }
};
PB_OP(MishInverse)

// y = x (x + 3) / 6 between -3 and 3.
struct HardswishInverse : Inverse {
  static constexpr std::string_view name = "_hardswish_inverse", doc = "x from hardswish(x) and its side.";
  template <Value V>
  PB_FN static V fwd(V y, V side) {
    V root = sqrt(max(V(9) + V(24) * y, V(0)));
    V left = where(y < V(0), V(-1.5) - V(0.5) * root, y + V(-4));
    return where(side > V(0.5), where(y < V(3), V(0.5) * root - V(1.5), y), left);
  }
};
PB_OP(HardswishInverse)

// Near 0 y is x^3 / 3 with the rounding of x in it: there the cubic stands, its derivative x^2 is small.
struct TanhshrinkInverse : Inverse {
  static constexpr std::string_view name = "_tanhshrink_inverse", doc = "x from x - tanh(x).";
  template <Value V>
  PB_FN static V fwd(V y, V) {
    V a = abs(y), cube = exp(log(max(V(3) * a, V(1e-30))) * V(1.0 / 3)), s = cube * cube;
    V x = where(a < V(0.6), cube * (V(1) + s * V(2.0 / 15)), a + tanh(a + V(0.9)));
    for (int step = 0; step < 3; step++) {
      V t = tanh(x), slope = t * t;
      x = x - where(a > V(1e-4), (x - t - a) / max(slope, V(1e-4)), V(0));
    }
    return where(y < V(0), -x, x);
  }
};
PB_OP(TanhshrinkInverse)

}  // namespace pb
