// Placeholders while the families arrive; each weak definition gives way to the real one.
#include "bind/caster.h"
namespace pb::py {
__attribute__((weak)) void bind_optim(nb::module_&) {}
}  // namespace pb::py
