"""One step of an optimizer on parameters that have their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Case, Work, normal


def step(kind: str, count: int, size: int) -> Callable[[Any], Work]:
    """`count` parameters of `size` elements; outputs are the parameters after three steps."""

    def build(lib: Any) -> Work:
        params = [lib.tensor(normal((size,), i), True) for i in range(count)]
        for i, p in enumerate(params):
            p.grad = lib.tensor(normal((size,), 1000 + i, 0.01))
        optimizer = getattr(lib, kind)(params, 1e-3)

        def outputs() -> dict[str, np.ndarray]:
            for _ in range(3):
                optimizer.step()
            return {"params": np.concatenate([lib.array(p) for p in params])}

        return Work("step()", {"step": optimizer.step}, outputs)

    return build


# Ideal traffic per parameter: AdamW reads p, g, m, v and writes p, m, v; SGD with momentum reads p, g, m, writes p, m.
CASES = [
    Case("AdamW 100 x 100k", "optimizer", step("adamw", 100, 100_000), bytes=28e7),
    Case("AdamW 200 x 4096", "optimizer", step("adamw", 200, 4096), bytes=28.0 * 200 * 4096),
    Case("SGD momentum 100 x 100k", "optimizer", step("sgd", 100, 100_000), bytes=20e7),
]
