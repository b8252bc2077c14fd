// The one place that knows about threads. Kernels reach it through the C interface in isa_std.h.
#pragma once

namespace pb {

void set_num_threads(int n);
int get_num_threads();

// Note [The interpreter lock]
// Kernels touch no handle, so the lock is given up while a long one runs and other Python threads go on. Handing it
// over can cost a switch interval of 5 ms, so a short kernel keeps it: the first piece of a job tells how long the rest
// will take. Code that must not be interleaved with other threads (the sum into a leaf's gradient) keeps it as well.
struct LockHooks {
  void* (*release)();           // null when this thread does not hold the lock
  void (*acquire)(void* held);  // what release gave
  void (*poll)();               // throws when the user pressed Ctrl-C
};
void set_lock_hooks(const LockHooks& hooks);
void poll_interrupt();

class KeepLock {
 public:
  KeepLock();
  ~KeepLock();
};
// Around a kernel that deals out its work itself, with a guess of its time.
class LongKernel {
 public:
  explicit LongKernel(double nanoseconds);
  ~LongKernel();

 private:
  void* held_ = nullptr;
};

}  // namespace pb
