// repr of a tensor: the values as NumPy prints them (8 digits, shortest form, edges of what is long), then what is
// not the default.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>

#include "bind/caster.h"
#include "families/map.h"
#include "families/view.h"
#include "tape/node.h"

namespace pb::py {

std::string repr_of(const Tensor& x);

namespace {

constexpr int64_t kThreshold = 1000, kEdge = 3;
constexpr size_t kWidth = 75;
constexpr int kPrecision = 8;

// Shortest decimal digits that read back as the same value of this dtype, in scientific form "d.ddde+xx".
std::string shortest(double v, DType dtype) {
  char buffer[64];
  if (dtype == DType::F64 || dtype == DType::F32) {
    auto end = dtype == DType::F64 ? std::to_chars(buffer, buffer + 64, v, std::chars_format::scientific)
                                   : std::to_chars(buffer, buffer + 64, float(v), std::chars_format::scientific);
    return std::string(buffer, end.ptr);
  }
  for (int digits = 0; digits < 9; digits++) {  // 16-bit floats
    std::snprintf(buffer, sizeof buffer, "%.*e", digits, v);
    if (item_double(cast(full({}, std::strtod(buffer, nullptr), DType::F64), dtype)) == v) break;
  }
  return buffer;
}

struct Digits {
  int count, exponent;  // significant digits, decimal exponent
};
Digits digits_of(const std::string& s) {
  size_t e = s.find('e');
  int n = 0;
  for (size_t i = 0; i < e; i++) n += s[i] >= '0' && s[i] <= '9';
  return {n, std::atoi(s.c_str() + e + 1)};
}

std::string printed(const char* format, int digits, double v) {
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, format, digits, v);
  return buffer;
}

// Zeros at the end of the fraction go; the point stays.
std::string trimmed(std::string s) {
  if (s.find('.') == std::string::npos) return s + ".";
  while (s.back() == '0') s.pop_back();
  return s;
}

// One column layout for all values shown.
class Floats {
 public:
  Floats(DType dtype, const std::vector<double>& values) : dtype_(dtype) {
    double hi = 0, lo = INFINITY;
    for (double v : values)
      if (std::isfinite(v) && v != 0) {
        hi = std::max(hi, std::fabs(v));
        lo = std::min(lo, std::fabs(v));
      }
    double large = dtype == DType::F64 ? 1e8 : dtype == DType::F32 ? 1e6 : 1e3;
    scientific_ = hi > 0 && (hi >= large || lo < 1e-4 || hi / lo > 1000);
    for (double v : values)
      if (std::isfinite(v)) fraction_ = std::max(fraction_, fraction_of(v));
    for (double v : values) {
      std::string s = bare(v);
      size_t left = std::isfinite(v) ? s.find('.') : 0, right = std::isfinite(v) ? s.size() - left : 0;
      left_ = std::max(left_, left);
      right_ = std::max(right_, right);
    }
    for (double v : values)
      if (!std::isfinite(v)) left_ = std::max(left_, bare(v).size() > right_ ? bare(v).size() - right_ : 0);
  }
  std::string operator()(double v) const {
    std::string s = bare(v);
    if (!std::isfinite(v)) return pad(left_ + right_ - s.size()) + s;
    size_t left = s.find('.');
    return pad(left_ - left) + s + pad(right_ - (s.size() - left));
  }

 private:
  static std::string pad(size_t n) { return std::string(n, ' '); }

  // Digits after the point that v needs, at most 8.
  int fraction_of(double v) const {
    Digits d = digits_of(shortest(v, dtype_));
    int n = scientific_ ? d.count - 1 : d.count - 1 - d.exponent;
    if (n <= kPrecision) return std::max(n, 0);
    std::string s = printed(scientific_ ? "%.*e" : "%.*f", kPrecision, v);
    s = trimmed(s.substr(0, s.find('e')));
    return int(s.size() - s.find('.') - 1);
  }
  std::string bare(double v) const {
    if (std::isnan(v)) return "nan";
    if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
    if (!scientific_) return trimmed(printed("%.*f", std::max(fraction_of(v), 1), v));
    std::string s = printed("%.*e", fraction_, v);
    return fraction_ ? s : s.insert(s.find('e'), ".");
  }

