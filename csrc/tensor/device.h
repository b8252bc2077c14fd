// Where memory lies.
#pragma once
#include <cstdint>
#include <string>

namespace pb {

struct Device {
  enum Kind : uint8_t { CPU, CUDA };
  Kind kind = CPU;
  int8_t index = 0;
  bool operator==(const Device&) const = default;
};
std::string device_name(Device d);  // "cpu", "cuda:0"

}  // namespace pb
