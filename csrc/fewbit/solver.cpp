#include "fewbit/solver.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>

#include "fewbit/cut.h"
#include "tensor/error.h"
#include "tensor/tensor.h"

namespace pb::fewbit {

namespace {

int gray(int rank) { return rank ^ (rank >> 1); }

int ranks_of(const Cut& cut) { return 1 + *std::max_element(cut.rank.begin(), cut.rank.end()); }

std::vector<double> by_label(const std::vector<double>& by_rank, int64_t bits) {
  std::vector<double> out(size_t(1) << bits);
  for (size_t r = 0; r < out.size(); r++) out[size_t(gray(int(r)))] = by_rank[std::min(r, by_rank.size() - 1)];
  return out;
}

double worst_error(const Line& line, const Cut& cut, const std::vector<double>& y) {
  if (!line.bounded) return kInf;
  std::vector<double> x = line.extreme_points();
  for (double s : cut.at) x.insert(x.end(), {s, above(s)});
  std::vector<double> g = line.sample(x);
  x.insert(x.end(), line.x.begin(), line.x.end());
  g.insert(g.end(), line.g.begin(), line.g.end());
  double worst = 0;
  for (size_t i = 0; i < x.size(); i++) {
    auto piece = size_t(std::lower_bound(cut.at.begin(), cut.at.end(), x[i]) - cut.at.begin());
    worst = std::max(worst, std::abs(g[i] - y[size_t(cut.rank[piece])]));
  }
  return worst;
}

Solution assemble(const Line& line, const Cut& cut, const Levels& l, int64_t bits) {
  Solution s;
  std::vector<double> y, z;
  for (int r : cut.rank) {
    y.push_back(l.y[size_t(r)]);
    if (line.spec.second) z.push_back(l.z[size_t(r)]);
    s.codes.push_back(gray(r));
  }
  s.boundaries = cut.at;
  s.levels = by_label(l.y, bits);
  if (line.spec.second) s.second = by_label(l.z, bits);
  std::tie(s.error, s.second_error) = Pieces(line, cut.at).errors(y, z);
  s.max_error = worst_error(line, cut, l.y);
  return s;
}

Solution unbiased(const Line& line, int k, int64_t bits) {
  if (!line.bounded)
    fail<ValueError>("fewbit.solve", "scheme 'unbiased' needs a derivative that settles beyond the domain",
                     "its outer levels are the extremes of the derivative");
  Law law(line);
  double low = kInf, high = -kInf;
  for (const auto& values : {line.g, line.sample(line.extreme_points())})
    for (double v : values) low = std::min(low, v), high = std::max(high, v);
  law.g.insert(law.g.begin(), low), law.w.insert(law.w.begin(), 0);
  law.g.push_back(high), law.w.push_back(0);
  law.accumulate();
  std::vector<int> path =
      monotone_path(law.count(), k - 1, [&](int i, int j) { return law.rounding(i, j); }, law.slack());
  Solution s;
  s.codes = {0};
  for (int p : path)
    if (s.levels.empty() || law.g[size_t(p)] > s.levels.back()) s.levels.push_back(law.g[size_t(p)]);
  for (size_t i = 0; i + 1 < path.size(); i++) s.error += law.rounding(path[i], path[i + 1]);
  for (double v : line.g) {
    auto up = std::lower_bound(s.levels.begin(), s.levels.end(), v);
    if (*up > v) s.max_error = std::max(s.max_error, *up - *(up - 1));
  }
  s.levels.resize(size_t(1) << bits, s.levels.back());
  return s;
}

// Intervals of |x|, mirrored. The piece of x = -s is that of x = s.
Solution mirrored(Solution s) {
  std::vector<double> at;
  std::vector<int> codes;
  size_t m = s.boundaries.size();
  for (size_t i = m; i-- > 0;) at.push_back(below(-s.boundaries[i])), codes.push_back(s.codes[i + 1]);
  at.insert(at.end(), s.boundaries.begin(), s.boundaries.end());
  codes.insert(codes.end(), s.codes.begin(), s.codes.end());
  s.boundaries = at, s.codes = codes;
  return s;
}

Line::Spec folded_spec(const Problem& p) {
  double reach = std::max(std::abs(p.lo), std::abs(p.hi)), lo = p.lo, hi = p.hi;
  auto both = [w = p.weight, lo, hi](const double* x, double* y, int64_t n) {
    std::vector<double> minus(x, x + n), other(static_cast<size_t>(n));
    for (double& v : minus) v = -v;
    w(x, y, n);
    w(minus.data(), other.data(), n);
    for (int64_t i = 0; i < n; i++)
      y[i] = (x[i] >= lo && x[i] <= hi ? y[i] : 0) + (-x[i] >= lo && -x[i] <= hi ? other[size_t(i)] : 0);
  };
  auto fold = [](const std::vector<double>& v, std::vector<double> extra) {
    for (double b : v) extra.push_back(std::abs(b));
    std::erase(extra, 0.0);
    std::sort(extra.begin(), extra.end());
    extra.erase(std::unique(extra.begin(), extra.end()), extra.end());
    return extra;
  };
  Line::Spec s{p.derivative, both, 0, reach, fold(p.breakpoints, {}), fold(p.weight_breakpoints, {-lo, hi})};
  s.left_tail = false;
  return s;
}

void check_even(const Line& line) {
  std::vector<double> minus(line.x);
  for (double& v : minus) v = -v;
  std::vector<double> g = line.sample(minus);
  for (size_t i = 0; i < g.size(); i++)
    if (!(std::abs(g[i] - line.g[i]) <= 1e-9 * (1 + std::abs(line.g[i]))))
      fail<ValueError>("fewbit.solve", "scheme 'folded' needs an even derivative", "use scheme 'value'");
}

void check(const Problem& p) {
  const char* op = "fewbit.solve";
  if (p.bits < 1 || p.bits > 8)
    fail<ValueError>(op, "bits must be 1 to 8, got " + std::to_string(p.bits), "a code of b bits has 2**b levels");
  if (!std::isfinite(p.lo) || !std::isfinite(p.hi) || !(p.lo < p.hi) || !std::isfinite(p.hi - p.lo))
    fail<ValueError>(op, "the domain is empty or not finite", "domain=(low, high) with low < high");
  for (size_t i = 0; i < p.breakpoints.size(); i++) {
    double b = p.breakpoints[i];
    if (!(b > p.lo && b < p.hi))
      fail<ValueError>(op, "breakpoint " + std::to_string(b) + " lies outside the domain", "widen the domain");
    if (i > 0 && !(b > p.breakpoints[i - 1])) fail<ValueError>(op, "breakpoints must ascend", "sort them");
  }
}

}  // namespace

Solution solve(const Problem& p) {
  check(p);
  int k = 1 << p.bits;
  if (p.scheme == Scheme::Folded) {
    Line line(folded_spec(p));
    check_even(line);
    Cut cut = intervals(line, k);
    return mirrored(assemble(line, cut, means(line, Pieces(line, cut.at), cut.rank, ranks_of(cut)), p.bits));
  }
  Line line({p.derivative, p.weight, p.lo, p.hi, p.breakpoints, p.weight_breakpoints, p.scheme == Scheme::Jet});
  if (p.scheme == Scheme::Unbiased) return unbiased(line, k, p.bits);
  Cut cut;
  Levels l;
  if (p.scheme == Scheme::Minimax) {
    cut = bounded_values(line, k, l.y);
  } else {
    cut = p.scheme == Scheme::Value ? values(line, k) : intervals(line, k);
    l = means(line, Pieces(line, cut.at), cut.rank, ranks_of(cut));
  }
  return assemble(line, cut, l, p.bits);
}

std::vector<int> cluster(const std::vector<double>& values, const std::vector<double>& weights, int k) {
  Law law(values, weights);
  return monotone_path(law.count() + 1, k, [&](int i, int j) { return law.within(i, j); }, law.slack());
}

}  // namespace pb::fewbit
