// Which dtype an op computes in while pb.autocast is on.
#pragma once
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace pb {

// Note [Autocast]
// The policy is one table of op names (autocast.cpp) with PyTorch's choices for each kind of device. The front of an
// op, which is where a call from Python arrives, casts the floating inputs as the row says; what the op is made of, and
// all of backward, never looks. A cast is an op of its own with a node, so a float32 parameter receives a float32
// gradient. Casts of leaves to the lower type are kept until the outermost context of the thread ends: a parameter that
// several ops read is cast once for each of its versions, and its gradients are summed before they are widened.
// float64, integers and Python numbers are never cast.
enum class CastTo : uint8_t {
  Own,      // no row: the op computes in the types of its inputs
  Lower,    // the type of the context
  Float32,  // at least float32
  Widest,   // the widest of the inputs' types, which is how ops promote here anyway
};
CastTo cast_policy(std::string_view op, bool cuda);

struct AutocastRow {
  std::string_view op;
  CastTo cpu, cuda;
};
const std::vector<AutocastRow>& autocast_table();

struct Autocast {  // of this thread
  bool on = false;
  DType lower = DType::BF16;
};
Autocast autocast_state();
extern int autocasts_open;  // contexts of all threads: while there is none, a front pays one load
// Enters a context; give what it returns to leave_autocast, in the reverse order.
Autocast enter_autocast(Autocast state);
void leave_autocast(Autocast before);

inline bool autocasting() { return autocasts_open && autocast_state().on; }
// The input as the policy of `op` wants it; only while `autocasting()`.
Tensor autocast(std::string_view op, const Tensor& t);

}  // namespace pb
