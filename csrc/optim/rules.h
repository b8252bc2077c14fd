// Every update rule. A rule's number is its place in this text.
#pragma once
#include "optim/rule.h"

namespace pb::optim {
constexpr int kFirstRule = __COUNTER__ + 1;
}
#include "optim/adagrad.h"
#include "optim/adam.h"
#include "optim/adog.h"
#include "optim/average.h"
#include "optim/climb.h"
#include "optim/dog.h"
#include "optim/kinetic.h"
#include "optim/lion.h"
#include "optim/norms.h"
#include "optim/sgd.h"
#include "optim/udog.h"
namespace pb::optim {
constexpr int kRules = __COUNTER__ - kFirstRule;
}
