#define PB_RULE_UNIT
#include "cpu/isa_std.h"
namespace {
#include "cpu/optim_kernels.h"
}
extern "C" {
extern const void* const PB_TABLE(optim);
const void* const PB_TABLE(optim) = &pb::optim::kOptimTable;
}
