// Losses on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct LossApi {};

}  // namespace pb::cuda
