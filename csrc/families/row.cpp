#include "families/row.h"

#include "families/row_call.h"
#include "tensor/profile.h"

namespace pb {

namespace {

// Forward from x, cotangent and tangent from the own output. Rows of 16 bits are widened in the kernel; the composed
// forms widen the tensors.
template <class Op, class Pull>
Tensor softmax_like(const Tensor& x) {
  if (x.size() == 0) return with_copy(x);
  const DType dtype = x.dtype(), wide = row_compute(dtype);
  if (has_tangent(x)) return cast(row_graph<Op>({cast(x, wide)}, {}, {}), dtype);
  Tensor out = row_run<Op>({x}, {}, {}, 0, false, dtype).y;
  std::vector<Saved> saved;
  if (any_wants(x)) saved = {Saved::output(out)};
  record(Op::name.data(), {x}, out, std::move(saved), [dtype, wide](const Slots& s, const PullArgs& a) {
    Tensor y = s[0], g = a.g[0];
    a.gin[0] = plain_pull(g, y) ? row_run<Pull>({g, y}, {}, {}, 0, false, dtype).y
                                : cast(row_graph<Pull>({cast(g, wide), cast(y, wide)}, {}, {}), dtype);
  });
  return out;
}

template <class Op, class Pull>
Tensor softmax_call(const Tensor& input, int64_t axis) {
  Profiled scope(Op::name.data());
  return on_last_axis(as_float(input), axis, Op::name.data(), softmax_like<Op, Pull>);
}

}  // namespace

Tensor softmax(const Tensor& x, int64_t axis) { return softmax_call<Softmax, SoftmaxPull>(x, axis); }
Tensor log_softmax(const Tensor& x, int64_t axis) { return softmax_call<LogSoftmax, LogSoftmaxPull>(x, axis); }

}  // namespace pb
