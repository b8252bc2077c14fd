// Schemes value and minimax: pieces of the line share levels, and g decides which.
#include <algorithm>
#include <cmath>

#include "fewbit/cut.h"
#include "tensor/error.h"
#include "tensor/tensor.h"

namespace pb::fewbit {

Law::Law(const Line& line) {
  std::vector<size_t> order;
  for (size_t i = 0; i < line.q.size(); i++)
    if (line.q[i] > 0) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return line.g[a] < line.g[b]; });
  for (size_t i : order) g.push_back(line.g[i]), w.push_back(line.q[i]);
  accumulate();
}

Law::Law(std::vector<double> values, std::vector<double> weights) : g(std::move(values)), w(std::move(weights)) {
  accumulate();
}

void Law::accumulate() {
  sum_w.assign(1, 0), sum_a = sum_b = sum_w;
  for (size_t i = 0; i < g.size(); i++) {
    sum_w.push_back(sum_w.back() + w[i]);
    sum_a.push_back(sum_a.back() + w[i] * g[i]);
    sum_b.push_back(sum_b.back() + w[i] * g[i] * g[i]);
  }
}

double Law::mean(int i, int j) const {
  double s = sum_w[size_t(j)] - sum_w[size_t(i)];
  return s > 0 ? (sum_a[size_t(j)] - sum_a[size_t(i)]) / s : g[size_t(i)];
}

double Law::within(int i, int j) const {
  double s = sum_w[size_t(j)] - sum_w[size_t(i)], a = sum_a[size_t(j)] - sum_a[size_t(i)];
  double c = sum_b[size_t(j)] - sum_b[size_t(i)] - (s > 0 ? a * a / s : 0);
  return c > 0 ? c : 0;
}

double Law::rounding(int i, int j) const {
  double s = sum_w[size_t(j)] - sum_w[size_t(i)], a = sum_a[size_t(j)] - sum_a[size_t(i)];
  double b = sum_b[size_t(j)] - sum_b[size_t(i)];
  double c = (g[size_t(i)] + g[size_t(j)]) * a - b - g[size_t(i)] * g[size_t(j)] * s;
  return c > 0 ? c : 0;
}

namespace {

// The pieces on which g lies between the same two of ascending thresholds; g == threshold counts as below.
Cut preimage(const Line& line, const std::vector<double>& t) {
  auto rank = [&](double g) { return int(std::lower_bound(t.begin(), t.end(), g) - t.begin()); };
  Cut cut;
  std::vector<double> from, to, level;
  std::vector<int> after;
  int now = rank(line.g[0]);
  cut.rank.push_back(now);
  for (size_t i = 1; i < line.g.size(); i++) {
    int next = rank(line.g[i]);
    for (; now != next; now += now < next ? 1 : -1) {
      from.push_back(line.x[i - 1]), to.push_back(line.x[i]);
      level.push_back(t[size_t(now < next ? now : now - 1)]);
      after.push_back(now < next ? now + 1 : now - 1);
    }
  }
  std::vector<double> at = line.crossings(from, to, level);
  for (size_t i = 0; i < at.size(); i++) {
    if (!cut.at.empty() && at[i] <= cut.at.back()) {  // a jump crosses several at once
      cut.rank.back() = after[i];
      continue;
    }
    cut.at.push_back(at[i]);
    cut.rank.push_back(after[i]);
  }
  return cut;
}

std::vector<double> between(const std::vector<double>& y) {
  std::vector<double> t;
  for (size_t i = 0; i + 1 < y.size(); i++) t.push_back((y[i] + y[i + 1]) / 2);
  return t;
}

// One step of Newton's method on y_k = mean of g between its thresholds; where it fails the means themselves.
std::vector<double> improve(const Line& line, const std::vector<double>& y, const std::vector<double>& mean,
                            const Cut& cut, const Pieces& pieces) {
  size_t k = y.size();
  std::vector<double> density(k), weight(k), w(cut.at.size());
  for (int i = 0; i < pieces.count(); i++) weight[size_t(cut.rank[size_t(i)])] += pieces.moments(i).w;
  if (!w.empty()) line.spec.weight(cut.at.data(), w.data(), int64_t(w.size()));
  for (size_t i = 0; i < cut.at.size(); i++) {  // density[k]: of the law of g at the threshold above y[k]
    double s = std::abs(slope_at(line, cut.at[i]));
    bool inside = cut.at[i] > line.spec.lo && cut.at[i] < line.spec.hi;
    int low = std::min(cut.rank[i], cut.rank[i + 1]);
    if (inside && s > 0 && std::abs(cut.rank[i] - cut.rank[i + 1]) == 1) density[size_t(low)] += w[i] / s;
  }
  std::vector<double> lower(k), diagonal(k, 1), upper(k), right(k);
  for (size_t i = 0; i < k; i++) {
    right[i] = y[i] - mean[i];
    if (!(weight[i] > 0)) continue;
    if (i + 1 < k) {
      double d = density[i] * ((y[i] + y[i + 1]) / 2 - mean[i]) / weight[i] / 2;
      diagonal[i] -= d, upper[i] = -d;
    }
    if (i > 0) {
      double d = density[i - 1] * (mean[i] - (y[i] + y[i - 1]) / 2) / weight[i] / 2;
      diagonal[i] -= d, lower[i] = -d;
    }
  }
  std::vector<double> step = tridiagonal(lower, diagonal, upper, right), next = y;
  bool legal = true;
  for (size_t i = 0; i < k; i++) {
    next[i] -= step[i];
    legal = legal && std::isfinite(next[i]) && (i == 0 || next[i] > next[i - 1]);
  }
  return legal ? next : mean;
}

}  // namespace

