// Memory, copies, streams, events and captured graphs.
#include <cstring>

#include "arena.h"
#include "runtime.h"

using namespace emulator;

namespace {

// Bytes from one place to another, each of which may be device memory.
cudaError_t transfer(void* to, const void* from, size_t bytes) {
  int a = device_of(to), b = device_of(from);
  if ((a >= 0 && !device_holds(to, bytes)) || (b >= 0 && !device_holds(from, bytes)))
    return give(cudaErrorInvalidValue);
  Opened first(a), second(b);
  std::memmove(to, from, bytes);
  return cudaSuccess;
}

bool fits(cudaMemcpyKind kind, const void* to, const void* from) {
  bool to_device = device_of(to) >= 0, from_device = device_of(from) >= 0;
  return kind == cudaMemcpyDefault || (kind == cudaMemcpyHostToDevice && to_device && !from_device) ||
         (kind == cudaMemcpyDeviceToHost && !to_device && from_device) ||
         (kind == cudaMemcpyDeviceToDevice && to_device && from_device) ||
         (kind == cudaMemcpyHostToHost && !to_device && !from_device);
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, EmulatedStream* s) {
  if (!s) return give(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  if (!fits(kind, to, from)) return give(cudaErrorInvalidMemcpyDirection);
  if ((device_of(to) >= 0 && !device_holds(to, bytes)) || (device_of(from) >= 0 && !device_holds(from, bytes)))
    return give(cudaErrorInvalidValue);
  Work work;
  bool from_pageable = device_of(from) < 0 && !is_pinned(from);
  if (from_pageable && !captures(*s)) {  // staged before the call returns
    auto staged =
        std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    work.run = [to, staged] { return transfer(to, staged->data(), staged->size()); };
  } else {
    work.run = [to, from, bytes] { return transfer(to, from, bytes); };
  }
  cudaError_t e = submit(*s, std::move(work));
  bool to_pageable = device_of(to) < 0 && !is_pinned(to);
  if (e == cudaSuccess && to_pageable && !captures(*s)) drain(*s);
  return e == cudaSuccess ? runtime().sticky : e;
}

cudaError_t fill(void* p, int byte, size_t bytes, EmulatedStream* s) {
  if (!s) return give(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  if (!device_holds(p, bytes)) return give(cudaErrorInvalidValue);
  Work work;
  work.run = [p, byte, bytes] {
    if (!device_holds(p, bytes)) return give(cudaErrorInvalidValue);
    Opened opened(device_of(p));
    std::memset(p, byte, bytes);
    return cudaSuccess;
  };
  return submit(*s, std::move(work));
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** p, size_t bytes) {
  Enter enter("cudaMalloc");
  if (enter.error) return enter.error;
  if (cudaError_t e = spoil_any(cudaErrorStreamCaptureUnsupported)) return e;
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  *p = device_allocate(current_device(), bytes);
  return *p ? cudaSuccess : give(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* p) {
  Enter enter("cudaFree");
  if (enter.error) return enter.error;
  if (!p) return cudaSuccess;
  if (cudaError_t e = spoil_any(cudaErrorStreamCaptureUnsupported)) return e;
  int device = device_of(p);
  if (device < 0) return give(cudaErrorInvalidValue);
  drain_device(device);  // it waits for all work, as CUDA's does
  return device_release(p) ? cudaSuccess : give(cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  Enter enter("cudaHostAlloc");
  if (enter.error) return enter.error;
  *p = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*p) return give(cudaErrorMemoryAllocation);
  std::memset(*p, 0xff, bytes);
  runtime().pinned.emplace_back(static_cast<char*>(*p), bytes);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaHostAlloc(p, bytes, cudaHostAllocDefault); }
cudaError_t cudaFreeHost(void* p) {
  Enter enter("cudaFreeHost");
  if (enter.error) return enter.error;
  if (!p) return cudaSuccess;
  auto& pinned = runtime().pinned;
  for (size_t i = 0; i < pinned.size(); i++) {
    if (pinned[i].first != p) continue;
    for (int d = 0; d < runtime().devices; d++) drain_device(d);
    std::free(p);
    pinned.erase(pinned.begin() + long(i));
    return cudaSuccess;
  }
  return give(cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Enter enter("cudaMemGetInfo");
  if (enter.error) return enter.error;
  *free = device_free_bytes(current_device());
  *total = device_total_bytes();
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Enter enter("cudaMemcpyAsync");
  if (enter.error) return enter.error;
  return copy(to, from, bytes, kind, real(stream));
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  Enter enter("cudaMemcpy");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(nullptr);
  cudaError_t e = copy(to, from, bytes, kind, s);
  drain(*s);
  return e == cudaSuccess ? runtime().sticky : e;
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  Enter enter("cudaMemcpyPeerAsync");
  if (enter.error) return enter.error;
  if (device_of(to) != to_device || device_of(from) != from_device) return give(cudaErrorInvalidValue);
  return copy(to, from, bytes, cudaMemcpyDeviceToDevice, real(stream));
}
cudaError_t cudaMemsetAsync(void* p, int byte, size_t bytes, cudaStream_t stream) {
  Enter enter("cudaMemsetAsync");
  if (enter.error) return enter.error;
  return fill(p, byte, bytes, real(stream));
}
cudaError_t cudaMemset(void* p, int byte, size_t bytes) {
  Enter enter("cudaMemset");
  if (enter.error) return enter.error;
  return fill(p, byte, bytes, real(nullptr));
}

// ---- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  Enter enter("cudaStreamCreate");
  if (enter.error) return enter.error;
  *stream = new EmulatedStream;
  (*stream)->device = current_device();
  (*stream)->blocking = !(flags & cudaStreamNonBlocking);
  runtime().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Enter enter("cudaStreamDestroy");
  Runtime& r = runtime();
  if (!r.streams.count(stream)) return give(cudaErrorInvalidResourceHandle);
  drain(*stream);
  r.streams.erase(stream);
  for (EmulatedEvent* e : r.events)
    if (e->mark && e->mark->stream == stream) e->mark->stream = nullptr;
  delete stream;
  return enter.error;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Enter enter("cudaStreamQuery");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s) return give(cudaErrorInvalidResourceHandle);
  if (captures(*s)) return spoil(*s, cudaErrorStreamCaptureUnsupported);
  if (s->queue.empty()) return cudaSuccess;
  step(*s);  // time passes: one piece of work for each question
  return cudaErrorNotReady;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Enter enter("cudaStreamSynchronize");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s) return give(cudaErrorInvalidResourceHandle);
  if (captures(*s)) return spoil(*s, cudaErrorStreamCaptureUnsupported);
  drain(*s);
  return runtime().sticky;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*f)(void*), void* data) {
  Enter enter("cudaLaunchHostFunc");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s) return give(cudaErrorInvalidResourceHandle);
  Work work;
  work.run = [f, data] {
    f(data);
    return cudaSuccess;
  };
  return submit(*s, std::move(work));
}

