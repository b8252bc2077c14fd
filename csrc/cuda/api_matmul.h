// Matrix products on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct MatmulApi {};

}  // namespace pb::cuda
