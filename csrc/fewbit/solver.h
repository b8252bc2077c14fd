// Tables for few-bit derivatives: the best piecewise constant stand-ins of a function of one variable.
//
// Note [Tables]
// A table cuts the line at ascending boundaries. x lies in piece #{i : x > boundary[i]}; codes[piece] is a label of b
// bits; levels[label] stands for g(x). Labels are Gray codes of a rank: the number of the piece where each piece has a
// level of its own (interval, jet), the number of the interval of |x| (folded), the place of the level among all
// levels where pieces share them (value, minimax). Neighbouring pieces of a continuous g have neighbouring ranks, so a
// boundary flips one bit. Labels that no piece uses repeat a neighbour's level. An unbiased table has no boundaries:
// label k is the k-th level in ascending order, and g(x) is rounded at random to one of the two levels around it.
#pragma once
#include "fewbit/line.h"

namespace pb::fewbit {

enum class Scheme { Interval, Folded, Value, Minimax, Unbiased, Jet };

struct Problem {
  Sampler derivative, weight;
  double lo = -10, hi = 10;
  std::vector<double> breakpoints, weight_breakpoints;
  int64_t bits = 1;
  Scheme scheme = Scheme::Value;
};

struct Solution {
  std::vector<double> boundaries;
  std::vector<int> codes;
  std::vector<double> levels, second;  // by label
  double error = 0, second_error = 0;  // weighted integrals of the squared error; for unbiased of the variance
  double max_error = 0;                // of every input, inf where g does not settle beyond the domain
};

Solution solve(const Problem& p);

// The best at most k groups of neighbours among ascending numbers: their first indices and the count.
std::vector<int> cluster(const std::vector<double>& values, const std::vector<double>& weights, int k);

}  // namespace pb::fewbit
