// Arithmetic, comparisons, logic and selection.
#pragma once
#include "families/op.h"

namespace pb {

struct Add : Map<2> {
  static constexpr std::string_view name = "add", doc = "Sum of two tensors.";
  static constexpr bool integers = true;
  static constexpr unsigned uses[] = {0, 0};
  static constexpr int passes[] = {1, 1};
  template <class V>
  PB_FN static V fwd(V a, V b) {
    return a + b;
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V, V) {
    return g;
  }
};
PB_OP(Add)

struct Subtract : Map<2> {
  static constexpr std::string_view name = "subtract", doc = "Difference a - b.";
  static constexpr bool integers = true;
  static constexpr unsigned uses[] = {0, 0};
  static constexpr int passes[] = {1, -1};
  template <class V>
  PB_FN static V fwd(V a, V b) {
    return a - b;
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V, V) {
    if constexpr (I == 0)
      return g;
    else
      return -g;
  }
};
PB_OP(Subtract)

struct Multiply : Map<2> {
  static constexpr std::string_view name = "multiply", doc = "Product of two tensors.";
  static constexpr bool integers = true;
  static constexpr unsigned uses[] = {0b10, 0b01};
  template <class V>
  PB_FN static V fwd(V a, V b) {
    return a * b;
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    if constexpr (I == 0)
      return g * b;
    else
      return g * a;
  }
};
PB_OP(Multiply)

struct Divide : Map<2> {
  static constexpr std::string_view name = "divide", doc = "Quotient a / b, always floating.";
  static constexpr unsigned uses[] = {0b10, 0b11};
  template <Value V>
  PB_FN static V fwd(V a, V b) {
    return a / b;
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    if constexpr (I == 0)
      return g / b;
    else
      return -(g * (a / b)) / b;
  }
};
PB_OP(Divide)

struct Negative : Map<1> {
  static constexpr std::string_view name = "negative", doc = "-x.";
  static constexpr bool integers = true;
  static constexpr unsigned uses[] = {0};
  template <class V>
  PB_FN static V fwd(V x) {
    return V(0) - x;
  }
  template <Value V>
  PB_FN static V pull(V g, V) {
    return -g;
  }
};
PB_OP(Negative)

struct Positive : Map<1> {
  static constexpr std::string_view name = "positive", doc = "x itself, copied.";
  static constexpr bool integers = true;
  static constexpr unsigned uses[] = {0};
  static constexpr int passes[] = {1};
  template <class V>
  PB_FN static V fwd(V x) {
    return x;
  }
  template <Value V>
  PB_FN static V pull(V g, V) {
    return g;
  }
};
PB_OP(Positive)

struct Pow : Map<2> {
  static constexpr std::string_view name = "pow", doc = "a to the power b; at a = 0 the gradient of b is 0 for b >= 0.";
  static constexpr Domain domain{0.2, 3};
  template <Value V>
  PB_FN static V fwd(V a, V b) {
    return pow(a, b);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    if constexpr (I == 0)
      return g * where(b == V(0), V(0), b * pow(a, b - V(1)));
    else {
      auto inside = a > V(0);
      return g * where(inside, pow(a, b) * log(where(inside, a, V(1))), V(0));
    }
  }
};
PB_OP(Pow)

// Integer division by zero gives 0, never a trap.
template <class V>
PB_FN V int_floor_divide(V a, V b) {
  V d = b == V(0) ? V(1) : b;
  if constexpr (std::is_signed_v<V>) {
    if (d == V(-1)) return b == V(0) ? V(0) : V(0) - a;
    V q = a / d;
    q = q - V((a % d != 0) && ((a < 0) != (d < 0)));
    return b == V(0) ? V(0) : q;
  } else {
    return b == V(0) ? V(0) : a / d;
  }
}

struct FloorDivide : Map<2> {
  static constexpr std::string_view name = "floor_divide", doc = "floor(a / b); for integers a division by 0 gives 0.";
  static constexpr bool integers = true, zero_derivative = true;
  template <class V>
  PB_FN static V fwd(V a, V b) {
    if constexpr (std::is_integral_v<V>)
      return int_floor_divide(a, b);
    else
      return floor(a / b);
  }
};
PB_OP(FloorDivide)

struct Remainder : Map<2> {
  static constexpr std::string_view name = "remainder", doc = "a - b * floor(a / b), with the sign of b.";
  static constexpr Domain domain{0.3, 3};
  static constexpr bool integers = true;
  static constexpr unsigned uses[] = {0, 0b11};
  static constexpr int passes[] = {1, 0};
  template <class V>
  PB_FN static V fwd(V a, V b) {
    if constexpr (std::is_integral_v<V>)
      return a - b * int_floor_divide(a, b);
    else
      return a - b * floor(a / b);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    if constexpr (I == 0)
      return g;
    else
      return -g * floor(a / b);
  }
};
PB_OP(Remainder)

// Ties share the gradient equally: the derivative is 1, 1/2 or 0.
struct Maximum : Map<2> {
  static constexpr std::string_view name = "maximum", doc = "The larger of a and b; NaN propagates; ties share.";
  static constexpr bool integers = true;
  static constexpr int code_bits = 2;
  static double code_value(int c, const double*) { return c == 2 ? 0 : c == 1 ? 1 : -1; }
  template <Value V>
  PB_FN static V code(V a, V b) {
    return where(a > b, V(1), where(a == b, V(2), V(0)));
  }
  template <class V>
  PB_FN static V fwd(V a, V b) {
    return max(a, b);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    V w = where(a > b, V(I == 0 ? 1 : 0), where(a == b, V(0.5), V(I == 0 ? 0 : 1)));
    return g * w;
  }
};
PB_OP(Maximum)

struct Minimum : Map<2> {
  static constexpr std::string_view name = "minimum", doc = "The smaller of a and b; NaN propagates; ties share.";
  static constexpr bool integers = true;
  static constexpr int code_bits = 2;
  static double code_value(int c, const double*) { return c == 2 ? 0 : c == 1 ? -1 : 1; }
  template <Value V>
  PB_FN static V code(V a, V b) {
    return where(a < b, V(1), where(a == b, V(2), V(0)));
  }
  template <class V>
  PB_FN static V fwd(V a, V b) {
    return min(a, b);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b) {
    V w = where(a < b, V(I == 0 ? 1 : 0), where(a == b, V(0.5), V(I == 0 ? 0 : 1)));
    return g * w;
  }
};
PB_OP(Minimum)

#define PB_COMPARE(Name, NAME, DOC, OP)                       \
  struct Name : Map<2> {                                      \
    static constexpr std::string_view name = NAME, doc = DOC; \
    static constexpr bool integers = true, mask = true;       \
    template <class V>                                        \
    PB_FN static Mask<V> fwd(V a, V b) {                      \
      return a OP b;                                          \
    }                                                         \
  };                                                          \
  PB_OP(Name)
PB_COMPARE(Less, "less", "a < b.", <)
PB_COMPARE(LessEqual, "less_equal", "a <= b.", <=)
PB_COMPARE(Greater, "greater", "a > b.", >)
PB_COMPARE(GreaterEqual, "greater_equal", "a >= b.", >=)
PB_COMPARE(Equal, "equal", "a == b.", ==)
PB_COMPARE(NotEqual, "not_equal", "a != b.", !=)
#undef PB_COMPARE

#define PB_LOGIC(Name, NAME, DOC, EXPR)                       \
  struct Name : Map<2> {                                      \
    static constexpr std::string_view name = NAME, doc = DOC; \
    static constexpr bool integers = true, mask = true;       \
    template <class V>                                        \
    PB_FN static Mask<V> fwd(V a, V b) {                      \
      return EXPR;                                            \
    }                                                         \
  };                                                          \
  PB_OP(Name)
PB_LOGIC(LogicalAnd, "logical_and", "Both are non-zero.", (a != V(0)) && (b != V(0)))
PB_LOGIC(LogicalOr, "logical_or", "At least one is non-zero.", (a != V(0)) || (b != V(0)))
PB_LOGIC(LogicalXor, "logical_xor", "Exactly one is non-zero.", (a != V(0)) != (b != V(0)))
#undef PB_LOGIC

struct LogicalNot : Map<1> {
  static constexpr std::string_view name = "logical_not", doc = "x is zero.";
  static constexpr bool integers = true, mask = true;
  template <class V>
  PB_FN static Mask<V> fwd(V x) {
    return x == V(0);
  }
};
PB_OP(LogicalNot)

#define PB_BITWISE(Name, NAME, DOC, OP)                       \
  struct Name : Map<2> {                                      \
    static constexpr std::string_view name = NAME, doc = DOC; \
    static constexpr bool integers = true, no_floats = true;  \
    template <class V>                                        \
    PB_FN static V fwd(V a, V b) {                            \
      return a OP b;                                          \
    }                                                         \
  };                                                          \
  PB_OP(Name)
PB_BITWISE(BitwiseAnd, "bitwise_and", "Bits set in both; integers and bool.", &)
PB_BITWISE(BitwiseOr, "bitwise_or", "Bits set in at least one; integers and bool.", |)
PB_BITWISE(BitwiseXor, "bitwise_xor", "Bits set in exactly one; integers and bool.", ^)
#undef PB_BITWISE

// The branch not taken gets an exact zero, whatever stands there.
struct Where : Map<3> {
  static constexpr std::string_view name = "where", doc = "a where the condition holds, else b.";
  static constexpr bool integers = true;
  static constexpr int code_bits = 1;
  static double code_value(int c, const double*) { return c; }
  template <Value V>
  PB_FN static V code(V c, V, V) {
    return where(c != V(0), V(1), V(0));
  }
  static constexpr unsigned promotes = 0b110;
  static constexpr unsigned uses[] = {0, 0b001, 0b001};
  template <class V>
  PB_FN static V fwd(V c, V a, V b) {
    return where(c != V(0), a, b);
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V c, V, V) {
    if constexpr (I == 0)
      return V(0) * g;
    else if constexpr (I == 1)
      return where(c != V(0), g, V(0));
    else
      return where(c != V(0), V(0), g);
  }
};
PB_OP(Where)

struct Isnan : Map<1> {
  static constexpr std::string_view name = "isnan", doc = "x is NaN.";
  static constexpr bool integers = true, mask = true;
  template <class V>
  PB_FN static Mask<V> fwd(V x) {
    return x != x;
  }
};
PB_OP(Isnan)

struct Isinf : Map<1> {
  static constexpr std::string_view name = "isinf", doc = "x is an infinity.";
  static constexpr bool integers = true, mask = true;
  template <class V>
  PB_FN static Mask<V> fwd(V x) {
    if constexpr (std::is_integral_v<V>)
      return x != x;
    else
      return isinf(x);
  }
};
PB_OP(Isinf)

struct Isfinite : Map<1> {
  static constexpr std::string_view name = "isfinite", doc = "x is neither NaN nor an infinity.";
  static constexpr bool integers = true, mask = true;
  template <class V>
  PB_FN static Mask<V> fwd(V x) {
    if constexpr (std::is_integral_v<V>)
      return x == x;
    else
      return isfinite(x);
  }
};
PB_OP(Isfinite)

}  // namespace pb
