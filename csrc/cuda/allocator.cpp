#include "cuda/allocator.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <tuple>
#include <unordered_map>

#include "cuda/api_memory.h"
#include "cuda/engine.h"
#include "cuda/streams.h"
#include "tensor/profile.h"

namespace pb::cuda {

namespace {

// Requests up to kSmall are cut from segments of their own, so that they do not split what large ones need.
constexpr int64_t kRound = 512, kSmall = 1 << 20, kSmallSegment = 2 << 20;
constexpr int64_t kMiddle = 10 << 20, kMiddleSegment = 20 << 20, kLargeRound = 2 << 20;

struct Block;
struct BySize {
  bool operator()(const Block* a, const Block* b) const;
};

// Blocks may be joined and handed out within one pool only.
struct Key {
  int device;
  void* stream;
  int pool;  // 0: the common one
  bool small;
  auto operator<=>(const Key&) const = default;
};

struct Block {
  char* p = nullptr;
  int64_t bytes = 0, asked = 0;
  Key key{};
  bool alive = false;
  Block *before = nullptr, *after = nullptr;  // neighbours in the segment
  const char* holder = nullptr;               // the op that asked
  std::vector<void*> streams;                 // others that use it
};
bool BySize::operator()(const Block* a, const Block* b) const {
  return a->bytes != b->bytes ? a->bytes < b->bytes : a->p < b->p;
}

struct Pending {
  void* event;
  Block* block;
};

struct Cache {
  std::mutex lock;
  std::map<Key, std::set<Block*, BySize>> free;
  std::unordered_map<void*, Block*> alive;
  std::vector<Block*> segments;  // first blocks
  std::vector<Pending> pending;
  DeviceStats stats[128];
  int pool_of[128] = {};  // the pool that serves each device now
  int pools = 0;
};
Cache& cache() {
  static Cache* c = new Cache;  // never destroyed: tensors may outlive static destructors
  return *c;
}

const MemoryApi& api() { return *need_table("alloc").memory; }

bool is_small(int64_t bytes) { return bytes <= kSmall; }
int64_t segment_bytes(int64_t bytes) {
  if (is_small(bytes)) return kSmallSegment;
  if (bytes < kMiddle) return kMiddleSegment;
  return (bytes + kLargeRound - 1) / kLargeRound * kLargeRound;
}
// What is left of a block is worth a block of its own.
bool worth(const Key& key, int64_t rest) { return rest >= (key.small ? kRound : kSmall + 1); }

// Bytes that PULLBACK_CUDA_LIMIT_BYTES lets this process take from a device.
int64_t limit() {
  static const int64_t bytes = [] {
    const char* text = std::getenv("PULLBACK_CUDA_LIMIT_BYTES");
    return text ? std::strtoll(text, nullptr, 10) : INT64_MAX;
  }();
  return bytes;
}

// Cuts the first `bytes` off; the rest stays free.
void split(Cache& c, Block* b, int64_t bytes) {
  auto* rest = new Block;
  rest->p = b->p + bytes;
  rest->bytes = b->bytes - bytes;
  rest->key = b->key;
  rest->before = b;
  rest->after = b->after;
  if (rest->after) rest->after->before = rest;
  b->after = rest;
  b->bytes = bytes;
  c.free[rest->key].insert(rest);
}

// Joins `b` with its right neighbour if both are free.
bool join(Cache& c, Block* b) {
  Block* right = b->after;
  if (b->alive || !right || right->alive || right->key != b->key) return false;
  auto& list = c.free[b->key];
  list.erase(b);
  list.erase(right);
  b->bytes += right->bytes;
  b->after = right->after;
  if (b->after) b->after->before = b;
  delete right;
  list.insert(b);
  return true;
}

void make_free(Cache& c, Block* b) {
  b->alive = false;
  b->holder = nullptr;
  b->streams.clear();
  c.free[b->key].insert(b);
  join(c, b);
  if (b->before) join(c, b->before);
}

// Frees blocks whose other streams are done with them.
void collect(Cache& c, bool wait) {
  for (size_t i = 0; i < c.pending.size();) {
    Pending p = c.pending[i];
    int e = wait ? api().event_synchronize(p.event) : api().event_query(p.event);
    if (e == kNotReady) {
      api().clear_error();
      i++;
      continue;
    }
    api().event_destroy(p.event);
    c.pending[i] = c.pending.back();
    c.pending.pop_back();
    bool more = std::any_of(c.pending.begin(), c.pending.end(), [&](const Pending& q) { return q.block == p.block; });
    if (!more) make_free(c, p.block);
  }
}

Block* best_fit(Cache& c, const Key& key, int64_t bytes) {
  auto list = c.free.find(key);
  if (list == c.free.end()) return nullptr;
  Block probe;
  probe.bytes = bytes;
  auto at = list->second.lower_bound(&probe);
  if (at == list->second.end()) return nullptr;
  Block* b = *at;
  list->second.erase(at);
  return b;
}

// A new segment as one block; null when the device refuses.
Block* new_segment(Cache& c, const Key& key, int64_t bytes) {
  int64_t whole = segment_bytes(bytes);
  DeviceStats& s = c.stats[key.device];
  if (whole > limit() - s.reserved) return nullptr;
  void* p = nullptr;
  s.system_calls++;
  int e = api().allocate(&p, size_t(whole));
  if (e == kOutOfMemory) {
    api().clear_error();
    return nullptr;
  }
  check(e, "alloc");
  auto* b = new Block;
  b->p = static_cast<char*>(p);
  b->bytes = whole;
  b->key = key;
  c.segments.push_back(b);
  s.reserved += whole;
  s.segments++;
  return b;
}

// Gives back every segment of the device that has no live block. Frees wait for the device.
void drop_cached(Cache& c, int device) {
  collect(c, true);
  std::erase_if(c.segments, [&](Block* b) {
    if (b->key.device != device || b->alive || b->after || b->key.pool) return false;
    c.free[b->key].erase(b);
    check(api().release(b->p), "alloc");
    c.stats[device].reserved -= b->bytes;
    c.stats[device].segments--;
    delete b;
    return true;
  });
}

std::string mib(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, bytes < 1 << 20 ? "%.3f MiB" : "%.1f MiB", double(bytes) / (1 << 20));
  return text;
}

// "3 x 64.0 MiB by matmul, ...": the largest live blocks, equal ones together.
std::string holders(const Cache& c, int device) {
  std::map<std::pair<int64_t, std::string>, int> groups;
  for (const auto& [p, b] : c.alive)
    if (b->key.device == device) groups[{b->asked, b->holder ? b->holder : "tensors"}]++;
  std::vector<std::tuple<int64_t, int64_t, int, std::string>> order;
  for (const auto& [what, n] : groups) order.emplace_back(what.first * n, what.first, n, what.second);
  std::sort(order.rbegin(), order.rend());
  std::string text;
  for (size_t i = 0; i < order.size() && i < 5; i++) {
    const auto& [sum, bytes, n, name] = order[i];
    text += (i ? ", " : "") + std::to_string(n) + " x " + mib(bytes) + " by " + name;
  }
  return text.empty() ? "none" : text;
}

[[noreturn]] void out_of_memory(const Cache& c, int64_t bytes, int device) {
  const DeviceStats& s = c.stats[device];
  size_t free = 0, total = 0;
  api().info(&free, &total);
  fail<MemoryError>(current_op ? current_op : "alloc",
                    "cuda:" + std::to_string(device) + " is out of memory: " + mib(bytes) + " were asked for, " +
                        mib(s.current) + " are in use and " + mib(s.reserved - s.current) +
                        " are cached by this process, " + mib(int64_t(free)) + " of " + mib(int64_t(total)) +
                        " are free; largest holders: " + holders(c, device),
                    "free tensors or use a smaller batch; the call can be repeated then");
}

}  // namespace

