// Scheme interval (and folded, jet): each piece has a level of its own.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "fewbit/cut.h"

namespace pb::fewbit {

Levels means(const Line& line, const Pieces& pieces, const std::vector<int>& rank, int ranks) {
  std::vector<Moments> sum(static_cast<size_t>(ranks));
  std::vector<double> least(static_cast<size_t>(ranks), kInf), most(static_cast<size_t>(ranks), -kInf);
  for (int i = 0; i < pieces.count(); i++) {
    auto r = size_t(rank[size_t(i)]);
    sum[r] += pieces.moments(i);
    least[r] = std::min(least[r], pieces.least(i));
    most[r] = std::max(most[r], pieces.most(i));
  }
  Levels l;
  for (size_t r = 0; r < size_t(ranks); r++) {
    double mid = least[r] / 2 + most[r] / 2;
    l.y.push_back(least[r] > most[r] ? 0 : sum[r].w > 0 ? std::clamp(sum[r].a / sum[r].w, least[r], most[r]) : mid);
    l.z.push_back(line.spec.second && sum[r].w > 0 ? sum[r].a2 / sum[r].w : 0);
  }
  return l;
}

std::pair<size_t, size_t> around(const Line& line, double x, size_t reach) {
  auto i = size_t(std::upper_bound(line.x.begin(), line.x.end(), x) - line.x.begin());
  return {i < reach ? 0 : i - reach, std::min(i + reach - 1, line.x.size() - 1)};
}

double slope_at(const Line& line, double x) {
  auto [a, b] = around(line, x, 1);
  return b > a ? (line.g[b] - line.g[a]) / (line.x[b] - line.x[a]) : 0;
}

std::vector<double> tridiagonal(const std::vector<double>& lower, std::vector<double> diagonal,
                                const std::vector<double>& upper, std::vector<double> right) {
  size_t n = diagonal.size();
  for (size_t i = 1; i < n; i++) {
    double f = lower[i] / diagonal[i - 1];
    diagonal[i] -= f * upper[i - 1];
    right[i] -= f * right[i - 1];
  }
  for (size_t i = n; i-- > 0;) right[i] = (right[i] - (i + 1 < n ? upper[i] * right[i + 1] : 0)) / diagonal[i];
  return right;
}

namespace {

// A boundary at a jump stays where the mean of its levels lies inside the jump.
std::vector<char> pinned(const Line& line, const Cut& cut, const Levels& l) {
  std::vector<double> probe;
  for (double s : cut.at) probe.insert(probe.end(), {below(s), s, above(s)});
  std::vector<double> g = line.sample(probe);
  std::vector<char> out;
  for (size_t i = 0; i < cut.at.size(); i++) {
    double left = g[3 * i], right = g[3 * i + 2], mid = l.y[i] / 2 + l.y[i + 1] / 2;
    bool jump = line.is_break(cut.at[i]) && std::abs(right - left) > 1e-9 * (std::abs(right) + std::abs(left));
    out.push_back(jump && (left <= mid) != (right <= mid));
  }
  return out;
}

constexpr int kSteps = 16;  // points on each side of a boundary

std::vector<double> points_around(const Line& line, double s, double reach) {
  std::vector<double> points = {s};
  for (int k = -kSteps; k <= kSteps; k++) points.push_back(s + reach * k / kSteps);
  auto e = std::lower_bound(line.edge.begin(), line.edge.end(), s - reach);
  for (; e != line.edge.end() && *e <= s + reach; e++) points.push_back(*e);
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  std::erase_if(points, [&](double p) { return !(p > line.spec.lo && p < line.spec.hi); });
  return points;
}

std::vector<std::vector<Candidate>> candidates_around(const Line& line, const std::vector<double>& at, double reach) {
  std::vector<double> all;
  std::vector<size_t> count;
  for (double s : at) {
    std::vector<double> points = points_around(line, s, reach);
    all.insert(all.end(), points.begin(), points.end());
    count.push_back(points.size());
  }
  std::vector<Moments> m = line.upto(all);
  std::vector<std::vector<Candidate>> lists;
  size_t next = 0;
  for (size_t n : count) {
    lists.emplace_back();
    for (size_t end = next + n; next < end; next++) lists.back().push_back({all[next], m[next]});
  }
  return lists;
}

// Exact choices among ever closer points around the boundaries. Boundaries that wander together are followed before
// the points close in.
void narrow(const Line& line, Cut& cut) {
  double reach = (line.spec.hi - line.spec.lo) / kCells;
  for (int round = 0; round < 5; round++, reach /= kSteps) {
    double moved = reach;
    for (int again = 0; again < 20 && moved > reach / 2; again++) {
      std::vector<std::vector<Candidate>> lists = candidates_around(line, cut.at, reach);
      std::vector<int> chosen = choose(lists, Moments(), line.all());
      moved = 0;
      for (size_t i = 0; i < cut.at.size(); i++) {
        double s = lists[i][size_t(chosen[i])].at;
        moved = std::max(moved, std::abs(s - cut.at[i]));
        cut.at[i] = s;
      }
    }
  }
}

// Newton's method on g(s_i) = (y_{i-1} + y_i) / 2, whose y follow from s.
void polish(const Line& line, Cut& cut) {
  size_t m = cut.at.size();
  auto state = [&](const std::vector<double>& at, Levels& l, std::vector<double>& f, Pieces& pieces) {
    l = means(line, pieces, cut.rank, int(m) + 1);
    std::vector<double> g = line.sample(at);
    double worst = 0;
    std::vector<char> fixed = pinned(line, {at, cut.rank}, l);
    f.assign(m, 0);
    for (size_t i = 0; i < m; i++) {
      if (!fixed[i]) f[i] = g[i] - (l.y[i] + l.y[i + 1]) / 2;
      worst = std::max(worst, std::abs(f[i]));
    }
    return std::pair(worst, fixed);
  };
  Levels l;
  std::vector<double> f;
  Pieces pieces(line, cut.at);
  auto [worst, fixed] = state(cut.at, l, f, pieces);
  for (int round = 0; round < 20 && worst > 1e-15; round++) {
    std::vector<double> w(m), lower(m), diagonal(m), upper(m), g = line.sample(cut.at), right = f;
    line.spec.weight(cut.at.data(), w.data(), int64_t(m));
    for (size_t i = 0; i < m; i++) {
      if (fixed[i]) {
        diagonal[i] = 1, right[i] = 0;
        continue;
      }
      double wl = pieces.moments(int(i)).w, wr = pieces.moments(int(i) + 1).w;
      diagonal[i] = slope_at(line, cut.at[i]);
      if (wl > 0) {  // y_i follows its upper and its lower boundary
        diagonal[i] -= w[i] * (g[i] - l.y[i]) / wl / 2;
        if (i > 0) lower[i] = w[i - 1] * (g[i - 1] - l.y[i]) / wl / 2;
      }
      if (wr > 0) {
        diagonal[i] += w[i] * (g[i] - l.y[i + 1]) / wr / 2;
        if (i + 1 < m) upper[i] = -w[i + 1] * (g[i + 1] - l.y[i + 1]) / wr / 2;
      }
    }
    std::vector<double> step = tridiagonal(lower, diagonal, upper, right), next = cut.at;
    for (size_t i = 0; i < m; i++) next[i] -= step[i];
    bool legal = std::is_sorted(next.begin(), next.end());
    for (double s : next) legal = legal && s > line.spec.lo && s < line.spec.hi;
    if (!legal) return;
    Levels nl;
    std::vector<double> nf;
    Pieces np(line, next);
    auto [nworst, nfixed] = state(next, nl, nf, np);
    if (!(nworst < worst)) return;
    cut.at = next, l = nl, f = nf, pieces = std::move(np), worst = nworst, fixed = nfixed;
  }
}

// The last bit: each boundary goes to the crossing of g with the mean of its levels, or to its side of a jump.
void settle(const Line& line, Cut& cut) {
  Levels l = means(line, Pieces(line, cut.at), cut.rank, int(cut.at.size()) + 1);
  std::vector<char> fixed = pinned(line, cut, l);
  std::vector<double> g = line.sample(cut.at), from, to, mid;
  std::vector<size_t> index;
  for (size_t i = 0; i < cut.at.size(); i++) {
    if (fixed[i]) {
      if (std::abs(g[i] - l.y[i + 1]) < std::abs(g[i] - l.y[i])) cut.at[i] = below(cut.at[i]);
      continue;
    }
    auto [a, b] = around(line, cut.at[i], 2);
    double t = (l.y[i] + l.y[i + 1]) / 2;
    while (a < b && a + 1 < line.x.size() && line.x[a + 1] < cut.at[i] && (line.g[a] <= t) == (line.g[b] <= t)) a++;
    if (line.x[a] < line.spec.lo || line.x[b] > line.spec.hi || (line.g[a] <= t) == (line.g[b] <= t)) continue;
    index.push_back(i), from.push_back(line.x[a]), to.push_back(line.x[b]), mid.push_back(t);
  }
  std::vector<double> at = line.crossings(from, to, mid);
  Cut moved = cut;
  for (size_t k = 0; k < index.size(); k++) moved.at[index[k]] = at[k];
  if (std::is_sorted(moved.at.begin(), moved.at.end())) cut = moved;
}

}  // namespace

Cut intervals(const Line& line, int k) {
  std::vector<int> cuts = partition(line.upto(line.candidates), k, kSlack * (line.all().b + line.all().b2));
  Cut cut;
  for (size_t i = 1; i + 1 < cuts.size(); i++) cut.at.push_back(line.candidates[size_t(cuts[i])]);
  cut.rank.resize(cut.at.size() + 1);
  std::iota(cut.rank.begin(), cut.rank.end(), 0);
  if (cut.at.empty()) return cut;
  narrow(line, cut);
  if (!line.spec.second) polish(line, cut);
  settle(line, cut);
  return cut;
}

}  // namespace pb::fewbit
