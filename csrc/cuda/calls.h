// What families with heavy kernels call for tensors on a device, after shapes and dtypes were checked: the results that
// their CPU kernels give, outside the graph.
#pragma once
#include "cpu/conv_table.h"
#include "cpu/pool_table.h"
#include "cuda/engine.h"

namespace pb::cuda {

// The device that all of them are on; DeviceError where they are not. Undefined tensors are passed over.
Device common_device(const char* op, std::initializer_list<const Tensor*> tensors);
// A type that kernels read and write as it is: float32, bfloat16, float16.
bool direct_type(DType t);
// DeviceError unless all are of such a type.
void need_types(const char* op, std::initializer_list<const Tensor*> tensors);
// A part of the table; DeviceError where the library was built without it.
template <class Api>
const Api& need_part(const Api* part, const char* op) {
  if (!part)
    fail<DeviceError>(op, "the CUDA library was built without it", "move the operands to the CPU: x.to(\"cpu\")");
  return *part;
}

// families/linear.cpp: a (..., m, k) times b (..., k, n), or b (n, k) when `transposed`, with `bias` (n) or none.
Tensor product(const Tensor& a, const Tensor& b, bool transposed, const Tensor& bias, const Shape& batch,
               const Shape& out_shape, DType dtype, const Tensor& onto);

// families/conv.cpp. Results have the type of the first operand.
Tensor conv_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvShape& s);
Tensor conv_input_grad(const Tensor& g, const Tensor& weight, const ConvShape& s);
Tensor conv_weight_grad(const Tensor& x, const Tensor& g, const ConvShape& s);

// families/pool.cpp: `out` is contiguous. Averages take the windows of the shape, or those of adaptive_avg_pool2d.
enum class Pool { MaxForward, MaxScatter, MaxGather, MeanForward, MeanPull };
void pool(Pool kind, const Tensor& out, const Tensor& in, const Tensor& index, const PoolShape& s,
          bool adaptive = false);

// families/attention.cpp: in tiles, the scores never in memory. `fits`: types, shapes and widths that the kernels take.
struct AttentionCall {
  double scale;
  bool causal;
  Tensor mask;         // or none; broadcasts to the scores
  double dropout = 0;  // of the probabilities, with the numbers that the dropout op draws from
  uint64_t seed = 0, offset = 0;
};
bool attention_fits(const Tensor& q, const Tensor& k, const Tensor& v);
void attention_forward(const AttentionCall& c, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y,
                       const Tensor& lse);
void attention_backward(const AttentionCall& c, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y,
                        const Tensor& lse, const Tensor& gy, const Tensor& gq, const Tensor& gk, const Tensor& gv);

}  // namespace pb::cuda
