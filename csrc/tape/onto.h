// The sum that an input's cotangent has so far, for pulls that can add to it.
#pragma once
#include <functional>

#include "tape/node.h"

namespace pb {

// Within a pull: calls add(sum) with what input i has so far, contiguous, of this dtype, seen by nobody else. False,
// and nothing is called, where there is none or the addition itself is recorded: the pull then fills gin[i].
bool add_onto(const PullArgs& p, int i, DType dtype, const std::function<void(const Tensor& sum)>& add);

}  // namespace pb
