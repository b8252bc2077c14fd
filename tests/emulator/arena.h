// Device memory: host memory at addresses that nobody may touch, except kernels and copies while they run.
#pragma once
#include <cstddef>
#include <string>

namespace emulator {

inline constexpr int kMostDevices = 8;

// Null when the device has not so much left. New memory is full of NaN.
void* device_allocate(int device, size_t bytes);
// False for what is no start of an allocation.
bool device_release(void* p);
void device_release_all();
size_t device_free_bytes(int device);
size_t device_total_bytes();

// -1 for host memory.
int device_of(const void* p);
// Whether the bytes from p on lie in one allocation.
bool device_holds(const void* p, size_t bytes);
// "16 bytes past the end of an allocation of 4096 bytes on device 0"; empty for host memory.
std::string describe(const void* p);
// What was written past the end of an allocation, empty for nothing.
std::string check_ends(int device);

// For the length of its life the device's memory may be read and written.
class Opened {
 public:
  explicit Opened(int device);
  ~Opened();
  Opened(const Opened&) = delete;

 private:
  int device_;
};

}  // namespace emulator
