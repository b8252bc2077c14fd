// What the schemes share: boundaries with ranks, the levels that belong to them, and Newton's step.
#pragma once
#include "fewbit/line.h"

namespace pb::fewbit {

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr double kSlack = 1e-13;  // pieces that gain less than this share of the square integral are rounding

// Boundaries of a line and a rank per piece (Note [Tables], solver.h).
struct Cut {
  std::vector<double> at;
  std::vector<int> rank;
};

struct Levels {
  std::vector<double> y, z;  // by rank: for g and for g'
};

// The weighted mean of g over the pieces of each rank; exactly g where g is one number.
Levels means(const Line& line, const Pieces& pieces, const std::vector<int>& rank, int ranks);

// The points left and right of x between which a crossing near x may lie: `reach` quadrature points away.
std::pair<size_t, size_t> around(const Line& line, double x, size_t reach);
double slope_at(const Line& line, double x);

// Solves lower[i] v[i-1] + diagonal[i] v[i] + upper[i] v[i+1] = right[i].
std::vector<double> tridiagonal(const std::vector<double>& lower, std::vector<double> diagonal,
                                const std::vector<double>& upper, std::vector<double> right);

// The points of the domain by ascending g, as numbers with weights.
struct Law {
  std::vector<double> g, w, sum_w, sum_a, sum_b;
  explicit Law(const Line& line);
  Law(std::vector<double> values, std::vector<double> weights);
  void accumulate();
  int count() const { return int(g.size()); }
  double slack() const { return kSlack * sum_b.back(); }
  double mean(int i, int j) const;      // of numbers i .. j - 1
  double within(int i, int j) const;    // their squares about the mean
  double rounding(int i, int j) const;  // the variance of rounding them to the i-th or the j-th number
};

// The schemes: at most k levels.
Cut intervals(const Line& line, int k);
Cut values(const Line& line, int k);
Cut bounded_values(const Line& line, int k, std::vector<double>& y);

}  // namespace pb::fewbit
