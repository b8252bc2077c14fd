#include "fewbit/line.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <string>

#include "tensor/error.h"
#include "tensor/tensor.h"

namespace pb::fewbit {

double below(double x) { return std::nextafter(x, -std::numeric_limits<double>::infinity()); }
double above(double x) { return std::nextafter(x, std::numeric_limits<double>::infinity()); }

namespace {

// Points and weights on [-1, 1], and the matrix that differentiates the polynomial through the points.
struct Gauss {
  double at[kNodes], weight[kNodes], slope[kNodes][kNodes];
  Gauss() {
    constexpr int n = kNodes;
    double derivative[n];
    for (int i = 0; i < n; i++) {
      double z = -std::cos(std::numbers::pi * (i + 0.75) / (n + 0.5)), d = 0;
      for (int round = 0; round < 20; round++) {  // Newton's method on the Legendre polynomial
        double p = 1, before = 0;
        for (int k = 1; k <= n; k++) {
          double next = ((2 * k - 1) * z * p - (k - 1) * before) / k;
          before = p, p = next;
        }
        d = n * (before - z * p) / (1 - z * z);
        z -= p / d;
      }
      at[i] = z, derivative[i] = d;
      weight[i] = 2 / ((1 - z * z) * d * d);
    }
    for (int i = 0; i < n; i++) {
      double sum = 0;
      for (int j = 0; j < n; j++)
        if (j != i) sum += slope[i][j] = derivative[i] / (derivative[j] * (at[i] - at[j]));
      slope[i][i] = -sum;
    }
  }
};
const Gauss& gauss() {
  static const Gauss rule;
  return rule;
}

void place(double from, double to, double* x) {
  double mid = from / 2 + to / 2, half = to / 2 - from / 2;
  for (int i = 0; i < kNodes; i++) x[i] = std::clamp(mid + half * gauss().at[i], from, to);
}

// q holds the weight at the points, and then times the quadrature weight.
void scale(double from, double to, double* q) {
  for (int i = 0; i < kNodes; i++) q[i] *= (to / 2 - from / 2) * gauss().weight[i];
}

void differentiate(double from, double to, const double* g, double* g2) {
  double half = to / 2 - from / 2;
  for (int i = 0; i < kNodes; i++) {
    double sum = 0;
    for (int j = 0; j < kNodes; j++) sum += gauss().slope[i][j] * (g[j] - g[i]);
    g2[i] = half > 0 ? sum / half : 0;
  }
}

Moments integrate(const double* q, const double* g, const double* g2) {
  Moments m;
  for (int i = 0; i < kNodes; i++) {
    double qg = q[i] * g[i];
    m.w += q[i], m.a += qg, m.b += qg * g[i];
    if (g2) m.a2 += q[i] * g2[i], m.b2 += q[i] * g2[i] * g2[i];
  }
  return m;
}

// Doubles in their order as integers.
int64_t rank(double x) {
  auto i = std::bit_cast<int64_t>(x);
  return i < 0 ? std::numeric_limits<int64_t>::min() - i : i;
}
double at_rank(int64_t r) { return std::bit_cast<double>(r < 0 ? std::numeric_limits<int64_t>::min() - r : r); }

std::string text(double v) {
  char s[32];
  std::snprintf(s, sizeof s, "%.6g", v);
  return s;
}

}  // namespace

Line::Line(Spec s) : spec(std::move(s)) {
  place_edges();
  x.resize(size_t(cells()) * kNodes);
  for (int c = 0; c < cells(); c++) place(edge[size_t(c)], edge[size_t(c) + 1], &x[size_t(c) * kNodes]);
  g = sample(x);
  check_domain();
  drop_tails();
  weigh();
  if (spec.second) {
    g2.resize(g.size());
    for (int c = 0; c < cells(); c++)
      differentiate(edge[size_t(c)], edge[size_t(c) + 1], &g[size_t(c) * kNodes], &g2[size_t(c) * kNodes]);
  }
  before_.resize(1);
  for (int c = first; c < last; c++) {
    size_t at = size_t(c) * kNodes;
    before_.push_back(before_.back());
    before_.back() += integrate(&q[at], &g[at], g2.empty() ? nullptr : &g2[at]);
  }
  if (!(all().w > 0))
    fail<ValueError>("fewbit.solve", "the weight is zero everywhere in the domain",
                     "it says where inputs lie; widen the domain");
  if (!std::isfinite(all().w + all().b + all().b2))
    fail<ValueError>("fewbit.solve", "the weighted square of the derivative has no finite integral", "scale it down");
}

void Line::place_edges() {
  double width = spec.hi - spec.lo;
  std::vector<double> inner = spec.breaks;
  for (int i = 1; i < kCells; i++) {
    double e = spec.lo + width * i / kCells;
    // Next to a breakpoint a cell would be a sliver that only rounding tells from it.
    bool near = false;
    for (double b : spec.breaks) near = near || std::abs(b - e) < width * 1e-9;
    if (!near && e > spec.lo && e < spec.hi) inner.push_back(e);
  }
  candidates = inner;
  candidates.push_back(spec.lo), candidates.push_back(spec.hi);
  std::sort(candidates.begin(), candidates.end());
  for (double b : spec.weight_breaks)
    if (b > spec.lo && b < spec.hi) inner.push_back(b);
  inner.push_back(spec.lo), inner.push_back(spec.hi);
  std::sort(inner.begin(), inner.end());
  inner.erase(std::unique(inner.begin(), inner.end()), inner.end());
  auto tail = [&](double end, double sign) {
    std::vector<double> out;
    for (double step = width / 40, e = sign * end; e < kFarthest; step *= 1.5) {
      e = std::min(e + step, kFarthest);
      out.push_back(sign * e);
    }
    return out;
  };
  if (spec.left_tail) {
    edge = tail(spec.lo, -1);
    std::reverse(edge.begin(), edge.end());
  }
  first = int(edge.size());
  edge.insert(edge.end(), inner.begin(), inner.end());
  last = int(edge.size()) - 1;
  std::vector<double> right = tail(spec.hi, 1);
  edge.insert(edge.end(), right.begin(), right.end());
}

void Line::check_domain() const {
  for (size_t i = size_t(first) * kNodes; i < size_t(last) * kNodes; i++)
    if (!std::isfinite(g[i]))
      fail<ValueError>("fewbit.solve", "the derivative is " + text(g[i]) + " at x = " + text(x[i]),
                       "it must be finite in the domain; pass a smaller domain");
}

// Whether g is finite on these cells and turns so seldom that its points show it.
bool Line::settles(int from, int to) const {
  double size = 0;
  for (size_t i = size_t(first) * kNodes; i < size_t(last) * kNodes; i++) size = std::max(size, std::abs(g[i]));
  int turns = 0;
  for (size_t i = size_t(from) * kNodes; i < size_t(to) * kNodes; i++) {
    if (!std::isfinite(g[i])) return false;
    if (i < size_t(from) * kNodes + 2) continue;
    double d0 = g[i - 1] - g[i - 2], d1 = g[i] - g[i - 1];
    if (d0 * d1 < 0 && std::min(std::abs(d0), std::abs(d1)) > 1e-9 * size) turns++;
  }
  return turns <= kTurns;
}

void Line::drop_tails() {
  if (!settles(last, cells())) {
    bounded = false;
    edge.resize(size_t(last) + 1);
    x.resize(size_t(last) * kNodes), g.resize(size_t(last) * kNodes);
  }
  if (!settles(0, first)) {
    bounded = false;
    edge.erase(edge.begin(), edge.begin() + first);
    x.erase(x.begin(), x.begin() + first * kNodes), g.erase(g.begin(), g.begin() + first * kNodes);
    last -= first, first = 0;
  }
}

void Line::weigh() {
  q.assign(x.size(), 0);
  size_t from = size_t(first) * kNodes, to = size_t(last) * kNodes;
  spec.weight(&x[from], &q[from], int64_t(to - from));
  for (size_t i = from; i < to; i++)
    if (!(q[i] >= 0) || !std::isfinite(q[i]))
      fail<ValueError>("fewbit.solve", "the weight is " + text(q[i]) + " at x = " + text(x[i]),
                       "a weight is finite and not negative");
  for (int c = first; c < last; c++) scale(edge[size_t(c)], edge[size_t(c) + 1], &q[size_t(c) * kNodes]);
}

std::vector<double> Line::sample(const std::vector<double>& at) const {
  std::vector<double> y(at.size());
  if (!at.empty()) spec.g(at.data(), y.data(), int64_t(at.size()));
  return y;
}

std::vector<Moments> Line::upto(const std::vector<double>& at) const {
  size_t n = at.size();
  std::vector<int> cell(n);
  std::vector<double> px(n * kNodes), pq(n * kNodes), pg2(kNodes);
  for (size_t i = 0; i < n; i++) {
    auto e = std::upper_bound(edge.begin() + first, edge.begin() + last, at[i]);
    cell[i] = std::max(int(e - edge.begin()) - 1, first);
    place(edge[size_t(cell[i])], at[i], &px[i * kNodes]);
  }
  std::vector<double> pg = sample(px);
  if (n) spec.weight(px.data(), pq.data(), int64_t(px.size()));
  std::vector<Moments> out(n);
  for (size_t i = 0; i < n; i++) {
    double from = edge[size_t(cell[i])];
    out[i] = before_[size_t(cell[i] - first)];
    if (!(at[i] > from)) continue;
    scale(from, at[i], &pq[i * kNodes]);
    if (spec.second) differentiate(from, at[i], &pg[i * kNodes], pg2.data());
    out[i] += integrate(&pq[i * kNodes], &pg[i * kNodes], spec.second ? pg2.data() : nullptr);
  }
  return out;
}

std::vector<double> Line::crossings(std::vector<double> from, std::vector<double> to,
                                    const std::vector<double>& t) const {
  constexpr int kWays = 16;  // a call of g costs more than its points
  size_t n = from.size();
  std::vector<int64_t> a(n), b(n);
  std::vector<char> low(n);
  std::vector<double> ends = sample(from), probe(n * (kWays - 1));
  for (size_t i = 0; i < n; i++) a[i] = rank(from[i]), b[i] = rank(to[i]), low[i] = ends[i] <= t[i];
  auto open = [&] {
    for (size_t i = 0; i < n; i++)
      if (b[i] - a[i] > 1) return true;
    return false;
  };
  while (open()) {
    auto inner = [&](size_t i, int k) {
      auto step = uint64_t(b[i]) - uint64_t(a[i]);
      return a[i] + int64_t(step / kWays * uint64_t(k) + step % kWays * uint64_t(k) / kWays);
    };
    for (size_t i = 0; i < n; i++)
      for (int k = 1; k < kWays; k++) probe[i * (kWays - 1) + size_t(k - 1)] = at_rank(inner(i, k));
    std::vector<double> v = sample(probe);
    for (size_t i = 0; i < n; i++) {
      int k = 1;
      while (k < kWays && (v[i * (kWays - 1) + size_t(k - 1)] <= t[i]) == bool(low[i])) k++;
      int64_t na = inner(i, k - 1), nb = k == kWays ? b[i] : inner(i, k);
      a[i] = na, b[i] = nb;
    }
  }
  for (size_t i = 0; i < n; i++) from[i] = at_rank(a[i]);
  return from;
}

bool Line::is_break(double v) const { return std::binary_search(spec.breaks.begin(), spec.breaks.end(), v); }

std::vector<double> Line::extreme_points() const {
  std::vector<double> out;
  for (double b : spec.breaks) out.insert(out.end(), {below(b), b, above(b)});
  for (double e : {edge.front(), edge.back()}) out.push_back(e);
  for (size_t i = 1; i + 1 < x.size(); i++) {
    double d0 = g[i] - g[i - 1], d1 = g[i + 1] - g[i];
    if (d0 * d1 > 0 || d0 == d1) continue;
    auto e = std::upper_bound(spec.breaks.begin(), spec.breaks.end(), x[i - 1]);
    if (e != spec.breaks.end() && *e <= x[i + 1]) continue;
    // The vertex of the parabola through three points.
    double s0 = d0 / (x[i] - x[i - 1]), s1 = d1 / (x[i + 1] - x[i]), curve = (s1 - s0) / (x[i + 1] - x[i - 1]);
    double v = (x[i - 1] + x[i]) / 2 - s0 / (2 * curve);
    if (v > x[i - 1] && v < x[i + 1]) out.push_back(v);
  }
  return out;
}

Pieces::Pieces(const Line& line, const std::vector<double>& boundaries) {
  size_t n = boundaries.size() + 1;
  moments_.resize(n);
  least_.assign(n, std::numeric_limits<double>::infinity());
  most_.assign(n, -std::numeric_limits<double>::infinity());
  std::vector<std::pair<double, double>> cut;  // the parts of cells that a boundary cuts
  std::vector<size_t> fresh;                   // where they stand in parts_
  size_t next = 0;
  auto part = [&](int c, double from, double to) {
    if (to <= above(above(from))) return;  // nothing between, and its ends belong to others
    if (from == line.edge[size_t(c)] && to == line.edge[size_t(c) + 1]) {
      size_t at = size_t(c) * kNodes;
      parts_.push_back({&line.q[at], &line.g[at], line.g2.empty() ? nullptr : &line.g2[at], int(next)});
      return;
    }
    fresh.push_back(parts_.size());
    parts_.push_back({nullptr, nullptr, nullptr, int(next)});
    cut.emplace_back(from, to);
  };
  while (next < boundaries.size() && boundaries[next] <= line.edge.front()) next++;
  for (int c = 0; c < line.cells(); c++) {
    double from = line.edge[size_t(c)], to = line.edge[size_t(c) + 1];
    for (; next < boundaries.size() && boundaries[next] < to; next++) {
      if (boundaries[next] > from) part(c, from, boundaries[next]);
      from = boundaries[next];
    }
    part(c, from, to);
    while (next < boundaries.size() && boundaries[next] == to) next++;
  }
  x_.resize(cut.size() * kNodes), q_.assign(x_.size(), 0);
  if (line.spec.second) g2_.resize(x_.size());
  for (size_t i = 0; i < cut.size(); i++) place(cut[i].first, cut[i].second, &x_[i * kNodes]);
  g_ = line.sample(x_);
  if (!x_.empty()) line.spec.weight(x_.data(), q_.data(), int64_t(x_.size()));
  for (size_t i = 0; i < cut.size(); i++) {
    auto [from, to] = cut[i];
    if (from < line.spec.lo || to > line.spec.hi)
      std::fill_n(&q_[i * kNodes], kNodes, 0.0);
    else
      scale(from, to, &q_[i * kNodes]);
    if (line.spec.second) differentiate(from, to, &g_[i * kNodes], &g2_[i * kNodes]);
    Part& p = parts_[fresh[i]];
    p.q = &q_[i * kNodes], p.g = &g_[i * kNodes], p.g2 = line.spec.second ? &g2_[i * kNodes] : nullptr;
  }
  for (const Part& p : parts_) {
    auto i = size_t(p.piece);
    moments_[i] += integrate(p.q, p.g, p.g2);
    for (int k = 0; k < kNodes; k++) {
      least_[i] = std::min(least_[i], p.g[k]);
      most_[i] = std::max(most_[i], p.g[k]);
    }
  }
}

std::pair<double, double> Pieces::errors(const std::vector<double>& level, const std::vector<double>& second) const {
  double e = 0, e2 = 0;
  for (const Part& p : parts_) {
    double y = level[size_t(p.piece)], z = second.empty() ? 0 : second[size_t(p.piece)];
    for (int k = 0; k < kNodes; k++) {
      e += p.q[k] * (p.g[k] - y) * (p.g[k] - y);
      if (!second.empty()) e2 += p.q[k] * (p.g2[k] - z) * (p.g2[k] - z);
    }
  }
  return {e, e2};
}

}  // namespace pb::fewbit
