"""Ops over rows: softmax, layer norm, cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Case, Work, jax_peer, normal

WIDTH = 1024


def softmax(lib: Any, rows: int, grad: bool) -> tuple[Callable[[], Any], dict[str, Any]]:
    x = lib.tensor(normal((rows, WIDTH), 1), grad)
    return (lambda: lib.softmax(x)), {"x": x}


def layer_norm(lib: Any, rows: int, grad: bool) -> tuple[Callable[[], Any], dict[str, Any]]:
    x = lib.tensor(normal((rows, WIDTH), 1), grad)
    weight, bias = (lib.tensor(normal((WIDTH,), seed), grad) for seed in (2, 3))
    return (lambda: lib.layer_norm(x, weight, bias)), {"x": x, "weight": weight, "bias": bias}


def cross_entropy(lib: Any, rows: int, grad: bool) -> tuple[Callable[[], Any], dict[str, Any]]:
    x = lib.tensor(normal((rows, WIDTH), 1), grad)
    target = lib.tensor(np.random.default_rng(4).integers(0, WIDTH, rows))
    return (lambda: lib.cross_entropy(x, target)), {"x": x}


def build(op: Callable[..., Any], rows: int, grad: bool) -> Callable[[Any], Work]:
    """op alone, or op and its pull; the gradients of all float inputs are compared."""

    def work(lib: Any) -> Work:
        f, leaves = op(lib, rows, grad)
        scalar = op is cross_entropy
        g = None if scalar or not grad else lib.tensor(normal((rows, WIDTH), 5))

        def run() -> Any:
            y = f()
            if grad:
                for leaf in leaves.values():
                    leaf.grad = None
                y.backward(g)
            return y

        def outputs() -> dict[str, np.ndarray]:
            found = {"y": lib.array(run())}
            return found | {f"{name}.grad": lib.array(t.grad) for name, t in leaves.items() if grad}

        return Work("run()", {"run": run}, outputs)

    return work


# Ideal traffic per element: forward 8 bytes (cross-entropy 4); backward 12 (cross-entropy 4, if kept from forward).
CASES = [
    case
    for op, forward, backward in ((softmax, 8.0, 12.0), (layer_norm, 8.0, 12.0), (cross_entropy, 4.0, 4.0))
    for rows in (1024, 16384)
    for case in (
        Case(f"{op.__name__} {rows}x1024 fwd", "rows", build(op, rows, False), bytes=forward * rows * WIDTH),
        Case(
            f"{op.__name__} {rows}x1024 fwd+bwd",
            "rows",
            build(op, rows, True),
            bytes=(forward + backward) * rows * WIDTH,
        ),
    )
]


def vocabulary(lib: Any) -> Work:
    """Cross-entropy over 32,000 classes and its gradient, for 4,096 rows."""
    x, target = normal((4096, 32000), 1), np.random.default_rng(4).integers(0, 32000, 4096)
    if lib.name == "jax":
        return jax_peer.cross_entropy(lib, x, target)
    logits, classes = lib.tensor(x, True), lib.tensor(target)

    def run() -> Any:
        logits.grad = None
        y = lib.cross_entropy(logits, classes)
        y.backward()
        return y

    return Work("run()", {"run": run}, lambda: {"y": lib.array(run()), "x.grad": lib.array(logits.grad)})


CASES += [
    Case(f"{op.__name__} 4096x1024 fwd+bwd", "rows", build(op, 4096, True), bytes=20.0 * 4096 * WIDTH)
    for op in (softmax, layer_norm)
]
CASES.append(Case("cross_entropy 4096x32000 fwd+bwd", "rows", vocabulary, bytes=8.0 * 4096 * 32000, sides=("jax",)))
