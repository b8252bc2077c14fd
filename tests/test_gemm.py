"""The matrix product on operands that are not stored in the type of its sums: 16-bit floats and quantised blocks."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import pullback as pb

HALF_STEP = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}
KINDS = list(HALF_STEP)


def operand(rng, shape, dtype, transposed):
    """A tensor of this shape, its memory perhaps the other way round, and its values in float64."""
    memory = rng.normal(size=shape[::-1] if transposed else shape).astype(np.float32)
    t = pb.tensor(memory).astype(getattr(pb, dtype))
    values = t.astype(pb.float64).numpy()
    return (t.mT, values.T) if transposed else (t, values)


def check(m, k, n, kinds=("bfloat16", "bfloat16"), turned=(False, False), seed=0):
    """Sums are float32, and the result is rounded once."""
    rng = np.random.default_rng(seed)
    x, xv = operand(rng, (m, k), kinds[0], turned[0])
    y, yv = operand(rng, (k, n), kinds[1], turned[1])
    z = x @ y
    name = str(z.dtype).rsplit(".", 1)[-1]
    want, size = xv @ yv, np.abs(xv) @ np.abs(yv)
    bound = 4e-7 * size + HALF_STEP[name] * np.abs(want) + (2.0**-25 if name == "float16" else 0) + 1e-30
    got = z.astype(pb.float64).numpy()
    assert got.shape == want.shape
    assert np.all(np.abs(got - want) <= bound)


@pytest.mark.parametrize("m", [1, 2, 7, 14, 15, 33, 130])
@pytest.mark.parametrize("turned", list(itertools.product([False, True], repeat=2)))
def test_bfloat16_around_tiles_and_blocks(m, turned):
    for k in (1, 2, 3, 15, 16, 17, 33, 257, 513, 1100):
        for n in (1, 5, 31, 32, 33, 70, 200):
            check(m, k, n, turned=turned, seed=k + n)


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=2)))
def test_mixed_operands(kinds):
    for m, k, n in ((1, 70, 40), (40, 70, 1), (3, 33, 64), (20, 300, 50), (70, 31, 17)):
        for turned in itertools.product([False, True], repeat=2):
            check(m, k, n, kinds, turned, seed=m)


@pytest.mark.parametrize("m,k,n", [(2, 2100, 40), (300, 2100, 33), (40, 700, 1100), (1100, 64, 1100), (600, 90, 40)])
def test_bfloat16_in_several_panels(m, k, n):
    check(m, k, n)
    check(m, k, n, turned=(True, True))


def test_strides_and_batches():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 40, 90)).astype("f"), rng.normal(size=(3, 90, 70)).astype("f")
    x, y = pb.tensor(a).astype(pb.bfloat16), pb.tensor(b).astype(pb.bfloat16)
    av, bv = x.astype(pb.float64).numpy(), y.astype(pb.float64).numpy()
    for z, want in (
        (x @ y, av @ bv),
        (x[:, ::3, ::-2] @ y[:, ::2, ::5], av[:, ::3, ::-2] @ bv[:, ::2, ::5]),
        (x @ y[0], av @ bv[0]),
        (x[:, None] @ y[None], av[:, None] @ bv[None]),
        (x[:, :1] @ y, av[:, :1] @ bv),
    ):
        error = np.abs(z.astype(pb.float64).numpy() - want)
        assert np.max(error / (np.abs(want) + 0.02)) <= 2.0**-8


def test_bias_is_added_before_rounding():
    rng = np.random.default_rng(2)
    x, w, b = (pb.tensor(rng.normal(size=s).astype("f")).astype(pb.bfloat16) for s in ((50, 600), (70, 600), (70,)))
    xv, wv, bv = (t.astype(pb.float64).numpy() for t in (x, w, b))
    want, size = xv @ wv.T + bv, np.abs(xv) @ np.abs(wv).T
    got = pb.linear(x, w, b).astype(pb.float64).numpy()
    assert np.all(np.abs(got - want) <= 4e-7 * size + np.abs(want) * 2.0**-8)
    alone = pb.linear(x[:1], w, b).astype(pb.float64).numpy()
    assert np.all(np.abs(alone - want[:1]) <= 4e-7 * size[:1] + np.abs(want[:1]) * 2.0**-8)


@pytest.mark.parametrize("m,n", [(1, 40), (3, 40), (40, 40), (40, 1)])
def test_infinity_and_nan_stay_where_they_are(m, n):
    a, b = np.ones((m, 35), "f"), np.ones((35, n), "f")
    a[0, 7], b[34, n - 1] = np.inf, np.nan
    got = (pb.tensor(a).astype(pb.bfloat16) @ pb.tensor(b).astype(pb.bfloat16)).astype(pb.float32).numpy()
    with np.errstate(invalid="ignore"):
        want = a @ b
    np.testing.assert_array_equal(got, want)


def test_nothing_to_add_up():
    x, y = pb.zeros((3, 0), dtype=pb.bfloat16), pb.zeros((0, 5), dtype=pb.bfloat16)
    np.testing.assert_array_equal((x @ y).astype(pb.float32).numpy(), np.zeros((3, 5)))
    bias = pb.arange(5).astype(pb.bfloat16)
    got = pb.linear(x, pb.zeros((5, 0), dtype=pb.bfloat16), bias).astype(pb.float32).numpy()
    np.testing.assert_array_equal(got, np.broadcast_to(np.arange(5), (3, 5)))
    assert (pb.zeros((0, 4), dtype=pb.bfloat16) @ pb.zeros((4, 2), dtype=pb.bfloat16)).shape == (0, 2)


def product_bits(threads):
    """Bits of products of many shapes on this many threads."""
    before = pb.get_num_threads()
    pb.set_num_threads(threads)
    try:
        rng = np.random.default_rng(3)
        out = []
        for m, k, n in ((130, 600, 700), (700, 300, 90), (8, 900, 900), (1, 900, 900), (256, 1100, 256)):
            x = pb.tensor(rng.normal(size=(m, k)).astype("f")).astype(pb.bfloat16)
            y = pb.tensor(rng.normal(size=(k, n)).astype("f")).astype(pb.bfloat16)
            out += [(x @ y).astype(pb.float32).numpy().tobytes(), (x.astype(pb.float32) @ y).numpy().tobytes()]
        return out
    finally:
        pb.set_num_threads(before)


def test_same_bits_for_any_number_of_threads():
    want = product_bits(1)
    assert product_bits(2) == want
    assert product_bits(5) == want


def test_gradients_of_a_bfloat16_linear():
    rng = np.random.default_rng(4)
    x, w, b, g = (rng.normal(size=s).astype("f") for s in ((64, 48), (33, 48), (33,), (64, 33)))
    leaves = [pb.tensor(v).astype(pb.bfloat16).requires_grad_() for v in (x, w, b)]
    up = pb.tensor(g).astype(pb.bfloat16)
    pb.linear(*leaves).backward(up)
    xv, wv, _ = (t.detach().astype(pb.float64).numpy() for t in leaves)
    gv = up.astype(pb.float64).numpy()
    for leaf, want in zip(leaves, (gv @ wv, gv.T @ xv, gv.sum(0)), strict=True):
        got = leaf.grad.astype(pb.float64).numpy()
        assert np.max(np.abs(got - want) / (np.abs(want) + 0.05)) <= 2.0**-8


# ---- operands in blocks of 8 and 4 bits


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows,width,out", [(1, 5, 3), (40, 64, 33), (70, 200, 20), (300, 333, 1), (33, 1000, 70)])
def test_weight_gradient_from_blocks(rows, width, out, bits):
    """Decoded while packing, the kept input gives the bits that it gives decoded first."""
    rng = np.random.default_rng(rows)
    x, w, g = (rng.normal(size=s).astype("f") for s in ((rows, width), (out, width), (rows, out)))
    pb.manual_seed(7)
    words = pb._core.fewbit_quantise(pb.tensor(x), bits)
    kept = pb._core.fewbit_restore(words, (rows, width), pb.float32, bits)
    pb.manual_seed(7)
    weight, ahead = pb.tensor(w).requires_grad_(), pb.tensor(x) * 1.0
    pb.linear(ahead, weight, None, saved=bits).backward(pb.tensor(g))
    want = pb.tensor(g).mT @ kept
    assert weight.grad.numpy().tobytes() == want.numpy().tobytes()


def test_a_block_of_nan_reads_as_nan():
    x = np.ones((4, 130), "f")
    x[1, 70] = np.inf
    weight = pb.ones((3, 130)).requires_grad_()
    pb.linear(pb.tensor(x) * 1.0, weight, None, saved=8).backward(pb.ones((4, 3)))
    bad = np.isnan(weight.grad.numpy()).all(0)
    assert bad[64:128].all()
    assert not bad[:64].any() and not bad[128:].any()


def test_the_other_levels():
    """Where the CPU lacks the instruction for pairs, packing widens: the same tests at level v3."""
    picked = "bfloat16_around_tiles_and_blocks and 33 or mixed_operands or infinity or any_number or from_blocks"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", picked]
    run = subprocess.run(command, env={**os.environ, "PULLBACK_ISA": "v3"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:]
