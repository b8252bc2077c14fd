// Caching host allocator. Freed blocks stay touched and mapped, so the next tensor of that size pays no page fault.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pb::alloc {

struct Stats {
  int64_t current = 0;       // bytes of tensor data requested and alive
  int64_t peak = 0;          // the most `current` has been since reset_peak
  int64_t reserved = 0;      // bytes taken from the system, alive or cached
  int64_t allocations = 0;   // calls of get
  int64_t system_calls = 0;  // calls that had to ask the system
  int64_t requested = 0;     // bytes asked for by all calls
};

// At least `bytes` bytes aligned to 64. MemoryError (never bad_alloc) when the system refuses.
void* get(size_t bytes);
void put(void* p, size_t bytes);  // the same `bytes` as asked for
Stats stats();
int64_t requested();  // that figure alone
void reset_peak();
void empty_cache();

// Base of the small objects behind handles: one list of free objects per type, and a count of those alive. They are
// made and dropped under the interpreter lock only (Note [Handles live under the interpreter lock]), so no lock here.
template <class T>
struct Recycled {
  static void* operator new(size_t bytes) {
    alive++;
    if (!head) return ::operator new(bytes);
    void* p = head;
    head = *static_cast<void**>(p);
    return p;
  }
  static void operator delete(void* p) {
    alive--;
    *static_cast<void**>(p) = head;
    head = p;
  }
  static inline void* head = nullptr;
  static inline int64_t alive = 0;
};

}  // namespace pb::alloc
