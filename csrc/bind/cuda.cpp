// What Python asks about CUDA devices.
#include "bind/caster.h"
#include "cuda/api.h"

namespace pb::py {

void bind_cuda(nb::module_& m) {
  m.def("_cuda_device_count", &cuda::device_count, "The number of CUDA devices that driver and library find.");
}

}  // namespace pb::py
