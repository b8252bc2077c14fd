"""NumPy references of the Map and Reduce rows, in float64; refs_rows.py holds the others.

A row without an entry fails its family's test.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_erf = np.vectorize(math.erf, otypes=[float])
_erfc = np.vectorize(math.erfc, otypes=[float])


def _sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def _softplus(x):
    return np.logaddexp(x, 0.0)


_A, _S = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

MAP: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negative": lambda x: -x,
    "positive": lambda x: +x,
    "pow": lambda a, b: a**b,
    "floor_divide": lambda a, b: np.floor(a / b),
    "remainder": lambda a, b: np.mod(a, b),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "logical_not": np.logical_not,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "where": lambda c, a, b: np.where(c != 0, a, b),
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "silu_mul": lambda a, b: a * _sigmoid(a) * b,
    "gelu_mul": lambda a, b: a * 0.5 * _erfc(-a / np.sqrt(2)) * b,
    "abs": np.abs,
    "square": np.square,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "erf": _erf,
    "erfc": _erfc,
    "_normal_cdf": lambda x: 0.5 * _erfc(-x / np.sqrt(2)),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "trunc": np.trunc,
    "_clip": lambda x, min=-1.0, max=1.0: np.clip(x, min, max),
    "relu": lambda x: np.where(x < 0, 0.0, x),
    "leaky_relu": lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
    "elu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "celu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "selu": lambda x: _S * np.where(x > 0, x, _A * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: 0.5 * x * _erfc(-x / np.sqrt(2)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": lambda x, beta=1.0, threshold=20.0: np.where(beta * x > threshold, x, _softplus(beta * x) / beta),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
    "tanhshrink": lambda x: x - np.tanh(x),
    "sigmoid": _sigmoid,
    "log_sigmoid": lambda x: -_softplus(-x),
    "hardtanh": lambda x, min_val=-1.0, max_val=1.0: np.clip(x, min_val, max_val),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "_squared_error": lambda a, b: (a - b) ** 2,
    "_absolute_error": lambda a, b: np.abs(a - b),
    "_huber": lambda a, b, delta=1.0: np.where(
        np.abs(a - b) <= delta, (a - b) ** 2 / 2, delta * (np.abs(a - b) - delta / 2)
    ),
    "_smooth_l1": lambda a, b, beta=1.0: np.where(
        np.abs(a - b) < beta, (a - b) ** 2 / (2 * beta), np.abs(a - b) - beta / 2
    ),
    "_bce_with_logits": lambda a, b: np.logaddexp(0, a) - a * b,
    "_kl_div": lambda a, b: np.where(b > 0, b * (np.log(np.where(b > 0, b, 1)) - a), b * 0 - b * a),
}

#: Other constants than the defaults, where a row has any.
OTHER_PARAMETERS = {
    "_huber": {"delta": 0.5},
    "_smooth_l1": {"beta": 2.0},
    "_clip": {"min": -0.5, "max": 2.0},
    "leaky_relu": {"negative_slope": 0.2},
    "elu": {"alpha": 0.7},
    "celu": {"alpha": 1.6},
    "softplus": {"beta": 2.0, "threshold": 3.0},
    "hardtanh": {"min_val": -0.25, "max_val": 1.5},
}

#: Float inputs where a formula is not smooth: tests keep 0.02 away from them.
KINKS = {
    "abs": [0.0],
    "relu": [0.0],
    "leaky_relu": [0.0],
    "elu": [0.0],
    "celu": [0.0],
    "selu": [0.0],
    "softsign": [0.0],
    "_clip": [-1.0, 1.0, -0.5, 2.0],
    "hardtanh": [-1.0, 1.0, -0.25, 1.5],
    "relu6": [0.0, 6.0],
    "hardsigmoid": [-3.0, 3.0],
    "hardswish": [-3.0, 3.0],
    "softplus": [1.5],
}

REDUCE: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.sum,
    "mean": np.mean,
    "_prod": np.prod,
    "max": np.max,
    "min": np.min,
    "any": np.any,
    "all": np.all,
}
