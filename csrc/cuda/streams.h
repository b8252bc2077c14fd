// Devices and streams as Python sets them.
#pragma once
#include <string>

#include "tensor/device.h"

namespace pb::cuda {

inline constexpr int kMaxDevices = 128;

bool forked();                                    // in the child of a process that used CUDA
std::string missing();                            // what is missing for a device to be there
void need_device(Device device, const char* op, std::string name = {});  // DeviceError when there is no such device
void set_stream(Device device, void* stream);     // of this thread

}  // namespace pb::cuda
