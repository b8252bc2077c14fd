#include "tensor/profile.h"

#include <atomic>
#include <chrono>

#include "tape/node.h"
#include "tensor/alloc.h"

namespace pb {

namespace {

std::vector<ProfileEvent>& events() {
  static auto* list = new std::vector<ProfileEvent>;
  return *list;
}

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

uint32_t thread_number() {
  static std::atomic<uint32_t> next{0};
  thread_local uint32_t number = next++;
  return number;
}

bool profiling = false;
const char* current_op = nullptr;

void set_profiling(bool on) {
  if (on) events().clear();
  profiling = on;
}

std::vector<ProfileEvent> take_profile() { return std::move(events()); }

void Profiled::begin() {
  bytes_ = alloc::requested();
  start_ = now();
}

void Profiled::end() {
  int64_t stop = now();
  if (!profiling) return;
  events().push_back(
      {name_, start_, stop, alloc::requested() - bytes_, node_ ? node_ : last_sequence(), thread_number(), node_ != 0});
}

}  // namespace pb
