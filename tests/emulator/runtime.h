// The state behind the runtime's functions. One lock guards it; kernels run under it.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "scheduler.h"

namespace emulator {

// What a stream does: a kernel, a copy, a fill. `waits` is an event's mark that must be reached before.
struct Mark;
struct Work {
  std::function<cudaError_t()> run;
  std::shared_ptr<Mark> waits, reaches;
};
struct Capture {
  cudaStreamCaptureMode mode;
  std::vector<Work> work;
  std::vector<cudaStream_t> streams;  // the first began it
  bool spoilt = false;
};

}  // namespace emulator

struct EmulatedStream {
  int device = 0;
  bool blocking = true;  // waits for the default stream, and that for it
  std::deque<emulator::Work> queue;
  std::shared_ptr<emulator::Capture> capture;
  bool joined = true;  // what a stream of a capture did is known to the first one
};
// A point in a stream's work.
struct emulator::Mark {
  EmulatedStream* stream = nullptr;
  bool reached = false;
  double time = 0;
  std::shared_ptr<emulator::Capture> capture;
};
struct EmulatedEvent {
  int device = 0;
  bool timing = true;
  std::shared_ptr<emulator::Mark> mark;
};
struct EmulatedGraph {
  std::vector<emulator::Work> work;
};
struct EmulatedGraphExec {
  std::vector<emulator::Work> work;
};

namespace emulator {

struct Runtime {
  std::recursive_mutex lock;
  cudaError_t sticky = cudaSuccess, last = cudaSuccess;
  std::string text;   // of the failure of a kernel
  bool lazy = false;  // work waits in the streams until somebody has to wait for it
  int devices = 1;
  std::set<EmulatedStream*> streams;
  std::set<EmulatedEvent*> events;
  std::vector<std::unique_ptr<EmulatedStream>> defaults;
  // An error to be returned by the `fail_after`-th call, from now, of the function of this name.
  std::string fail_name;
  long fail_after = 0;
  cudaError_t fail_with = cudaSuccess;
  long launches = 0;
  std::vector<std::pair<const void*, int>> dynamic_limits;  // of kernels
  std::vector<std::pair<char*, size_t>> pinned;

  Runtime();
};
Runtime& runtime();
int& current_device();

// Every function begins so: the lock, the error of a device that is lost, an error asked for.
class Enter {
 public:
  explicit Enter(const char* name);
  cudaError_t error = cudaSuccess;

 private:
  std::lock_guard<std::recursive_mutex> hold_;
};
cudaError_t give(cudaError_t e);            // keeps it for cudaGetLastError
cudaError_t lose(const Failure& failure);   // a kernel failed: nothing works any more
EmulatedStream* real(cudaStream_t stream);  // the default stream for null; null for a stream that is gone
bool captures(const EmulatedStream& s);
cudaError_t spoil(EmulatedStream& s, cudaError_t e);
cudaError_t spoil_any(cudaError_t e);  // a call that no capture of this process allows
cudaError_t submit(EmulatedStream& s, Work work);
void step(EmulatedStream& s);  // the next piece of work
void drain(EmulatedStream& s, const Mark* until = nullptr);
void drain_device(int device);
bool is_pinned(const void* p);

}  // namespace emulator
