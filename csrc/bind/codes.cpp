// Packed codes.
#include "bind/caster.h"
#include "fewbit/codec.h"

namespace pb::py {

void bind_codes(nb::module_& m) {
  m.def(
      "fewbit_pack", [](const Operand& codes, int64_t bits) { return pack_codes(codes.t, bits); }, nb::arg("codes"),
      nb::arg("bits"));
  m.def(
      "fewbit_unpack", [](const Operand& words, int64_t bits, int64_t n) { return unpack_codes(words.t, bits, n); },
      nb::arg("words"), nb::arg("bits"), nb::arg("n"));
}

}  // namespace pb::py
