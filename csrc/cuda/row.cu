// The row ops, and what the Row family's functions on the device are.
#include "cuda/row_kernels.h"

#undef PB_OP
#define PB_OP(Op)                         \
  template <>                             \
  struct RowAt<__COUNTER__ - kFirstRow> { \
    using type = Op;                      \
  };
namespace pb {
template <int I>
struct RowAt;
constexpr int kFirstRow = __COUNTER__ + 1;
}  // namespace pb
#include "cuda/columns.h"
#include "ops/rows.h"

namespace pb::cuda {

int channel_sums(const ChannelArgs& args, void* stream);
int64_t channel_scratch(const ChannelArgs& args);
int channel_apply(const ChannelArgs& args, void* stream);
int group_norm(const GroupArgs& args, void* stream);
int group_norm_pull(const GroupArgs& args, void* stream);
int extreme(const ScanArgs& args, void* stream);
int64_t extreme_scratch(const ScanArgs& args);
int running(const ScanArgs& args, void* stream);
int64_t running_scratch(const ScanArgs& args);
int order(const OrderArgs& args, void* stream);
int64_t order_scratch(const OrderArgs& args);

namespace {

constexpr int kRowOps = __COUNTER__ - kFirstRow;

template <size_t... I>
const RowEntry* entries_of(std::index_sequence<I...>) {
  static const RowEntry rows[] = {row_entry<typename RowAt<int(I)>::type>()...};
  return rows;
}
const RowEntry& entry(int op) { return entries_of(std::make_index_sequence<kRowOps>{})[op]; }

// How a shape is cut; nothing else decides.
struct Cut {
  bool vectors, wide;
  int lanes, threads;
  int64_t blocks;
  Cut(const RowEntry& e, int64_t rows, int64_t n, bool sums) {
    vectors = n % kVec == 0;
    const int64_t held = int64_t(e.groups[vectors]) * kVec;
    lanes = short_lanes(n);
    while (lanes < kWidest && lanes * held < n) lanes *= 2;
    wide = lanes * held < n;
    threads = lanes > kThreads ? lanes : kThreads;
    int64_t slots = wide ? 1 : threads / lanes;
    blocks = (rows + slots - 1) / slots;
    int64_t most = sums ? kPartials : 1 << 20;
    if (blocks > most) blocks = most;
  }
};

int64_t row_scratch(int op, int64_t rows, int64_t n) {
  const RowEntry& e = entry(op);
  return e.sums * Cut(e, rows, n, true).blocks * n;
}

bool all_on_vectors(const RowEntry& e, const RowArgs& a) {
  bool fits = on_vectors(a.out);
  for (int i = 0; i < e.inputs; i++) fits = fits && on_vectors(a.x[i]);
  for (int i = 0; i < e.columns; i++) fits = fits && on_vectors(a.c[i]);
  return fits;
}

int launch_rows(int op, const RowArgs& args, void* stream) {
  if (args.rows == 0 || args.n == 0) return cudaSuccess;
  const RowEntry& e = entry(op);
  bool sums = args.column[0] || args.column[1];
  Cut cut(e, args.rows, args.n, sums);
  RowArgs a = args;
  if (!sums) a.partial = nullptr;
  a.lanes = cut.lanes;
  if (cut.vectors && !all_on_vectors(e, a)) return cudaErrorMisalignedAddress;
  Kernel kernel = cut.wide ? e.wide[cut.vectors] : e.rows[cut.vectors];
  cudaError_t error = launch(kernel, dim3(unsigned(cut.blocks)), dim3(unsigned(cut.threads)), stream, a);
  if (error != cudaSuccess || !sums) return error;
  return add_columns({{a.column[0], a.column[1]}, a.partial, cut.blocks, a.n}, e.sums, stream);
}

}  // namespace

const RowApi* row_api() {
  static const RowApi api{&launch_rows,     &row_scratch,     &channel_sums, &channel_scratch, &channel_apply,
                          &group_norm,      &group_norm_pull, &extreme,      &extreme_scratch, &running,
                          &running_scratch, &order,           &order_scratch};
  return &api;
}

}  // namespace pb::cuda
