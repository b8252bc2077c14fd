"""What a call costs when there is almost nothing to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Case, Work, normal


def add(size: int, grad: bool) -> Callable[[Any], Work]:
    """z = x + y."""

    def build(lib: Any) -> Work:
        x, y = (lib.tensor(normal((size,), seed), grad) for seed in (1, 2))

        def outputs() -> dict[str, np.ndarray]:
            z = x + y
            found = {"z": lib.array(z)}
            if grad:
                z.backward(lib.tensor(normal((size,), 3)))
                found |= {"x.grad": lib.array(x.grad), "y.grad": lib.array(y.grad)}
                x.grad = y.grad = None
            return found

        return Work("z = x + y", {"x": x, "y": y}, outputs)

    return build


def chain(lib: Any) -> Work:
    """25 multiplications and 25 additions in a row on 16 elements, forward and backward."""
    x = lib.tensor(normal((16,), 1), True)
    a, b, g = (lib.tensor(normal((16,), seed)) for seed in (2, 3, 4))

    def run() -> Any:
        x.grad = None
        y = x
        for _ in range(25):
            y = y * a
            y = y + b
        y.backward(g)
        return y

    def outputs() -> dict[str, np.ndarray]:
        y = run()
        return {"y": lib.array(y), "x.grad": lib.array(x.grad)}

    return Work("run()", {"run": run}, outputs)


def square(lib: Any) -> Work:
    """(x * x).backward() on one number."""
    x = lib.tensor(np.float32(1.5), True)

    def outputs() -> dict[str, np.ndarray]:
        (x * x).backward()
        found = {"x.grad": lib.array(x.grad)}
        x.grad = None
        return found

    return Work("(x * x).backward(); x.grad = None", {"x": x}, outputs)


def linear(lib: Any) -> Work:
    """A linear layer, 16 to 16, on one row; its weights require a gradient, as in a model."""
    layer = lib.nn.Linear(16, 16)
    layer.load_state_dict({"weight": lib.tensor(normal((16, 16), 1)), "bias": lib.tensor(normal((16,), 2))})
    x = lib.tensor(normal((1, 16), 3))
    return Work("y = layer(x)", {"layer": layer, "x": x}, lambda: {"y": lib.array(layer(x))})


CASES = [
    Case("add 1", "overhead", add(1, False)),
    Case("add 16", "overhead", add(16, False)),
    Case("add 16 with grad", "overhead", add(16, True)),
    Case("chain 50 fwd+bwd", "overhead", chain),
    Case("square backward", "overhead", square),
    Case("linear 16 one row", "overhead", linear),
]
