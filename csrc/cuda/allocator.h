// Caching allocator of device memory. Plain memory of cudaMalloc in segments that are cut into blocks; a freed block is
// handed out again on its stream at once, for later work there runs after everything that used it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/device.h"

namespace pb::cuda {

struct DeviceStats {
  int64_t current = 0, peak = 0;  // bytes asked for and alive; their largest sum since reset_peak
  int64_t reserved = 0;           // bytes taken from the device, alive or cached
  int64_t allocations = 0, system_calls = 0, requested = 0;
  int64_t segments = 0, blocks = 0;  // `blocks`: alive
  int64_t largest_free = 0;          // bytes of the largest cached block
  int64_t retries = 0;               // times the cache was dropped to satisfy a call
};

// Bytes of a block as the allocator rounds a request.
int64_t block_bytes(int64_t bytes);
DeviceStats memory_stats(int device);
void reset_peak(int device);
void empty_cache(int device);  // gives segments without a live block back to the device
// The block is also used by work on this stream: once freed, it waits for what was enqueued there.
void used_on(void* p, void* stream, Device device);

// Note [Private pools]
// A captured graph replays fixed addresses, so what its capture allocates comes from a pool that serves nobody else
// while the graph lives. Blocks freed during the capture are handed out within it. Afterwards the pool's memory joins
// the cache.
int pool_create();
void pool_enter(int pool, Device device);
void pool_leave(Device device);
void pool_drop(int pool);

}  // namespace pb::cuda
