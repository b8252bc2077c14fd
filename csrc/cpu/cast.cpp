#include "cpu/isa_std.h"
namespace {
#include "cpu/cast.h"
}
extern "C" {
extern const void* const PB_TABLE(cast);
const void* const PB_TABLE(cast) = &pb::kCastTable;
}
