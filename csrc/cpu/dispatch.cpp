#include "cpu/dispatch.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "families/map.h"
#include "tensor/error.h"

// units.inc is generated: one PB_UNIT(name) per kernel unit.
extern "C" {
#define PB_UNIT(name) extern const void *const pb_v2_##name, *const pb_v3_##name, *const pb_v4_##name;
#include "units.inc"
#undef PB_UNIT
}

namespace pb {

namespace {

int supported_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return 4;
  if (__builtin_cpu_supports("x86-64-v3")) return 3;
#endif
  return 2;
}

int choose_level() {
  int best = supported_level();
  const char* wish = std::getenv("PULLBACK_ISA");
  if (!wish || !*wish) return best;
  if (std::strlen(wish) != 2 || wish[0] != 'v' || wish[1] < '2' || wish[1] > '4')
    fail<ValueError>("PULLBACK_ISA", std::string("unknown level '") + wish + "'", "use v2, v3 or v4");
  int level = wish[1] - '0';
  if (level > best)
    fail<ValueError>("PULLBACK_ISA", std::string("this CPU does not run level ") + wish,
                     "the highest level here is v" + std::to_string(best));
  return level;
}

int level() {
  static const int chosen = choose_level();
  return chosen;
}

}  // namespace

const char* isa_level() {
  static const char* const names[] = {"v2", "v3", "v4"};
  return names[level() - 2];
}

const void* isa_table(std::string_view unit) {
#define PB_UNIT(name) \
  if (unit == #name) return level() == 4 ? pb_v4_##name : level() == 3 ? pb_v3_##name : pb_v2_##name;
#include "units.inc"
#undef PB_UNIT
  fail<ValueError>("kernels", "no unit is called " + std::string(unit), "this is an error of the build");
}

const MapKernels* map_kernels_of(std::string_view unit, int index) {
  return static_cast<const MapKernels*>(isa_table(unit)) + index;
}

const CastKernels& cast_kernels() {
  static const CastKernels& k = *static_cast<const CastKernels*>(isa_table("cast"));
  return k;
}

}  // namespace pb
