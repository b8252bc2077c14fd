#include "cpu/dispatch.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "families/map.h"
#include "tensor/error.h"

// units.inc is generated: one PB_UNIT(level, name) per kernel unit and ISA level that was built.
extern "C" {
#define PB_UNIT(level, name) extern const void* const pb_##level##_##name;
#include "units.inc"
#undef PB_UNIT
}

namespace pb {

namespace {

struct Unit {
  std::string_view level, name;
  const void* table;
};
const Unit units[] = {
#define PB_UNIT(level, name) {#level, #name, pb_##level##_##name},
#include "units.inc"
#undef PB_UNIT
};

bool built(int level) {
  for (const Unit& u : units)
    if (u.level[1] - '0' == level) return true;
  return false;
}

// The widest level that this CPU runs and this build has; 0 when there is none.
int supported_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (built(4) && __builtin_cpu_supports("x86-64-v4")) return 4;
  if (built(3) && __builtin_cpu_supports("x86-64-v3")) return 3;
  if (built(2) && __builtin_cpu_supports("x86-64-v2")) return 2;
  return 0;
#else
  return built(2) ? 2 : 0;
#endif
}

int choose_level() {
  int best = supported_level();
  if (best == 0)
    fail<ValueError>("kernels", "this CPU runs none of the instruction set levels of this build",
                     "build from source on this machine");
  const char* wish = std::getenv("PULLBACK_ISA");
  if (!wish || !*wish) return best;
  if (std::strlen(wish) != 2 || wish[0] != 'v' || wish[1] < '2' || wish[1] > '4')
    fail<ValueError>("PULLBACK_ISA", std::string("unknown level '") + wish + "'", "use v2, v3 or v4");
  int level = wish[1] - '0';
  if (level > best)
    fail<ValueError>("PULLBACK_ISA", std::string("this CPU does not run level ") + wish,
                     "the highest level here is v" + std::to_string(best));
  if (!built(level))
    fail<ValueError>("PULLBACK_ISA", std::string("this build has no kernels for level ") + wish,
                     "build with PB_ISA_LEVELS=\"v2;v3;v4\"");
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
  for (const Unit& u : units)
    if (u.level[1] - '0' == level() && u.name == unit) return u.table;
  fail<ValueError>("kernels", "no unit is called " + std::string(unit), "this is an error of the build");
}

bool cpu_has_bf16() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

const MapKernels* map_kernels_of(std::string_view unit, int index) {
  return static_cast<const MapKernels*>(isa_table(unit)) + index;
}

const CastKernels& cast_kernels() {
  static const CastKernels& k = *static_cast<const CastKernels*>(isa_table("cast"));
  return k;
}

}  // namespace pb
