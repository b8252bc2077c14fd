#include "cuda/code_call.h"

#include <cstring>

#include "cuda/engine.h"
#include "families/view.h"

namespace pb::cuda {

namespace {

CodeArgs args_of(const Tensor& x, const CodeTable& table, const Tensor& words) {
  CodeArgs a{};
  a.x = x.raw();
  a.x_type = x.dtype();
  a.words = words.data<uint32_t>();
  a.n = x.size();
  a.bits = table.bits;
  return a;
}

}  // namespace

void encode(const Tensor& x0, const Code& code, const Tensor& words) {
  GradMode off(false);
  Tensor x = contiguous(detach(x0));
  const CodeTable& t = code.table();
  CodeArgs a = args_of(x, t, words);
  a.first = t.label[0];
  std::memcpy(a.at, t.at, sizeof(a.at));
  std::memcpy(a.flips, t.flips, size_t(t.at[t.bits]) * sizeof(float));
  check(need_table("encode").launch_encode(a, stream_of(x.device())), "encode");
}

void decode(const Tensor& g0, const Code& code, int order, const Tensor& words, const Tensor& out) {
  GradMode off(false);
  Tensor g = contiguous(broadcast_to(detach(g0), out.shape()));
  CodeArgs a = args_of(g, code.table(), words);
  a.out = out.raw();
  a.out_type = out.dtype();
  std::memcpy(a.level, code.level(order), (size_t(1) << a.bits) * sizeof(float));
  check(need_table("decode").launch_decode(a, stream_of(out.device())), "decode");
}

}  // namespace pb::cuda
