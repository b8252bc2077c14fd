// The boundary between the engine and the CUDA library, a shared object of its own that is opened only where
// libcuda.so.1 can be: plain structs and one table of functions. No CUDA header is needed to include it.
//
// The library has the element-wise ops, the reductions and the optimizer rules, built from the same structs as the CPU
// kernels; rows are found by the name of their unit and the number of the op in it, as in isa_table.
#pragma once
#include <cstdint>

#include "tensor/dtype.h"

namespace pb::cuda {

inline constexpr int kMaxDims = 8, kMaxIn = 5, kMaxParams = 8;
inline constexpr int kVersion = 5;

// Of the memory. Kernels that compute in float read F32, F16, BF16 and Bool; the engine casts the others before.
using Type = DType;

// Functions of one family, each struct in a header of its own; a null pointer in the table: not built.
struct MemoryApi;     // cuda/api_memory.h
struct CopyApi;       // cuda/api_copy.h
struct RowApi;        // cuda/api_row.h
struct GatherApi;     // cuda/api_gather.h
struct LossApi;       // cuda/api_loss.h
struct MatmulApi;     // cuda/api_matmul.h
struct ConvApi;       // cuda/api_conv.h
struct PoolApi;       // cuda/api_pool.h
struct AttentionApi;  // cuda/api_attention.h
struct OptimApi;      // cuda/api_optim.h

// How an operand is read: an array over the iteration space, one element of memory for all, or a number in the call.
enum class Kind : uint8_t { Array, One, Number };
struct Operand {
  void* data = nullptr;
  Type type = Type::F32;
  Kind kind = Kind::Array;
  uint64_t bits = 0;               // of a number, in the kernel's compute type
  int64_t strides[kMaxDims] = {};  // in elements; used when the call is not contiguous
};

// One launch over `shape`. A forward reads the op's inputs, a pull {g, inputs..., output}. Kernels of compute type
// float read F32, F16, BF16 and Bool, the others their own type alone; results have the compute type, or are narrower
// floats, or Bool for a mask.
struct MapArgs {
  Operand out, in[kMaxIn];
  int ndim = 0;
  int64_t shape[kMaxDims] = {};
  int64_t n = 0;
  bool contiguous = false;  // every array, and its pointer a multiple of 16 bytes
  double params[kMaxParams] = {};
  uint64_t seed = 0, offset = 0;    // of random ops: the uniform numbers of the CPU
  const uint64_t* shift = nullptr;  // in device memory: added to the offset (Note [Draws of a replay])
};

// out[o, i] = reduction over the middle axis of x[outer, n, inner], both contiguous. The types are as in MapArgs.
struct ReduceArgs {
  void* out;
  const void* x;
  void* partial;  // reduce_scratch() bytes
  Type out_type, in_type;
  int64_t outer, n, inner;
  int64_t chunk, chunks;  // of the middle axis; set by launch_reduce
};

// A piece of one parameter. States are float32; p, from and g may be of narrower types. p is read from `from`, which is
// p itself unless the step starts elsewhere; `noise` holds normal numbers for the rules that take them.
struct OptimChunk {
  void* p;
  const void* from;
  const void* g;
  float* slots[6];
  const float* noise;
  int64_t n;
  Type p_type, from_type, g_type;
  int step;  // its block of OptimArgs::steps
};
// What the update reads of the measurements before it, in device memory.
struct OptimControl {
  double norm;       // of the gradients divided by the scale, before clipping
  float multiplier;  // of every gradient
  int finite;        // 0: the update changes nothing
};
inline constexpr int kStepBlock = 17;  // the rule's Step<float>, then the decay
struct OptimArgs {
  const OptimChunk* chunks;  // in device memory, as all that follows
  int64_t count;
  const float* steps;
  const OptimControl* control;
  double* sums;      // of sums kernels: kOptimSums for each chunk
  float clip_value;  // negative: off
};
inline constexpr int kOptimSums = 5;

// Codes of n contiguous elements (fewbit/codec.h): encode reads x and writes words, decode reads dy as x and words and
// writes out. `flips` and `level` are as in CodeTable; `first` is the label of the first piece.
struct CodeArgs {
  const void* x;
  void* out;
  uint32_t* words;
  int64_t n;
  Type x_type, out_type;
  int bits, first;
  int at[9];
  float flips[255];
  float level[256];
};

using Kernel = const void*;
struct MapEntry {                     // null where the op has none
  Kernel fwd[kComputes], pull[3][2];  // by Compute; by input, then float or double
  Kernel pull_y[2];                   // from the output, where the op has both
  Kernel code[2];                     // a small number that decides the derivative, as uint8
};
struct ReduceEntry {
  Kernel rows, merge_rows, columns, merge_columns;
};
struct ReduceRow {
  ReduceEntry by[kComputes];
};
struct OptimEntry {
  Kernel update[3];  // by Decay
  Kernel sums[2];    // by coupled decay or none; null where the rule needs none
};
struct MapUnit {
  const char* name;
  int count;
  const MapEntry* rows;
};

// Every int is a cudaError_t; `stream` a cudaStream_t.
struct Table {
  int version;
  int map_units;
  const MapUnit* map;
  int reduces;
  const ReduceRow* reduce;
  int rules;
  const OptimEntry* rule;
  int (*device_count)(int* count);
  const char* (*error_text)(int error);
  int (*synchronize)(void* stream);
  int (*launch_map)(Kernel kernel, const MapArgs& args, void* stream);
  int64_t (*reduce_scratch)(int64_t outer, int64_t n, int64_t inner);  // bytes
  int (*launch_reduce)(const ReduceEntry& entry, const ReduceArgs& args, void* stream);
  int (*launch_optim)(Kernel kernel, const OptimArgs& args, void* stream);
  int (*launch_encode)(const CodeArgs& args, void* stream);
  int (*launch_decode)(const CodeArgs& args, void* stream);
  const MemoryApi* memory;
  const CopyApi* copy;
  const RowApi* row;
  const GatherApi* gather;
  const LossApi* loss;
  const MatmulApi* matmul;
  const ConvApi* conv;
  const PoolApi* pool;
  const AttentionApi* attention;
  const OptimApi* optim;
};

// The library's table; null without a driver or without the library.
const Table* table();
int device_count();

}  // namespace pb::cuda
