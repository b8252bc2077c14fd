// Gather and scatter on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct GatherApi {};

}  // namespace pb::cuda