  DType dtype_;
  bool scientific_ = false;
  int fraction_ = 0;
  size_t left_ = 0, right_ = 0;
};

// The indices of an axis that are shown; -1 stands for "...".
std::vector<int64_t> shown(int64_t n, bool summary) {
  std::vector<int64_t> list;
  for (int64_t i = 0; i < n; i++) {
    if (summary && n > 2 * kEdge && i == kEdge) {
      list.push_back(-1);
      i = n - kEdge;
    }
    list.push_back(i);
  }
  return list;
}

class Printer {
 public:
  explicit Printer(const Tensor& x) : x_(x), summary_(x.size() > kThreshold) {
    std::vector<double> values;
    if (is_float(x.dtype())) {
      visit(0, x->offset, [&](int64_t at) { values.push_back(real(at)); });
      Floats f(x.dtype(), values);
      text_ = [this, f](int64_t at) { return f(real(at)); };
    } else {
      size_t width = x.dtype() == DType::Bool && x.ndim() ? 5 : 0;
      visit(0, x->offset, [&](int64_t at) { width = std::max(width, whole(at).size()); });
      text_ = [this, width](int64_t at) {
        std::string s = whole(at);
        return std::string(width - s.size(), ' ') + s;
      };
    }
  }
  std::string operator()(size_t indent) const { return level(0, x_->offset, indent); }

 private:
  Tensor element(int64_t at) const { return alias(x_, {}, {}, at); }
  double real(int64_t at) const { return item_double(element(at)); }
  std::string whole(int64_t at) const {
    int64_t v = item_int(element(at));
    if (x_.dtype() == DType::Bool) return v ? "True" : "False";
    return x_.dtype() == DType::U64 ? std::to_string(uint64_t(v)) : std::to_string(v);
  }

  template <class F>
  void visit(int axis, int64_t at, F f) const {
    if (axis == x_.ndim()) return f(at);
    for (int64_t i : shown(x_.shape()[axis], summary_))
      if (i >= 0) visit(axis + 1, at + i * x_.strides()[axis], f);
  }

  std::string level(int axis, int64_t at, size_t indent) const {
    if (axis == x_.ndim()) return text_(at);
    auto list = shown(x_.shape()[axis], summary_);
    std::string out = "[";
    bool last = axis == x_.ndim() - 1;
    size_t line = indent + 1;  // of the row being written
    for (size_t k = 0; k < list.size(); k++) {
      std::string word = list[k] < 0 ? "..." : level(axis + 1, at + list[k] * x_.strides()[axis], indent + 1);
      if (k) {
        out += ",";
        line++;
        bool more = k + 1 < list.size();
        if (!last) {
          out.append(size_t(x_.ndim() - axis - 1), '\n');
          out.append(indent + 1, ' ');
        } else if (line + 1 + word.size() + (more ? 1 : size_t(x_.ndim())) > kWidth) {
          out.push_back('\n');
          out.append(indent + 1, ' ');
          line = indent + 1;
        } else {
          out += " ";
          line++;
        }
      }
      out += word;
      line += word.size();
    }
    return out + "]";
  }

  const Tensor x_;
  bool summary_;
  std::function<std::string(int64_t)> text_;
};

}  // namespace

std::string repr_of(const Tensor& x) {
  GradMode off(false);
  bool result = !x->wants_grad && x.requires_grad();
  // A short tensor of a device is fetched in one copy, of a long one the elements that are shown.
  Tensor here = x.size() <= kThreshold ? to_device(detach(x), {}) : detach(x);
  std::string s = "tensor(" + (x.size() ? Printer(here)(7) : std::string("[]"));
  if (x.size() == 0 && !(x.ndim() == 1)) s += ", shape=" + std::string(nb::repr(shape_tuple(x.shape())).c_str());
  if (x.dtype() != DType::F32 && x.dtype() != DType::Bool && (x.dtype() != DType::I64 || x.size() == 0))
    s += std::string(", dtype=") + dtype_name(x.dtype());
  if (on_cuda(x)) s += ", device='" + device_name(x.device()) + "'";
  if (x->wants_grad) s += ", requires_grad=True";
  if (result) s += std::string(", grad_fn=<") + x->node->name() + ">";
  return s + ")";
}

}  // namespace pb::py
