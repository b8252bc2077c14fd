// Registers two element-wise ops: one from its forward alone, one with a constant, two inputs and written pulls.
#include <extend/op.h>
#include <nanobind/nanobind.h>

namespace pb::cubes {

struct Cube : Map<1> {
  static constexpr std::string_view name = "cube", doc = "x * x * x.";
  template <Value V>
  PB_FN static V fwd(V x) {
    return x * x * x;
  }
};

struct Blend : Map<2> {
  static constexpr std::string_view name = "blend", doc = "exp(rate * a) * b.";
  static constexpr Arg args[] = {{"rate", 0.5}};
  template <Value V>
  PB_FN static V fwd(V a, V b, const ParamOf<V>& k) {
    return exp(k[0] * a) * b;
  }
  template <int I, Value V>
  PB_FN static V pull(V g, V a, V b, const ParamOf<V>& k) {
    if constexpr (I == 0)
      return g * k[0] * exp(k[0] * a) * b;
    else
      return g * exp(k[0] * a);
  }
  static constexpr unsigned uses[] = {0b11, 0b01};
};

struct Stale : Cube {
  static constexpr std::string_view name = "stale";
};

}  // namespace pb::cubes

NB_MODULE(cube_ops, m) {
  pb::extend::add_op<pb::cubes::Cube>();
  pb::extend::add_op<pb::cubes::Blend>();
  m.def("add_again", [] { pb::extend::add_op<pb::cubes::Cube>(); });
  m.def("add_stale", [] { pb::extend::add_op<pb::cubes::Stale>(pb::extend::kLayout + 1); });
}
