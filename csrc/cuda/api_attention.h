// Attention on the device.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct AttentionApi {};

}  // namespace pb::cuda
