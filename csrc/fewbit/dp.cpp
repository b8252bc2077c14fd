#include "fewbit/dp.h"

#include <algorithm>
#include <limits>

namespace pb::fewbit {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// min over i < n of a[i] + b[i]; four chains hide the latency of the minimum.
double least_sum(const double* a, const double* b, int n) {
  double m[4] = {kInf, kInf, kInf, kInf};
  int i = 0;
  for (; i + 4 <= n; i += 4)
    for (int l = 0; l < 4; l++) {
      double v = a[i + l] + b[i + l];
      m[l] = v < m[l] ? v : m[l];
    }
  for (; i < n; i++) m[0] = std::min(m[0], a[i] + b[i]);
  return std::min(std::min(m[0], m[1]), std::min(m[2], m[3]));
}

}  // namespace

std::vector<int> partition(const std::vector<Moments>& prefix, int k, double slack) {
  int n = int(prefix.size()) - 1;
  k = std::min(k, n);
  std::vector<double> cost(size_t(n) * size_t(n + 1) / 2);  // row j: the cells i .. j for i < j
  auto row = [&](int j) { return cost.data() + size_t(j) * size_t(j - 1) / 2; };
  for (int j = 1; j <= n; j++) {
    double* r = row(j);
    for (int i = 0; i < j; i++) r[i] = (prefix[size_t(j)] - prefix[size_t(i)]).cost();
  }
  // best[m][j]: cells 0 .. j in m + 1 pieces.
  std::vector<std::vector<double>> best(size_t(k), std::vector<double>(size_t(n) + 1, kInf));
  for (int j = 1; j <= n; j++) best[0][size_t(j)] = row(j)[0];
  for (int m = 1; m < k && best[size_t(m - 1)][size_t(n)] > slack; m++)
    for (int j = m + 1; j <= n; j++) best[size_t(m)][size_t(j)] = least_sum(best[size_t(m - 1)].data(), row(j), j);
  int m = 0;
  double least = kInf;
  for (const auto& layer : best) least = std::min(least, layer[size_t(n)]);
  while (best[size_t(m)][size_t(n)] > least + slack) m++;
  std::vector<int> cuts = {n};
  for (int j = n; m > 0; m--) {
    const double *before = best[size_t(m - 1)].data(), *r = row(j);
    int at = 0;
    for (int i = 1; i < j; i++)
      if (before[i] + r[i] < before[at] + r[at]) at = i;
    cuts.push_back(j = at);
  }
  cuts.push_back(0);
  std::reverse(cuts.begin(), cuts.end());
  return cuts;
}

std::vector<int> choose(const std::vector<std::vector<Candidate>>& lists, const Moments& first, const Moments& last) {
  size_t m = lists.size();
  std::vector<std::vector<double>> best(m);
  std::vector<std::vector<int>> from(m);
  for (size_t i = 0; i < m; i++) {
    best[i].assign(lists[i].size(), kInf);
    from[i].assign(lists[i].size(), -1);
    for (size_t c = 0; c < lists[i].size(); c++) {
      const Candidate& to = lists[i][c];
      if (i == 0) {
        best[0][c] = (to.upto - first).cost();
        continue;
      }
      for (size_t p = 0; p < lists[i - 1].size() && lists[i - 1][p].at < to.at; p++) {
        double v = best[i - 1][p] + (to.upto - lists[i - 1][p].upto).cost();
        if (v < best[i][c]) best[i][c] = v, from[i][c] = int(p);
      }
    }
  }
  std::vector<int> chosen(m);
  int at = 0;
  double least = kInf;
  for (size_t c = 0; m && c < lists[m - 1].size(); c++) {
    double v = best[m - 1][c] + (last - lists[m - 1][c].upto).cost();
    if (v < least) least = v, at = int(c);
  }
  for (size_t i = m; i-- > 0;) {
    chosen[i] = at;
    at = from[i][size_t(at)];
  }
  return chosen;
}

namespace {

// Fills now[lo .. hi) knowing that the best predecessors ascend and lie in [from, to].
struct Layer {
  const std::function<double(int, int)>& cost;
  const std::vector<double>& before;
  std::vector<double>& now;
  std::vector<int>& arg;
  void fill(int lo, int hi, int from, int to) {
    if (lo >= hi) return;
    int mid = (lo + hi) / 2, at = from;
    double least = kInf;
    for (int i = from; i <= std::min(to, mid); i++) {
      if (before[size_t(i)] == kInf) continue;
      double v = before[size_t(i)] + cost(i, mid);
      if (v < least) least = v, at = i;
    }
    now[size_t(mid)] = least;
    arg[size_t(mid)] = at;
    fill(lo, mid, from, at);
    fill(mid + 1, hi, at, to);
  }
};

}  // namespace

std::vector<int> monotone_path(int n, int k, const std::function<double(int, int)>& cost, double slack) {
  std::vector<double> before(static_cast<size_t>(n)), now(static_cast<size_t>(n));
  std::vector<std::vector<int>> args(1);
  std::vector<double> ends;
  for (int j = 0; j < n; j++) before[size_t(j)] = cost(0, j);
  ends.push_back(before.back());
  for (int m = 1; m < k && ends.back() > slack; m++) {
    args.emplace_back(static_cast<size_t>(n));
    Layer{cost, before, now, args.back()}.fill(0, n, 0, n - 1);
    std::swap(before, now);
    ends.push_back(before.back());
  }
  double least = *std::min_element(ends.begin(), ends.end());
  size_t m = 0;
  while (ends[m] > least + slack) m++;
  std::vector<int> path = {n - 1};
  for (int j = n - 1; m > 0; m--) path.push_back(j = args[m][size_t(j)]);
  path.push_back(0);
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace pb::fewbit
