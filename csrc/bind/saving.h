// `saved=` as Python gives it.
#pragma once
#include <string_view>

#include "bind/caster.h"
#include "families/map_saved.h"

namespace pb::py {

// None, "input", "output", "recompute", bits 1..8 or a fewbit.Code. ValueError for anything else, and for all but None
// and "input" when the op has no choice. `asked`: it stands at the call, where what cannot be had is an error.
int code_bits_of(PyObject* o);  // of a fewbit.Code; 0 for anything else
Saving saving_from(PyObject* o, std::string_view op, bool choice, bool asked = true);

}  // namespace pb::py
