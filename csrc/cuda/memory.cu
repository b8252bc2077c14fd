// The functions of cuda/api_memory.h.
#include <cuda_runtime.h>

#include <cstring>

#include "cuda/api_memory.h"

namespace pb::cuda {

namespace {

cudaStream_t stream_at(void* s) { return static_cast<cudaStream_t>(s); }
cudaEvent_t event_at(void* e) { return static_cast<cudaEvent_t>(e); }

int allocate(void** p, size_t bytes) { return cudaMalloc(p, bytes); }
int release(void* p) { return cudaFree(p); }
int host_allocate(void** p, size_t bytes) { return cudaMallocHost(p, bytes); }
int host_release(void* p) { return cudaFreeHost(p); }
int copy(void* to, const void* from, size_t bytes, void* s) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_at(s));
}
int copy_peer(void* to, int to_device, const void* from, int from_device, size_t bytes, void* s) {
  return cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, stream_at(s));
}
int set(void* p, int byte, size_t bytes, void* s) { return cudaMemsetAsync(p, byte, bytes, stream_at(s)); }
int info(size_t* free, size_t* total) { return cudaMemGetInfo(free, total); }

int set_device(int device) { return cudaSetDevice(device); }
int device_name(int device, char* name, size_t bytes) {
  cudaDeviceProp p;
  cudaError_t e = cudaGetDeviceProperties(&p, device);
  if (e != cudaSuccess) return e;
  std::strncpy(name, p.name, bytes - 1);
  name[bytes - 1] = 0;
  return cudaSuccess;
}
int capability(int device, int* major, int* minor) {
  cudaError_t e = cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, device);
  return e != cudaSuccess ? e : cudaDeviceGetAttribute(minor, cudaDevAttrComputeCapabilityMinor, device);
}
int synchronize_device() { return cudaDeviceSynchronize(); }

int stream_create(void** s) {
  return cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(s), cudaStreamNonBlocking);
}
int stream_destroy(void* s) { return cudaStreamDestroy(stream_at(s)); }
int stream_query(void* s) { return cudaStreamQuery(stream_at(s)); }
int stream_wait(void* s, void* e) { return cudaStreamWaitEvent(stream_at(s), event_at(e), 0); }
int event_create(void** e, bool timing) {
  return cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t*>(e),
                                  timing ? cudaEventDefault : cudaEventDisableTiming);
}
int event_destroy(void* e) { return cudaEventDestroy(event_at(e)); }
int event_record(void* e, void* s) { return cudaEventRecord(event_at(e), stream_at(s)); }
int event_query(void* e) { return cudaEventQuery(event_at(e)); }
int event_synchronize(void* e) { return cudaEventSynchronize(event_at(e)); }
int event_elapsed(float* ms, void* from, void* to) { return cudaEventElapsedTime(ms, event_at(from), event_at(to)); }

// Relaxed: the allocator may ask the driver for a segment while it captures.
int capture_begin(void* s) { return cudaStreamBeginCapture(stream_at(s), cudaStreamCaptureModeRelaxed); }
int capture_end(void* s, void** graph) {
  *graph = nullptr;
  cudaGraph_t captured = nullptr;
  cudaError_t e = cudaStreamEndCapture(stream_at(s), &captured);
  if (e == cudaSuccess) e = cudaGraphInstantiate(reinterpret_cast<cudaGraphExec_t*>(graph), captured, 0);
  if (captured) cudaGraphDestroy(captured);
  return e;
}
int graph_launch(void* graph, void* s) { return cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_at(s)); }
int graph_destroy(void* graph) { return cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }
int clear_error() { return cudaGetLastError(); }

}  // namespace

const MemoryApi* memory_api() {
  static const MemoryApi api = {.allocate = &allocate,
                                .release = &release,
                                .host_allocate = &host_allocate,
                                .host_release = &host_release,
                                .copy = &copy,
                                .copy_peer = &copy_peer,
                                .set = &set,
                                .info = &info,
                                .set_device = &set_device,
                                .device_name = &device_name,
                                .capability = &capability,
                                .synchronize_device = &synchronize_device,
                                .stream_create = &stream_create,
                                .stream_destroy = &stream_destroy,
                                .stream_query = &stream_query,
                                .stream_wait = &stream_wait,
                                .event_create = &event_create,
                                .event_destroy = &event_destroy,
                                .event_record = &event_record,
                                .event_query = &event_query,
                                .event_synchronize = &event_synchronize,
                                .event_elapsed = &event_elapsed,
                                .capture_begin = &capture_begin,
                                .capture_end = &capture_end,
                                .graph_launch = &graph_launch,
                                .graph_destroy = &graph_destroy,
                                .clear_error = &clear_error};
  return &api;
}

}  // namespace pb::cuda
