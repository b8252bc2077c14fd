#include <dlfcn.h>

#include <string>

#include "cuda/api.h"

namespace pb::cuda {

namespace {

// The library lies beside the engine. A machine without a driver learns so from the first dlopen, in microseconds.
const Table* load() {
  if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) return nullptr;
  Dl_info self;
  if (!dladdr(reinterpret_cast<void*>(&table), &self) || !self.dli_fname) return nullptr;
  std::string path = self.dli_fname;
  path = path.substr(0, path.rfind('/') + 1) + "_cuda.so";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  auto get = reinterpret_cast<const Table* (*)()>(dlsym(library, "pb_cuda_table"));
  const Table* found = get ? get() : nullptr;
  return found && found->version == kVersion ? found : nullptr;
}

}  // namespace

const Table* table() {
  static const Table* const t = load();
  return t;
}

int device_count() {
  int n = 0;
  const Table* t = table();
  return t && t->device_count(&n) == 0 ? n : 0;
}

}  // namespace pb::cuda
