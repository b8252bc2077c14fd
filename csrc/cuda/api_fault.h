// What a kernel tells the host about bad input: it goes on with a valid value, and the next wait for the device raises.
#pragma once
#include <cstdint>

namespace pb::cuda {

// In pinned host memory, one per device; the first bad value that is seen fills it.
struct Fault {
  unsigned set;
  bool target;     // a class of a loss, else an index
  bool wide;       // value is a uint64
  const char* op;  // handed through
  int64_t value, position, axis, size;
};

}  // namespace pb::cuda
