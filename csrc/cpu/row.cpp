#include "cpu/isa_std.h"
namespace {
#include "cpu/row_kernels.h"
#undef PB_OP
#define PB_OP(Op)                        \
  template <>                            \
  struct RowAt<__COUNTER__ - kFirstOp> { \
    using type = Op;                     \
  };
namespace pb {
constexpr int kFirstOp = __COUNTER__ + 1;
}
#include "ops/rows.h"
namespace pb {
constexpr auto kRowOps = row_kernel_table(std::make_index_sequence<__COUNTER__ - kFirstOp>{});
}
#include "cpu/row_channel_kernels.h"
#include "cpu/row_group_kernels.h"
#include "cpu/row_loss_kernels.h"
#include "cpu/row_scan_kernels.h"
namespace pb {
constexpr RowTable kRowTable = {
    kRowOps.row,
    {&cross_entropy<float>, &cross_entropy<double>},
    {&cross_entropy_pull<float>, &cross_entropy_pull<double>},
    {&channel_sums<float>, &channel_sums<double>},
    {&channel_apply<float>, &channel_apply<double>},
    {&group_norm<float>, &group_norm<double>},
    {&group_norm_pull<float>, &group_norm_pull<double>},
    {&arg_extreme<float>, &arg_extreme<double>, &arg_extreme<int64_t>, &arg_extreme<uint64_t>},
    {&running_sum<float>, &running_sum<double>, &running_sum<int64_t>, &running_sum<uint64_t>}};
}
}  // namespace
extern "C" {
extern const void* const PB_TABLE(row);
const void* const PB_TABLE(row) = &pb::kRowTable;
}
