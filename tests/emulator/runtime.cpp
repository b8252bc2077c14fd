// Devices, errors, kernels and the order of work in streams.
#include "runtime.h"

#include <dlfcn.h>
#include <execinfo.h>

#include <csignal>
#include <cstdio>

#include "arena.h"

namespace emulator {

namespace {

struct sigaction before_segv, before_bus, before_ill, before_fpe;
thread_local char handler_stack[1 << 16];

void hand_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction& old = signal == SIGSEGV  ? before_segv
                                : signal == SIGBUS ? before_bus
                                : signal == SIGILL ? before_ill
                                                   : before_fpe;
  if (old.sa_flags & SA_SIGINFO && old.sa_sigaction)
    old.sa_sigaction(signal, info, context);
  else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN)
    old.sa_handler(signal);
  else
    ::signal(signal, SIG_DFL);  // the instruction is done again and ends the process
}

// A fault of a kernel becomes an error of its launch. The host's touch of device memory is named, then ends the
// process.
void on_fault(int signal, siginfo_t* info, void* context) {
  void* address = info->si_addr;
  if (inside() && signal == SIGSEGV && open_at(address)) return;  // Note [Opening on a fault]
  if (inside()) {
    Failure f{signal == SIGILL ? cudaErrorMisalignedAddress : cudaErrorIllegalAddress, ""};
    char text[64];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(address)));
    f.text = signal == SIGILL   ? "misaligned address or another trap"
             : signal == SIGFPE ? "an integer division by zero"
                                : std::string("illegal address ") + text;
    if (signal == SIGSEGV || signal == SIGBUS) {
      std::string where = describe(address);
      f.text += where.empty() ? " (no device memory)" : " (" + where + ")";
    }
    f.text += ": " + whereabouts();
    if (broken(context, std::move(f))) return;
  } else if (signal == SIGSEGV && device_of(address) >= 0) {
    std::fprintf(stderr, "emulator: the host touched device memory: %s\n", describe(address).c_str());
    std::fflush(stderr);
    void* frames[24];
    backtrace_symbols_fd(frames, backtrace(frames, 24), 2);
  }
  hand_on(signal, info, context);
}

void catch_faults() {
#if !defined(__SANITIZE_ADDRESS__)
  void* frame;
  backtrace(&frame, 1);  // loads what it needs before a handler calls it
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  sigaction(SIGSEGV, &action, &before_segv);
  sigaction(SIGBUS, &action, &before_bus);
  sigaction(SIGILL, &action, &before_ill);
  sigaction(SIGFPE, &action, &before_fpe);
#endif
}

// A kernel's stack that overflowed cannot hold the handler.
void own_handler_stack() {
  thread_local bool done = false;
  if (done) return;
  done = true;
  stack_t old, mine{};
  if (sigaltstack(nullptr, &old) == 0 && !(old.ss_flags & SS_DISABLE)) return;
  mine.ss_sp = handler_stack;
  mine.ss_size = sizeof handler_stack;
  sigaltstack(&mine, nullptr);
}

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::atoi(text) : otherwise;
}

}  // namespace

Runtime::Runtime() {
  devices = std::min(kMostDevices, std::max(0, number("PULLBACK_EMULATE_DEVICES", 1)));
  lazy = number("PULLBACK_EMULATE_LAZY", 0) != 0;
  int order = number("PULLBACK_EMULATE_ORDER", 0);
  schedule() = {order == 1 ? Order::Descending : order >= 2 ? Order::Shuffled : Order::Ascending, uint64_t(order)};
  for (int i = 0; i < kMostDevices; i++) {
    defaults.push_back(std::make_unique<EmulatedStream>());
    defaults.back()->device = i;
  }
  catch_faults();
}

Runtime& runtime() {
  static Runtime* r = new Runtime;  // streams may be destroyed by anything that ends with the process
  return *r;
}
int& current_device() {
  thread_local int device = 0;
  return device;
}

Enter::Enter(const char* name) : hold_(runtime().lock) {
  Runtime& r = runtime();
  error = r.sticky;
  if (error == cudaSuccess && r.fail_after > 0 && r.fail_name == name && --r.fail_after == 0) {
    error = r.fail_with;
    give(error);
  }
}

