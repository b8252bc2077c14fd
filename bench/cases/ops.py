"""Element-wise ops: memory-bound at 16M elements, half computation at 1M."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Case, Work, normal

SIZES = {"1M": 1 << 20, "16M": 1 << 24}


def forward(op: str, size: int) -> Callable[[Any], Work]:
    """y = op(x), x without gradient."""

    def build(lib: Any) -> Work:
        f, x = getattr(lib, op), lib.tensor(normal((size,), 1))
        return Work("y = f(x)", {"f": f, "x": x}, lambda: {"y": lib.array(f(x))})

    return build


def both(op: str, size: int) -> Callable[[Any], Work]:
    """y = op(x) and the pull of a given cotangent."""

    def build(lib: Any) -> Work:
        f, x, g = getattr(lib, op), lib.tensor(normal((size,), 1), True), lib.tensor(normal((size,), 2))

        def run() -> Any:
            x.grad = None
            y = f(x)
            y.backward(g)
            return y

        def outputs() -> dict[str, np.ndarray]:
            y = run()
            return {"y": lib.array(y), "x.grad": lib.array(x.grad)}

        return Work("run()", {"run": run}, outputs)

    return build


# Ideal traffic: forward reads x and writes y; backward reads x (or y) and the cotangent and writes the gradient.
CASES = [
    case
    for op in ("gelu", "silu", "tanh")
    for label, size in SIZES.items()
    for case in (
        Case(f"{op} {label} fwd", "ops", forward(op, size), bytes=8.0 * size),
        Case(f"{op} {label} fwd+bwd", "ops", both(op, size), bytes=20.0 * size),
    )
]
