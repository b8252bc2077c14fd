#include "bind/random.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include "cpu/isa_std.h"

namespace pb::py {

Generator* generator_of(PyObject* o) {
  if (o == Py_None) return &default_generator();
  if (!nb::isinstance<Generator>(nb::handle(o)))
    fail<DTypeError>("random", "rng must be a pb.random.Generator or None", "make one with pb.random.Generator(seed)");
  return nb::inst_ptr<Generator>(nb::handle(o));
}

namespace {

uint64_t to_seed(nb::handle h) {
  nb::object index = nb::steal(PyNumber_Index(h.ptr()));
  if (!index.is_valid()) nb::raise_python_error();
  uint64_t seed = PyLong_AsUnsignedLongLong(index.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    fail<ValueError>("seed", "must be in [0, 2^64), got " + std::string(nb::str(index).c_str()),
                     "use a non-negative int");
  }
  return seed;
}

// Words first .. first + n - 1 of the generator's stream as integers in [low, high), by multiplication: the bias is at
// most (high - low) / 2^64.
Tensor randint(int64_t low, int64_t high, const Dims& shape, DType dtype, Generator& g) {
  if (high <= low)
    fail<ValueError>("randint", "high must be above low, got " + std::to_string(low) + " and " + std::to_string(high),
                     "numbers are drawn from [low, high)");
  if (!is_integer(dtype)) fail<DTypeError>("randint", "the dtype must be an integer type", "use pb.int64");
  int bits_kept = 8 * itemsize(dtype) - (category(dtype) == Category::Signed ? 1 : 0);
  int64_t largest = bits_kept >= 63 ? INT64_MAX : (int64_t(1) << bits_kept) - 1;
  int64_t least = category(dtype) == Category::Signed ? -largest - 1 : 0;
  if (low < least || high - 1 > largest)
    fail<ValueError>("randint",
                     "[" + std::to_string(low) + ", " + std::to_string(high) + ") does not fit in " + dtype_name(dtype),
                     "use a wider dtype");
  Tensor out = empty(shape, DType::I64);
  int64_t n = out.size();
  RandomState s = g.reserve(n);
  uint64_t range = uint64_t(high) - uint64_t(low);
  std::vector<uint32_t> bits(size_t(2 * n));
  cast_kernels().bits(bits.data(), s.seed, s.offset, 0, 2 * n);
  for (int64_t i = 0; i < n; i++) {
    uint64_t word = uint64_t(bits[size_t(2 * i)]) << 32 | bits[size_t(2 * i + 1)];
    out.data<int64_t>()[i] = int64_t(uint64_t(low) + uint64_t((unsigned __int128)(word)*range >> 64));
  }
  return cast(out, dtype);
}

Tensor permutation(int64_t n, Generator& g) {
  if (n < 0) fail<ShapeError>("permutation", "the length must not be negative, got " + std::to_string(n), "use n >= 0");
  Tensor out = arange(n);
  RandomState s = g.reserve(n);
  std::vector<uint32_t> bits(size_t(2 * n));
  cast_kernels().bits(bits.data(), s.seed, s.offset, 0, 2 * n);
  auto* p = out.data<int64_t>();
  for (int64_t i = n - 1; i > 0; i--) {
    uint64_t word = uint64_t(bits[size_t(2 * i)]) << 32 | bits[size_t(2 * i + 1)];
    auto j = int64_t((unsigned __int128)(word)*uint64_t(i + 1) >> 64);
    std::swap(p[i], p[j]);
  }
  return out;
}

}  // namespace

void bind_random(nb::module_& m) {
  nb::class_<Generator>(m, "Generator",
                        "A counter-based stream of random numbers (Philox 4x32-10).\n\nExample:\n    >>> g = "
                        "pb.random.Generator(3)\n    >>> g.get_state()\n    (3, 0)")
      .def(
          "__init__", [](Generator* self, nb::handle seed) { new (self) Generator{to_seed(seed), 0}; },
          nb::arg("seed") = 0)
      .def("__getstate__", [](const Generator& g) { return nb::make_tuple(g.seed, g.offset, g.roundings); })
      .def("__setstate__",
           [](Generator& g, nb::tuple s) {
             new (&g) Generator{nb::cast<uint64_t>(s[0]), nb::cast<uint64_t>(s[1]), nb::cast<uint64_t>(s[2])};
           })
      .def(
          "get_state", [](const Generator& g) { return std::pair(g.seed, g.offset); }, "(seed, offset).")
      .def(
          "set_state", [](Generator& g, std::pair<uint64_t, uint64_t> s) { g.seed = s.first, g.offset = s.second; },
          nb::arg("state"), "Continues from what get_state gave. `roundings` goes on: no two passes round alike.")
      .def(
          "reserve", [](Generator& g, int64_t n) { return g.reserve(n).offset; }, nb::arg("n"),
          "Skips n numbers; returns the counter before.")
      .def_rw("seed", &Generator::seed, "The seed.")
      .def_rw("offset", &Generator::offset, "The counter: numbers drawn so far.")
      .def_rw("roundings", &Generator::roundings, "How often it rounded what is kept for backward.");
  m.def(
      "default_generator", [] { return &default_generator(); }, nb::rv_policy::reference,
      "The generator used where rng is None.");
  m.def(
      "manual_seed", [](nb::handle seed) { default_generator() = {to_seed(seed), 0}; }, nb::arg("seed"),
      "Starts the default generator anew, with a seed in [0, 2^64).\n\nExample:\n"
      "    >>> pb.manual_seed(7)\n    >>> a = pb.random.normal(3)\n    >>> pb.manual_seed(7)\n"
      "    >>> a.tolist() == pb.random.normal(3).tolist()\n    True");
  auto draw = [&](const char* name, const char* op, const char* a, const char* b) {
    const MapOp* row = &find_map(op);
    m.def(
        name,
        [row](const Dims& shape, double x, double y, DType dtype, nb::handle rng, nb::handle device) {
          const double params[] = {x, y};
          Device there = device_at(device, "random");
          return map_draw(*row, shape, dtype, params, *generator_of(rng.ptr()), there);
        },
        nb::arg("shape"), nb::arg(a), nb::arg(b), nb::arg("dtype"), nb::arg("rng").none() = nb::none(),
        nb::arg("device").none() = nb::none(),
        "A draw with checked arguments; see pb.random.");
  };
  draw("draw_normal", "_normal", "mean", "std");
  draw("draw_uniform", "_uniform", "low", "high");
  draw("draw_exponential", "_exponential", "rate", "unused");
  draw("draw_gumbel", "_gumbel", "loc", "scale");
  m.def(
      "draw_randint",
      [](int64_t low, int64_t high, const Dims& shape, DType dtype, nb::handle rng, nb::handle device) {
        Device there = device_at(device, "random");
        return to_device(randint(low, high, shape, dtype, *generator_of(rng.ptr())), there);
      },
      nb::arg("low"), nb::arg("high"), nb::arg("shape"), nb::arg("dtype"), nb::arg("rng").none() = nb::none(),
      nb::arg("device").none() = nb::none(),
      "Integers in [low, high); see pb.random.randint.");
  m.def(
      "draw_permutation",
      [](int64_t n, nb::handle rng, nb::handle device) {
        Device there = device_at(device, "random");
        return to_device(permutation(n, *generator_of(rng.ptr())), there);
      },
      nb::arg("n"), nb::arg("rng").none() = nb::none(), nb::arg("device").none() = nb::none(), "0..n-1 in random order; see pb.random.permutation.");
}

}  // namespace pb::py
