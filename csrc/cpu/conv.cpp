#include "cpu/isa_std.h"
namespace {
#include "cpu/conv_weight_grad.h"
}
extern "C" {
extern const void* const PB_TABLE(conv);
const void* const PB_TABLE(conv) = &pb::kConvTable;
}
