#include "cpu/threads.h"

#include <omp.h>
#include <sched.h>

#include <cstdint>
#include <cstdlib>

#include "cpu/isa_std.h"
#include "tensor/alloc.h"
#include "tensor/error.h"

namespace pb {

namespace {

int available_cpus() {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  if (const char* wish = std::getenv("OMP_NUM_THREADS")) {
    int asked = std::atoi(wish);
    if (asked > 0) n = asked;
  }
  return n;
}

int& threads() {
  static int n = available_cpus();
  return n;
}

thread_local bool inside = false;  // a nested region runs on its own thread

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

}  // namespace pb

extern "C" {

int pb_num_threads() { return pb::inside ? 1 : pb::threads(); }

void pb_parallel_for(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* ctx) {
  if (n <= 0) return;
  int64_t pieces = grain > 0 ? (n + grain - 1) / grain : n;
  int team = pb_num_threads();
  if (pieces < team) team = int(pieces);
  if (team <= 1) {
    body(ctx, 0, n);
    return;
  }
#pragma omp parallel num_threads(team)
  {
    pb::inside = true;
    int64_t k = omp_get_num_threads(), i = omp_get_thread_num();
    int64_t begin = n * i / k, end = n * (i + 1) / k;
    if (begin < end) body(ctx, begin, end);
    pb::inside = false;
  }
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
