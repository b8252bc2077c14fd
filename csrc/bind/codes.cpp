// Packed codes, and the kernels that write and read them without a tape.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "bind/caster.h"
#include "bind/random.h"
#include "bind/saving.h"
#include "fewbit/block.h"
#include "fewbit/codec.h"

namespace pb::py {

namespace {

std::string repr_of(nb::handle h) { return nb::repr(h).c_str(); }

// The constants of `op` from a dict of names.
void read_params(const MapOp& op, const nb::dict& given, double* params) {
  for (int i = 0; i < op.nargs; i++) params[i] = op.args[i].value;
  for (auto [key, value] : given) {
    std::string name = nb::cast<std::string>(key);
    int i = 0;
    while (i < op.nargs && op.args[i].name != name) i++;
    if (i == op.nargs)
      fail<DTypeError>(op.name, "unexpected argument '" + name + "'", "see help(pb." + std::string(op.name) + ")");
    params[i] = nb::cast<double>(value);
  }
}

// Results go into `out` where it is given: contiguous, of the shape and a float type.
Tensor target(const char* op, nb::handle out, const Shape& shape, DType dtype) {
  if (out.is_none()) return empty(shape, dtype);
  const Tensor& t = checked_tensor(out, op);
  if (!(t.shape() == shape) || !t.contiguous() || !is_float(t.dtype()))
    fail<ShapeError>(op, "out must be contiguous, floating and of shape " + to_string(shape), "leave out= out", t);
  check_writable(t, op);
  return t;
}

nb::tuple forward(std::string_view name, const Operand& input, const std::shared_ptr<Code>& code, const nb::dict& given,
                  nb::handle out, nb::handle rng) {
  const MapOp& op = find_map(name);
  const Tensor& x = input.t;
  if (op.inputs != 1 || op.random || !op.differentiable)
    fail<ValueError>(name, "is not an activation with a derivative", "pb.ops() lists the functions");
  if (!is_float(x.dtype()) || x.dtype() == DType::F64)
    fail<DTypeError>(name, "codes are made of float32, bfloat16 and float16", "cast x, or keep float64 exactly", x);
  double params[kMaxArgs];
  read_params(op, given, params);
  GradMode off(false);
  Tensor y = target(op.name.data(), out, x.shape(), x.dtype());
  Tensor words = coded_forward(op, y, x, params, *code, rng.is_none() ? nullptr : generator_of(rng.ptr()));
  y->storage->version++;
  return nb::make_tuple(y, words);
}

Tensor backward(const Operand& dy, const Tensor& words, const std::shared_ptr<Code>& code, nb::handle out) {
  const Tensor& g = dy.t;
  if (!is_float(g.dtype()) || g.dtype() == DType::F64)
    fail<DTypeError>("backward", "cotangents of codes are float32, bfloat16 or float16", "cast dy", g);
  if (words.dtype() != DType::U32 || !words.contiguous() || words.size() != code_words(g.size(), code->bits()))
    fail<ShapeError>(
        "backward",
        "the words do not fit " + std::to_string(g.size()) + " codes of " + std::to_string(code->bits()) + " bits",
        "dy has the shape of the coded x", g, words);
  GradMode off(false);
  if (out.is_none()) return coded_pull(*code, words, g, g.dtype());
  Tensor r = target("backward", out, g.shape(), g.dtype());
  coded_pull_into(*code, words, g, r);
  r->storage->version++;
  return r;
}

// The table of a call, made by Python at the first use and remembered here for plain numbers of bits.
struct Asked {
  const MapOp* op;
  int bits;
  double params[kMaxArgs];
  CodeRef code;
};

CodeRef ask_python(const MapOp& op, const double* params, const Saving& s) {
  nb::dict names;
  for (int i = 0; i < op.nargs; i++) names[std::string(op.args[i].name).c_str()] = params[i];
  nb::object spec = s.code ? nb::borrow(static_cast<PyObject*>(const_cast<void*>(s.code.get()))) : nb::int_(s.bits);
  nb::object made =
      nb::module_::import_("pullback.fewbit.codes").attr("_look_up")(std::string(op.name), names, spec, s.asked);
  return made.is_none() ? nullptr : CodeRef(nb::cast<std::shared_ptr<Code>>(made));
}

CodeRef look_up(const MapOp& op, const double* params, const Saving& s) {
  if (s.code) return ask_python(op, params, s);
  static auto* known = new std::vector<Asked>;
  for (const Asked& a : *known)
    if (a.op == &op && a.bits == s.bits && !std::memcmp(a.params, params, sizeof(double) * size_t(op.nargs)))
      return a.code;
  Asked a{&op, s.bits, {}, ask_python(op, params, s)};
  for (int i = 0; i < op.nargs; i++) a.params[i] = params[i];
  if (known->size() < 1024) known->push_back(a);
  return a.code;
}

}  // namespace

int code_bits_of(PyObject* o) {
  static PyObject* type = nb::object(nb::module_::import_("pullback.fewbit.codes").attr("Code")).release().ptr();
  return PyObject_IsInstance(o, type) == 1 ? nb::cast<int>(nb::handle(o).attr("bits")) : 0;
}

int block_bits(const char* op, nb::handle saved) {
  if (saved.is_none()) return 0;
  int64_t bits = PyLong_Check(saved.ptr()) && !PyBool_Check(saved.ptr()) ? nb::cast<int64_t>(saved) : 0;
  if (bits == 4 || bits == 8) return int(bits);
  fail<ValueError>(op, "saved= takes 4 or 8, the bits of a block-quantised input, got " + repr_of(saved),
                   "leave saved= out to keep the input exactly");
}

void bind_codes(nb::module_& m) {
  code_lookup = &look_up;
  nb::class_<Code>(m, "FewbitCode")
      .def(nb::new_([](int64_t bits, std::vector<double> boundaries, std::vector<int64_t> labels,
                       std::vector<double> levels, std::vector<double> second, bool random) {
             return std::make_shared<Code>(bits, std::move(boundaries), std::move(labels), std::move(levels),
                                           std::move(second), random);
           }),
           nb::arg("bits"), nb::arg("boundaries"), nb::arg("labels"), nb::arg("levels"),
           nb::arg("second") = std::vector<double>(), nb::arg("random") = false)
      .def_prop_ro("bits", &Code::bits)
      .def_prop_ro("order", &Code::order)
      .def_prop_ro("random", &Code::random);
  m.def(
      "fewbit_pack", [](const Operand& codes, int64_t bits) { return pack_codes(codes.t, bits); }, nb::arg("codes"),
      nb::arg("bits"));
  m.def(
      "fewbit_unpack", [](const Operand& words, int64_t bits, int64_t n) { return unpack_codes(words.t, bits, n); },
      nb::arg("words"), nb::arg("bits"), nb::arg("n"));
  m.def(
      "fewbit_quantise", [](const Operand& x, int bits) { return block_quantise(x.t, bits); }, nb::arg("x"),
      nb::arg("bits"));
  m.def("fewbit_restore", &block_restore, nb::arg("words"), nb::arg("shape"), nb::arg("dtype"), nb::arg("bits"));
  m.def("fewbit_forward", &forward, nb::arg("name"), nb::arg("x"), nb::arg("code"), nb::arg("params") = nb::dict(),
        nb::arg("out").none() = nb::none(), nb::arg("rng").none() = nb::none());
  m.def("fewbit_backward", &backward, nb::arg("dy"), nb::arg("words"), nb::arg("code"),
        nb::arg("out").none() = nb::none());
}

}  // namespace pb::py
