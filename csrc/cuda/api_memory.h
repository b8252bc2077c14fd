// Device memory, streams, events and captured graphs: thin names for functions of the CUDA runtime.
#pragma once
#include <cstddef>

#include "cuda/api.h"

namespace pb::cuda {

// Every int is a cudaError_t. `stream` is a cudaStream_t, null the default one; `event` a cudaEvent_t.
struct MemoryApi {
  int (*allocate)(void** p, size_t bytes);  // of the current device
  int (*release)(void* p);
  int (*host_allocate)(void** p, size_t bytes);  // pinned
  int (*host_release)(void* p);
  int (*copy)(void* to, const void* from, size_t bytes, void* stream);  // any direction, in the stream's order
  int (*copy_peer)(void* to, int to_device, const void* from, int from_device, size_t bytes, void* stream);
  int (*set)(void* p, int byte, size_t bytes, void* stream);
  int (*info)(size_t* free, size_t* total);

  int (*set_device)(int device);
  int (*device_name)(int device, char* name, size_t bytes);
  int (*capability)(int device, int* major, int* minor);
  int (*synchronize_device)();

  int (*stream_create)(void** stream);  // does not wait for the default stream
  int (*stream_destroy)(void* stream);
  int (*stream_query)(void* stream);  // kNotReady while work is left
  int (*stream_wait)(void* stream, void* event);
  int (*event_create)(void** event, bool timing);
  int (*event_destroy)(void* event);
  int (*event_record)(void* event, void* stream);
  int (*event_query)(void* event);
  int (*event_synchronize)(void* event);
  int (*event_elapsed)(float* milliseconds, void* from, void* to);

  int (*capture_begin)(void* stream);
  int (*capture_end)(void* stream, void** graph);  // an executable graph; null and an error if the capture broke
  int (*graph_launch)(void* graph, void* stream);
  int (*graph_destroy)(void* graph);

  int (*clear_error)();  // of the last failed call that is not sticky
};

// The cudaError_t that the engine tells apart.
inline constexpr int kOutOfMemory = 2, kNotReady = 600;

}  // namespace pb::cuda
