#include "fewbit/codec.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "cpu/dispatch.h"
#include "cpu/isa_std.h"
#include "cuda/code_call.h"
#include "cuda/copy_call.h"
#include "cuda/engine.h"
#include "families/map_driver.h"
#include "families/map_node.h"

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
  Tensor bytes = empty(codes.shape(), DType::U8, codes.device());
  copy_into(bytes, codes);
  Tensor wide = empty(codes.shape(), DType::I64);  // on the CPU
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
  pb_parallel_for((n + kGroup - 1) / kGroup, kGroupGrain,
                  [](void* ctx, int64_t begin, int64_t end) { (*static_cast<F*>(ctx))(begin, end); }, &f);
}

}  // namespace

Tensor pack_codes(const Tensor& codes, int64_t bits) {
  check_bits("pack", bits);
  Tensor bytes = bytes_of(codes, bits);
  int64_t n = bytes.size();
  Tensor words = empty({code_words(n, int(bits))}, DType::U32, bytes.device());
  if (on_cuda(words)) {
    cuda::pack_tensor(words, bytes, int(bits));
    return words;
  }
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
  Tensor codes = empty({n}, DType::U8, words.device());
  if (on_cuda(codes)) {
    cuda::unpack_tensor(codes, flat, int(bits));
    return codes;
  }
  auto* w = flat.data<uint32_t>();
  auto* c = codes.data<uint8_t>();
  over_groups(n, [&](int64_t begin, int64_t end) {
    int64_t first = begin * kGroup, last = end * kGroup < n ? end * kGroup : n;
    code_kernels().unpack(c + first, w + begin * bits, last - first, int(bits));
  });
  return codes;
}

// ---- tables

namespace {

void check_table(const std::vector<double>& numbers, const char* what) {
  for (double v : numbers)
    if (!std::isfinite(v))
      fail<ValueError>("Code", std::string(what) + " must be finite, got " + std::to_string(v),
                       "the derivative has a value or a limit everywhere that a table covers");
}

// The largest float at or below v: then x > v for floats x is the same question.
float at_or_below(double v) {
  auto f = float(v);
  return double(f) > v ? std::nextafter(f, -INFINITY) : f;
}

}  // namespace

Code::Code(int64_t bits, std::vector<double> boundaries, std::vector<int64_t> labels, std::vector<double> levels,
           std::vector<double> second, bool random)
    : random_(random) {
  check_bits("Code", bits);
  size_t n = size_t(1) << bits;
  check_table(boundaries, "boundaries");
  check_table(levels, "levels");
  check_table(second, "second levels");
  if (levels.empty() || levels.size() > n || (!second.empty() && second.size() != levels.size()))
    fail<ValueError>("Code", std::to_string(levels.size()) + " levels do not fit " + std::to_string(bits) + " bits",
                     "a table has at most 2**bits levels, and as many second ones or none");
  if (!std::is_sorted(boundaries.begin(), boundaries.end()))
    fail<ValueError>("Code", "boundaries must ascend", "sort them");
  if (labels.size() != boundaries.size() + 1)
    fail<ValueError>("Code", "there must be one label per piece, one more than boundaries", "pass labels for all");
  for (int64_t l : labels)
    if (l < 0 || size_t(l) >= levels.size())
      fail<ValueError>("Code", "label " + std::to_string(l) + " has no level",
                       "labels lie in 0 .. " + std::to_string(levels.size() - 1));
  for (double b : boundaries) bounds_.push_back(at_or_below(b));
  labels_.assign(labels.begin(), labels.end());
  levels_.assign(levels.begin(), levels.end());
  second_.assign(second.begin(), second.end());
  table_.bits = int(bits);
  table_.bounds = int(bounds_.size());
  for (int p = 0; p < bits; p++) {
    for (size_t j = 0; j < bounds_.size(); j++)
      if ((labels_[j] ^ labels_[j + 1]) >> p & 1) flips_.push_back(bounds_[j]);
    table_.at[p + 1] = int(flips_.size());
  }
  ranks_.resize(levels_.size());
  std::iota(ranks_.begin(), ranks_.end(), uint8_t(0));
  std::stable_sort(ranks_.begin(), ranks_.end(), [&](uint8_t a, uint8_t b) { return levels_[a] < levels_[b]; });
  for (uint8_t r : ranks_) ascending_.push_back(levels_[r]);
  while (ascending_.size() < n) {  // the search halves, so it wants all 2**bits
    ascending_.push_back(INFINITY);
    ranks_.push_back(ranks_[levels_.size() - 1]);
  }
  levels_.resize(n, levels_.back());
  if (!second_.empty()) second_.resize(n, second_.back());
  table_.bound = bounds_.data();
  table_.label = labels_.data();
  table_.level = levels_.data();
  table_.flips = flips_.data();
}

// ---- what a call keeps

CodeLookup code_lookup = nullptr;

CodeRef code_for(const MapOp& op, const double* params, DType dtype, const Saving& s) {
  if (s.choice != SavedChoice::Code || compute_of(dtype) != Compute::F32 || !code_lookup) return nullptr;
  CodeRef code = code_lookup(op, params, s);
  return code && code->order() >= announced_order() ? code : nullptr;
}

