// What the ladders share: the engine's services on one thread, the shortest time of a step, the peak.
#pragma once
#include <sched.h>

#include "cpu/isa_std.h"
// more headers of the outside
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
inline void pb_parallel_for(int64_t n, int64_t, void (*body)(void*, int64_t, int64_t), void* ctx) { body(ctx, 0, n); }
inline int pb_num_threads() { return 1; }
inline void* pb_scratch(int slot, size_t bytes) {
  static void* data[8];
  static size_t size[8];
  if (size[slot] < bytes) {
    std::free(data[slot]);
    data[slot] = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    size[slot] = bytes;
  }
  return data[slot];
}
}

namespace {

double seconds = 0.3;  // that a step is repeated for; the argument "check" makes it once

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

template <class F>
double shortest(F f) {
  double best = 1e30, end = now() + seconds;
  do {
    double start = now();
    f();
    double t = now() - start;
    best = t < best ? t : best;
  } while (now() < end);
  return best;
}

#if defined(__AVX512F__)
#define LADDER_WIDTH 64
#else
#define LADDER_WIDTH 32
#endif

double peak() {
  typedef float V __attribute__((vector_size(LADDER_WIDTH)));
  constexpr int64_t steps = 20000;
  V x = V{} + 0.9999f, y = V{} + 1e-4f;
  V v0 = y, v1 = y, v2 = y, v3 = y, v4 = y, v5 = y, v6 = y, v7 = y, v8 = y, v9 = y;
  double t = shortest([&] {
    for (int64_t i = 0; i < steps; i++) {
#define STEP(v)  \
  v = v * x + y; \
  __asm__ volatile("" : "+x"(v));
      STEP(v0) STEP(v1) STEP(v2) STEP(v3) STEP(v4) STEP(v5) STEP(v6) STEP(v7) STEP(v8) STEP(v9)
#undef STEP
    }
  });
  return double(steps) * 10 * 2 * (LADDER_WIDTH / 4) / t * 1e-9;
}

// The numbers of the command line, after "check" where it stands first.
inline std::vector<int64_t> sizes(int argc, char** argv) {
  std::vector<int64_t> found;
  for (int i = 1; i < argc; i++) {
    if (i == 1 && !std::strcmp(argv[1], "check"))
      seconds = 0;
    else
      found.push_back(std::atol(argv[i]));
  }
  return found;
}

inline double size_of(double x) { return x < 0 ? -x : x; }

}  // namespace
