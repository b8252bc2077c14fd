// Formulas printed through V = Expr, alone and under Dual.
#include "value/expr.h"

#include <string>

#include "check.h"
#include "ops/activations.h"
#include "ops/arithmetic.h"
#include "value/dual.h"

using pb::Expr;

static bool prints(const Expr& e, const std::string& text, const std::string& name) {
  bool same = e.text() == text && e.name() == name;
  if (!same) std::printf("    %s    result %s\n", e.text().c_str(), e.name().c_str());
  return same;
}

int main() {
  static_assert(pb::Value<Expr> && pb::Value<pb::Dual<Expr>>);
  Expr x = Expr::input("x"), g = Expr::input("g");
  CHECK(prints(x, "", "x"));
  CHECK(prints(Expr(0.1), "", "0.10000000000000001"));
  CHECK(prints(pb::Silu::fwd(x), "v0 = max(x, -800)\nv1 = sigmoid(x)\nv2 = v0 * v1\n", "v2"));
  CHECK(prints(pb::Silu::pull(g, x),
               "v0 = sigmoid(x)\nv1 = abs(x)\nv2 = v1 < 800\nv3 = where(v2, x, 0)\nv4 = 1 - v0\nv5 = v3 * v4\n"
               "v6 = 1 + v5\nv7 = v0 * v6\nv8 = g * v7\n",
               "v8"));
  CHECK(prints(pb::Relu::fwd(x), "v0 = x < 0\nv1 = where(v0, 0, x)\n", "v1"));
  CHECK(prints(-pow(x, g), "v0 = pow(x, g)\nv1 = -v0\n", "v1"));
  CHECK(prints(pb::Less::fwd(x, g), "v0 = x < g\n", "v0"));
  pb::ParamOf<Expr> k{{0.25}};
  CHECK(prints(pb::LeakyRelu::fwd(x, k), "v0 = x > 0\nv1 = 0.25 * x\nv2 = where(v0, x, v1)\n", "v2"));
  CHECK(prints(exp(pb::Dual<Expr>{x, Expr(1)}).d, "v0 = exp(x)\nv1 = 1 * v0\n", "v1"));
  return failures() != 0;
}
