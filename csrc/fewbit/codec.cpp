#include "fewbit/codec.h"

#include <string>

#include "cpu/dispatch.h"
#include "cpu/isa_std.h"
#include "families/map.h"

namespace pb {

const CodeKernels& code_kernels() {
  static const auto& k = *static_cast<const CodeKernels*>(isa_table("code"));
  return k;
}

namespace {

void check_bits(const char* op, int64_t bits) {
  if (bits < 1 || bits > 8)
    fail<ValueError>(op, "bits must be 1 to 8, got " + std::to_string(bits), "a code of b bits has 2**b values");
}

// Codes as contiguous bytes, each below 2**bits.
Tensor bytes_of(const Tensor& codes, int64_t bits) {
  if (!is_integer(codes.dtype()) && codes.dtype() != DType::Bool)
    fail<DTypeError>("pack", "codes are integers or bools", "cast with codes.astype(pb.uint8)", codes);
  Tensor bytes = empty(codes.shape(), DType::U8);
  copy_into(bytes, codes);
  Tensor wide = empty(codes.shape(), DType::I64);
  copy_into(wide, codes);
  const int64_t* v = wide.data<int64_t>();
  uint64_t all = 0;
  for (int64_t i = 0; i < wide.size(); i++) all |= uint64_t(v[i]);
  if (all >> bits)
    fail<ValueError>("pack", "a code does not fit in " + std::to_string(bits) + " bits",
                     "codes lie in 0 .. 2**bits - 1", codes);
  return bytes;
}

constexpr int64_t kGroupGrain = 8192;  // groups a thread takes at least

template <class F>
void over_groups(int64_t n, F f) {
  pb_parallel_for(
      (n + kGroup - 1) / kGroup, kGroupGrain,
      [](void* ctx, int64_t begin, int64_t end) { (*static_cast<F*>(ctx))(begin, end); }, &f);
}

}  // namespace

Tensor pack_codes(const Tensor& codes, int64_t bits) {
  check_bits("pack", bits);
  Tensor bytes = bytes_of(codes, bits);
  int64_t n = bytes.size();
  Tensor words = empty({code_words(n, int(bits))}, DType::U32);
  auto* w = words.data<uint32_t>();
  auto* c = bytes.data<uint8_t>();
  over_groups(n, [&](int64_t begin, int64_t end) {
    int64_t first = begin * kGroup, last = end * kGroup < n ? end * kGroup : n;
    code_kernels().pack(w + begin * bits, c + first, last - first, int(bits));
  });
  return words;
}

Tensor unpack_codes(const Tensor& words, int64_t bits, int64_t n) {
  check_bits("unpack", bits);
  if (words.dtype() != DType::U32 || words.ndim() != 1)
    fail<DTypeError>("unpack", "words are a 1-d uint32 tensor", "pass what pb.fewbit.pack returned", words);
  if (n < 0 || words.size() != code_words(n, int(bits)))
    fail<ShapeError>("unpack",
                     std::to_string(n) + " codes of " + std::to_string(bits) + " bits are not " +
                         std::to_string(words.size()) + " words",
                     "n and bits are those of the packing", words);
  Tensor flat = contiguous(detach(words));
  Tensor codes = empty({n}, DType::U8);
  auto* w = flat.data<uint32_t>();
  auto* c = codes.data<uint8_t>();
  over_groups(n, [&](int64_t begin, int64_t end) {
    int64_t first = begin * kGroup, last = end * kGroup < n ? end * kGroup : n;
    code_kernels().unpack(c + first, w + begin * bits, last - first, int(bits));
  });
  return codes;
}

}  // namespace pb
