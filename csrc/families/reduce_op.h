// What a reduction says about itself: scalar steps for the kernels, `pull` over V for the graph.
#pragma once
#include "families/op.h"

namespace pb {

struct Reduce {
  static constexpr bool integers = false;        // exact integer kernels
  static constexpr bool mask = false;            // the result is a bool
  static constexpr bool keeps_dtype = false;     // small integers stay as they are (max, min)
  static constexpr bool needs_elements = false;  // an empty slice has no value: ValueError
  static constexpr bool reads_x = true;          // the pull reads x and the result
  static constexpr bool no_pull = false;
  static constexpr bool is_reduce = true;
};

// g split over the positions that w marks. Defined for Tensor by the family: it sums w over the reduced axes.
template <class V>
V shared(const V& g, const V& w);

}  // namespace pb
