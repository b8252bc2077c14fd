// Passes over rows on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct RowApi {};

}  // namespace pb::cuda
