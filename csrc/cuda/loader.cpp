#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "cuda/api.h"
#include "cuda/streams.h"

namespace pb::cuda {

namespace {

std::string reason;  // why there is no table

// The library lies beside the engine. A machine without a driver learns so from the first dlopen, in microseconds.
// PULLBACK_EMULATE opens the emulated library (tests/emulator) instead: 1 the one beside the engine, else that file.
std::string library_path() {
  const char* emulated = std::getenv("PULLBACK_EMULATE");
  bool real = !emulated || !*emulated || std::string_view(emulated) == "0";
  if (!real && std::string_view(emulated) != "1") return emulated;
  if (real && !dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) {
    reason = "no GPU driver was found (libcuda.so.1)";
    return "";
  }
  Dl_info self;
  if (!dladdr(reinterpret_cast<void*>(&table), &self) || !self.dli_fname) return "";
  std::string path = self.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + (real ? "_cuda.so" : "_emulated.so");
}

const Table* load() {
  std::string path = library_path();
  if (path.empty()) return nullptr;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    reason = "the CUDA library of pullback cannot be opened (" + path + ")";
    return nullptr;
  }
  auto get = reinterpret_cast<const Table* (*)()>(dlsym(library, "pb_cuda_table"));
  const Table* found = get ? get() : nullptr;
  if (found && found->version == kVersion) return found;
  reason = "the CUDA library is of another version of pullback (" + path + ")";
  return nullptr;
}

}  // namespace

const Table* table() {
  static const Table* const t = load();
  return t;
}

std::string missing() { return table() ? "the driver finds no device" : reason; }

int device_count() {
  int n = 0;
  const Table* t = table();
  return t && t->device_count(&n) == 0 ? n : 0;
}

}  // namespace pb::cuda
