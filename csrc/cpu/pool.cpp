#include "cpu/isa_std.h"
namespace {
#include "cpu/pool_kernels.h"
}
extern "C" {
extern const void* const PB_TABLE(pool);
const void* const PB_TABLE(pool) = &pb::kPoolTable;
}
