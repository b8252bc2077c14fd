// Optimizer steps on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct OptimApi {};

}  // namespace pb::cuda
