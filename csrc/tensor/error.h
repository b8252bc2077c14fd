// Typed errors. Each message names op, rule, shapes and dtypes, then a line `help: ...`.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace pb {

class Tensor;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ShapeError : Error {
  using Error::Error;
};
struct DTypeError : Error {
  using Error::Error;
};
struct DeviceError : Error {
  using Error::Error;
};
struct GraphError : Error {
  using Error::Error;
};
struct IndexError : Error {
  using Error::Error;
};
struct ValueError : Error {
  using Error::Error;
};
struct MemoryError : Error {
  using Error::Error;
};

std::string describe(const Tensor& t);  // "float32[3, 4]"

template <class... Ts>
std::string list_tensors(const Ts&... ts) {
  std::string s;
  ((s += (s.empty() ? "" : ", ") + describe(ts)), ...);
  return s;
}

// fail<ShapeError>("matmul", "inner sizes differ", "transpose one operand", a, b)
template <class E, class... Ts>
[[noreturn]] void fail(std::string_view op, const std::string& rule, const std::string& help, const Ts&... tensors) {
  std::string s = std::string(op) + ": " + rule;
  if constexpr (sizeof...(Ts) > 0) s += " (got " + list_tensors(tensors...) + ")";
  throw E(s + "\nhelp: " + help);
}

}  // namespace pb
