"""Functions of one variable, whatever they are written for, as functions of float64 tensors."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from .. import _core as C
from .._core import Tensor


def _on_tensor(f: Callable[..., Any], x: Tensor) -> Any:
    with sys.modules["numpy"].errstate(all="ignore") if sys.modules.get("numpy") else nullcontext():
        return f(x)  # f may turn x into an array


def _on_array(f: Callable[..., Any], x: Tensor) -> Any:
    import numpy as np

    with np.errstate(all="ignore"):  # exp overflows beyond the domain
        return f(x.numpy())


def _on_floats(f: Callable[..., Any], x: Tensor) -> Any:
    def one(v: float) -> float:
        try:
            return float(f(v))
        except ArithmeticError:  # math.exp(1e300)
            return math.nan

    return [one(v) for v in x.tolist()]


def _numbers(result: Any, n: int) -> Tensor:
    y = C.asarray(result, dtype=C.float64).detach()
    if tuple(y.shape) != (n,):
        raise C.ShapeError(f"it returned shape {tuple(y.shape)} for {n} points\nhelp: return one number per point")
    return y * 1.0  # contiguous, whatever the function did


def vectorised(f: Callable[..., Any], what: str, low: float, high: float) -> Callable[[Tensor], Tensor]:
    """f as a function of float64 tensors of shape (n,): as it is, through NumPy arrays, or float by float.

    The first of these that works on three points between low and high is taken.
    """
    if not callable(f):
        raise TypeError(f"fewbit.solve: {what} is a {type(f).__name__}\nhelp: pass a function of one variable")
    probe = C.asarray([low + (high - low) * t for t in (0.3, 0.45, 0.7)], dtype=C.float64)
    failures = []
    for way in (_on_tensor, _on_array, _on_floats):
        try:
            _numbers(way(f, probe), 3)
        except Exception as error:
            failures.append(error)
            continue
        return lambda x, way=way: _numbers(way(f, x), x.shape[0])  # type: ignore[misc]
    raise TypeError(
        f"fewbit.solve: {what} cannot be evaluated: {failures[0]}\n"
        "help: pass a function of a float64 tensor, of a NumPy array or of a float"
    ) from failures[0]
