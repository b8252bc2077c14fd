// The element-wise ops and reductions of the registry as Python callables. Nothing here names an op.
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <structmember.h>

#include <string>
#include <unordered_map>

#include "bind/front.h"
#include "bind/random.h"
#include "bind/saving.h"
#include "families/map.h"
#include "families/reduce.h"
#include "families/view.h"

namespace pb::py {

namespace {

// A callable with its own vector call: positional tensors, then the op's constants by name or position.
struct OpObject {
  PyObject_HEAD vectorcallfunc call;
  const MapOp* op;
  PyObject* names[kMaxArgs + 2];  // interned: constants, then "rng" or "saved"
  PyObject* name;
  PyObject* doc;
};

PyTypeObject* op_type = nullptr;

double to_double(PyObject* o, const MapOp& op, int i) {
  double v = PyFloat_AsDouble(o);
  if (v == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    fail<DTypeError>(op.name, "argument '" + std::string(op.args[i].name) + "' must be a number",
                     "pass a Python float");
  }
  return v;
}

// A traced value (pullback.optim.trace) stands for a tensor and takes the call itself.
PyObject* stand_in(PyObject* const* args, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (is_tensor(args[i]) || PyFloat_CheckExact(args[i]) || PyLong_CheckExact(args[i])) continue;
    if (PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(args[i])), "_pullback_op")) return args[i];
  }
  return nullptr;
}

PyObject* call_op(const OpObject* self, PyObject* const* args, size_t nargs, PyObject* kwnames) {
  const MapOp& op = *self->op;
  double params[kMaxArgs];
  for (int i = 0; i < op.nargs; i++) params[i] = op.args[i].value;
  Generator* rng = nullptr;
  Saving saving;
  size_t n = size_t(op.inputs);
  if (nargs < n || nargs > n + size_t(op.nargs))
    fail<DTypeError>(op.name, "takes " + std::to_string(n) + " tensors, got " + std::to_string(nargs) + " arguments",
                     "see help(pb." + std::string(op.name) + ")");
  Tensor in[kMaxInputs];
  PyObject* traced = stand_in(args, n);
  bool weak = !traced;
  for (size_t i = 0; i < n && !traced; i++) {
    in[i] = to_tensor(args[i]);
    weak = weak && in[i].weak();
  }
  if (weak)  // a Python number alone becomes a tensor of the default dtype
    for (size_t i = 0; i < n; i++)
      in[i] = cast(detach(in[i]), is_float(in[i].dtype()) ? DType::F32 : in[i].dtype()), in[i]->weak = false;
  for (size_t i = n; i < nargs; i++) params[i - n] = to_double(args[i], op, int(i - n));
  size_t nkw = kwnames ? size_t(PyTuple_GET_SIZE(kwnames)) : 0;
  for (size_t i = 0; i < nkw; i++) {
    PyObject* key = PyTuple_GET_ITEM(kwnames, Py_ssize_t(i));
    PyObject* value = args[nargs + i];
    int at = 0;
    while (at <= op.nargs && self->names[at] != key && PyUnicode_Compare(self->names[at], key) != 0) at++;
    if (at < op.nargs)
      params[at] = to_double(value, op, at);
    else if (at == op.nargs && op.random)
      rng = generator_of(value);
    else if (at == op.nargs)
      saving = saving_from(value, op.name, op.activation);
    else
      fail<DTypeError>(op.name, std::string("unexpected argument '") + PyUnicode_AsUTF8(key) + "'",
                       "see help(pb." + std::string(op.name) + ")");
  }
  if (traced) {
    nb::list inputs, constants;
    for (size_t i = 0; i < n; i++) inputs.append(nb::handle(args[i]));
    for (int i = 0; i < op.nargs; i++) constants.append(params[i]);
    nb::handle name(self->name);
    return nb::handle(traced).attr("_pullback_op")(name, inputs, constants).release().ptr();
  }
  if (autocasting())
    for (size_t i = 0; i < n; i++) in[i] = autocast(op.name, in[i]);
  return wrap(map_call(op, {in, n}, params, rng, &saving));
}

PyObject* op_vectorcall(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  return guarded(
      [&] { return call_op(reinterpret_cast<OpObject*>(self), args, size_t(PyVectorcall_NARGS(nargsf)), kwnames); });
}

PyObject* op_descr_get(PyObject* self, PyObject* obj, PyObject*) {
  if (!obj || obj == Py_None) {
    Py_INCREF(self);
    return self;
  }
  return PyMethod_New(self, obj);
}
PyObject* op_repr(PyObject* self) {
  return PyUnicode_FromFormat("<pullback op %U>", reinterpret_cast<OpObject*>(self)->name);
}

