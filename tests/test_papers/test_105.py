"""Row 105, "Random Scaling and Momentum for Non-smooth Non-convex Optimization". The whole check is run."""

from itertools import pairwise

import numpy as np
import pytest

import pullback as pb
from pullback import optim

X, D = -0.7, 0.5


def value(x):
    return np.abs(x) + 0.3 * np.cos(3 * x)


def slope(x):
    return np.sign(x) - 0.9 * np.sin(3 * x)


def quadrature(f, density, cut, end):
    """Gauss-Legendre on both sides of the kink, in pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total = 0.0
    for low, high in ((0.0, cut), (cut, end)):
        edges = np.linspace(low, high, 41)
        for a, b in pairwise(edges):
            s = (a + b) / 2 + (b - a) / 2 * nodes
            total += (b - a) / 2 * (weights * density(s) * f(s)).sum()
    return total


def sides(density, end):
    left = quadrature(lambda s: value(X + s * D) - value(X), density, 1.4, end)
    return left, quadrature(lambda s: slope(X + s * D) * D, density, 1.4, end)


def test_identity_of_exponential_scaling():
    """E[F(x + s d) - F(x)] = E<F'(x + s d), d> for s ~ Exp(1), by quadrature split at the kink s = 1.4."""
    for got in sides(lambda s: np.exp(-s), 60.0):
        assert abs(got + 0.0290291) <= 5e-8
    left, right = sides(lambda s: np.exp(-s), 60.0)
    assert abs(left - right) <= 1e-8


def test_uniform_scaling_has_no_such_identity():
    left, right = sides(lambda s: np.full_like(s, 0.5), 2.0)
    assert sorted((round(left, 5), round(right, 5))) == [-0.09389, -0.03103]


def test_identity_by_draws_of_the_package():
    s = pb.random.exponential((2_000_000,), dtype=pb.float64, rng=pb.random.Generator(105)).numpy()
    assert abs((value(X + s * D) - value(X)).mean() + 0.0290291) <= 1e-3
    assert abs((slope(X + s * D) * D).mean() + 0.0290291) <= 1e-3


def test_scales_of_one_are_momentum_to_the_bit():
    rng = np.random.default_rng(0)
    start = rng.normal(size=500).astype(np.float32)
    p, q = pb.tensor(start), pb.tensor(start)
    a = optim.ExpScaledSGD([p], lr=0.01, momentum=0.9, scales=[1.0, 1.0])
    b = optim.SGD([q], lr=0.01, momentum=0.9, dampening=0.0)
    for _ in range(30):
        g = pb.tensor(rng.normal(size=500).astype(np.float32))
        a.step(grads=[g])
        b.step(grads=[g])
        assert np.array_equal(p.numpy(), q.numpy())


def test_moments_of_the_draws():
    s = pb.random.exponential((1_000_000,), dtype=pb.float64, rng=pb.random.Generator(7)).numpy()
    assert abs(s.mean() - 1) <= 0.01
    assert abs(s.var() - 1) <= 0.01


def trajectory(make, threads, groups):
    pb.manual_seed(5)
    pb.set_num_threads(threads)
    rng = np.random.default_rng(1)
    start = [rng.normal(size=s).astype(np.float32) for s in [(70_000,), (33, 5), (1,)]]
    params = [pb.tensor(p) for p in start]
    opt = make(params) if groups == 1 else make([{"params": [p]} for p in params])
    for _ in range(10):
        opt.step(grads=[pb.tensor(rng.normal(size=p.shape).astype(np.float32)) for p in params])
    return np.concatenate([p.numpy().ravel() for p in params])


@pytest.mark.parametrize(
    "make",
    [lambda p: optim.ExpScaledSGD(p, lr=0.01), lambda p: optim.ExpScaled(optim.Adam(p, lr=0.01))],
    ids=["SGD", "Adam"],
)
def test_a_seed_gives_one_trajectory(make):
    before = pb.get_num_threads()
    try:
        runs = [trajectory(make, threads, groups) for threads in (1, 2) for groups in (1, 3)]
    finally:
        pb.set_num_threads(before)
    for run in runs[1:]:
        assert np.array_equal(run, runs[0])