namespace {

class CodeWords final : public Late {
 public:
  explicit CodeWords(CodeRef code) : code_(std::move(code)) {}
  Tensor get(const Tensor& words, const char* op) const override {
    if (mode().grad && code_->order() < 2) refuse_order(op, "a derivative code");
    return words;
  }
  const char* scheme() const override {
    static const char* const names[] = {"1-bit code", "2-bit code", "3-bit code", "4-bit code",
                                        "5-bit code", "6-bit code", "7-bit code", "8-bit code"};
    return names[code_->bits() - 1];
  }
  const char* error() const override { return code_->random() ? "unbiased" : "bounded"; }

 private:
  CodeRef code_;
};

// A handle with the place of x in the graph, without data.
Tensor place_of(const Tensor& x) {
  refresh_view(x);
  if (!x->node) return x;
  Tensor t = empty({0}, x.dtype(), x.device());
  attach(t, x->node, x->out_index);
  return t;
}

bool call_with_code(const MapOp& op, const Tensor& x, const Tensor& out, const double* params, const Saving& saving) {
  if (!any_wants(x) || has_tangent(x) || out.dtype() != x.dtype() || !(out.shape() == x.shape())) return false;
  CodeRef code = code_for(op, params, x.dtype(), saving);
  if (!code) return false;
  Tensor words = coded_forward(op, out, x, params, *code);
  DType dtype = x.dtype();
  Tensor place = code->order() > 1 ? place_of(x) : Tensor();
  record(op.name.data(), {x}, out, {saved_code(words, code)}, [code, dtype, place](const Slots& s, const PullArgs& a) {
    Tensor words = s[0];
    const Tensor& g = a.g[0];
    if (mode().grad || has_tangent(g))
      a.gin[0] = coded_graph_pull(code, words, g, place, dtype);
    else
      a.gin[0] = coded_pull(*code, words, g, dtype);
  });
  return true;
}

const bool registered = [] {
  code_call = &call_with_code;
  return true;
}();

}  // namespace

Saved saved_code(const Tensor& words, const CodeRef& code) {
  return Saved::packed(words, std::make_shared<const CodeWords>(code));
}

// ---- one pass forward, one pass back

Tensor coded_forward(const MapOp& op, const Tensor& out, const Tensor& x, const double* params, const Code& code,
                     Generator* rng) {
  Tensor words = empty({code_words(out.size(), code.bits())}, DType::U32, out.device());
  if (on_cuda(out)) {
    if (code.random()) cuda::no_kernel(op.name.data(), x);
    cuda::encode(x, code, words);  // first: out may be x
    run_forward(op, out, {&x, 1}, Compute::F32, params, nullptr);
    return words;
  }
  MapPlan p;
  MapCodes c;
  RandomState draws;
  c.table = &code.table();
  c.words = words.data<uint32_t>();
  c.write = true;
  if (code.random()) {
    draws = (rng ? *rng : default_generator()).rounding();
    c.round = &draws;
    c.derivative = &op;
    c.ascending = code.ascending();
    c.ranks = code.ranks();
  }
  p.codes = &c;
  p.compute = Compute::F32;
  p.fn = op.kernels->fwd[int(p.compute)];
  p.shape = out.shape();
  p.size = out.size();
  p.params = params;
  p.inputs = 1;
  p.in[0] = operand_of(x, out.shape());
  p.out = operand_of(out, out.shape());
  run_plan(p);
  return words;
}

Tensor coded_pull(const Code& code, const Tensor& words, const Tensor& g, DType result, int order) {
  Tensor out = empty(g.shape(), result, g.device());
  coded_pull_into(code, words, g, out, order);
  return out;
}

void coded_pull_into(const Code& code, const Tensor& words, const Tensor& g, const Tensor& out, int order) {
  if (on_cuda(out)) return cuda::decode(g, code, order, words, out);
  MapPlan p;
  MapCodes c;
  c.table = &code.table();
  c.words = words.data<uint32_t>();
  c.level = code.level(order);
  p.codes = &c;
  p.compute = Compute::F32;
  p.shape = out.shape();
  p.size = out.size();
  p.inputs = 1;
  p.in[0] = operand_of(g, out.shape());
  p.out = operand_of(out, out.shape());
  run_plan(p);
}

Tensor coded_graph_pull(const CodeRef& code, const Tensor& words, const Tensor& g, const Tensor& x, DType result) {
  if (mode().grad && code->order() < 2) refuse_order("code", "a derivative code");
  Tensor out = coded_pull(*code, words, g, result);
  DType of_g = g.dtype(), of_x = result;
  record("code", {g, x}, out, {Saved(g), Saved(words)}, [code, of_g, of_x](const Slots& s, const PullArgs& a) {
    Tensor g = s[0], words = s[1];
    if (mode().grad) refuse_order("code", "a derivative code of order 2");
    if (a.need(0)) a.gin[0] = coded_pull(*code, words, a.g[0], of_g);
    if (a.need(1)) {
      Tensor both = a.g[0] * g;
      a.gin[1] = coded_pull(*code, words, both, of_x, 2);
    }
  });
  push_forward({g, x}, out, [&](const Tensor* in, const Tensor* t, const Tensor&) {
    Tensor of_g = t[0] ? coded_graph_pull(code, words, t[0], in[1], result) : Tensor();
    Tensor of_x = t[1] ? coded_pull(*code, words, in[0] * t[1], result, 2) : Tensor();
    return of_g && of_x ? of_g + of_x : of_g ? of_g : of_x;
  });
  return out;
}

}  // namespace pb
