// The state behind pb.autocast and its table of ops.
#include "families/autocast.h"

#include <nanobind/stl/string.h>

#include "bind/caster.h"

namespace pb::py {

namespace {

const char* word(CastTo c) {
  static const char* const words[] = {"inputs", "lower", "float32", "widest"};
  return words[int(c)];
}

nb::tuple as_tuple(Autocast a) { return nb::make_tuple(a.lower, a.on); }

// The tensors as the policy of `op` wants them, for functions that are written in Python.
nb::object cast_all(const std::string& op, const nb::args& tensors) {
  if (!autocasting()) return tensors;
  nb::list cast;
  for (nb::handle h : tensors)
    cast.append(is_tensor(h.ptr()) ? nb::steal(wrap(autocast(op, unwrap(h.ptr())))) : nb::borrow(h));
  return nb::tuple(cast);
}

nb::list table() {
  nb::list rows;
  for (const AutocastRow& r : autocast_table()) {
    nb::dict row;
    row["op"] = nb::str(r.op.data());
    row["cpu"] = word(r.cpu);
    row["cuda"] = word(r.cuda);
    rows.append(row);
  }
  return rows;
}

}  // namespace

void bind_autocast(nb::module_& m) {
  m.def(
      "_enter_autocast", [](DType lower, bool on) { return as_tuple(enter_autocast({on, lower})); }, nb::arg("lower"),
      nb::arg("on"));
  m.def("_leave_autocast", [](DType lower, bool on) { leave_autocast({on, lower}); }, nb::arg("lower"), nb::arg("on"));
  m.def("_autocast_state", [] { return as_tuple(autocast_state()); });
  m.def("_autocast", &cast_all, nb::arg("op"), nb::arg("tensors"));
  m.def("_autocast_table", &table, "What pb.autocast does to each op: op, cpu, cuda.");
}

}  // namespace pb::py
