// Convolutions on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct ConvApi {};

}  // namespace pb::cuda
