"""Row 159, "AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods": the norm test.

The whole check is run; gradients by example come from `pb.jacobian` of the losses of the examples.
"""

import math

import numpy as np

import pullback as pb
from pullback import optim


def regression(b, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(b, 10)), rng.normal(size=b), rng.normal(size=10)


def by_example(x, y, w):
    return pb.jacobian(lambda v: 0.5 * (pb.tensor(x) @ v - pb.tensor(y)) ** 2)(pb.tensor(w))


def ask(rows, batch_size, **words):
    test = optim.NormTest(eta=0.5, **words)
    for row in rows:
        test.add([row])
    variance, mean = test.variance(), [np.array(m.numpy()) for m in test.mean]
    return test.next(batch_size), variance, mean[0]


def test_next_size_on_a_regression():
    grown = 0
    for seed in range(20):
        x, y, w = regression(32, seed)
        rows = by_example(x, y, w)
        g = (x @ w - y)[:, None] * x
        assert np.max(np.abs(rows.numpy() - g)) <= 1e-12
        got, variance, mean = ask([rows[i] for i in range(32)], 32)
        v, gbar = ((g - g.mean(axis=0)) ** 2).sum() / 31, g.mean(axis=0)
        assert abs(variance / v - 1) <= 1e-12 and np.max(np.abs(mean - gbar)) <= 1e-12
        assert got == max(32, math.ceil(v / (0.25 * (gbar @ gbar))))
        grown += got > 32
        worst, _, _ = ask([rows[i] for i in range(32)], 32, coordinates=True)
        assert worst == max(32, math.ceil(np.max(g.var(axis=0, ddof=1) / (0.25 * gbar**2))))
    assert grown > 0


def test_equal_examples_have_no_variance():
    x, y, w = regression(1, 3)
    rows = by_example(np.repeat(x, 32, axis=0), np.repeat(y, 32), w)
    got, variance, mean = ask([rows[i] for i in range(32)], 32)
    assert variance <= 1e-28 * (mean @ mean)
    assert got == 32


def test_variance_of_batches():
    """b E|g_B - g|^2 = V (N - 1) / N for batches drawn with replacement."""
    n, b, draws = 1000, 32, 10_000
    x, y, w = regression(n, 4)
    rows = by_example(x, y, w)
    _, variance, mean = ask([rows[i] for i in range(n)], n)
    g = np.array(rows.numpy())
    pick = np.random.default_rng(159).integers(0, n, size=(draws, b))
    squares = b * ((g[pick].mean(axis=1) - mean) ** 2).sum(axis=1)
    assert abs(squares.mean() - variance * (n - 1) / n) <= 3 * squares.std() / draws**0.5
