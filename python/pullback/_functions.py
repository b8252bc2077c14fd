"""Array functions that need a few lines of Python, and the methods of Tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _core as C
from ._core import Tensor

__all__ = ["dropout", "gelu", "get_include"]

e = 2.718281828459045
inf = float("inf")
nan = float("nan")
newaxis = None
pi = 3.141592653589793
__all__ += ["e", "inf", "nan", "newaxis", "pi"]


def get_include() -> str:
    """The folder with the C++ headers, for extensions.

    >>> import os; os.path.basename(pb.get_include())
    'include'
    """
    return str(Path(__file__).parent / "include")


def _rebuild(*args: Any) -> Tensor:
    """What a pickled tensor names: pickle finds Python functions only."""
    return C._rebuild(*args)


def gelu(x: Tensor, *, approximate: str = "none", saved: Any = None) -> Tensor:
    """x * Phi(x), Phi the normal distribution function; approximate="tanh" takes Hendrycks and Gimpel's formula.

    saved: what backward keeps, see pb.saving.

    >>> round(pb.gelu(pb.tensor(1.0)).item(), 5)
    0.84134
    """
    if approximate == "none":
        return C.gelu(x, saved=saved)
    if approximate == "tanh":
        return C.gelu_tanh(x, saved=saved)
    raise ValueError(f'gelu: unknown approximate={approximate!r}\nhelp: use "none" or "tanh"')


def dropout(x: Tensor, p: float = 0.5, *, training: bool = True, rng: C.Generator | None = None) -> Tensor:
    """x / (1 - p) with probability 1 - p, else 0; x itself when not training. The mask is drawn again in backward.

    >>> pb.dropout(pb.ones((4,)), training=False).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be in [0, 1], got {p}\nhelp: p is the probability that an element becomes 0")
    if not training or p == 0.0:
        return x
    return C.where(False, x, 0.0) if p == 1.0 else C._dropout(x, p=p, rng=rng)


class _Hook:
    """What register_hook returns; remove() takes the hook away again."""

    def __init__(self, tensor: Tensor, number: int) -> None:
        self._tensor, self._number = tensor, number

    def remove(self) -> None:
        """Takes the hook away."""
        self._tensor._remove_hook(self._number)


def _register_hook(self: Tensor, f: Callable[[Tensor], Tensor | None]) -> _Hook:
    """Calls f with the gradient of this tensor when it is complete; a returned tensor replaces it.

    >>> x = pb.tensor(1.0, requires_grad=True)
    >>> handle = x.register_hook(lambda g: g * 2)
    >>> (x * 3).backward(); x.grad.item()
    6.0
    """
    return _Hook(self, self._register_hook(f))


#: Functions whose first argument is an array and that are methods too (those that exist in this build).
_METHODS = [
    "abs",
    "acos",
    "acosh",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "broadcast_to",
    "ceil",
    "clip",
    "cos",
    "cosh",
    "cumulative_sum",
    "diff",
    "divide",
    "equal",
    "erf",
    "erfc",
    "exp",
    "expand_dims",
    "expm1",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "matmul",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "negative",
    "norm",
    "not_equal",
    "outer",
    "positive",
    "pow",
    "prod",
    "reciprocal",
    "relu",
    "remainder",
    "repeat",
    "roll",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "std",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "topk",
    "trunc",
    "unstack",
    "var",
    "vecdot",
]


def _install_methods() -> None:
    for name in _METHODS:
        f: Any = getattr(C, name, None)
        if f is not None:
            setattr(Tensor, name, f if type(f).__name__ == "Op" else C._as_method(f))
    Tensor.register_hook = _register_hook  # type: ignore[method-assign]


_install_methods()
