// Inline vectors of dimensions, broadcasting and strides.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

namespace pb {

inline constexpr int kMaxDims = 32;

// Up to 8 entries inline, up to 32 on the heap.
class Dims {
 public:
  Dims() = default;
  Dims(std::initializer_list<int64_t> v) {
    resize(int(v.size()));
    int i = 0;
    for (int64_t x : v) data_[i++] = x;
  }
  explicit Dims(int n, int64_t fill = 0) {
    resize(n);
    for (int i = 0; i < n; i++) data_[i] = fill;
  }
  Dims(const Dims& o) { assign(o); }
  Dims(Dims&& o) noexcept { steal(o); }
  Dims& operator=(const Dims& o) {
    if (this != &o) assign(o);
    return *this;
  }
  Dims& operator=(Dims&& o) noexcept {
    if (this != &o) {
      release();
      steal(o);
    }
    return *this;
  }
  ~Dims() { release(); }

  int size() const { return n_; }
  int64_t operator[](int i) const { return data_[i]; }
  int64_t& operator[](int i) { return data_[i]; }
  const int64_t* begin() const { return data_; }
  const int64_t* end() const { return data_ + n_; }
  int64_t back() const { return data_[n_ - 1]; }
  bool operator==(const Dims& o) const {
    if (n_ != o.n_) return false;
    for (int i = 0; i < n_; i++)
      if (data_[i] != o.data_[i]) return false;
    return true;
  }

  void resize(int n) {
    if (n > kInline) grow(n);
    n_ = n;
  }
  void push_back(int64_t v) {
    resize(n_ + 1);
    data_[n_ - 1] = v;
  }
  void insert(int at, int64_t v);
  void erase(int at);

 private:
  static constexpr int kInline = 8;
  void grow(int n);
  // All eight words whatever n is: a copy of fixed size is a few moves, one of n words is a call.
  void copy_inline(const Dims& o) { std::memcpy(inline_, o.inline_, sizeof inline_); }
  void assign(const Dims& o) {
    if (data_ == inline_ && o.data_ == o.inline_) {
      copy_inline(o);
      n_ = o.n_;
      return;
    }
    resize(o.n_);
    std::memcpy(data_, o.data_, size_t(n_) * 8);
  }
  void steal(Dims& o) {
    n_ = o.n_;
    if (o.data_ == o.inline_) {
      copy_inline(o);
      data_ = inline_;
    } else {
      data_ = o.data_;
      o.data_ = o.inline_;
    }
    o.n_ = 0;
  }
  void release() {
    if (data_ != inline_) delete[] data_;
    data_ = inline_;
  }
  int64_t* data_ = inline_;
  int32_t n_ = 0;
  int64_t inline_[kInline];
};
using Shape = Dims;
using Strides = Dims;  // in elements

std::string to_string(const Dims& d);
// Product of the sizes; ShapeError when a size is negative or the product times 16 bytes overflows.
int64_t count(const Shape& s, const char* op = "shape");
Strides contiguous_strides(const Shape& s);
bool is_contiguous(const Shape& s, const Strides& t);
// The common shape of a and b; ShapeError naming `op` when they do not broadcast.
Shape broadcast(const Shape& a, const Shape& b, const char* op);
// Strides of `shape` seen as `target` (0 where a size 1 is repeated).
Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& target);
// axis in [-n, n) to [0, n); IndexError-like ShapeError otherwise.
int normalize_axis(int64_t axis, int n, const char* op);

}  // namespace pb
