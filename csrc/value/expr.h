// V = Expr: running a formula prints it. A fuser turns the text into a kernel; here every subexpression is one
// assignment to a numbered variable, shared where the formula shares it.
//
//   Expr x = Expr::input("x");
//   Expr y = x * sigmoid(x);          y.text() == "v0 = sigmoid(x)\nv1 = x * v0\n", y.name() == "v1"
#pragma once
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "value/value.h"

namespace pb {

class Expr {
 public:
  Expr() : Expr(0) {}
  template <Scalar S>
  explicit Expr(S constant) : node_(std::make_shared<Node>()) {
    char text[40];
    std::snprintf(text, sizeof text, "%.17g", double(constant));
    node_->op = text;
  }
  static Expr input(const std::string& name) { return apply(name, {}); }
  // A node `op(a, b, ...)`; `op` is a function name, an operator sign, or a leaf's text.
  static Expr apply(const std::string& op, std::initializer_list<Expr> in) {
    Expr e;
    e.node_ = std::make_shared<Node>();
    e.node_->op = op;
    for (const Expr& x : in) e.node_->in[e.node_->n++] = x.node_;
    return e;
  }

  // The assignments in the order of evaluation, one line each.
  std::string text() const {
    std::map<const Node*, std::string> names;
    std::string lines;
    print(*node_, names, lines);
    return lines;
  }
  // The variable (or leaf) that holds the result after text().
  std::string name() const {
    std::map<const Node*, std::string> names;
    std::string lines;
    return print(*node_, names, lines);
  }

 private:
  struct Node {
    std::string op;
    std::shared_ptr<const Node> in[3];
    int n = 0;
  };
  static std::string print(const Node& node, std::map<const Node*, std::string>& names, std::string& lines) {
    if (node.n == 0) return node.op;
    if (auto it = names.find(&node); it != names.end()) return it->second;
    std::string x[3], value;
    for (int i = 0; i < node.n; i++) x[i] = print(*node.in[i], names, lines);
    bool sign = !((node.op[0] >= 'a' && node.op[0] <= 'z') || node.op[0] == '_');
    if (sign && node.n == 1)
      value = node.op + x[0];
    else if (sign)
      value = x[0] + " " + node.op + " " + x[1];
    else
      value = node.op + "(" + x[0] + (node.n > 1 ? ", " + x[1] : "") + (node.n > 2 ? ", " + x[2] : "") + ")";
    std::string variable = "v" + std::to_string(names.size());
    names[&node] = variable;
    lines += variable + " = " + value + "\n";
    return variable;
  }
  std::shared_ptr<Node> node_;
};
template <>
struct MaskOf<Expr> {
  using type = Expr;
};
template <>
struct ScalarTypeOf<Expr> {
  using type = double;
};

// clang-format off
#define PB_EXPR_UNARY(f) \
  inline Expr f(const Expr& x) { return Expr::apply(#f, {x}); }
PB_EXPR_UNARY(exp) PB_EXPR_UNARY(expm1) PB_EXPR_UNARY(log) PB_EXPR_UNARY(log1p) PB_EXPR_UNARY(log2) PB_EXPR_UNARY(sqrt)
PB_EXPR_UNARY(rsqrt) PB_EXPR_UNARY(recip) PB_EXPR_UNARY(square) PB_EXPR_UNARY(sin) PB_EXPR_UNARY(cos)
PB_EXPR_UNARY(tan) PB_EXPR_UNARY(sinh) PB_EXPR_UNARY(cosh) PB_EXPR_UNARY(tanh) PB_EXPR_UNARY(asin)
PB_EXPR_UNARY(acos) PB_EXPR_UNARY(atan) PB_EXPR_UNARY(erf) PB_EXPR_UNARY(erfc) PB_EXPR_UNARY(sigmoid)
PB_EXPR_UNARY(softplus) PB_EXPR_UNARY(ndtri) PB_EXPR_UNARY(normal_cdf) PB_EXPR_UNARY(abs) PB_EXPR_UNARY(sign)
PB_EXPR_UNARY(floor) PB_EXPR_UNARY(ceil) PB_EXPR_UNARY(round) PB_EXPR_UNARY(trunc) PB_EXPR_UNARY(isnan)
PB_EXPR_UNARY(isinf) PB_EXPR_UNARY(isfinite)
#undef PB_EXPR_UNARY
// clang-format on
inline Expr operator-(const Expr& x) { return Expr::apply("-", {x}); }
// clang-format off
#define PB_EXPR_BINARY(f, op) \
  inline Expr f(const Expr& a, const Expr& b) { return Expr::apply(op, {a, b}); }
PB_EXPR_BINARY(operator+, "+") PB_EXPR_BINARY(operator-, "-") PB_EXPR_BINARY(operator*, "*")
PB_EXPR_BINARY(operator/, "/") PB_EXPR_BINARY(operator<, "<") PB_EXPR_BINARY(operator<=, "<=")
PB_EXPR_BINARY(operator>, ">") PB_EXPR_BINARY(operator>=, ">=") PB_EXPR_BINARY(operator==, "==")
PB_EXPR_BINARY(operator!=, "!=") PB_EXPR_BINARY(min, "min") PB_EXPR_BINARY(max, "max") PB_EXPR_BINARY(pow, "pow")
#undef PB_EXPR_BINARY
// clang-format on
inline Expr where(const Expr& m, const Expr& a, const Expr& b) { return Expr::apply("where", {m, a, b}); }
inline Expr fma(const Expr& a, const Expr& b, const Expr& c) { return Expr::apply("fma", {a, b, c}); }

}  // namespace pb
