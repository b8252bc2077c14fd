#include "tensor/dtype.h"

namespace pb {

const char* dtype_name(DType t) {
  static const char* const names[kDTypes] = {"bool",   "int8",   "int16",   "int32",    "int64",   "uint8",  "uint16",
                                             "uint32", "uint64", "float16", "bfloat16", "float32", "float64"};
  return names[int(t)];
}

static DType signed_of_bytes(int bytes) {
  return bytes == 1 ? DType::I8 : bytes == 2 ? DType::I16 : bytes == 4 ? DType::I32 : DType::I64;
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  Category ca = category(a), cb = category(b);
  if (ca > cb) {
    DType t = a;
    a = b;
    b = t;
    Category c = ca;
    ca = cb;
    cb = c;
  }
  if (ca == Category::Bool) return b;
  if (ca == cb) {
    if (ca == Category::Float && itemsize(a) == 2 && itemsize(b) == 2) return DType::F32;
    return itemsize(a) >= itemsize(b) ? a : b;
  }
  if (cb == Category::Float) return b;
  // unsigned with signed: the smallest signed type that holds both
  if (itemsize(b) > itemsize(a)) return b;
  return itemsize(a) == 8 ? DType::F64 : signed_of_bytes(2 * itemsize(a));
}

DType promote_weak(DType tensor, DType weak) {
  Category t = category(tensor), w = category(weak);
  if (w == Category::Float) return t == Category::Float ? tensor : DType::F32;
  if (w == Category::Signed && t == Category::Bool) return DType::I64;
  return tensor;
}

}  // namespace pb
