#include "cpu/isa_std.h"
namespace {
#include "cpu/attention_kernels.h"
namespace pb {
constexpr AttentionTable kAttentionTable = {&attention_forward, &attention_backward};
}
}  // namespace
extern "C" {
extern const void* const PB_TABLE(attention);
const void* const PB_TABLE(attention) = &pb::kAttentionTable;
}
