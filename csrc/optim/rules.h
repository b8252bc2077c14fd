// Every update rule. A rule's number is its place in this text.
#pragma once
#include "optim/rule.h"

namespace pb::optim {
constexpr int kFirstRule = __COUNTER__ + 1;
}
#include "optim/adam.h"
#include "optim/average.h"
#include "optim/sgd.h"
namespace pb::optim {
constexpr int kRules = __COUNTER__ - kFirstRule;
}
