#include <sched.h>

#include "cpu/isa_std.h"
namespace {
#include "cpu/gemm_driver.h"
}
extern "C" {
extern const void* const PB_TABLE(gemm);
const void* const PB_TABLE(gemm) = &pb::kGemmTable;
}
