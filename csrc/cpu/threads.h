// The one place that knows about threads. Kernels reach it through the C interface in isa_std.h.
#pragma once

namespace pb {

void set_num_threads(int n);
int get_num_threads();

}  // namespace pb
