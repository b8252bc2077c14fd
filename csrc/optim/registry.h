// One row per update rule: what host code and the binding know of its struct.
#pragma once
#include "optim/rule.h"
#include "tensor/tensor.h"

namespace pb::optim {

// One tensor of the pure form. Undefined tensors never occur; `decay` is the coefficient that `advance` takes.
struct PureStep {
  Tensor p, g, decay;
  Tensor slots[kMaxSlots];
  Tensor hyper[kMaxHyper];  // read when tensor_hyper
  double plain[kMaxHyper];  // read otherwise
  bool tensor_hyper = false;
  int64_t t = 1;
};

struct RuleRow {
  std::string_view name, doc;
  int index = 0, nslots = 0, nhyper = 0, nstep = 0;
  const std::string_view* slots = nullptr;
  const HyperInfo* hyper = nullptr;
  void (*prepare)(const double* hyper, int64_t t, double* step) = nullptr;
  // The same formula with V = Tensor: replaces s.p and s.slots by recorded results.
  void (*pure[kDecays])(PureStep& s) = {};
};

const RuleRow& rule_row(int index);
int rule_count();

}  // namespace pb::optim
