// One row per update rule: what host code and the binding know of its struct.
#pragma once
#include "cpu/optim_table.h"
#include "optim/rule.h"
#include "tensor/tensor.h"

namespace pb::optim {

struct RuleRow;

// One tensor of the pure form. Undefined tensors never occur; `decay` is the coefficient that `advance` takes.
struct PureStep {
  const RuleRow* row = nullptr;
  Tensor p, g, decay;
  Tensor slots[kMaxSlots];
  Tensor noise;                 // for rules that take it
  Tensor scalars[kMaxScalars];  // 0-d float64
  Tensor sums[kMaxSums];        // 0-d float64: written by measure, read by step
  Tensor hyper[kMaxHyper];      // read when tensor_hyper
  double plain[kMaxHyper];      // read otherwise
  bool tensor_hyper = false;
  int64_t t = 1;
  bool coupled = false;
};

// The driver knows a rule by its row alone: whoever fills one in, be it from a struct of optim/rules.h or from an
// expression, has every service of the driver.
struct RuleRow {
  std::string_view name, doc;
  int index = 0, nslots = 0, nhyper = 0, nstep = 0, nscalars = 0, nsums = 0;
  bool noise = false, largest = false;
  unsigned exact = 0;  // bit j: slot j is exact in every state format
  Scope scope = Scope::Tensor;
  int degrees[kMaxSums] = {-1, -1, -1, -1, -1};  // of each sum in g, where it is homogeneous; else -1
  const std::string_view* slots = nullptr;
  const std::string_view* scalars = nullptr;
  const HyperInfo* hyper = nullptr;
  void (*prepare)(const RuleRow&, const double* hyper, int64_t t, double* scalars, double* step) = nullptr;
  void (*finish)(const RuleRow&, const double* hyper, int64_t t, double* scalars, const double* sums,
                 double* step) = nullptr;
  const RuleKernels* kernels = nullptr;      // of the level in use
  const void* program = nullptr;             // handed to them
  void (*pure_sums)(PureStep& s) = nullptr;  // null: the rule needs none
  // The same formula with V = Tensor: replaces s.p and s.slots by recorded results.
  void (*pure[kDecays])(PureStep& s) = {};
};

const RuleRow& rule_row(int index);
int rule_count();
const OptimKernels& optim_kernels();
int add_rule(RuleRow& row);  // of a rule that is not in optim/rules.h; sets and returns its index

}  // namespace pb::optim
