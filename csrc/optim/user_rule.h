// A rule that a user wrote: its formula as a list of nodes, checked and turned into a row of the registry.
//
// Note [Rules from outside]
// What depends on no element (hyper-parameters, the step count, sums over whole tensors, numbers kept per tensor) is
// evaluated once per step in double. The rest becomes a program of element-wise kernels of the registry, which the
// driver runs tile by tile: all operands of a tile stay in L1, and a result whose old value nobody reads later goes
// straight to its parameter or state. Common chains of operations take one kernel with the same roundings
// (cpu/tile_kernels.h). Nothing is compiled, and a step allocates nothing.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "cpu/tile_table.h"
#include "families/map.h"
#include "optim/registry.h"

namespace pb::optim {

struct Node {
  enum Kind : uint8_t { Param, Grad, Slot, Number, Hyper, Count, Sum, Constant, Op };
  Kind kind = Constant;
  bool element = false;  // one value per element, else one per step
  bool late = false;     // known only after the sums are
  int degree = 0;        // in g, where it is homogeneous; else -1
  int index = 0;         // of the slot, number, hyper-parameter or sum
  double value = 0;      // of the constant
  const MapOp* op = nullptr;
  int in[kMaxInputs] = {};  // earlier nodes
  double params[kMaxArgs] = {};
};

// Operands of a kernel: places are tiles, values are numbers beside them.
inline constexpr int kPlaceFrom = 0, kPlaceGrad = 1, kPlaceParam = 2, kPlaceSlots = 3,
                     kPlaceTemps = kPlaceSlots + kMaxSlots, kMaxTemps = 48, kPlaces = kPlaceTemps + kMaxTemps;
inline constexpr int kValueScale = 0, kValueDecay = 1, kValueStep = 2, kValueConstants = kValueStep + kMaxStep,
                     kMaxConstants = 32, kValues = kValueConstants + kMaxConstants;

struct Instruction {
  enum Kind : uint8_t { Map, Test, Spread, Copy, Fused };  // Test: a kernel of truth values, which become 0 and 1
  Kind kind = Map;
  int inputs = 0, out = 0;
  int in[kMaxFused] = {};  // from kPlaces on: values
  unsigned scalars = 0;    // bit j: input j is a value
  MapKernels::Fn fn[2] = {};
  FusedKernel::Fn fused[2] = {};
  double params[kMaxArgs] = {};
};

struct Program {
  std::vector<Instruction> code;
  std::vector<double> constants;
  int scaled = 0;              // where the first instruction puts g * scale; it is left out when scale is 1. 0: none
  int temps = 0;               // tiles of scratch
  int results[kMaxSums] = {};  // places of what a measure sums
};

struct UserRule {
  std::string name, doc;
  std::vector<std::string> slots, numbers, hyper;
  std::vector<HyperInfo> infos;
  std::vector<Node> nodes;
  unsigned exact = 0;  // bit j: slot j is exact in every state format
  int new_p = 0;
  std::vector<int> new_slots, new_numbers, sums;

  // Made by add_user_rule.
  std::vector<int> numeric;  // the nodes that are one value per step
  std::vector<int> rank;     // of each node among them
  std::vector<int> handed;   // those that elements read: the Step
  Program update[kDecays], measure[2];
  std::vector<std::string_view> slot_names, number_names;
  RuleRow row;
};

// Checks the rule, makes its programs and adds its row to the registry, where it stays. Returns its index.
int add_user_rule(std::unique_ptr<UserRule> rule, Scope scope);

Program compile_update(const UserRule& rule, Decay decay);
Program compile_measure(const UserRule& rule, bool coupled);

}  // namespace pb::optim
