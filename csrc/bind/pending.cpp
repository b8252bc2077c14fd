// Placeholders while the families arrive; each weak definition gives way to the real one.
#include "bind/caster.h"
namespace pb::py {
}  // namespace pb::py
