#pragma once
#include "tensor/tensor.h"
namespace pb { Tensor matmul(const Tensor& a, const Tensor& b); }
