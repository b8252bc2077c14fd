// Element types, their sizes and the promotion rule.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pb {

enum class DType : uint8_t { Bool, I8, I16, I32, I64, U8, U16, U32, U64, F16, BF16, F32, F64 };
inline constexpr int kDTypes = 13;

// The types in which kernels compute. Every dtype is staged to one of them (Note [Few kernels] in families/map.h).
enum class Compute : uint8_t { F32, F64, I64, U64 };
inline constexpr int kComputes = 4;

enum class Category : uint8_t { Bool, Unsigned, Signed, Float };

constexpr int itemsize(DType t) {
  constexpr int sizes[kDTypes] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return sizes[int(t)];
}
constexpr Category category(DType t) {
  if (t == DType::Bool) return Category::Bool;
  if (t <= DType::I64) return Category::Signed;
  if (t <= DType::U64) return Category::Unsigned;
  return Category::Float;
}
constexpr bool is_float(DType t) { return t >= DType::F16; }
constexpr bool is_integer(DType t) { return t >= DType::I8 && t <= DType::U64; }

constexpr Compute compute_of(DType t) {
  if (t == DType::F64) return Compute::F64;
  if (is_float(t)) return Compute::F32;
  return t == DType::U64 ? Compute::U64 : Compute::I64;
}
constexpr DType dtype_of(Compute c) {
  constexpr DType t[kComputes] = {DType::F32, DType::F64, DType::I64, DType::U64};
  return t[int(c)];
}
const char* dtype_name(DType t);

// The array API's table; beyond it, an integer with a float gives the float, uint64 with a signed integer float64,
// and float16 with bfloat16 float32.
DType promote(DType a, DType b);
// A weak operand (a Python scalar) changes the result only when its category is higher than the tensor's.
DType promote_weak(DType tensor, DType weak);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::Bool;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::I8;
};
template <>
struct DTypeOf<int16_t> {
  static constexpr DType value = DType::I16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::I32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::I64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::U8;
};
template <>
struct DTypeOf<uint16_t> {
  static constexpr DType value = DType::U16;
};
template <>
struct DTypeOf<uint32_t> {
  static constexpr DType value = DType::U32;
};
template <>
struct DTypeOf<uint64_t> {
  static constexpr DType value = DType::U64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::F32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::F64;
};

}  // namespace pb
