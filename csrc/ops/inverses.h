// x from the output of an activation, for saved="output". Part of the unit of ops/activations.h.
//
// An activation with a minimum has two branches, which a side bit tells apart (side = 1: right). On each, x is analytic
// in a root of the distance from the minimum. Near the minimum, where the slope vanishes, a polynomial in that root is
// as exact as y; farther off another one starts two Newton steps. Coefficients: tools/inverse_fits.py.
#pragma once

namespace pb {

// The distance d from the minimum, known to +- half: its root is taken in the middle of what the roots may be.
template <Value V>
PB_FN V middle(V d, V half) {
  return square(V(0.5) * (sqrt(max(d - half, V(0))) + sqrt(max(d + half, V(0)))));
}

// A call and not a loop: a loop inside the loop over elements keeps the compiler from vectorising it.
template <class Act, Value V>
PB_FN V newton_step(V x, V y) {
  V slope = Act::template pull<V>(V(1), x), off = Act::template fwd<V>(x) - y;
  return x - where(abs(slope) > V(1e-12), off / where(abs(slope) > V(1e-12), slope, V(1)), V(0));
}

template <class Act, class Fit, Value V>
PB_FN V invert(V y, V side, V half) {
  constexpr double near = 0.35;
  V d = middle((y - V(Fit::least)) - V(Fit::rest), half * V(Fit::binade)), q = d * V(-1 / Fit::least);
  V depth = where(q < V(0.5), -log1p(-min(q, V(0.5))), log(V(Fit::least) / min(y, V(-1e-37))));
  V u = sqrt(d), w = min(sqrt(depth), V(Fit::w_max));
  auto right = side > V(0.5);
  V root = where(right, u, w);
  V at = where(right, Fit::right_near(min(u, V(near))), Fit::left_near(min(w, V(near))));
  V x = where(right, Fit::right_far(min(u, V(Fit::u_max))), Fit::left_far(w));
  x = newton_step<Act>(newton_step<Act>(x, y), y);
  x = where(root < V(near), at, x);
  // Far right y is x; far left it has underflown.
  return where(right, where(u > V(Fit::u_max), y, x), where(y < V(0), x, y + V(-1000)));
}

struct Inverse : Map<2> {
  static constexpr Domain domain{0.1, 1};
  static constexpr bool no_derivative = true, internal = true;
  static constexpr Arg args[] = {{"half", 0.0}};  // what y may be off by at the minimum, in powers of 2 below it
};

struct GeluFit {
  static constexpr double binade = 0.125;  // the power of 2 below -least
  static constexpr double least = -0.16997121274471283,
                          rest = 5.26480914e-09;  // the minimum in two parts, the first a float
  static constexpr double u_max = 2.269, w_max = 8.786;
  template <class V>
  PB_FN static V right_near(V u) {
    return polynomial(u, V(-0.75179152469356447), V(2.15291858617), V(-1.39029177223), V(2.34911519178),
                      V(-3.89385782894), V(7.10661167227), V(-12.3403151594), V(17.8585854556), V(-17.6095862648),
                      V(8.37761545898));
  }
  template <class V>
  PB_FN static V right_far(V u) {
    return polynomial(u, V(-0.75179152469356447), V(2.13474722635), V(-1.08543817514), V(0.588800160108),
                      V(1.30069473272), V(-2.74685628877), V(2.37972590623), V(-1.02903008264), V(0.215964467897),
                      V(-0.0172673483706));
  }
  template <class V>
  PB_FN static V left_near(V w) {
    return polynomial(w, V(-0.75179152469356447), V(-0.887595927568), V(-0.236311680883), V(0.0572376659777),
                      V(0.00517212439879), V(-0.010196729422), V(0.00302227757596), V(0.000687987743209),
                      V(-0.000895207519624), V(0.000282963207922));
  }
  template <class V>
  PB_FN static V left_far(V w) {
    return polynomial(w, V(-0.75179152469356447), V(-0.885729813346), V(-0.24697039819), V(0.0789532313978),
                      V(-0.0171350722897), V(0.00245809385849), V(-0.000221036375567), V(1.11209875993e-05),
                      V(-2.25205052015e-07), V(-9.74767762922e-10));
  }
};
struct GeluInverse : Inverse {
  static constexpr std::string_view name = "_gelu_inverse", doc = "x from gelu(x) and its side of the minimum.";
  template <Value V>
  PB_FN static V fwd(V y, V side, const ParamOf<V>& k) {
    return invert<Gelu, GeluFit>(y, side, k[0]);
  }
};
PB_OP(GeluInverse)

struct GeluTanhFit {
  static constexpr double binade = 0.125;  // the power of 2 below -least
  static constexpr double least = -0.17004075646400452,
                          rest = 5.89275045e-09;  // the minimum in two parts, the first a float
  static constexpr double u_max = 2.269, w_max = 8.499;
  template <class V>
  PB_FN static V right_near(V u) {
    return polynomial(u, V(-0.75246142207101618), V(2.15565277206), V(-1.3946096232), V(2.34683939941),
                      V(-3.86652291977), V(7.02038110665), V(-12.144139814), V(17.5351731582), V(-17.2715235444),
                      V(8.21353830689));
  }
  template <class V>
  PB_FN static V right_far(V u) {
    return polynomial(u, V(-0.75246142207101618), V(2.13831729922), V(-1.10476526374), V(0.676629919609),
                      V(1.06663110256), V(-2.39587838864), V(2.07898989863), V(-0.883206502938), V(0.178778935553),
                      V(-0.0133943883331));
  }
  template <class V>
  PB_FN static V left_near(V w) {
    return polynomial(w, V(-0.75246142207101618), V(-0.888904955288), V(-0.237142518435), V(0.0576247682004),
                      V(0.0062984478436), V(-0.00929132199328), V(0.00329949671469), V(0.000693381018174),
                      V(-0.00107554358502), V(0.000337954224647));
  }
  template <class V>
  PB_FN static V left_far(V w) {
    return polynomial(w, V(-0.75246142207101618), V(-0.890700954137), V(-0.227499438558), V(0.0424228159245),
                      V(0.0138777418693), V(-0.0077520833662), V(0.00159958134499), V(-0.000175513907288),
                      V(1.01543998174e-05), V(-2.44326560742e-07));
  }
};
struct GeluTanhInverse : Inverse {
  static constexpr std::string_view name = "_gelu_tanh_inverse",
                                    doc = "x from gelu_tanh(x) and its side of the minimum.";
  template <Value V>
  PB_FN static V fwd(V y, V side, const ParamOf<V>& k) {
    return invert<GeluTanh, GeluTanhFit>(y, side, k[0]);
  }
};
PB_OP(GeluTanhInverse)

struct SiluFit {
  static constexpr double binade = 0.25;  // the power of 2 below -least
  static constexpr double least = -0.27846455574035645,
                          rest = 1.29792826e-08;  // the minimum in two parts, the first a float
  static constexpr double u_max = 3.499, w_max = 8.617;
  template <class V>
  PB_FN static V right_near(V u) {
    return polynomial(u, V(-1.2784645427610739), V(3.03022157395), V(-2.0607426982), V(2.90054703135),
                      V(-3.97961767584), V(5.93974874628), V(-8.6612878146), V(10.9964998806), V(-9.9530130691),
                      V(4.4909004789));
  }
  template <class V>
  PB_FN static V right_far(V u) {
    return polynomial(u, V(-1.2784645427610739), V(3.02366168089), V(-1.93721167622), V(2.13005818518),
                      V(-1.49633641151), V(0.688651519502), V(-0.143156258838), V(-0.00182234751375),
                      V(0.0052051491091), V(-0.000563429012558));
  }
  template <class V>
  PB_FN static V left_near(V w) {
    return polynomial(w, V(-1.2784645427610739), V(-1.59904005123), V(-0.573845154634), V(-0.0265006290019),
                      V(-0.0221975034422), V(-0.0105103774987), V(0.00916350403164), V(0.000600730906813),
                      V(-0.00193607420889), V(0.000616412410981));
  }
  template <class V>
  PB_FN static V left_far(V w) {
    return polynomial(w, V(-1.2784645427610739), V(-1.61426142618), V(-0.509935647704), V(-0.100913262876),
                      V(-0.0040350679581), V(0.00824535805555), V(-0.00212615792662), V(0.00026575641118),
                      V(-1.68801637722e-05), V(4.3623021065e-07));
  }
};
struct SiluInverse : Inverse {
  static constexpr std::string_view name = "_silu_inverse", doc = "x from silu(x) and its side of the minimum.";
  template <Value V>
  PB_FN static V fwd(V y, V side, const ParamOf<V>& k) {
    return invert<Silu, SiluFit>(y, side, k[0]);
  }
};
PB_OP(SiluInverse)

struct MishFit {
  static constexpr double binade = 0.25;  // the power of 2 below -least
  static constexpr double least = -0.3088434040546417,
                          rest = -8.96260871e-09;  // the minimum in two parts, the first a float
  static constexpr double u_max = 2.878, w_max = 8.623;
  template <class V>
  PB_FN static V right_near(V u) {
    return polynomial(u, V(-1.1924312145154952), V(2.73716973319), V(-1.91531003484), V(2.5455345914),
                      V(-3.26631351898), V(4.64219364893), V(-6.45545481684), V(7.91858386918), V(-6.99609866698),
                      V(3.10786011687));
  }
  template <class V>
  PB_FN static V right_far(V u) {
    return polynomial(u, V(-1.1924312145154952), V(2.74136544773), V(-1.925017965), V(2.30834751933), V(-1.83067911037),
                      V(0.833027208605), V(-0.00612117277981), V(-0.140024418583), V(0.0473576352008),
                      V(-0.00495440839444));
  }
  template <class V>
  PB_FN static V left_near(V w) {
    return polynomial(w, V(-1.1924312145154952), V(-1.52114601354), V(-0.591531926443), V(-0.0566492058915),
                      V(-0.0162237499506), V(-0.000927734211773), V(0.00776873142805), V(-0.00176483694126),
                      V(-0.00151714800646), V(0.000820286525095));
  }
  template <class V>
  PB_FN static V left_far(V w) {
    return polynomial(w, V(-1.1924312145154952), V(-1.53049641551), V(-0.547743585982), V(-0.120079111829),
                      V(0.0179604334108), V(-3.72516871219e-05), V(-0.000480234508195), V(8.12313788572e-05),
                      V(-5.8343992556e-06), V(1.6118016993e-07));
  }
};
struct MishInverse : Inverse {
  static constexpr std::string_view name = "_mish_inverse", doc = "x from mish(x) and its side of the minimum.";
  template <Value V>
  PB_FN static V fwd(V y, V side, const ParamOf<V>& k) {
    return invert<Mish, MishFit>(y, side, k[0]);
  }
};
PB_OP(MishInverse)

// y = x (x + 3) / 6 between -3 and 3.
struct HardswishInverse : Inverse {
  static constexpr std::string_view name = "_hardswish_inverse", doc = "x from hardswish(x) and its side.";
  template <Value V>
  PB_FN static V fwd(V y, V side, const ParamOf<V>& k) {
    V root = sqrt(V(24) * middle(y + V(0.375), k[0] * V(0.25)));
    V left = where(y < V(0), V(-1.5) - V(0.5) * root, y + V(-4));
    return where(side > V(0.5), where(y < V(3), V(0.5) * root - V(1.5), y), left);
  }
};
PB_OP(HardswishInverse)

// Near 0 y is x^3 / 3 with the rounding of x in it: there the cubic stands, its derivative x^2 is small.
struct TanhshrinkInverse : Inverse {
  static constexpr std::string_view name = "_tanhshrink_inverse", doc = "x from x - tanh(x).";
  template <Value V>
  PB_FN static V step(V x, V a) {
    V t = tanh(x);
    return x - where(a > V(1e-4), (x - t - a) / max(t * t, V(1e-4)), V(0));
  }
  template <Value V>
  PB_FN static V fwd(V y, V, const ParamOf<V>&) {
    V whole = abs(y), a = min(whole, V(1e4)), cube = exp(log(max(V(3) * a, V(1e-30))) * V(1.0 / 3)), s = cube * cube;
    V x = where(a < V(0.6), cube * (V(1) + s * V(2.0 / 15)), a + tanh(a + V(0.9)));
    x = step(step(step(x, a), a), a);
    x = where(whole > a, whole, x);
    return where(y < V(0), -x, x);
  }
};
PB_OP(TanhshrinkInverse)

}  // namespace pb
