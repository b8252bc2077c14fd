// Sorting pairs on the device.
#pragma once
#include "cuda/device.h"

namespace pb::cuda {

// Rows of `padded` pairs (a power of two), sorted in place by key and among equal keys by index.
struct PairArgs {
  uint64_t* key;
  int64_t* index;
  int64_t rows, padded;
  int64_t width, distance;  // of the launcher: the step of the network
};
int64_t padded_size(int64_t n);  // of a row of n pairs; the rest is filled with the largest key and index
cudaError_t sort_pairs(const PairArgs& args, void* stream);

}  // namespace pb::cuda
