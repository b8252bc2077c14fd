// Gather and scatter on the device. All memory is contiguous; `index` holds checked int64 in [0, n).
#pragma once
#include "cuda/api.h"
#include "cuda/api_fault.h"

namespace pb::cuda {

// Indices of any integer type as int64 in [0, size), negative ones from the end. One outside [-size, size) is told to
// `fault` and becomes 0.
struct IndexArgs {
  const void* in;
  int64_t* out;
  int64_t count, size;
  Fault* fault;
  const char* op;
  int axis;
  Type type;
};

// take: out[o, j, i] = x[o, index[j], i] of x[outer, n, inner]; along: out[o, j, i] = x[o, index[o, j, i], i].
struct TakeArgs {
  const void* x;
  const int64_t* index;
  void* out;
  int64_t outer, n, m, inner;
  int item;  // bytes of an element
};

// out[o, index.., i] += x[o, j, i], each sum in the order of j; out holds zeros before. With `along` the index has x's
// shape, else shape (m).
struct AddArgs {
  const void* x;
  const int64_t* index;
  void* out;
  void* partial;  // add_scratch() bytes
  int64_t outer, n, m, inner;
  Type type;
  bool along;
};

// out[o, index[j], i] = x[o, j, i]; the last of equal indices wins.
struct PutArgs {
  const void* x;
  const int64_t* index;
  void* out;
  bool* last;       // winners: whether j is the last of its index; x and out are not read
  int64_t* latest;  // (n), for the time of the call
  int64_t outer, n, m, inner;
  int item;
};

// The positions of true elements. count writes how many each piece has to counts[1 + piece], and 0 to counts[0]; after
// a running sum over them write fills out[d * found ...] with index d.
struct PositionArgs {
  const bool* mask;
  int64_t* counts;  // (pieces + 1)
  int64_t* out;     // (ndim, found)
  int64_t n, found;
  int ndim;
  int64_t shape[kMaxDims];
};

// out[j] = (..(index[0][j] * size[1] + index[1][j]) * size[2] ..).
struct JoinArgs {
  const int64_t* index[kMaxDims];
  int64_t size[kMaxDims];
  int64_t* out;
  int64_t n;
  int count;
};

// Filled by position. Count: start + i step, int64. Triangle: bool (rows, columns), column - row <= k (lower) or >= k.
// Integers: int64 in [start, start + range), of the stream seed, offset as on the CPU.
struct PatternArgs {
  enum Kind : int { Count, Triangle, Integers } kind;
  void* out;
  int64_t n, start, step, columns, k;
  uint64_t seed, offset, range;
  bool lower;
};

struct GatherApi {
  int (*index)(const IndexArgs& args, void* stream);
  int (*take)(const TakeArgs& args, void* stream);
  int (*along)(const TakeArgs& args, void* stream);
  int (*add)(const AddArgs& args, void* stream);
  int64_t (*add_scratch)(const AddArgs& args);
  int (*put)(const PutArgs& args, void* stream);
  int (*winners)(const PutArgs& args, void* stream);
  int64_t (*pieces)(int64_t n);
  int (*count)(const PositionArgs& args, void* stream);
  int (*positions)(const PositionArgs& args, void* stream);
  int (*join)(const JoinArgs& args, void* stream);
  int (*pattern)(const PatternArgs& args, void* stream);
};

}  // namespace pb::cuda
