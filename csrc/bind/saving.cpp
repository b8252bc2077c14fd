// What is kept for backward: the argument `saved=` and the state behind pb.saving.
#include "bind/saving.h"

namespace pb::py {

Saving saving_from(PyObject* o, std::string_view op, bool choice, bool asked) {
  Saving s;
  if (o == Py_None) return s;
  s.asked = asked;
  auto is = [&](const char* text) { return PyUnicode_Check(o) && PyUnicode_CompareWithASCIIString(o, text) == 0; };
  if (is("input")) {
    s.choice = SavedChoice::Input;
    return s;
  }
  if (!choice)
    fail<ValueError>(op, "keeps inputs or outputs exactly; saved= takes None or 'input'", "leave saved= out");
  if (is("output")) {
    s.choice = SavedChoice::Output;
  } else if (is("recompute")) {
    s.choice = SavedChoice::Recompute;
  } else if (PyLong_Check(o) && !PyBool_Check(o)) {
    long bits = PyLong_AsLong(o);
    if (bits == -1 && PyErr_Occurred()) PyErr_Clear();
    if (bits < 1 || bits > 8)
      fail<ValueError>(op, "saved= as a number of bits must be 1 to 8, got " + nb::cast<std::string>(nb::str(o)),
                       "3 or 4 bits lose little");
    s.choice = SavedChoice::Code;
    s.bits = int(bits);
  } else if (int bits = code_bits_of(o)) {
    s.choice = SavedChoice::Code;
    s.bits = bits;
    Py_INCREF(o);
    s.code = std::shared_ptr<const void>(
        o, [](const void* p) { Py_DECREF(const_cast<PyObject*>(static_cast<const PyObject*>(p))); });
  } else {
    fail<ValueError>(
        op,
        "saved= takes None, 'input', 'output', 'recompute' or 1 to 8 bits, got " + nb::cast<std::string>(nb::repr(o)),
        "leave saved= out for the default");
  }
  return s;
}

int input_bits(nb::handle inputs) {
  if (!nb::isinstance<nb::int_>(inputs) || nb::isinstance<nb::bool_>(inputs) ||
      (nb::cast<int>(inputs) != 4 && nb::cast<int>(inputs) != 8))
    fail<ValueError>("saving", "inputs must be 4 or 8 bits, got " + nb::cast<std::string>(nb::repr(inputs)),
                     "None keeps inputs exactly");
  return nb::cast<int>(inputs);
}

nb::tuple replace_state(const SavingState& next) {
  SavingState& now = saving_state();
  nb::capsule before(new SavingState(now), [](void* p) noexcept { delete static_cast<SavingState*>(p); });
  now = next;
  return nb::make_tuple(before);
}

// What a memory plan says for one module; None: nothing. Returns what was said before.
nb::tuple set_policy(nb::handle saved, nb::handle inputs) {
  SavingState next = saving_state();
  next.policy = saving_from(saved.ptr(), "policy", true, false);
  next.policy_inputs = inputs.is_none() ? 0 : input_bits(inputs);
  return replace_state(next);
}

// Sets what is said for this thread outside of calls; None leaves a value. Returns what was said before.
nb::tuple set_saving(nb::handle saved, nb::handle inputs, int order) {
  SavingState& now = saving_state();
  if (order < 1) fail<ValueError>("saving", "order must be at least 1, got " + std::to_string(order), "1 is .backward");
  SavingState next = now;
  if (!saved.is_none()) next.saving = saving_from(saved.ptr(), "saving", true, false);
  if (!inputs.is_none()) next.inputs = input_bits(inputs);
  next.order = order > now.order ? order : now.order;
  return replace_state(next);
}
void restore_saving(nb::tuple before) {
  saving_state() = *static_cast<SavingState*>(nb::cast<nb::capsule>(before[0]).data());
}

void bind_saving(nb::module_& m) {
  m.def("_set_saving", &set_saving, nb::arg("saved").none(), nb::arg("inputs").none(), nb::arg("order"));
  m.def("_set_policy", &set_policy, nb::arg("saved").none(), nb::arg("inputs").none());
  m.def("_restore_saving", &restore_saving);
}

}  // namespace pb::py
