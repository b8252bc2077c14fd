// The one symbol that leaves the library.
#include "cuda/device.h"

namespace pb::cuda {

// One function per unit, from the generated files; cuda_units.inc lists them.
#define PB_UNIT(name) MapUnit unit_##name();
#include "cuda_units.inc"
#undef PB_UNIT
const ReduceRow* reduce_rows(int& count);
const OptimEntry* optim_entries(int& count);
int64_t reduce_scratch(int64_t outer, int64_t n, int64_t inner);
int launch_reduce(const ReduceEntry& entry, const ReduceArgs& args, void* stream);
int launch_optim(Kernel kernel, const OptimArgs& args, void* stream);
int launch_encode(const CodeArgs& args, void* stream);
int launch_decode(const CodeArgs& args, void* stream);
const MemoryApi* memory_api();
const CopyApi* copy_api();
const OptimApi* optim_api();
const RowApi* row_api();
const LossApi* loss_api();
const GatherApi* gather_api();
const MatmulApi* matmul_api();
const ConvApi* conv_api();
const PoolApi* pool_api();
const AttentionApi* attention_api();

namespace {

int count_devices(int* count) { return cudaGetDeviceCount(count); }
const char* error_text(int error) { return cudaGetErrorString(cudaError_t(error)); }
int synchronize(void* stream) { return cudaStreamSynchronize(static_cast<cudaStream_t>(stream)); }

// Enough blocks to fill any device; a thread walks over the rest.
int launch_map(Kernel kernel, const MapArgs& args, void* stream) {
  if (args.n == 0) return cudaSuccess;
  int64_t per_block = args.contiguous ? int64_t(kThreads) * kVec : kThreads;
  int64_t blocks = (args.n + per_block - 1) / per_block;
  return launch(kernel, dim3(unsigned(blocks < 65535 ? blocks : 65535)), dim3(kThreads), stream, args);
}

Table make_table() {
#define PB_UNIT(name) unit_##name(),
  static const MapUnit units[] = {
#include "cuda_units.inc"
  };
#undef PB_UNIT
  Table t{};
  t.version = kVersion;
  t.map_units = int(sizeof units / sizeof units[0]);
  t.map = units;
  t.reduce = reduce_rows(t.reduces);
  t.rule = optim_entries(t.rules);
  t.device_count = &count_devices;
  t.error_text = &error_text;
  t.synchronize = &synchronize;
  t.launch_map = &launch_map;
  t.reduce_scratch = &reduce_scratch;
  t.launch_reduce = &launch_reduce;
  t.launch_optim = &launch_optim;
  t.launch_encode = &launch_encode;
  t.launch_decode = &launch_decode;
  t.memory = memory_api();
  t.copy = copy_api();
  t.optim = optim_api();
  t.row = row_api();
  t.loss = loss_api();
  t.gather = gather_api();
  t.matmul = matmul_api();
  t.conv = conv_api();
  t.pool = pool_api();
  t.attention = attention_api();
  return t;
}

}  // namespace

}  // namespace pb::cuda

extern "C" __attribute__((visibility("default"))) const pb::cuda::Table* pb_cuda_table();
const pb::cuda::Table* pb_cuda_table() {
  static const pb::cuda::Table table = pb::cuda::make_table();
  return &table;
}
