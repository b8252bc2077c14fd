// One element's bit of one plane: what vectors on the CPU and warps on the GPU compute for their lanes.
#pragma once
#include "value/value.h"

namespace pb {

// `set` for the first piece, turned round at each boundary below x that flips the plane. NaN lies above none.
PB_FN bool code_plane(float x, const float* flips, int from, int to, bool set) {
  for (int j = from; j < to; j++) set = set != (x > flips[j]);
  return set;
}

}  // namespace pb
