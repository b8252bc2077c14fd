#include "cuda/capture.h"

#include "cuda/allocator.h"
#include "cuda/api_memory.h"
#include "cuda/copy_call.h"
#include "cuda/engine.h"
#include "cuda/map_call.h"
#include "cuda/streams.h"
#include "tensor/profile.h"

namespace pb::cuda {

namespace {
Capture* running = nullptr;
const MemoryApi& api() { return *need_table("capture").memory; }
}  // namespace

Capture* capture() { return running; }

void refuse_in_capture(const char* op, const char* what) {
  if (running)
    fail<GraphError>(current_op ? current_op : op, std::string(what) + " inside pb.capture",
                     "do it outside the captured step, or return the tensor from it");
}

Capture::Capture(Device device) : device_(device), pool_(pool_create()), start_(default_generator().offset) {
  if (running) fail<GraphError>("capture", "another capture is running", "capture one step at a time");
  before_ = stream_of(device);
  shift_ = full_int({}, 0, DType::I64, device);
  check(need_table("capture").synchronize(before_), "capture");
  check(api().stream_create(&stream_), "capture");
  set_stream(device, stream_);
  pool_enter(pool_, device);
  int e = api().capture_begin(stream_);
  if (e) {
    leave();
    check(e, "capture");
  }
  running = this;
  set_random_shift(shift_.data<uint64_t>());
}

void Capture::leave() {
  running = nullptr;
  running_ = false;
  set_random_shift(nullptr);
  pool_leave(device_);
  set_stream(device_, before_);
}

void Capture::end() {
  int e = api().capture_end(stream_, &graph_);
  leave();
  drawn_ = default_generator().offset - start_;
  check(e, "capture");
}

void Capture::abort() {
  if (!running_) return;
  void* graph = nullptr;
  if (api().capture_end(stream_, &graph)) api().clear_error();
  if (graph) api().graph_destroy(graph);
  leave();
  default_generator().offset = start_;
}

Capture::~Capture() {
  if (forked()) return;
  try {
    abort();
  } catch (const Error&) {  // the device is gone
  }
  if (graph_) {
    need_table("capture").synchronize(stream_of(device_));
    api().graph_destroy(graph_);
  }
  replays_.clear();
  pool_drop(pool_);
}

void Capture::prepare() {
  Generator& g = default_generator();
  auto shift = uint64_t(g.offset - start_);
  check(api().copy(shift_.raw(), &shift, sizeof shift, stream_of(device_)), "capture");
  g.offset += drawn_;
}

void Capture::launch() { check(api().graph_launch(graph_, stream_of(device_)), "capture"); }

Tensor Capture::lasting(int64_t bytes) {
  pool_leave(device_);
  set_stream(device_, before_);
  Tensor t = scratch(bytes, device_);
  set_stream(device_, stream_);
  pool_enter(pool_, device_);
  return t;
}

void Capture::undo_step(optim::Driver& d, size_t i) {
  for (const OptimReplay::Item& item : replays_.at(i).items) d.state(item.param).t--;
}

}  // namespace pb::cuda