cudaError_t give(cudaError_t e) {
  if (e != cudaSuccess && e != cudaErrorNotReady) runtime().last = e;
  return e;
}

cudaError_t lose(const Failure& failure) {
  Runtime& r = runtime();
  if (failure.error == cudaErrorInvalidConfiguration) return give(failure.error);
  r.text = failure.text;
  r.sticky = failure.error;
  return give(failure.error);
}

EmulatedStream* real(cudaStream_t stream) {
  Runtime& r = runtime();
  if (!stream) return r.defaults[size_t(current_device())].get();
  return r.streams.count(stream) ? stream : nullptr;
}

bool is_pinned(const void* p) {
  for (const auto& [start, bytes] : runtime().pinned)
    if (p >= start && p < start + bytes) return true;
  return false;
}

// ---- the order of work

bool captures(const EmulatedStream& s) { return s.capture != nullptr; }

cudaError_t spoil(EmulatedStream& s, cudaError_t e) {
  if (s.capture) s.capture->spoilt = true;
  return give(e);
}
cudaError_t spoil_any(cudaError_t e) {
  bool any = false;
  for (EmulatedStream* s : runtime().streams)
    if (s->capture && s->capture->mode != cudaStreamCaptureModeRelaxed) any = s->capture->spoilt = true;
  return any ? give(e) : cudaSuccess;
}

namespace {
void perform(Work& w) {
  Runtime& r = runtime();
  if (w.waits && !w.waits->reached && w.waits->stream) drain(*w.waits->stream, w.waits.get());
  if (w.run && r.sticky == cudaSuccess) w.run();
  if (w.reaches) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    w.reaches->time = double(now.tv_sec) * 1e3 + double(now.tv_nsec) * 1e-6;
    w.reaches->reached = true;
  }
}
}  // namespace

void step(EmulatedStream& s) {
  if (s.queue.empty()) return;
  Work w = std::move(s.queue.front());
  s.queue.pop_front();
  perform(w);
}
void drain(EmulatedStream& s, const Mark* until) {
  while (!s.queue.empty() && !(until && until->reached)) step(s);
}

void drain_device(int device) {
  Runtime& r = runtime();
  drain(*r.defaults[size_t(device)]);
  for (EmulatedStream* s : r.streams)
    if (s->device == device) drain(*s);
}

cudaError_t submit(EmulatedStream& s, Work work) {
  Runtime& r = runtime();
  if (s.capture) {
    if (s.capture->spoilt) return give(cudaErrorStreamCaptureInvalidated);
    s.capture->work.push_back(std::move(work));
    if (&s != s.capture->streams[0]) s.joined = false;
    return cudaSuccess;
  }
  bool is_default = &s == r.defaults[size_t(s.device)].get();
  if (is_default) {
    for (EmulatedStream* other : r.streams) {
      if (other->device != s.device || !other->blocking) continue;
      if (other->capture) return spoil(*other, cudaErrorStreamCaptureImplicit);
      drain(*other);
    }
  } else if (s.blocking) {
    drain(*r.defaults[size_t(s.device)]);
  }
  if (r.lazy) {
    s.queue.push_back(std::move(work));
    return cudaSuccess;
  }
  perform(work);
  return r.sticky;
}

