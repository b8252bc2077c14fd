// What an optimizer step measures before its update.
#pragma once
#include "cuda/api.h"

namespace pb::cuda {

struct OptimApi {
  // partial[c] = sum of squares of the gradient of chunk c, in double.
  int (*measure)(const OptimChunk* chunks, int64_t count, double* partial, void* stream);
  // control from the partial sums: norm = sqrt(sum) / scale, multiplier = min(1, clip_norm / norm) / scale. clip_norm
  // negative: off. count 0: multiplier 1 / scale alone.
  int (*finish)(const double* partial, int64_t count, double scale, double clip_norm, OptimControl* control,
                void* stream);
};

}  // namespace pb::cuda
