// Inline dimension vectors, counts, strides, broadcasting, axes, and their errors.
#include "tensor/shape.h"

#include <cstring>
#include <utility>

#include "check.h"
#include "tensor/error.h"

namespace {

using pb::Dims;
using pb::Shape;

template <class F>
bool refuses(F f, const char* rule, const char* help) {
  try {
    f();
  } catch (const pb::ShapeError& e) {
    bool ok = std::strstr(e.what(), rule) && std::strstr(e.what(), "\nhelp: ") && std::strstr(e.what(), help);
    if (!ok) std::printf("    message: %s\n", e.what());
    return ok;
  }
  return false;
}

void vectors() {
  Dims d{2, 3, 4};
  CHECK(d.size() == 3 && d[0] == 2 && d.back() == 4 && d == (Dims{2, 3, 4}) && !(d == Dims{2, 3}));
  d.insert(1, 9);
  CHECK(d == (Dims{2, 9, 3, 4}));
  d.erase(0);
  CHECK(d == (Dims{9, 3, 4}) && to_string(d) == "[9, 3, 4]" && to_string(Dims{}) == "[]");
  CHECK(Dims(3, 7) == (Dims{7, 7, 7}) && Dims(0).size() == 0);
  Dims big;
  for (int i = 0; i < 32; i++) big.push_back(i);  // moves to the heap at the ninth
  CHECK(big.size() == 32 && big[8] == 8 && big[31] == 31);
  Dims copy = big, moved = std::move(big);
  CHECK(copy == moved && big.size() == 0);
  big = copy;
  copy = Dims{1};
  CHECK(big == moved && copy == Dims{1});
  copy = std::move(moved);
  CHECK(copy == big && moved.size() == 0);
  Dims& self = copy;
  copy = self;
  CHECK(copy == big);
  copy.erase(3);
  CHECK(copy.size() == 31 && copy[3] == 4);
  int64_t sum = 0;
  for (int64_t v : Dims{1, 2, 3}) sum += v;
  CHECK(sum == 6);
  CHECK(refuses([&] { big.push_back(1); }, "at most 32 dimensions", "reshape") && big.size() == 32);
}

void counts() {
  CHECK(count(Shape{}) == 1 && count(Shape{3, 4}) == 12 && count(Shape{3, 0, 5}) == 0);
  CHECK(count(Shape{int64_t(1) << 40, 0, int64_t(1) << 40}) == 0 && count(Shape{0, int64_t(1) << 62, 4}) == 0);
  CHECK(count(Shape{int64_t(1) << 59}) == int64_t(1) << 59);
  CHECK(refuses([] { pb::count(Shape{int64_t(1) << 32, int64_t(1) << 32}, "full"); }, "full: the number of elements",
                "smaller"));
  CHECK(refuses([] { pb::count(Shape{(int64_t(1) << 59) + 1}); }, "overflows", "smaller"));
  CHECK(refuses([] { pb::count(Shape{2, -1}); }, "negative size in shape [2, -1]", "at least 0"));
}

void strides() {
  CHECK(contiguous_strides(Shape{2, 3, 4}) == (Dims{12, 4, 1}) && contiguous_strides(Shape{}) == Dims{});
  CHECK(contiguous_strides(Shape{2, 0, 4}) == (Dims{4, 4, 1}));
  CHECK(is_contiguous(Shape{2, 3}, Dims{3, 1}) && !is_contiguous(Shape{2, 3}, Dims{1, 2}));
  CHECK(is_contiguous(Shape{2, 1, 3}, Dims{3, 99, 1}) && is_contiguous(Shape{0, 3}, Dims{7, 7}) &&
        is_contiguous(Shape{}, Dims{}));
  CHECK(!is_contiguous(Shape{2, 3}, Dims{0, 1}) && !is_contiguous(Shape{3}, Dims{-1}));
}

void broadcasting() {
  CHECK(broadcast(Shape{3, 1}, Shape{4}, "add") == (Shape{3, 4}) &&
        broadcast(Shape{}, Shape{2, 3}, "add") == (Shape{2, 3}));
  CHECK(broadcast(Shape{2, 1, 5}, Shape{7, 1}, "add") == (Shape{2, 7, 5}));
  CHECK(broadcast(Shape{0}, Shape{1}, "add") == Shape{0} &&
        broadcast(Shape{2, 0}, Shape{1, 1}, "add") == (Shape{2, 0}));
  CHECK(refuses([] { pb::broadcast(Shape{2, 3}, Shape{4}, "add"); },
                "add: shapes [2, 3] and [4] do not broadcast: sizes 3 and 4 differ at axis -1", "must be equal or 1"));
  CHECK(refuses([] { pb::broadcast(Shape{0}, Shape{2}, "add"); }, "do not broadcast", "expand_dims"));
  CHECK(broadcast_strides(Shape{3, 1}, Dims{1, 1}, Shape{2, 3, 4}) == (Dims{0, 1, 0}));
  CHECK(broadcast_strides(Shape{}, Dims{}, Shape{2}) == Dims{0});
}

void axes() {
  CHECK(pb::normalize_axis(-1, 3, "sum") == 2 && pb::normalize_axis(0, 3, "sum") == 0 &&
        pb::normalize_axis(-3, 3, "sum") == 0);
  CHECK(refuses([] { pb::normalize_axis(3, 3, "sum"); }, "sum: axis 3 is out of range", "[-3, 2]"));
  CHECK(refuses([] { pb::normalize_axis(-4, 3, "sum"); }, "axis -4", "[-3, 2]"));
  CHECK(refuses([] { pb::normalize_axis(0, 0, "sum"); }, "0 dimensions", "0-d tensor has no axis"));
  CHECK(refuses([] { pb::normalize_axis(int64_t(1) << 40, 2, "sum"); }, "out of range", "[-2, 1]"));
}

}  // namespace

int main() {
  vectors();
  counts();
  strides();
  broadcasting();
  axes();
  return failures() != 0;
}
