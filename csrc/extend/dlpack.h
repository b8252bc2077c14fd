// The memory layout of the DLPack exchange structures, version 1.0 and the older unversioned form.
#pragma once
#include <cstdint>

namespace pb::dl {

struct Device {
  int32_t type, id;
};
enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3 };
enum Code : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6 };

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Array {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null: contiguous
  uint64_t byte_offset;
};
struct Managed {
  Array array;
  void* context;
  void (*deleter)(Managed*);
};
struct Version {
  uint32_t major, minor;
};
inline constexpr uint64_t kReadOnly = 1, kCopied = 2;
struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Array array;
};

inline constexpr const char* kName = "dltensor";
inline constexpr const char* kUsed = "used_dltensor";
inline constexpr const char* kNameVersioned = "dltensor_versioned";
inline constexpr const char* kUsedVersioned = "used_dltensor_versioned";

}  // namespace pb::dl
