#include "cpu/isa_std.h"
namespace {
#include "cpu/tile_kernels.h"
}
extern "C" {
extern const void* const PB_TABLE(tile);
const void* const PB_TABLE(tile) = &pb::kTileTable;
}
