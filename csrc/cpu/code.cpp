#include "cpu/isa_std.h"
namespace {
#include "cpu/code_kernels.h"
}
extern "C" {
extern const void* const PB_TABLE(code);
const void* const PB_TABLE(code) = &pb::kCodeTable;
}
