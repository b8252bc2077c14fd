#include "arena.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulator {

namespace {

constexpr size_t kPage = 4096, kNear = 1 << 20, kAlign = 256, kSpace = size_t(256) << 30;

// An allocation ends at the end of a page, bar the alignment, and the page behind it is never open.
struct Allocation {
  char* pages;
  size_t page_bytes, bytes;
  size_t slack() const { return size_t(pages + page_bytes - start) - bytes; }
  char* start;
};
struct Device {
  char* space = nullptr;
  size_t next = 0, used = 0;
  int open = 0;
  std::map<const char*, Allocation> live;  // by start
};
Device devices[kMostDevices];

bool make_space(Device& d) {
  if (d.space) return true;
  void* p = mmap(nullptr, kSpace, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  d.space = static_cast<char*>(p);
  return true;
}

void permit(const Device& d, int protection) {
  for (const auto& [start, a] : d.live) mprotect(a.pages, a.page_bytes, protection);
}

void drop(Device& d, const Allocation& a) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(a.pages, a.page_bytes);
#endif
  madvise(a.pages, a.page_bytes, MADV_DONTNEED);
  mprotect(a.pages, a.page_bytes, PROT_NONE);
  d.used -= a.bytes;
}

// The allocation at or before p, null if there is none.
const Allocation* before(const Device& d, const void* p) {
  auto next = d.live.upper_bound(static_cast<const char*>(p));
  return next == d.live.begin() ? nullptr : &std::prev(next)->second;
}

}  // namespace

size_t device_total_bytes() {
  static const size_t bytes = [] {
    const char* text = std::getenv("PULLBACK_EMULATE_MEMORY");
    return text && *text ? size_t(std::strtoull(text, nullptr, 10)) : size_t(4) << 30;
  }();
  return bytes;
}
size_t device_free_bytes(int device) { return device_total_bytes() - devices[device].used; }

void* device_allocate(int device, size_t bytes) {
  Device& d = devices[device];
  size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign, pages = (rounded + kPage - 1) / kPage * kPage;
  if (bytes > device_free_bytes(device) || !make_space(d) || pages + kPage > kSpace - d.next) return nullptr;
  Allocation a{d.space + d.next, pages, bytes, d.space + d.next + (pages - rounded)};
  d.next += pages + kPage;
  d.used += bytes;
  mprotect(a.pages, a.page_bytes, PROT_READ | PROT_WRITE);
  if (pages >= size_t(2) << 20) madvise(a.pages, pages, MADV_HUGEPAGE);
  std::memset(a.pages, 0xff, pages);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(a.pages, a.page_bytes);
  ASAN_UNPOISON_MEMORY_REGION(a.start, a.bytes);
#endif
  if (!d.open) mprotect(a.pages, a.page_bytes, PROT_NONE);
  d.live.emplace(a.start, a);
  return a.start;
}

bool device_release(void* p) {
  int device = device_of(p);
  if (device < 0) return false;
  auto found = devices[device].live.find(static_cast<char*>(p));
  if (found == devices[device].live.end()) return false;
  drop(devices[device], found->second);
  devices[device].live.erase(found);
  return true;
}

void device_release_all() {
  for (Device& d : devices) {
    for (const auto& [start, a] : d.live) drop(d, a);
    d.live.clear();
  }
}

int device_of(const void* p) {
  auto* at = static_cast<const char*>(p);
  for (int i = 0; i < kMostDevices; i++)
    if (devices[i].space && at >= devices[i].space && at < devices[i].space + kSpace) return i;
  return -1;
}

bool device_holds(const void* p, size_t bytes) {
  int device = device_of(p);
  const Allocation* a = device < 0 ? nullptr : before(devices[device], p);
  return a && static_cast<const char*>(p) + bytes <= a->start + a->bytes;
}

std::string describe(const void* p) {
  int device = device_of(p);
  if (device < 0) return "";
  auto* at = static_cast<const char*>(p);
  std::string where = " on device " + std::to_string(device);
  const Allocation* a = before(devices[device], p);
  if (a && at < a->start + a->bytes)
    return std::to_string(at - a->start) + " bytes into an allocation of " + std::to_string(a->bytes) + " bytes" +
           where;
  if (a && at < a->pages + a->page_bytes + kNear)
    return std::to_string(at - (a->start + a->bytes)) + " bytes past the end of an allocation of " +
           std::to_string(a->bytes) + " bytes" + where;
  return "memory that is not allocated" + where;
}

std::string check_ends(int device) {
#if !defined(__SANITIZE_ADDRESS__)
  for (const auto& [start, a] : devices[device].live) {
    const char* end = a.start + a.bytes;
    for (size_t i = 0; i < a.slack(); i++)
      if (end[i] != char(0xff)) return "a write " + describe(end + i);
    for (const char* head = a.pages; head < a.start; head++)
      if (*head != char(0xff)) return "a write before an allocation of " + std::to_string(a.bytes) + " bytes";
  }
#endif
  return "";
}

Opened::Opened(int device) : device_(device) {
  if (device_ >= 0 && devices[device_].open++ == 0) permit(devices[device_], PROT_READ | PROT_WRITE);
}
Opened::~Opened() {
  if (device_ >= 0 && --devices[device_].open == 0) permit(devices[device_], PROT_NONE);
}

}  // namespace emulator
