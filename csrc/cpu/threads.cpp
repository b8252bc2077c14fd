#include "cpu/threads.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "cpu/isa_std.h"
#include "tensor/alloc.h"
#include "tensor/error.h"

namespace pb {

namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Cores this process may use: affinity, then the quota of its control group, then OMP_NUM_THREADS.
int available_cpus() {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  if (std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    long long quota = 0, period = 0;
    if (std::fscanf(f, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
      int whole = int((quota + period - 1) / period);
      if (whole < n) n = whole;
    }
    std::fclose(f);
  }
  if (const char* wish = std::getenv("OMP_NUM_THREADS")) {
    int asked = std::atoi(wish);
    if (asked > 0) n = asked;
  }
  return n < 1 ? 1 : n;
}

std::atomic<int>& threads() {
  static std::atomic<int> n = available_cpus();
  return n;
}

[[gnu::tls_model("initial-exec")]] thread_local bool inside = false;  // a nested region runs on its own thread

// ---- the interpreter lock

LockHooks hooks{};
[[gnu::tls_model("initial-exec")]] thread_local int keep_lock = 0;

class Unlocked {
 public:
  void now() {
    if (!held_ && hooks.release && !keep_lock && !inside) held_ = hooks.release();
  }
  ~Unlocked() {
    if (held_) hooks.acquire(held_);
  }

 private:
  void* held_ = nullptr;
};

// Runs the first piece and gives up the lock when the other pieces will take long.
class Probe {
 public:
  void after_first(int64_t others, Unlocked& lock) const {
    auto took = std::chrono::steady_clock::now() - start_;
    if (took * others > std::chrono::microseconds(100)) lock.now();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Note [Claimed pieces]
// The range is cut into pieces and every thread, the caller first, claims the next one. The caller waits only for
// pieces that somebody has begun: a worker that sleeps or lost its core costs nothing, where a team with a barrier
// would wait for it. What a piece computes does not depend on who runs it, so the bits do not either.
//
// `state` holds the number of pieces (high half) and the next one to claim (low half). A new job is published by one
// store, after body, ctx and n were written; all pieces of the job before are then claimed and done, so a late claim
// either finds nothing or belongs to the new job.
class Pool {
 public:
  void run(int64_t n, int64_t pieces, int team, void (*body)(void*, int64_t, int64_t), void* ctx, Unlocked& lock) {
    grow(team - 1);
    body_ = body;
    ctx_ = ctx;
    n_ = n;
    failure_ = nullptr;
    limit_.store(team - 1, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    state_.store(uint64_t(pieces) << 32);
    if (sleepers_.load() > 0) {
      std::lock_guard<std::mutex> guard(lock_);
      wake_.notify_all();
    }
    Probe probe;
    if (claim()) probe.after_first((pieces + team - 1) / team, lock);
    while (claim()) {
    }
    for (int spins = 0; done_.load(std::memory_order_acquire) < pieces; spins++)
      spins < 4096 ? pause() : void(sched_yield());
    if (failure_) std::rethrow_exception(failure_);
  }

  std::mutex busy;  // held by the caller of the job in progress; who does not get it runs alone

 private:
  bool claim() {
    uint64_t s = state_.fetch_add(1);
    auto pieces = int64_t(s >> 32), i = int64_t(uint32_t(s));
    if (i >= pieces) return false;
    inside = true;
    try {
      int64_t begin = n_ * i / pieces, end = n_ * (i + 1) / pieces;
      if (begin < end) body_(ctx_, begin, end);
    } catch (...) {
      std::lock_guard<std::mutex> guard(lock_);
      if (!failure_) failure_ = std::current_exception();
    }
    inside = false;
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }

  bool waiting_work() const {
    uint64_t s = state_.load();
    return uint32_t(s) < uint32_t(s >> 32);
  }

  void work(int index) {
    for (;;) {
      bool mine = false;
      for (int spins = 0; spins < kSpins && !mine; spins++) {
        mine = waiting_work() && index < limit_.load(std::memory_order_relaxed);
        if (!mine) pause();
      }
      if (!mine) {
        std::unique_lock<std::mutex> guard(lock_);
        sleepers_.fetch_add(1);
        wake_.wait(guard, [&] { return waiting_work() && index < limit_.load(std::memory_order_relaxed); });
        sleepers_.fetch_sub(1);
      }
      while (claim()) {
      }
    }
  }

  void grow(int workers) {
    for (; workers_ < workers; workers_++) std::thread(&Pool::work, this, workers_).detach();
  }

  static constexpr int kSpins = 2000;  // some 50 microseconds: the pause between two kernels of a training step
  std::atomic<uint64_t> state_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<int> limit_{0}, sleepers_{0};
  void (*body_)(void*, int64_t, int64_t) = nullptr;
  void* ctx_ = nullptr;
  int64_t n_ = 0;
  int workers_ = 0;
  std::exception_ptr failure_;
  std::mutex lock_;
  std::condition_variable wake_;
};

// Never destroyed: its threads live to the end of the process. A forked child has none of them and starts anew.
Pool* pool = nullptr;
Pool& the_pool() {
  static const bool once = [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] {
      pool = new Pool;
      inside = false;
    });
    return true;
  }();
  (void)once;
  return *pool;
}

struct Scratch {
  void* data[8] = {};
  size_t bytes[8] = {};
  ~Scratch() {
    for (int i = 0; i < 8; i++)
      if (data[i]) alloc::put(data[i], bytes[i]);
  }
};
thread_local Scratch scratch;

}  // namespace

void set_num_threads(int n) {
  if (n < 1)
    fail<ValueError>("set_num_threads", "the number of threads must be at least 1, got " + std::to_string(n),
                     "pb.get_num_threads() shows the current one");
  threads() = n;
}
int get_num_threads() { return threads(); }

void set_lock_hooks(const LockHooks& h) { hooks = h; }
void poll_interrupt() {
  if (hooks.poll) hooks.poll();
}
KeepLock::KeepLock() { keep_lock++; }
KeepLock::~KeepLock() { keep_lock--; }
LongKernel::LongKernel(double nanoseconds) {
  if (nanoseconds > 1e5 && hooks.release && !keep_lock && !inside) held_ = hooks.release();
}
LongKernel::~LongKernel() {
  if (held_) hooks.acquire(held_);
}

}  // namespace pb

extern "C" {

int pb_num_threads() { return pb::inside ? 1 : pb::threads().load(std::memory_order_relaxed); }

void pb_parallel_for(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* ctx) {
  if (n <= 0) return;
  int64_t pieces = grain > 0 ? (n + grain - 1) / grain : n;
  int team = pb_num_threads();
  if (pieces < team) team = int(pieces);
  pb::Unlocked lock;  // taken again after the pool is free for others
  if (team > 1) {
    pb::Pool& pool = pb::the_pool();
    if (pool.busy.try_lock()) {
      std::lock_guard<std::mutex> guard(pool.busy, std::adopt_lock);
      pool.run(n, pieces < 4 * team ? pieces : 4 * team, team, body, ctx, lock);
      return;
    }
  }
  int64_t first = 0;
  if (pieces > 1 && !pb::inside) {
    pb::Probe probe;
    first = n / pieces;
    body(ctx, 0, first);
    probe.after_first(pieces - 1, lock);
  }
  body(ctx, first, n);
}

void* pb_scratch(int slot, size_t bytes) {
  pb::Scratch& s = pb::scratch;
  if (s.bytes[slot] < bytes || !s.data[slot]) {
    if (s.data[slot]) pb::alloc::put(s.data[slot], s.bytes[slot]);
    s.data[slot] = nullptr;
    s.data[slot] = pb::alloc::get(bytes);
    s.bytes[slot] = bytes;
  }
  return s.data[slot];
}
}
