// A training step as one CUDA graph.
//
// Note [Capture]
// While a capture runs, launches are recorded and nothing is executed: what is allocated comes from the capture's pool,
// values cannot be read, and data of the host cannot be copied in. The host's part of the step happens as always: step
// counts move on and generators advance. The first launch of the graph executes that very step; before each further one
// `prepare` repeats the host's part: the generator's counter (Note [Draws of a replay]) and the numbers of each
// optimizer's step, which the kernels read from device memory.
#pragma once
#include <memory>
#include <vector>

#include "cuda/optim_call.h"
#include "optim/driver.h"

namespace pb::cuda {

// An optimizer step inside a capture: what its next steps need of the host.
struct OptimReplay {
  struct Item {
    Tensor param;
    const optim::RuleRow* rule;
    size_t group;
    size_t step;  // its block
    optim::Decay mode;
  };
  std::shared_ptr<OptimTable> table;
  std::vector<Item> items;
  bool measured = false;
};

class Capture {
 public:
  explicit Capture(Device device);  // begins
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture();

  void end();    // makes the graph, or fails saying that something in the step cannot be captured
  void abort();  // after an error in the step: as if it had not begun
  void prepare();
  void launch();
  size_t steps() const { return replays_.size(); }
  OptimReplay& replay(size_t i) { return replays_.at(i); }
  void add(OptimReplay replay) { replays_.push_back(std::move(replay)); }
  // Memory from the common pool: what is written before a launch must not be memory that the graph itself reuses.
  Tensor lasting(int64_t bytes);
  void undo_step(optim::Driver& d, size_t i);
  Device device() const { return device_; }

 private:
  void leave();

  Device device_;
  int pool_;
  void *stream_ = nullptr, *before_ = nullptr, *graph_ = nullptr;
  bool running_ = true;
  Tensor shift_;  // uint64
  uint64_t start_, drawn_ = 0;
  std::vector<OptimReplay> replays_;
};

// The capture that runs in this process; null as a rule.
Capture* capture();
// GraphError where a capture runs: `op` does what a graph cannot hold.
void refuse_in_capture(const char* op, const char* what);

}  // namespace pb::cuda
