"""Row 74, "Stochastic model-based minimization of weakly convex functions": steps on |c(x)| by models of it.

The steps are recipes of a few lines on `pb.value_and_grad`; they are no classes of the package. The last clause takes
100,000 steps of a scalar: they are made with the closed form of the derivative, 2 x, after the first 500 have been
compared with those that the package differentiates. All else of the check is run as it is written.
"""

import numpy as np
import pytest

import pullback as pb


def prox_linear(c, x, alpha):
    """argmin_y |c(x) + c'(x)(y - x)| + |y - x|^2 / (2 alpha)."""
    value, slope = pb.value_and_grad(c)(x)
    square = (slope * slope).sum()
    return x - alpha * slope * pb.clip(value / (alpha * square), -1.0, 1.0)


def test_prox_linear_on_a_scalar():
    x = pb.tensor(np.array([2.0]))
    for want in (0.25, 0.025, 3.0488e-4, 4.6461e-8):
        x = prox_linear(lambda v: (v * v).sum() - 1, x, 1.0)
        assert abs(abs(x.item() - 1) / want - 1) <= 1e-4
    x = prox_linear(lambda v: (v * v).sum() - 1, x, 1.0)
    assert abs(x.item() - 1) < 3e-15


def phase_retrieval():
    rng = np.random.default_rng(74)
    a, target, u = rng.normal(size=(60, 10)), rng.normal(size=10), rng.normal(size=10)
    target /= np.linalg.norm(target)
    start = target + 0.3 * u / np.linalg.norm(u)
    return rng, [pb.tensor(row) for row in a], (a @ target) ** 2, target, start


def distance(x, target):
    v = np.array(x.numpy())
    return min(np.linalg.norm(v - target), np.linalg.norm(v + target))


def test_phase_retrieval_by_prox_linear_steps():
    rng, rows, b, target, start = phase_retrieval()
    x, reached = pb.tensor(start), None
    for passes in range(1, 201):
        for i in rng.permutation(60):
            x = prox_linear(lambda v, i=i: pb.vecdot(rows[i], v) ** 2 - b[i], x, 1.0)
        if reached is None and distance(x, target) < 1e-12:
            reached = passes
    assert distance(x, target) < 1e-12
    assert reached is not None and reached <= 20  # from pass 10 on as printed; the shuffles are others


def test_phase_retrieval_by_subgradients():
    rng, rows, b, target, start = phase_retrieval()
    x, k = pb.tensor(start), 0
    for _ in range(200):
        for i in rng.permutation(60):
            k += 1
            g = pb.grad(lambda v, i=i: pb.abs(pb.vecdot(rows[i], v) ** 2 - b[i]))(x)
            norm = pb.norm(g).item()
            if norm > 0:
                x = x - 0.05 / k**0.5 / norm * g
    assert 1e-4 < distance(x, target) < 1e-2


def test_moreau_gradient_of_the_absolute_value():
    """prox_{lam |.|} is one proximal step of the driver from p with no gradient: soft thresholding by lam."""
    lam = 1 / 8
    x = np.concatenate([np.linspace(-2, 2, 401), [0.125, -0.125, 0.0]])
    p = pb.tensor(x)
    opt = pb.optim.SGD([{"params": [p], "prox": ("l1", 1.0)}], lr=lam)
    opt.step(grads=[pb.tensor(np.zeros_like(x))])
    got = (x - p.numpy()) / lam
    assert np.max(np.abs(got - np.clip(x / lam, -1, 1))) <= 1e-8


def mean_loss(x):
    """E|x^2 - b| for b ~ U(0.5, 1.5), and its derivative."""
    s = x * x
    inside = ((s - 0.5) ** 2 + (1.5 - s) ** 2) / 2
    value = np.where(s < 0.5, 1 - s, np.where(s > 1.5, s - 1, inside))
    return value, 2 * x * np.clip(2 * s - 2, -1, 1)


def moreau_gradient(x, lam):
    """(x - y) / lam, y = argmin F(y) + (y - x)^2 / (2 lam): a monotone equation, solved by bisection."""
    low, high = x - 5 * lam - 1, x + 5 * lam + 1
    for _ in range(80):
        middle = (low + high) / 2
        above = mean_loss(middle)[1] + (middle - x) / lam > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (x - (low + high) / 2) / lam


def test_mean_loss_and_its_moreau_gradient():
    x = np.linspace(-2, 2, 41)
    b = (np.arange(200_000) + 0.5) / 200_000 + 0.5
    assert np.max(np.abs([mean_loss(v)[0] - np.abs(v * v - b).mean() for v in x])) <= 1e-9
    h = 1e-6
    slope = (mean_loss(x + h)[0] - mean_loss(x - h)[0]) / (2 * h)
    assert np.max(np.abs(mean_loss(x)[1] - slope)) <= 1e-6
    y = x - moreau_gradient(x, 1 / 8) / 8
    grid = np.linspace(-0.3, 0.3, 6001)
    near = y[:, None] + grid
    best = (mean_loss(near)[0] + 4 * (near - x[:, None]) ** 2).min(axis=1)
    assert np.max(mean_loss(y)[0] + 4 * (y - x) ** 2 - best) <= 1e-9


@pytest.mark.parametrize("seed", [0, 1])
def test_running_mean_of_squared_moreau_gradients(seed):
    """|x^2 - b| from 2 with alpha_k = 0.1 / sqrt(k): the mean falls at least as k^-0.45 from k = 100 to 100,000."""
    n = 100_000
    b = np.random.default_rng(seed).uniform(0.5, 1.5, n).tolist()
    path, x = [], 2.0
    check = pb.tensor(np.array([2.0]))
    for k in range(1, n + 1):
        alpha, slope, value = 0.1 / k**0.5, 2 * x, x * x - b[k - 1]
        share = value / (alpha * slope * slope)
        x -= alpha * slope * min(1.0, max(-1.0, share))
        path.append(x)
        if k <= 500:
            check = prox_linear(lambda v, t=b[k - 1]: (v * v).sum() - t, check, alpha)
            assert abs(check.item() - x) <= 1e-12
    means = np.cumsum(moreau_gradient(np.array(path), 1 / 8) ** 2) / np.arange(1, n + 1)
    at = np.array([10**2, 10**3, 10**4, 10**5])
    slope = np.polyfit(np.log(at), np.log(means[at - 1]), 1)[0]
    assert slope <= -0.45
