"""Loops of tiny tensors, where a call costs more than its arithmetic: the models of automatic differentiation's own
benchmark (ADBench), written as their authors write them."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Case, Work, normal

STEPS, WIDTH, LAYERS = 1024, 14, 2
POINTS, INPUTS = 100, 26


def lstm(lib: Any) -> Work:
    """A diagonal LSTM, one time step after the other, as a language model of WIDTH characters; the gradient."""
    weights = lib.tensor(normal((LAYERS, 4 * WIDTH), 1, 0.5), True)
    biases = lib.tensor(normal((LAYERS, 4 * WIDTH), 2, 0.5), True)
    ends = lib.tensor(normal((3, WIDTH), 3, 0.5), True)
    start = normal((LAYERS, 2, WIDTH), 4, 0.5)
    text = np.eye(WIDTH, dtype=np.float32)[np.random.default_rng(5).integers(0, WIDTH, STEPS + 1)]
    letters = [lib.tensor(row) for row in text]
    states = [(lib.tensor(h), lib.tensor(c)) for h, c in start]
    sigmoid, tanh, concat = lib.sigmoid, lib.tanh, lib.concat

    def cell(x: Any, h: Any, c: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
        gates = concat([x, h, x, h]) * weight + bias
        forget, enter = sigmoid(gates[:WIDTH]), sigmoid(gates[WIDTH : 2 * WIDTH])
        leave, change = sigmoid(gates[2 * WIDTH : 3 * WIDTH]), tanh(gates[3 * WIDTH :])
        c = c * forget + enter * change
        return leave * tanh(c), c

    def loss() -> Any:
        state, total = list(states), None
        for t in range(STEPS):
            x = letters[t] * ends[0]
            for layer in range(LAYERS):
                state[layer] = cell(x, *state[layer], weights[layer], biases[layer])
                x = state[layer][0]
            y = x * ends[1] + ends[2]
            part = (letters[t + 1] * (y - lib.log(lib.exp(y).sum() + 2.0))).sum()
            total = part if total is None else total + part
        return -total / (STEPS * WIDTH)

    def run() -> Any:
        weights.grad = biases.grad = ends.grad = None
        value = loss()
        value.backward()
        return value

    def outputs() -> dict[str, np.ndarray]:
        value = run()
        found = {"loss": lib.array(value)}
        return found | {f"{i}.grad": lib.array(p.grad) for i, p in enumerate((weights, biases, ends))}

    return Work("run()", {"run": run}, outputs)


def jacobian(lib: Any) -> Work:
    """300 outputs (100 points in space) by 26 inputs in forward mode: angles turn a chain of bones, one by one."""
    bones = [lib.tensor(normal((3, 3), seed, 0.5)) for seed in range(INPUTS)]
    points = lib.tensor(normal((3, POINTS), 99))
    x = lib.tensor(normal((INPUTS,), 100, 0.3))

    def place(angles: Any) -> Any:
        turned = points
        for i in range(INPUTS):
            turned = turned + lib.matmul(bones[i] * lib.sin(angles[i]), turned) * 0.1
        return turned.reshape((3 * POINTS,))

    run = lib.jacobian_forward(place)
    return Work("run(x)", {"run": run, "x": x}, lambda: {"jacobian": lib.array(run(x))})


CASES = [
    Case("LSTM step by step", "small", lstm, tolerance=2e-4),
    Case("Jacobian 300x26 forward", "small", jacobian, tolerance=2e-5),
]
