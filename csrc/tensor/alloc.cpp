#include "tensor/alloc.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "tensor/error.h"

namespace pb::alloc {

namespace {

// Size classes: 64-byte steps to 1 KiB, then four classes per doubling, so at most 1/5 of a block is unused.
// Each class is a singly linked stack threaded through the free blocks themselves.
constexpr int kSmall = 16;
constexpr int kClasses = kSmall + 4 * 54;

struct Free {
  Free* next;
};

// Held for a few instructions, so a waiter spins, and gives its core away when the holder lost its own.
class Lock {
 public:
  void lock() {
    for (int spins = 0; flag_.test_and_set(std::memory_order_acquire); spins++)
      if (spins > 64) std::this_thread::yield();
  }
  void unlock() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag flag_ = ATOMIC_FLAG_INIT;
};

struct Cache {
  Lock lock;  // kernels may free on other threads while the interpreter lock is released
  Free* head[kClasses] = {};
  Stats stats;
};
Cache& cache() {
  static Cache* c = new Cache;  // never destroyed: tensors may outlive static destructors
  return *c;
}

int class_of(size_t bytes) {
  if (bytes <= 1024) return bytes ? int((bytes - 1) / 64) : 0;
  int log = 63 - __builtin_clzll(bytes - 1);  // 2^log < bytes <= 2^(log+1)
  int quarter = int(((bytes - 1) >> (log - 2)) & 3);
  return kSmall + (log - 10) * 4 + quarter;
}

size_t class_bytes(int c) {
  if (c < kSmall) return size_t(c + 1) * 64;
  int log = (c - kSmall) / 4 + 10, quarter = (c - kSmall) % 4;
  return (size_t(1) << log) + (size_t(quarter + 1) << (log - 2));
}

void* from_system(size_t bytes) {
  constexpr size_t huge = size_t(2) << 20;
  size_t align = bytes >= huge ? huge : 64;
  void* p = std::aligned_alloc(align, (bytes + align - 1) / align * align);
  if (p && bytes >= huge) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

void drop_cached(Cache& c) {
  for (int k = 0; k < kClasses; k++)
    while (Free* f = c.head[k]) {
      c.head[k] = f->next;
      c.stats.reserved -= int64_t(class_bytes(k));
      std::free(f);
    }
}

}  // namespace

void* get(size_t bytes) {
  Cache& c = cache();
  std::lock_guard<Lock> guard(c.lock);
  int k = bytes > (size_t(1) << 60) ? kClasses : class_of(bytes);
  void* p = nullptr;
  if (k < kClasses) {
    if (Free* f = c.head[k]) {
      c.head[k] = f->next;
      p = f;
    } else {
      size_t whole = class_bytes(k);
      p = from_system(whole);
      if (!p) {
        drop_cached(c);
        p = from_system(whole);
      }
      if (p) c.stats.reserved += int64_t(whole);
      c.stats.system_calls++;
    }
  }
  if (!p)
    fail<MemoryError>("alloc",
                      std::to_string(bytes) + " bytes were asked for and the system refused; " +
                          std::to_string(c.stats.current) + " bytes are in use",
                      "use smaller tensors or free some");
  c.stats.allocations++;
  c.stats.requested += int64_t(bytes);
  c.stats.current += int64_t(bytes);
  if (c.stats.current > c.stats.peak) c.stats.peak = c.stats.current;
  return p;
}

void put(void* p, size_t bytes) {
  if (!p) return;
  Cache& c = cache();
  std::lock_guard<Lock> guard(c.lock);
  int k = class_of(bytes);
  auto* f = static_cast<Free*>(p);
  f->next = c.head[k];
  c.head[k] = f;
  c.stats.current -= int64_t(bytes);
}

Stats stats() {
  std::lock_guard<Lock> guard(cache().lock);
  return cache().stats;
}

int64_t requested() {
  std::lock_guard<Lock> guard(cache().lock);
  return cache().stats.requested;
}

void reset_peak() {
  std::lock_guard<Lock> guard(cache().lock);
  cache().stats.peak = cache().stats.current;
}

void empty_cache() {
  std::lock_guard<Lock> guard(cache().lock);
  drop_cached(cache());
}

}  // namespace pb::alloc