int64_t block_bytes(int64_t bytes) { return bytes ? (bytes + kRound - 1) / kRound * kRound : kRound; }

void* get(size_t asked, Device device) {
  void* stream = stream_of(device);
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  int64_t bytes = block_bytes(int64_t(asked));
  Key key{device.index, stream, c.pool_of[device.index], is_small(bytes)};
  DeviceStats& s = c.stats[device.index];
  if (!c.pending.empty() && !key.pool) collect(c, false);
  Block* b = best_fit(c, key, bytes);
  if (!b) b = new_segment(c, key, bytes);
  if (!b && !key.pool) {
    s.retries++;
    drop_cached(c, device.index);
    b = best_fit(c, key, bytes);
    if (!b) b = new_segment(c, key, bytes);
  }
  if (!b) out_of_memory(c, int64_t(asked), device.index);
  if (worth(key, b->bytes - bytes)) split(c, b, bytes);
  b->alive = true;
  b->asked = int64_t(asked);
  b->holder = current_op;
  c.alive.emplace(b->p, b);
  s.allocations++;
  s.blocks++;
  s.requested += b->asked;
  s.current += b->asked;
  s.peak = std::max(s.peak, s.current);
  return b->p;
}

void put(void* p, Device device) {
  if (!p || forked()) return;
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  auto at = c.alive.find(p);
  if (at == c.alive.end()) return;
  Block* b = at->second;
  c.alive.erase(at);
  c.stats[device.index].current -= b->asked;
  c.stats[device.index].blocks--;
  std::vector<void*> streams = std::move(b->streams);
  b->streams.clear();
  bool waits = false;
  for (void* stream : streams) {
    void* event = nullptr;
    if (api().event_create(&event, false) || api().event_record(event, stream)) continue;
    c.pending.push_back({event, b});
    waits = true;
  }
  if (!waits) make_free(c, b);
}

void used_on(void* p, void* stream, Device) {
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  auto at = c.alive.find(p);
  if (at == c.alive.end() || at->second->key.stream == stream) return;
  auto& list = at->second->streams;
  if (std::find(list.begin(), list.end(), stream) == list.end()) list.push_back(stream);
}

DeviceStats memory_stats(int device) {
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  DeviceStats s = c.stats[device];
  for (const auto& [key, list] : c.free)
    if (key.device == device && !list.empty()) s.largest_free = std::max(s.largest_free, (*list.rbegin())->bytes);
  return s;
}

void reset_peak(int device) {
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  c.stats[device].peak = c.stats[device].current;
}

void empty_cache(int device) {
  stream_of({Device::CUDA, int8_t(device)});
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  drop_cached(c, device);
}

// ---- private pools

int pool_create() {
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  return ++c.pools;
}
void pool_enter(int pool, Device device) {
  std::lock_guard<std::mutex> guard(cache().lock);
  cache().pool_of[device.index] = pool;
}
void pool_leave(Device device) { pool_enter(0, device); }

void pool_drop(int pool) {
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.lock);
  for (Block* first : c.segments) {
    if (first->key.pool != pool) continue;
    for (Block* b = first; b; b = b->after) {
      if (!b->alive && c.free[b->key].erase(b)) {
        b->key.pool = 0;
        c.free[b->key].insert(b);
      } else {
        b->key.pool = 0;
      }
    }
    // Neighbours that were freed apart are joined as far as they are free.
    for (Block* b = first; b; b = b->after)
      while (join(c, b)) continue;
  }
}

}  // namespace pb::cuda
