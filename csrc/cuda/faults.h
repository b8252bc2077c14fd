// Note [Faults found on the device]
// Indices and classes that lie on the device are checked there: a kernel that meets a bad one goes on with a valid one
// and notes it in a record in pinned memory. The record is read whenever the host waits for the device (item, numpy,
// to("cpu"), synchronize), which then raises IndexError; nothing ever reads or writes out of range, and no call waits
// for its own check. Of several bad values one is named. Indices that come from the CPU are checked at once.
#pragma once
#include <string>

#include "cuda/api_fault.h"
#include "tensor/device.h"

namespace pb::cuda {

// The device's record, for kernels to write.
Fault* fault_of(Device device, const char* op);
// After a wait: raises what the device has noted, once.
void raise_faults(Device device);

// What both kinds of check say.
std::string index_rule(int64_t value, bool wide, int64_t axis, int64_t size);
std::string target_rule(int64_t value, int64_t position, int64_t classes);
inline constexpr char kIndexHelp[] = "indices run from -size to size - 1";
inline constexpr char kTargetHelp[] = "classes count from 0; pass ignore_index= for rows that shall not count";

}  // namespace pb::cuda
