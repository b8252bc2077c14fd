// What a profiler sees: one event per op and per step of a node, while `profiling` is on.
#pragma once
#include <cstdint>
#include <vector>

namespace pb {

struct ProfileEvent {
  const char* name;    // lives as long as the process
  int64_t start, end;  // nanoseconds of the steady clock
  int64_t bytes;       // asked of the allocator meanwhile
  uint64_t sequence;   // forward: of the newest node at the end; backward: of the node itself
  uint32_t thread;     // numbered by first use
  bool backward;
};

extern bool profiling;
extern const char* current_op;  // the innermost that runs, which allocations are ascribed to; null between ops
void set_profiling(bool on);    // starts with no events
std::vector<ProfileEvent> take_profile();
uint32_t thread_number();

// An op while it runs. Costs a branch when nobody profiles. Made and destroyed under the interpreter lock.
class Profiled {
 public:
  explicit Profiled(const char* name, uint64_t node = 0)
      : name_(profiling ? name : nullptr), outer_(current_op), node_(node) {
    current_op = name;
    if (name_) begin();
  }
  ~Profiled() {
    current_op = outer_;
    if (name_) end();
  }
  Profiled(const Profiled&) = delete;
  Profiled& operator=(const Profiled&) = delete;

 private:
  void begin();
  void end();
  const char *name_, *outer_;
  uint64_t node_;
  int64_t start_ = 0, bytes_ = 0;
};

}  // namespace pb
