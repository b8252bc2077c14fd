// The caching allocator: alignment, reuse, statistics, refusal, several threads.
#include "tensor/alloc.h"

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"
#include "tensor/error.h"

namespace alloc = pb::alloc;

namespace {

void blocks() {
  std::vector<std::pair<char*, size_t>> live;
  for (size_t bytes :
       {0u, 1u, 63u, 64u, 65u, 1000u, 1024u, 1025u, 1280u, 1281u, 4097u, 65536u, 100001u, 1u << 21, 5000001u})
    for (size_t more : {0u, 1u}) {
      auto* p = static_cast<char*>(alloc::get(bytes + more));
      CHECK(reinterpret_cast<uintptr_t>(p) % 64 == 0);
      std::memset(p, int(live.size()), bytes + more);
      live.emplace_back(p, bytes + more);
    }
  for (size_t k = 0; k < live.size(); k++) {  // no block overlaps another
    auto [p, n] = live[k];
    for (size_t i = 0; i < n; i++)
      if (!CHECK(p[i] == char(k))) break;
    alloc::put(p, n);
  }
  alloc::put(nullptr, 5);
}

void statistics() {
  alloc::empty_cache();
  alloc::reset_peak();
  alloc::Stats before = alloc::stats();
  void* a = alloc::get(1000);
  void* b = alloc::get(3000);
  alloc::Stats s = alloc::stats();
  CHECK(s.current == before.current + 4000 && s.peak == s.current && s.allocations == before.allocations + 2);
  CHECK(s.system_calls == before.system_calls + 2 && s.reserved >= before.reserved + 4000);
  CHECK(s.reserved <= before.reserved + 5000);  // at most a fifth is unused
  alloc::put(a, 1000);
  alloc::put(b, 3000);
  s = alloc::stats();
  CHECK(s.current == before.current && s.peak == before.current + 4000);
  void* c = alloc::get(990);  // the same class: the block comes back without the system
  CHECK(c == a && alloc::stats().system_calls == before.system_calls + 2);
  alloc::put(c, 990);
  alloc::reset_peak();
  CHECK(alloc::stats().peak == alloc::stats().current);
  alloc::empty_cache();
  CHECK(alloc::stats().reserved == before.reserved);
}

void refusal() {
  alloc::Stats before = alloc::stats();
  for (size_t bytes : {size_t(1) << 55, size_t(1) << 60, (size_t(1) << 60) + 1, ~size_t(0)}) {
    bool refused = false;
    try {
      alloc::get(bytes);
    } catch (const pb::MemoryError& e) {
      refused = std::strstr(e.what(), "bytes were asked for") && std::strstr(e.what(), "help:");
    }
    CHECK(refused);
  }
  CHECK(alloc::stats().current == before.current && alloc::stats().reserved <= before.reserved);
}

void threads() {
  alloc::Stats before = alloc::stats();
  auto work = [](unsigned seed) {
    std::vector<std::pair<unsigned char*, size_t>> live;
    for (int i = 0; i < 5000; i++) {
      seed = seed * 1664525u + 1013904223u;
      size_t bytes = seed >> 16 & 0x3fff;
      auto* p = static_cast<unsigned char*>(alloc::get(bytes + 1));
      p[0] = p[bytes] = static_cast<unsigned char>(bytes);
      live.emplace_back(p, bytes);
      if (live.size() > 20) {
        auto [q, n] = live[seed % live.size()];
        CHECK(q[0] == static_cast<unsigned char>(n) && q[n] == static_cast<unsigned char>(n));
        alloc::put(q, n + 1);
        live[seed % live.size()] = live.back();
        live.pop_back();
      }
    }
    for (auto [q, n] : live) alloc::put(q, n + 1);
  };
  std::vector<std::thread> pool;
  for (unsigned t = 0; t < 4; t++) pool.emplace_back(work, t);
  for (std::thread& t : pool) t.join();
  CHECK(alloc::stats().current == before.current);
}

}  // namespace

int main() {
  blocks();
  statistics();
  refusal();
  threads();
  return failures() != 0;
}
