// Placeholders while the families arrive; each weak definition gives way to the real one.
#include "bind/caster.h"
#define PB_WEAK __attribute__((weak))
namespace pb {
PB_WEAK Tensor matmul(const Tensor& a, const Tensor&) { return a; }
}  // namespace pb
namespace pb::py {
PB_WEAK void bind_linear(nb::module_&) {}
PB_WEAK void bind_conv(nb::module_&) {}
PB_WEAK void bind_rows(nb::module_&) {}
PB_WEAK void bind_optim(nb::module_&) {}
}  // namespace pb::py
