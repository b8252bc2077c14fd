// The solver of few-bit tables: Python functions as samplers, tables as plain lists.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "bind/caster.h"
#include "fewbit/solver.h"

namespace pb::py {

namespace {

using fewbit::Problem;
using fewbit::Sampler;
using fewbit::Scheme;

// f takes and returns 1-d float64 tensors.
Sampler python_sampler(nb::object f) {
  return [f](const double* x, double* y, int64_t n) {
    Tensor in = empty({n}, DType::F64);
    std::memcpy(in.data<double>(), x, size_t(n) * sizeof(double));
    nb::object result = f(nb::cast(in));
    const Tensor& out = checked_tensor(result, "fewbit.solve");
    if (out.dtype() != DType::F64 || out.size() != n || !out.contiguous())
      fail<ShapeError>("fewbit.solve", "a function must return as many float64 numbers as it gets", "see pb.asarray",
                       in, out);
    std::memcpy(y, out.data<double>(), size_t(n) * sizeof(double));
  };
}

Sampler uniform_weight() {
  return [](const double*, double* y, int64_t n) { std::fill_n(y, n, 1.0); };
}

Sampler normal_weight() {
  return [](const double* x, double* y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = std::exp(-x[i] * x[i] / 2) / std::sqrt(2 * std::numbers::pi);
  };
}

// The density of a histogram: heights[i] between edges[i] and edges[i + 1].
Sampler histogram_weight(std::vector<double> heights, std::vector<double> edges) {
  return [heights = std::move(heights), edges = std::move(edges)](const double* x, double* y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
      auto e = std::upper_bound(edges.begin(), edges.end(), x[i]) - edges.begin();
      y[i] = e > 0 && size_t(e) < edges.size() ? heights[size_t(e) - 1] : 0;
    }
  };
}

Scheme scheme_named(const std::string& name) {
  constexpr const char* names[] = {"interval", "folded", "value", "minimax", "unbiased", "jet"};
  for (int i = 0; i < 6; i++)
    if (name == names[i]) return Scheme(i);
  fail<ValueError>("fewbit.solve", "no scheme is called '" + name + "'",
                   "interval, folded, value, minimax, unbiased or jet");
}

// (boundaries, codes, levels, second, error, second_error, max_error)
nb::tuple solve(nb::object derivative, nb::object weight, int64_t bits, const std::string& scheme, double lo, double hi,
                std::vector<double> breakpoints, std::vector<double> heights, std::vector<double> edges) {
  Problem p;
  p.derivative = python_sampler(derivative);
  if (!edges.empty()) {
    p.weight_breakpoints = edges;
    p.weight = histogram_weight(std::move(heights), std::move(edges));
  } else if (nb::isinstance<nb::str>(weight)) {
    p.weight = nb::cast<std::string>(weight) == "normal" ? normal_weight() : uniform_weight();
  } else {
    p.weight = python_sampler(weight);
  }
  p.bits = bits;
  p.scheme = scheme_named(scheme);
  p.lo = lo, p.hi = hi;
  p.breakpoints = std::move(breakpoints);
  fewbit::Solution s = fewbit::solve(p);
  return nb::make_tuple(s.boundaries, s.codes, s.levels, s.second, s.error, s.second_error, s.max_error);
}

// For tests: the cuts of cells with moments (w, w g, w g^2), and of clusters of sorted numbers.
std::vector<int> partition(const std::vector<double>& w, const std::vector<double>& a, const std::vector<double>& b,
                           int k) {
  std::vector<fewbit::Moments> prefix(1);
  for (size_t i = 0; i < w.size(); i++) {
    prefix.push_back(prefix.back());
    prefix.back() += {w[i], a.at(i), b.at(i)};
  }
  return fewbit::partition(prefix, k, 0);
}

}  // namespace

void bind_fewbit(nb::module_& m) {
  m.def("fewbit_solve", &solve, nb::arg("derivative"), nb::arg("weight").none(), nb::arg("bits"), nb::arg("scheme"),
        nb::arg("lo"), nb::arg("hi"), nb::arg("breakpoints"), nb::arg("heights"), nb::arg("edges"),
        "(boundaries, codes, levels, second, error, second_error, max_error) of the best table.");
  m.def("fewbit_partition", &partition, nb::arg("w"), nb::arg("a"), nb::arg("b"), nb::arg("k"),
        "Where at most k pieces of a row of cells begin and end.");
  m.def("fewbit_cluster", &fewbit::cluster, nb::arg("values"), nb::arg("weights"), nb::arg("k"),
        "Where at most k clusters of ascending numbers begin and end.");
}

}  // namespace pb::py
