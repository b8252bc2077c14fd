// Placeholders while the families arrive; each weak definition gives way to the real one.
#include "bind/caster.h"
#define PB_WEAK __attribute__((weak))
namespace pb::py {
PB_WEAK void bind_conv(nb::module_&) {}
PB_WEAK void bind_optim(nb::module_&) {}
}  // namespace pb::py
