// The real line in cells with quadrature points: what the solver knows of a derivative and of a weight.
#pragma once
#include <functional>
#include <limits>
#include <vector>

#include "fewbit/dp.h"

namespace pb::fewbit {

// y[i] = f(x[i]) for n points.
using Sampler = std::function<void(const double* x, double* y, int64_t n)>;

inline constexpr int kNodes = 16;            // Gauss-Legendre points of a cell
inline constexpr int kCells = 2000;          // equal cells of the domain
inline constexpr double kFarthest = 3.4e38;  // beyond lies no float32
inline constexpr int kTurns = 100;           // a tail in which g turns more often is not resolved

double below(double x);  // the next double
double above(double x);

// A derivative g with its weight on [lo, hi].
//
// Note [Cells]
// The domain is cut into equal cells and at each breakpoint, so that g is smooth inside a cell and 16 points integrate
// it to rounding. Cells that grow by half up to the largest float32 follow on both sides: there the weight is zero, but
// the outer pieces of a table hold there as well, and so does its bound. A side where g is not finite, or
// keeps oscillating, is dropped.
class Line {
 public:
  struct Spec {
    Sampler g, weight;
    double lo, hi;
    std::vector<double> breaks;         // of g, ascending, inside (lo, hi)
    std::vector<double> weight_breaks;  // of the weight
    bool second = false;                // integrate g' too
    bool left_tail = true;
  };
  explicit Line(Spec spec);

  int cells() const { return int(edge.size()) - 1; }
  const Moments& all() const { return before_.back(); }  // of the domain
  std::vector<double> sample(const std::vector<double>& x) const;
  // Moments of lo .. x for points x of the domain.
  std::vector<Moments> upto(const std::vector<double>& x) const;
  // The place where g crosses the level t between from[i] and to[i], to the last bit: the largest x on the side of
  // from[i]. g(from[i]) <= t[i] must differ from g(to[i]) <= t[i].
  std::vector<double> crossings(std::vector<double> from, std::vector<double> to, const std::vector<double>& t) const;
  // Extremes of g between breakpoints and everywhere else: local ones by a parabola through three points.
  std::vector<double> extreme_points() const;
  bool is_break(double x) const;

  Spec spec;
  std::vector<double> edge;        // of all cells, ascending
  int first = 0, last = 0;         // the cells of the domain
  bool bounded = true;             // both sides are there
  std::vector<double> x, q, g;     // points, weight times quadrature weight, g
  std::vector<double> g2;          // g', if wanted
  std::vector<double> candidates;  // edges where the first partition may cut, lo and hi included

 private:
  std::vector<Moments> before_;  // what the domain holds before each of its cells, and in all
  void place_edges();
  void weigh();
  void check_domain() const;
  bool settles(int from, int to) const;
  void drop_tails();
};

// A line cut at boundaries, with a label per piece, and what the pieces hold.
class Pieces {
 public:
  Pieces(const Line& line, const std::vector<double>& boundaries);
  int count() const { return int(moments_.size()); }
  const Moments& moments(int piece) const { return moments_[size_t(piece)]; }
  double least(int piece) const { return least_[size_t(piece)]; }  // of g
  double most(int piece) const { return most_[size_t(piece)]; }
  // Integral of w (g - level)^2 and of w (g' - second)^2.
  std::pair<double, double> errors(const std::vector<double>& level, const std::vector<double>& second) const;

 private:
  struct Part {
    const double *q, *g, *g2;
    int piece;
  };
  std::vector<Part> parts_;
  std::vector<double> x_, q_, g_, g2_;  // of cells that a boundary cuts
  std::vector<Moments> moments_;
  std::vector<double> least_, most_;
};

}  // namespace pb::fewbit
