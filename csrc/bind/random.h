#pragma once
#include "bind/caster.h"
#include "families/map.h"

namespace pb::py {
// The generator behind a Python argument; the default one for None.
Generator* generator_of(PyObject* o);
}  // namespace pb::py