Cut values(const Line& line, int k) {
  Law law(line);
  std::vector<int> cuts =
      monotone_path(law.count() + 1, k, [&](int i, int j) { return law.within(i, j); }, law.slack());
  std::vector<double> y, best;
  for (size_t i = 0; i + 1 < cuts.size(); i++)
    if (cuts[i + 1] > cuts[i]) y.push_back(law.mean(cuts[i], cuts[i + 1]));
  y.erase(std::unique(y.begin(), y.end()), y.end());
  Cut cut;
  double least = kInf;
  for (int round = 0; round < 40; round++) {
    Cut now = preimage(line, between(y));
    Pieces pieces(line, now.at);
    Levels l = means(line, pieces, now.rank, int(y.size()));
    double change = 0;
    for (size_t i = 0; i < y.size(); i++) change = std::max(change, std::abs(l.y[i] - y[i]));
    if (!(change < least)) {  // no nearer: back to the best, by plain means
      if (round > 25) break;
      y = l.y;
    } else {
      least = change, cut = now;
      if (change < 1e-14 * (1 + std::abs(y.back()))) break;
      y = improve(line, y, l.y, now, pieces);
    }
    if (!std::is_sorted(y.begin(), y.end())) break;
  }
  return cut;
}

// ---- minimax: the least radius that covers every value of g

namespace {

// The connected parts of the range of g: one per stretch between breakpoints, merged where they overlap.
std::vector<std::pair<double, double>> range_of(const Line& line) {
  if (!line.bounded)
    fail<ValueError>("fewbit.solve", "scheme 'minimax' needs a derivative that settles beyond the domain",
                     "it bounds the error of every input; make the function finite for large |x|");
  std::vector<double> points = line.x, extra = line.extreme_points();
  points.insert(points.end(), extra.begin(), extra.end());
  std::vector<double> g = line.g, more = line.sample(extra);
  g.insert(g.end(), more.begin(), more.end());
  size_t stretches = line.spec.breaks.size() + 1;
  std::vector<std::pair<double, double>> parts(stretches, {kInf, -kInf});
  for (size_t i = 0; i < points.size(); i++) {
    if (line.is_break(points[i])) parts.emplace_back(g[i], g[i]);
    auto s = size_t(std::lower_bound(line.spec.breaks.begin(), line.spec.breaks.end(), points[i]) -
                    line.spec.breaks.begin());
    if (line.is_break(points[i])) continue;
    parts[s].first = std::min(parts[s].first, g[i]);
    parts[s].second = std::max(parts[s].second, g[i]);
  }
  std::sort(parts.begin(), parts.end());
  std::vector<std::pair<double, double>> merged;
  for (auto p : parts) {
    if (!merged.empty() && p.first <= merged.back().second)
      merged.back().second = std::max(merged.back().second, p.second);
    else
      merged.push_back(p);
  }
  return merged;
}

// Levels that cover the parts with at most k balls of the radius, or nothing.
std::vector<std::pair<double, double>> cover(const std::vector<std::pair<double, double>>& parts, double radius,
                                             size_t k) {
  std::vector<std::pair<double, double>> balls;  // what each covers
  for (auto [from, to] : parts) {
    if (!balls.empty() && to <= balls.back().first + 2 * radius) {
      balls.back().second = std::max(balls.back().second, to);
      continue;
    }
    if (!balls.empty() && from <= balls.back().first + 2 * radius) {
      balls.back().second = balls.back().first + 2 * radius;
      from = balls.back().second;
    }
    do {
      if (balls.size() == k) return {};
      double end = std::min(from + 2 * radius, to);
      balls.emplace_back(from, end);
      from = end;
    } while (from < to);
  }
  return balls;
}

}  // namespace

Cut bounded_values(const Line& line, int k, std::vector<double>& y) {
  auto parts = range_of(line);
  double low = parts.front().first, high = parts.back().second, radius = (high - low) / 2 / k;
  std::vector<double> t;
  if (parts.size() == 1) {
    for (int i = 0; i < k && (i == 0 || radius > 0); i++) y.push_back(low + radius * (2 * i + 1));
    t = between(y);
  } else {
    double a = 0, b = radius * (1 + 1e-12);
    if (!cover(parts, 0, size_t(k)).empty()) b = 0;
    for (int round = 0; round < 200 && b > above(a); round++) {
      double mid = (a + b) / 2;
      (cover(parts, mid, size_t(k)).empty() ? a : b) = mid;
    }
    auto balls = cover(parts, b, size_t(k));
    for (size_t i = 0; i < balls.size(); i++) {
      y.push_back((balls[i].first + balls[i].second) / 2);
      if (i > 0) t.push_back((balls[i - 1].second + balls[i].first) / 2);
    }
  }
  return preimage(line, t);
}

}  // namespace pb::fewbit
