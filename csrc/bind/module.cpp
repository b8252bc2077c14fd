// The extension module: everything that Python sees of the engine.
#include <nanobind/stl/string.h>

#include "bind/caster.h"
#include "cpu/dispatch.h"
#include "families/builtin.h"

namespace pb::py {
void bind_autocast(nb::module_& m);
void bind_device(nb::module_& m);
void bind_threads(nb::module_& m);
void bind_profile(nb::module_& m);
void bind_errors(nb::module_& m);
void bind_fewbit(nb::module_& m);
void bind_dtypes(nb::module_& m);
void bind_user_rule(nb::module_& m);
}  // namespace pb::py

NB_MODULE(_core, m) {
  using namespace pb::py;
  nb::set_leak_warnings(false);  // dtypes, ops and error types live as long as the process
  m.doc() = "The compiled core of pullback.";
  m.attr("__version__") = PB_VERSION;
  pb::isa_level();  // an unknown PULLBACK_ISA is an error of the import
  pb::register_builtin_ops();
  bind_errors(m);
  bind_dtypes(m);
  bind_tensor(m);
  bind_create(m);
  bind_ops(m);
  bind_shapes(m);
  bind_interop(m);
  bind_linear(m);
  bind_conv(m);
  bind_rows(m);
  bind_random(m);
  bind_codes(m);
  bind_fused(m);
  bind_saving(m);
  bind_optim(m);
  bind_fewbit(m);
  bind_user_rule(m);
  bind_autograd(m);
  bind_autocast(m);
  bind_device(m);
  bind_threads(m);
  bind_profile(m);
  m.def(
      "_as_method", [](nb::handle f) { return nb::steal(PyInstanceMethod_New(f.ptr())); },
      "The function as a class attribute that binds its first argument.");
  m.def("isa_level", [] { return std::string(pb::isa_level()); }, "The instruction set level in use: v2, v3 or v4.");
}
