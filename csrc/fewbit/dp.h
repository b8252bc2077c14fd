// Exact dynamic programs behind the tables: cut a line into cells, cluster sorted numbers, spread levels.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace pb::fewbit {

// What integrals over a cell say: of the weight w, w g, w g^2, and the same of the second function.
struct Moments {
  double w = 0, a = 0, b = 0, a2 = 0, b2 = 0;
  Moments& operator+=(const Moments& m) {
    w += m.w, a += m.a, b += m.b, a2 += m.a2, b2 += m.b2;
    return *this;
  }
  friend Moments operator-(Moments x, const Moments& y) {
    return {x.w - y.w, x.a - y.a, x.b - y.b, x.a2 - y.a2, x.b2 - y.b2};
  }
  // The least integral of w (g - y)^2 + w (g2 - z)^2 over constants y, z.
  double cost() const {
    if (!(w > 0)) return 0;
    double c = b - a * a / w + (b2 - a2 * a2 / w);
    return c > 0 ? c : 0;
  }
};

// Positions 0 .. n cut n cells; prefix[i] holds the moments of the first i. The positions 0 = p_0 < ... < p_m = n,
// m <= k, with the least total cost; of equal ones (to `slack`) the fewest. O(k n^2) time, n^2 / 2 numbers.
std::vector<int> partition(const std::vector<Moments>& prefix, int k, double slack);

// One list of prefix moments per boundary, along ascending points: the choice of one ascending point per list with the
// least total cost, the ends being the moments `first` and `last`.
struct Candidate {
  double at;
  Moments upto;
};
std::vector<int> choose(const std::vector<std::vector<Candidate>>& lists, const Moments& first, const Moments& last);

// The path 0 = p_0 <= ... <= p_m = n - 1 of at most k steps over n positions with the least sum of cost(p, q), for
// costs with cost(a, c) + cost(b, d) <= cost(a, d) + cost(b, c) where a <= b <= c <= d. O(k n log n).
std::vector<int> monotone_path(int n, int k, const std::function<double(int, int)>& cost, double slack);

}  // namespace pb::fewbit
