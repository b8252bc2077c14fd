// What backward keeps of an activation, and who says so: the call (a module hands its attribute on as the call's), the
// innermost pb.saving, the policy of a memory plan, then the op itself.
#pragma once
#include <memory>
#include <span>

#include "tape/node.h"

namespace pb {

struct MapOp;

enum class SavedChoice : uint8_t {
  Auto,       // nothing was said
  Input,      // exactly the input
  Output,     // the own output, and a side bit where that is not monotone
  Recompute,  // the input; consumers make the output anew
  Code,       // a code of the derivative, `bits` wide
};

struct Saving {
  SavedChoice choice = SavedChoice::Auto;
  int bits = 0;                           // of the code
  std::shared_ptr<const void> code = {};  // fewbit.Code in full; empty: the defaults at `bits`
  bool asked = false;                     // at the call: what cannot be had is an error there, elsewhere ignored
};

inline const Saving kNoSaving;
inline const Saving kKeepInput{SavedChoice::Input, 0, {}, false};

// What holds in this thread outside of calls.
struct SavingState {
  Saving saving, policy;
  int inputs = 0;         // bits of block-quantised inputs of Linear, Conv and attention: 0 (exact), 4 or 8
  int policy_inputs = 0;  // the same, from the policy
  int order = 1;          // of the derivatives that `.backward` will be asked for
};
SavingState& saving_state();

// The order of derivatives that may be asked of what is recorded now: announced, or by enclosing transforms.
int announced_order();
// The choice for one call of an activation; `call` may be null.
const Saving& saving_of(const Saving* call);

// Bytes below 2**bits as words (Note [Planes], cpu/code_table.h); nothing is checked.
Tensor pack_bytes(const Tensor& codes, int bits);

// Computes `out` of a one-input activation, with its code in the same pass, and records its node. False: there is no
// code for this op, dtype or order, nothing was done, and the common path goes on. Set by the unit of codes.
using CodeCall = bool (*)(const MapOp& op, const Tensor& x, const Tensor& out, const double* params,
                          const Saving& saving);
extern CodeCall code_call;

}  // namespace pb
