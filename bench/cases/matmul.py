"""Products of float32 matrices, with the widest kernels and with the AVX2 ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import Case, Work, normal

SHAPES = {  # (m, k, n)
    "256": (256, 256, 256),
    "512": (512, 512, 512),
    "1024": (1024, 1024, 1024),
    "2048": (2048, 2048, 2048),
    "512x784x1024": (512, 784, 1024),
    "128x1024x1024": (128, 1024, 1024),
}


def product(m: int, k: int, n: int) -> Callable[[Any], Work]:
    """z = x @ y."""

    def build(lib: Any) -> Work:
        x, y = lib.tensor(normal((m, k), 1)), lib.tensor(normal((k, n), 2))
        return Work("z = x @ y", {"x": x, "y": y}, lambda: {"z": lib.array(x @ y)})

    return build


CASES = [
    Case(f"matmul {name}", "matmul", product(m, k, n), flop=2.0 * m * k * n, sides=("pullback-v3",))
    for name, (m, k, n) in SHAPES.items()
]
