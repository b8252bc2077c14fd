"""Products of float32 matrices, with the widest kernels and with the AVX2 ones, and of bfloat16 ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import Case, Work, normal

SMALL = {"64": (64, 64, 64), "128": (128, 128, 128)}
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


def batch(lib: Any) -> Work:
    """64 products of 64x64."""
    x, y = lib.tensor(normal((64, 64, 64), 1)), lib.tensor(normal((64, 64, 64), 2))
    return Work("z = x @ y", {"x": x, "y": y}, lambda: {"z": lib.array(x @ y)})


def halves(size: int) -> Callable[[Any], Work]:
    """z = x @ y in bfloat16; beside it float32, which differs by the rounding of z."""

    def build(lib: Any) -> Work:
        x, y = (lib.half(lib.tensor(normal((size, size), seed))) for seed in (1, 2))
        return Work("z = x @ y", {"x": x, "y": y}, lambda: {"z": lib.array(x @ y)})

    return build


V3 = ("pullback-v3",)
CASES = [
    *(Case(f"matmul {name}", "matmul", product(*mkn), flop=2.0 * mkn[0] ** 3) for name, mkn in SMALL.items()),
    Case("matmul 64 of 64x64x64", "matmul", batch, flop=2.0 * 64**4),
    *(
        Case(f"matmul {name}", "matmul", product(m, k, n), flop=2.0 * m * k * n, sides=V3)
        for name, (m, k, n) in SHAPES.items()
    ),
    *(
        Case(
            f"matmul bfloat16 {n}", "bfloat16", halves(n), flop=2.0 * n**3, tolerance=2**-7, sides=("pullback-float32",)
        )
        for n in (1024, 2048)
    ),
]