PyMemberDef op_members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(OpObject, call), READONLY, nullptr},
                            {"__name__", T_OBJECT_EX, offsetof(OpObject, name), READONLY, nullptr},
                            {"__doc__", T_OBJECT_EX, offsetof(OpObject, doc), READONLY, nullptr},
                            {nullptr, 0, 0, 0, nullptr}};

void make_op_type() {
  static PyType_Slot slots[] = {{Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                                {Py_tp_descr_get, reinterpret_cast<void*>(&op_descr_get)},
                                {Py_tp_repr, reinterpret_cast<void*>(&op_repr)},
                                {Py_tp_members, op_members},
                                {0, nullptr}};
  static PyType_Spec spec = {"pullback.Op", sizeof(OpObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, slots};
  op_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
}

std::string signature(const MapOp& op) {
  static const char* const names[3][3] = {{"x", "", ""}, {"a", "b", ""}, {"condition", "a", "b"}};
  std::string s = std::string(op.name) + "(";
  for (int i = 0; i < op.inputs; i++) s += std::string(i ? ", " : "") + names[op.inputs - 1][i];
  if (op.nargs || op.random) s += op.inputs ? ", *" : "*";
  for (int i = 0; i < op.nargs; i++) {
    char v[32];
    std::snprintf(v, sizeof v, "%.6g", op.args[i].value);
    s += ", " + std::string(op.args[i].name) + "=" + v;
  }
  if (op.random) s += ", rng=None";
  return s + ")";
}

PyObject* make_op(const MapOp& op) {
  auto* o = PyObject_New(OpObject, op_type);
  o->call = &op_vectorcall;
  o->op = &op;
  for (int i = 0; i < op.nargs; i++) o->names[i] = PyUnicode_InternFromString(std::string(op.args[i].name).c_str());
  o->names[op.nargs] = PyUnicode_InternFromString(op.random ? "rng" : "saved");
  o->name = PyUnicode_FromString(std::string(op.name).c_str());
  o->doc = PyUnicode_FromString((signature(op) + "\n\n" + std::string(op.doc)).c_str());
  return reinterpret_cast<PyObject*>(o);
}

void bind_reductions(nb::module_& m) {
  for (const ReduceOp* op : reduce_ops()) {
    if (op->name[0] == '_') continue;
    m.def(std::string(op->name).c_str(),
          behind_front(op->name.data(),
                       [op](const Operand& x, const Axes& axis, bool keepdims) {
                         return reduce_call(*op, x.t, axis.axes, keepdims, axis.all);
                       }),
          nb::arg("x"), nb::arg("axis") = nb::none(), nb::arg("keepdims") = false, std::string(op->doc).c_str());
  }
}

// Reductions made of other ops; family Custom, since they have no struct of their own.
void bind_compositions(nb::module_& m) {
  auto axes_or_all = [](const Tensor& x, const Axes& a) { return a.all ? all_axes(x) : a.axes; };
  def_op(
      m,
      {"prod", "Custom", "prod(x, axis=None, keepdims=False)",
       "Product over axes; integers and bools multiply in 64 bits.\n\nExample:\n"
       "    >>> pb.prod(pb.asarray([2.0, 3.0])).item()\n    6.0"},
      [=](const Operand& x, const Axes& axis, bool keepdims) { return prod(x.t, axes_or_all(x.t, axis), keepdims); },
      nb::arg("x"), nb::arg("axis") = nb::none(), nb::arg("keepdims") = false);
  def_op(
      m,
      {"var", "Custom", "var(x, axis=None, *, correction=0.0, keepdims=False)",
       "Variance over axes, divided by n - correction.\n\nExample:\n"
       "    >>> pb.var(pb.asarray([1.0, 3.0])).item()\n    1.0"},
      [=](const Operand& x, const Axes& axis, double correction, bool keepdims) {
        return var(x.t, axes_or_all(x.t, axis), correction, keepdims);
      },
      nb::arg("x"), nb::arg("axis") = nb::none(), nb::kw_only(), nb::arg("correction") = 0.0,
      nb::arg("keepdims") = false);
  def_op(
      m,
      {"std", "Custom", "std(x, axis=None, *, correction=0.0, keepdims=False)",
       "Standard deviation over axes: the root of var.\n\nExample:\n"
       "    >>> pb.std(pb.asarray([1.0, 3.0]), correction=0).item()\n    1.0"},
      [=](const Operand& x, const Axes& axis, double correction, bool keepdims) {
        return std_dev(x.t, axes_or_all(x.t, axis), correction, keepdims);
      },
      nb::arg("x"), nb::arg("axis") = nb::none(), nb::kw_only(), nb::arg("correction") = 0.0,
      nb::arg("keepdims") = false);
  def_op(
      m,
      {"logsumexp", "Custom", "logsumexp(x, axis=None, keepdims=False)",
       "log(sum(exp(x))), without overflow.\n\nExample:\n"
       "    >>> pb.logsumexp(pb.asarray([1000.0, -1000.0])).item()\n    1000.0"},
      [=](const Operand& x, const Axes& axis, bool keepdims) {
        return logsumexp(x.t, axes_or_all(x.t, axis), keepdims);
      },
      nb::arg("x"), nb::arg("axis") = nb::none(), nb::arg("keepdims") = false);
  def_op(
      m,
      {"norm", "Custom", "norm(x, ord=2.0, axis=None, keepdims=False)",
       "Vector norm of order ord (any number, inf, -inf; 0 counts); its gradient at 0 is 0.\n\nExample:\n"
       "    >>> pb.norm(pb.asarray([3.0, 4.0])).item()\n    5.0"},
      [=](const Operand& x, double ord, const Axes& axis, bool keepdims) {
        return norm(x.t, ord, axes_or_all(x.t, axis), keepdims);
      },
      nb::arg("x"), nb::arg("ord") = 2.0, nb::arg("axis") = nb::none(), nb::arg("keepdims") = false);
}

nb::list table() {
  nb::list out;
  for (const MapOp* op : map_ops()) {
    if (op->internal) continue;
    nb::dict row;
    row["name"] = std::string(op->name);
    row["family"] = "Map";
    row["unit"] = std::string(op->unit);
    row["doc"] = std::string(op->doc);
    row["inputs"] = op->inputs;
    nb::dict args;
    for (int i = 0; i < op->nargs; i++) args[std::string(op->args[i].name).c_str()] = op->args[i].value;
    row["args"] = args;
    row["domain"] = nb::make_tuple(op->domain.lo, op->domain.hi);
    row["derivative"] = op->no_derivative ? "none" : op->differentiable ? "pull" : "zero";
    row["mask"] = op->mask;
    row["integers"] = op->integers;
    row["floats"] = !op->no_floats;
    row["random"] = op->random;
    row["signature"] = signature(*op);
    out.append(row);
  }
  for (const ReduceOp* op : reduce_ops()) {
    nb::dict row;
    row["name"] = std::string(op->name);
    row["family"] = "Reduce";
    row["unit"] = std::string(op->unit);
    row["doc"] = std::string(op->doc);
    row["inputs"] = 1;
    row["args"] = nb::dict();
    row["domain"] = nb::make_tuple(-3.0, 3.0);
    row["derivative"] = op->no_pull ? "none" : "pull";
    row["mask"] = op->mask;
    row["integers"] = op->integers;
    row["floats"] = true;
    row["random"] = false;
    row["signature"] = std::string(op->name) + "(x, axis=None, keepdims=False)";
    out.append(row);
  }
  for (const OpInfo& info : infos()) {
    nb::dict row;
    row["name"] = std::string(info.name);
    row["family"] = std::string(info.family);
    row["doc"] = std::string(info.doc);
    row["derivative"] = std::string(info.derivative);
    row["signature"] = std::string(info.signature);
    out.append(row);
  }
  return out;
}

}  // namespace

// One callable per row, made at the first use: rows may be registered at any time.
nb::object callable_of(const MapOp& op) {
  static auto* made = new std::unordered_map<const MapOp*, PyObject*>;
  if (!op_type) make_op_type();
  PyObject*& o = (*made)[&op];
  if (!o) o = make_op(op);
  return nb::borrow(o);
}

void bind_map_op(nb::module_& m, const MapOp& op) { m.attr(std::string(op.name).c_str()) = callable_of(op); }

void bind_ops(nb::module_& m) {
  for (const MapOp* op : map_ops())
    if (!op->internal) bind_map_op(m, *op);
  bind_reductions(m);
  bind_compositions(m);
  m.def("ops", &table, "The registry: a list with one dict per op.");
  m.def(
      "op", [](std::string_view name) { return callable_of(find_map(name)); }, nb::arg("name"),
      "The element-wise op of this name, also one that an extension registered after the import.");
}

}  // namespace pb::py