namespace {

// PULLBACK_EMULATE_KERNELS: a file that gets a line for each kernel at its first launch, its place in this library.
void note_kernel(const void* kernel) {
  static const char* path = std::getenv("PULLBACK_EMULATE_KERNELS");
  static auto* seen = new std::set<const void*>;
  if (!path || !*path || !seen->insert(kernel).second) return;
  Dl_info info;
  FILE* file = dladdr(kernel, &info) ? std::fopen(path, "a") : nullptr;
  if (!file) return;
  std::fprintf(file, "%lx\n",
               static_cast<unsigned long>(static_cast<const char*>(kernel) - static_cast<const char*>(info.dli_fbase)));
  std::fclose(file);
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> call) {
  Enter enter("cudaLaunchKernel");
  if (enter.error) return enter.error;
  Runtime& r = runtime();
  EmulatedStream* s = real(config.stream);
  if (!s) return give(cudaErrorInvalidResourceHandle);
  if (!kernel) return give(cudaErrorInvalidDeviceFunction);
  size_t most = 48 << 10;
  for (const auto& [k, limit] : r.dynamic_limits)
    if (k == kernel) most = std::max(most, size_t(limit));
  if (config.dynamicSmemBytes > most) return give(cudaErrorInvalidValue);
  dim3 g = config.gridDim, b = config.blockDim;
  if (uint64_t(g.x) * g.y * g.z == 0 || uint64_t(b.x) * b.y * b.z == 0) return give(cudaErrorInvalidConfiguration);
  r.launches++;
  note_kernel(kernel);
  Work work;
  work.run = [g, b, shared = config.dynamicSmemBytes, device = s->device, call = std::move(call)] {
    own_handler_stack();
    Failure f;
    {
      Opened opened(device);
      f = run_grid(g, b, shared, call);
      if (f.error == cudaSuccess) {
        std::string past = check_ends(device);
        if (!past.empty()) f = {cudaErrorIllegalAddress, past};
      }
    }
    return f.error == cudaSuccess ? cudaSuccess : lose(f);
  };
  return submit(*s, std::move(work));
}

}  // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = runtime().devices;
  return *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= runtime().devices) return give(cudaErrorInvalidDevice);
  current_device() = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= runtime().devices) return give(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = 48 << 10;
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 1 << 20;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 227 << 10;
      break;
    default:
      return give(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device) {
  if (device < 0 || device >= runtime().devices) return give(cudaErrorInvalidDevice);
  *prop = {};
  std::snprintf(prop->name, sizeof prop->name, "emulated");
  prop->totalGlobalMem = device_total_bytes();
  prop->sharedMemPerBlock = 48 << 10, prop->sharedMemPerBlockOptin = 227 << 10;
  prop->multiProcessorCount = 4, prop->major = 8, prop->minor = 0;
  prop->warpSize = 32, prop->maxThreadsPerBlock = 1024, prop->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  Enter enter("cudaDeviceSynchronize");
  if (enter.error) return enter.error;
  if (cudaError_t e = spoil_any(cudaErrorStreamCaptureUnsupported)) return e;
  drain_device(current_device());
  return runtime().sticky;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return give(cudaErrorNotSupported); }
// Unlike CUDA's it leaves streams and events as they are.
cudaError_t cudaDeviceReset() {
  std::lock_guard<std::recursive_mutex> hold(runtime().lock);
  Runtime& r = runtime();
  for (EmulatedStream* s : r.streams) s->queue.clear(), s->capture = nullptr;
  for (auto& s : r.defaults) s->queue.clear();
  r.sticky = r.last = cudaSuccess;
  r.text.clear();
  r.fail_after = 0;
  device_release_all();
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

struct ErrorName {
  cudaError_t error;
  const char *name, *text;
};
static const ErrorName kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would have resulted in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "capture was not ended in the same stream"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
};
const char* cudaGetErrorName(cudaError_t error) {
  for (const ErrorName& e : kErrors)
    if (e.error == error) return e.name;
  return "cudaErrorUnknown";
}
const char* cudaGetErrorString(cudaError_t error) {
  Runtime& r = runtime();
  std::lock_guard<std::recursive_mutex> hold(r.lock);
  if (error != cudaSuccess && error == r.sticky && !r.text.empty()) return r.text.c_str();
  for (const ErrorName& e : kErrors)
    if (e.error == error) return e.text;
  return "unknown error";
}
cudaError_t cudaGetLastError() {
  Runtime& r = runtime();
  std::lock_guard<std::recursive_mutex> hold(r.lock);
  cudaError_t e = r.sticky != cudaSuccess ? r.sticky : r.last;
  r.last = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() { return runtime().sticky != cudaSuccess ? runtime().sticky : runtime().last; }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  Enter enter("cudaFuncSetAttribute");
  if (enter.error) return enter.error;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value > 227 << 10) return give(cudaErrorInvalidValue);
  runtime().dynamic_limits.emplace_back(kernel, value);
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  return cudaSuccess;
}

}  // extern "C"
