#include "families/builtin.h"

namespace pb {

// registrations.inc is generated: one PB_REGISTER(unit) per op file.
#define PB_REGISTER(unit) void register_##unit();
#include "registrations.inc"
#undef PB_REGISTER

void register_builtin_ops() {
  static const bool once = [] {
#define PB_REGISTER(unit) register_##unit();
#include "registrations.inc"
#undef PB_REGISTER
    return true;
  }();
  (void)once;
}

}  // namespace pb
