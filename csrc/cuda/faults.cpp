#include "cuda/faults.h"

#include "cuda/api_memory.h"
#include "cuda/engine.h"
#include "cuda/streams.h"

namespace pb::cuda {

namespace {
Fault* records[kMaxDevices];  // of the process, never freed: kernels may be under way at exit
}  // namespace

Fault* fault_of(Device device, const char* op) {
  Fault*& record = records[int(device.index)];
  if (record) return record;
  void* p = nullptr;
  stream_of(device);
  check(need_table(op).memory->host_allocate(&p, sizeof(Fault)), op);
  return record = new (p) Fault{};
}

void raise_faults(Device device) {
  Fault* record = records[int(device.index)];
  if (!record || !record->set) return;
  Fault f = *record;
  *record = {};
  if (f.target) fail<IndexError>(f.op, target_rule(f.value, f.position, f.size), kTargetHelp);
  fail<IndexError>(f.op, index_rule(f.value, f.wide, f.axis, f.size), kIndexHelp);
}

std::string index_rule(int64_t value, bool wide, int64_t axis, int64_t size) {
  return "index " + (wide ? std::to_string(uint64_t(value)) : std::to_string(value)) + " is out of bounds for axis " +
         std::to_string(axis) + " with size " + std::to_string(size);
}
std::string target_rule(int64_t value, int64_t position, int64_t classes) {
  return "target " + std::to_string(value) + " at position " + std::to_string(position) + " is not in [0, " +
         std::to_string(classes) + ")";
}

}  // namespace pb::cuda
