// The View family: windows on the same memory. A view is a map from its elements to those of its base; its pullback
// places the cotangent back. Also the rule for writing in place (Note [Writing through a view]).
#pragma once
#include "tape/node.h"

namespace pb {

struct Geometry {
  Shape shape;
  Strides strides;
  int64_t offset = 0;
};
Geometry geometry(const Tensor& t);

Geometry dense(const Tensor& t);  // contiguous from offset 0, whatever t's own layout is

// Whether an op on t leaves a trace: a node or tangents. Without one, only memory matters.
inline bool traced(const Tensor& t) { return mode().levels > 0 || any_wants(t); }

// The window `memory` of t's storage as a recorded view; `index` is the same window on dense(t). Its pullback works on
// `index`, so that elements of t that share one address (a broadcast) stay apart in the cotangent. `index` is not read
// when t is not traced.
Tensor view(const Tensor& t, const Geometry& memory, const Geometry& index, const char* op);
Tensor reshape(const Tensor& t, const Shape& shape);  // -1 once; copies when no view exists
Tensor permute(const Tensor& t, const Dims& axes);
Tensor swap_axes(const Tensor& t, int64_t a, int64_t b);
Tensor expand_dims(const Tensor& t, int64_t axis);
Tensor squeeze(const Tensor& t, const Dims& axes);
Tensor broadcast_to(const Tensor& t, const Shape& shape);
Tensor flip(const Tensor& t, const Dims& axes);
Tensor slice(const Tensor& t, int axis, int64_t start, int64_t length, int64_t step = 1);
Tensor select(const Tensor& t, int axis, int64_t index);

// Adjoint of broadcasting: sums the repeated axes.
Tensor sum_to_shape(const Tensor& t, const Shape& shape);

// A copy that the graph sees as the identity.
Tensor with_copy(const Tensor& t);

// On that device, differentiable; the same tensor when it is there.
Tensor moved(const Tensor& t, Device device);

// Makes the node of a view anew when its base was written to since.
void refresh_view(const Tensor& t);

// Note [Writing through a view]
// A view remembers its base. A write through a view makes `base' = view_write(base, map, value)` the base's node and
// raises the base's generation; every other view compares generations and makes its node anew at its next use.
// A write to a base itself replaces its node. Under no_grad only the version counter moves.
class InPlace {
 public:
  InPlace(const Tensor& target, const char* op);
  const Tensor& before() const { return before_; }
  bool tracked(std::span<const Tensor> in) const;
  void done();                        // the memory was written: saved slots on it are stale
  void replace(const Tensor& value);  // value: an alias of the target that carries the new node and tangents

 private:
  const Tensor& target_;
  Tensor before_;
  const char* op_;
};

// x[window] = value, right under autodiff; `window` is a view of x or x itself.
void assign(const Tensor& window, const Tensor& value, const char* op);

}  // namespace pb
