// Pooling on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct PoolApi {};

}  // namespace pb::cuda
