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
inline constexpr int kVersion = 3;

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

struct Operand {
  void* data = nullptr;
  Type type = Type::F32;
  int64_t strides[kMaxDims] = {};  // in elements; used when the call is not contiguous
};

// One launch over `shape`. A forward reads the op's inputs, a pull {g, inputs..., output}.
struct MapArgs {
  Operand out, in[kMaxIn];
  int ndim = 0;
  int64_t shape[kMaxDims] = {};
  int64_t n = 0;
  bool contiguous = false;  // every operand, and every pointer a multiple of 16 bytes
  float params[kMaxParams] = {};
  uint64_t seed = 0, offset = 0;  // of random ops: the uniform numbers of the CPU
};

// out[o, i] = reduction over the middle axis of x[outer, n, inner], both contiguous.
struct ReduceArgs {
  void* out;
  const void* x;
  float* partial;  // reduce_scratch() floats
  Type out_type, in_type;
  int64_t outer, n, inner;
};

// A piece of one parameter. States are float32; g may be of a narrower type. p is read from `from`, which is p itself
// unless the step starts elsewhere; `noise` holds normal numbers for the rules that take them.
struct OptimChunk {
  void* p;
  const void* from;
  const void* g;
  float* slots[6];
  const float* noise;
  int64_t n;
  Type p_type, g_type;
};
struct OptimArgs {
  const OptimChunk* chunks;  // in device memory
  int64_t count;
  float step[16];  // the rule's Step<float>
  float scale, decay;
};

// Codes of n contiguous elements (fewbit/codec.h): encode reads x and writes words, decode reads dy as x and words and
// writes out. `flips`, `level` in device memory, laid out as in CodeTable; `first` is the label of the first piece.
struct CodeArgs {
  const void* x;
  void* out;
  uint32_t* words;
  int64_t n;
  Type x_type, out_type;
  int bits, first;
  int at[9];
  const float* flips;
  const float* level;
};

using Kernel = const void*;
struct MapEntry {
  Kernel fwd, pull[3];  // null where the op has none
};
struct ReduceEntry {
  Kernel rows, merge, columns;
};
struct OptimEntry {
  Kernel update[3];  // by Decay
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
  const ReduceEntry* reduce;
  int rules;
  const OptimEntry* rule;
  int (*device_count)(int* count);
  const char* (*error_text)(int error);
  int (*synchronize)(void* stream);
  int (*launch_map)(Kernel kernel, const MapArgs& args, void* stream);
  int64_t (*reduce_scratch)(int64_t outer, int64_t n, int64_t inner);
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
