// The sum that an input's cotangent has so far, for pulls that can add to it.
#pragma once
#include <functional>

#include "tape/node.h"

namespace pb {

// Within a pull: calls add(sum) with what input i has so far, contiguous, of this dtype; a leaf's gradient may be what
// the pull itself reads, then add returns false. False where it does, where there is no sum, or where the addition is
// to be recorded: the pull then fills gin[i].
bool add_onto(const PullArgs& p, int i, DType dtype, const std::function<bool(const Tensor& sum)>& add);

}  // namespace pb
