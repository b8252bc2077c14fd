#include "tensor/shape.h"

#include "tensor/error.h"

namespace pb {

void Dims::grow(int n) {
  if (n > kMaxDims)
    fail<ShapeError>("shape", "at most 32 dimensions are supported, " + std::to_string(n) + " were asked for",
                     "merge dimensions with reshape");
  if (data_ != inline_) return;
  auto* heap = new int64_t[kMaxDims];
  std::memcpy(heap, inline_, size_t(n_) * 8);
  data_ = heap;
}

void Dims::insert(int at, int64_t v) {
  resize(n_ + 1);
  for (int i = n_ - 1; i > at; i--) data_[i] = data_[i - 1];
  data_[at] = v;
}

void Dims::erase(int at) {
  for (int i = at; i + 1 < n_; i++) data_[i] = data_[i + 1];
  n_--;
}

std::string to_string(const Dims& d) {
  std::string s = "[";
  for (int i = 0; i < d.size(); i++) s += (i ? ", " : "") + std::to_string(d[i]);
  return s + "]";
}

int64_t count(const Shape& s, const char* op) {
  int64_t n = 1;
  bool zero = false, overflow = false;
  for (int64_t v : s) {
    if (v < 0)
      fail<ShapeError>(op, "negative size in shape " + to_string(s), "sizes are counts of elements, at least 0");
    if (v == 0)
      zero = true;
    else
      overflow = overflow || __builtin_mul_overflow(n, v, &n);
  }
  if (zero) return 0;
  if (overflow || n > (int64_t(1) << 59))
    fail<ShapeError>(op, "the number of elements of shape " + to_string(s) + " overflows", "use a smaller shape");
  return n;
}

Strides contiguous_strides(const Shape& s) {
  Strides t(s.size());
  int64_t step = 1;
  for (int i = s.size() - 1; i >= 0; i--) {
    t[i] = step;
    step *= s[i] > 0 ? s[i] : 1;
  }
  return t;
}

bool is_contiguous(const Shape& s, const Strides& t) {
  int64_t step = 1;
  bool dense = true;
  for (int i = s.size() - 1; i >= 0; i--) {
    if (s[i] == 0) return true;  // no element, whatever the strides
    if (s[i] != 1 && t[i] != step) dense = false;
    step *= s[i];
  }
  return dense;
}

Shape broadcast(const Shape& a, const Shape& b, const char* op) {
  if (a == b) return a;
  int n = a.size() > b.size() ? a.size() : b.size();
  Shape out(n);
  for (int i = 0; i < n; i++) {
    int ia = a.size() - n + i, ib = b.size() - n + i;
    int64_t va = ia < 0 ? 1 : a[ia], vb = ib < 0 ? 1 : b[ib];
    if (va != vb && va != 1 && vb != 1)
      fail<ShapeError>(op,
                       "shapes " + to_string(a) + " and " + to_string(b) + " do not broadcast: sizes " +
                           std::to_string(va) + " and " + std::to_string(vb) + " differ at axis " +
                           std::to_string(i - n),
                       "sizes must be equal or 1, counted from the last axis; see reshape and expand_dims");
    out[i] = va == 1 ? vb : va;
  }
  return out;
}

Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& target) {
  Strides out(target.size(), 0);
  int shift = target.size() - shape.size();
  for (int i = 0; i < shape.size(); i++) out[i + shift] = shape[i] == 1 ? 0 : strides[i];
  return out;
}

int normalize_axis(int64_t axis, int n, const char* op) {
  if (axis < -int64_t(n) || axis >= n)
    fail<ShapeError>(
        op, "axis " + std::to_string(axis) + " is out of range for a tensor of " + std::to_string(n) + " dimensions",
        n ? "use an axis in [-" + std::to_string(n) + ", " + std::to_string(n - 1) + "]" : "a 0-d tensor has no axis");
  return int(axis < 0 ? axis + n : axis);
}

}  // namespace pb
