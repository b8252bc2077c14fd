#include "families/row.h"

#include "families/row_call.h"
#include "tensor/profile.h"

namespace pb {

namespace {

// Forward from x, cotangent and tangent from the own output.
template <class Op, class Pull>
Tensor softmax_like(const Tensor& x) {
  if (x.size() == 0) return with_copy(x);
  if (has_tangent(x)) return row_graph<Op>({x}, {}, {});
  Tensor out = row_run<Op>({x}, {}, {}).y;
  std::vector<Saved> saved;
  if (any_wants(x)) saved = {Saved::output(out)};
  record(Op::name.data(), {x}, out, std::move(saved), [](const Slots& s, const PullArgs& a) {
    Tensor y = s[0];
    a.gin[0] = plain_pull(a.g[0], y) ? row_run<Pull>({a.g[0], y}, {}, {}).y : row_graph<Pull>({a.g[0], y}, {}, {});
  });
  return out;
}

template <class Op, class Pull>
Tensor softmax_call(const Tensor& input, int64_t axis) {
  Profiled scope(Op::name.data());
  Tensor x = as_float(input);
  DType result = x.dtype();
  Tensor wide = cast(x, row_compute(result));
  return cast(on_last_axis(wide, axis, Op::name.data(), softmax_like<Op, Pull>), result);
}

}  // namespace

Tensor softmax(const Tensor& x, int64_t axis) { return softmax_call<Softmax, SoftmaxPull>(x, axis); }
Tensor log_softmax(const Tensor& x, int64_t axis) { return softmax_call<LogSoftmax, LogSoftmaxPull>(x, axis); }

}  // namespace pb