// ---- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  Enter enter("cudaEventCreate");
  if (enter.error) return enter.error;
  *event = new EmulatedEvent;
  (*event)->device = current_device();
  (*event)->timing = !(flags & cudaEventDisableTiming);
  runtime().events.insert(*event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Enter enter("cudaEventDestroy");
  if (!runtime().events.erase(event)) return give(cudaErrorInvalidResourceHandle);
  delete event;
  return enter.error;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Enter enter("cudaEventRecord");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s || !runtime().events.count(event)) return give(cudaErrorInvalidResourceHandle);
  if (event->device != s->device) return give(cudaErrorInvalidResourceHandle);
  event->mark = std::make_shared<Mark>();
  event->mark->stream = s;
  if (captures(*s)) {  // a place in the graph, nothing that is ever reached
    event->mark->capture = s->capture;
    return s->capture->spoilt ? give(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
  }
  Work work;
  work.reaches = event->mark;
  return submit(*s, std::move(work));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Enter enter("cudaStreamWaitEvent");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s || !runtime().events.count(event)) return give(cudaErrorInvalidResourceHandle);
  if (!event->mark) return cudaSuccess;
  if (auto capture = event->mark->capture) {
    if (s->capture && s->capture != capture) return spoil(*s, cudaErrorStreamCaptureMerge);
    if (!s->capture) {  // the stream takes part in the capture from here on
      s->capture = capture;
      capture->streams.push_back(s);
    }
    if (s == capture->streams[0] && event->mark->stream) event->mark->stream->joined = true;
    return cudaSuccess;
  }
  if (captures(*s)) return spoil(*s, cudaErrorStreamCaptureUnsupported);
  Work work;
  work.waits = event->mark;
  return submit(*s, std::move(work));
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  Enter enter("cudaEventQuery");
  if (enter.error) return enter.error;
  if (!runtime().events.count(event)) return give(cudaErrorInvalidResourceHandle);
  if (!event->mark || event->mark->reached) return cudaSuccess;
  if (event->mark->capture) {
    event->mark->capture->spoilt = true;
    return give(cudaErrorStreamCaptureUnsupported);
  }
  if (event->mark->stream) step(*event->mark->stream);
  return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Enter enter("cudaEventSynchronize");
  if (enter.error) return enter.error;
  if (!runtime().events.count(event)) return give(cudaErrorInvalidResourceHandle);
  if (!event->mark) return cudaSuccess;
  if (event->mark->capture) {
    event->mark->capture->spoilt = true;
    return give(cudaErrorStreamCaptureUnsupported);
  }
  if (event->mark->stream) drain(*event->mark->stream, event->mark.get());
  return runtime().sticky;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  Enter enter("cudaEventElapsedTime");
  if (enter.error) return enter.error;
  auto& events = runtime().events;
  if (!events.count(from) || !events.count(to) || !from->mark || !to->mark || !from->timing || !to->timing)
    return give(cudaErrorInvalidResourceHandle);
  if (!from->mark->reached || !to->mark->reached) return cudaErrorNotReady;
  *milliseconds = float(to->mark->time - from->mark->time);
  return cudaSuccess;
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Enter enter("cudaStreamBeginCapture");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s) return give(cudaErrorInvalidResourceHandle);
  if (!stream || captures(*s)) return give(cudaErrorStreamCaptureUnsupported);
  s->capture = std::make_shared<Capture>();
  s->capture->mode = mode;
  s->capture->streams.push_back(s);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Enter enter("cudaStreamEndCapture");
  if (enter.error) return enter.error;
  *graph = nullptr;
  EmulatedStream* s = real(stream);
  if (!s || !captures(*s)) return give(cudaErrorStreamCaptureUnmatched);
  auto capture = s->capture;
  if (capture->streams[0] != s) return spoil(*s, cudaErrorStreamCaptureUnmatched);
  bool joined = true;
  for (EmulatedStream* part : capture->streams) {
    joined = joined && part->joined;
    part->capture = nullptr;
    part->joined = true;
  }
  if (capture->spoilt) return give(cudaErrorStreamCaptureInvalidated);
  if (!joined) return give(cudaErrorStreamCaptureUnjoined);
  *graph = new EmulatedGraph{std::move(capture->work)};
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Enter enter("cudaStreamIsCapturing");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s) return give(cudaErrorInvalidResourceHandle);
  *status = !captures(*s)        ? cudaStreamCaptureStatusNone
            : s->capture->spoilt ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  thread_local cudaStreamCaptureMode mine = cudaStreamCaptureModeGlobal;
  std::swap(mine, *mode);
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = graph->work.size();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  Enter enter("cudaGraphInstantiate");
  if (enter.error) return enter.error;
  *exec = new EmulatedGraphExec{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  Enter enter("cudaGraphLaunch");
  if (enter.error) return enter.error;
  EmulatedStream* s = real(stream);
  if (!s) return give(cudaErrorInvalidResourceHandle);
  if (captures(*s)) return spoil(*s, cudaErrorStreamCaptureUnsupported);
  for (const Work& w : exec->work)
    if (cudaError_t e = submit(*s, w)) return e;
  return runtime().sticky;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  Enter enter("cudaGraphExecDestroy");
  delete exec;
  return enter.error;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  Enter enter("cudaGraphDestroy");
  delete graph;
  return enter.error;
}

}  // extern "C"
