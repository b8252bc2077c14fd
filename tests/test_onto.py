"""Products that backward adds to a gradient that stands there already."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


X, W, G = numbers((70, 300), 0), numbers((40, 300), 1), numbers((70, 40), 2)
TOLERANCE = {pb.float64: 1e-12, pb.float32: 2e-5}


def near(got: pb.Tensor, want: np.ndarray, dtype: Any) -> None:
    assert got.shape == want.shape and got.dtype == dtype
    assert np.max(np.abs(got.numpy() - want)) <= TOLERANCE[dtype] * np.max(np.abs(want))


def leaf(values: np.ndarray, dtype: Any = pb.float64) -> pb.Tensor:
    return pb.tensor(values).astype(dtype).detach().requires_grad_()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("op", [pb.linear, lambda x, w: x @ w.mT])
def test_a_second_backward_adds(op: Callable[..., pb.Tensor], dtype: Any) -> None:
    x, w, up = leaf(X, dtype), leaf(W, dtype), pb.tensor(G).astype(dtype)
    op(x, w).backward(up)
    version = w.grad._version
    for scale in (2.0, 4.0):
        op(x * scale, w).backward(up)
    near(w.grad, 7 * G.T @ X, dtype)
    near(x.grad, 7 * G @ W, dtype)
    assert w.grad._version == version + 2


def test_uses_of_one_input_and_one_weight() -> None:
    """Cotangents of a node's output, of a leaf, and of what grad() was asked for."""
    vs = [numbers((300, 300), 3 + i) / 17 for i in range(3)]
    g = numbers((2, 35, 300), 9)

    def f(x: pb.Tensor, *ws: pb.Tensor) -> pb.Tensor:
        h = x * 1.0
        y = h + pb.linear(h, ws[0]) + pb.linear(h, ws[1]) + h @ ws[2] + pb.linear(h, ws[0])
        return pb.sum(y * pb.tensor(g))

    flat_x, flat_g = X.reshape(70, 300), g.reshape(70, 300)
    gw = flat_g.T @ flat_x
    want = [
        (flat_g + 2 * flat_g @ vs[0] + flat_g @ vs[1] + flat_g @ vs[2].T).reshape(2, 35, 300),
        2 * gw,
        gw,
        gw.T,
    ]
    inputs = [X.reshape(2, 35, 300), *vs]
    leaves = [leaf(v) for v in inputs]
    f(*leaves).backward()
    graph = [leaf(v) for v in inputs]
    f(*graph).backward(create_graph=True)
    by_grad = pb.grad(f, argnums=(0, 1, 2, 3))(*[pb.tensor(v) for v in inputs])
    for got in ([t.grad for t in leaves], [t.grad for t in graph], by_grad):
        for a, b in zip(got, want, strict=True):
            near(a, b, pb.float64)


def test_a_cotangent_that_others_see_is_not_written() -> None:
    up = pb.tensor(G)
    x, w = leaf(G), leaf(numbers((40, 40), 5))
    h = x * 1.0
    (h + pb.linear(h, w)).backward(up)
    assert np.array_equal(up.numpy(), G)
    near(x.grad, G + G @ w.numpy(), pb.float64)


def test_hooks_see_the_sum_and_each_call_its_own() -> None:
    w, seen = leaf(W), []
    w.register_hook(lambda g: seen.append(g.numpy().copy()))
    for _ in range(2):
        x = pb.tensor(X)
        (pb.linear(x, w) + pb.linear(x, w)).backward(pb.tensor(G))
    want = G.T @ X
    assert len(seen) == 2
    for g in seen:
        assert np.max(np.abs(g - 2 * want)) <= 1e-11 * np.max(np.abs(want))
    near(w.grad, 4 * want, pb.float64)


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_a_kept_input(bits: int) -> None:
    """Added to what stands there, the product is that of the blocks alone."""

    def run(w: pb.Tensor) -> None:
        pb.manual_seed(3)
        x = pb.tensor(X).astype(pb.float32) * 1.0
        pb.linear(x, w, None, saved=bits).backward(pb.tensor(G).astype(pb.float32))

    once, twice = leaf(W, pb.float32), leaf(W, pb.float32)
    run(once)
    run(twice)
    run(twice)
    near(twice.grad, 2 * once.grad.numpy(), pb.float32)


def test_a_gradient_of_another_dtype_or_layout() -> None:
    x, up = pb.tensor(X), pb.tensor(G)
    w = leaf(W)
    w.grad = pb.tensor(np.ones((300, 40))).mT
    pb.linear(x, w).backward(up)
    near(w.grad, 1 + G.T @ X, pb.float64)


def test_the_same_bits_for_any_number_of_threads() -> None:
    def bits(threads: int) -> bytes:
        before = pb.get_num_threads()
        pb.set_num_threads(threads)
        try:
            x, w = leaf(numbers((520, 300), 6), pb.float32), leaf(W, pb.float32)
            up = pb.tensor(numbers((520, 40), 7)).astype(pb.float32)
            for _ in range(3):
                pb.linear(x, w).backward(up)
            return x.grad.numpy().tobytes() + w.grad.numpy().tobytes()
        finally:
            pb.set_num_threads(before)

    want = bits(1)
    assert bits(2) == want and bits(5) == want


def test_threads_that_share_weights() -> None:
    """Products above a tenth of a millisecond give up the interpreter lock while they add."""
    w = leaf(numbers((256, 300), 8), pb.float32)
    x, up = np.ones((300, 300), "f4"), np.ones((300, 256), "f4")

    def work() -> None:
        for _ in range(20):
            pb.linear(pb.tensor(x), w).backward(pb.tensor(up))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert np.array_equal(w.grad.numpy(), np.full((256, 300), 80 * 300.0, "f4"))


def test_a_product_of_the_gradient_itself() -> None:
    """The product reads the gradient to which its result is added."""
    values, g = numbers((30, 30), 11), numbers((30, 30), 12)
    w = leaf(values)
    w.grad = pb.tensor(g)
    pb.linear(w.grad, w).backward(pb.tensor(values))
    near(w.grad, g + values.T @ g, pb.float64)
