"""Row 132, "Handbook of Convergence Theorems for (Stochastic) Gradient Methods": bounds beside the runs.

The whole check is run. 1e-25 stands for the rounding of quantities that have reached their ends.
"""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

SLACK = 1e-25


def descend(x0, loss, lr, steps, prox=None):
    x = pb.tensor(np.atleast_1d(np.asarray(x0, np.float64)))
    x.requires_grad = True
    group = {"params": [x]} if prox is None else {"params": [x], "prox": prox}
    opt = optim.SGD([group], lr=lr)
    for _ in range(steps):
        opt.step(lambda: loss(x))
        yield np.array(x.detach().numpy())


def test_strongly_convex_quadratic():
    rng = np.random.default_rng(132)
    q = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    h, star = q @ np.diag(np.linspace(0.1, 1, 20)) @ q.T, rng.normal(size=20)
    start = star + rng.normal(size=20)
    th, ts = pb.tensor(h), pb.tensor(star)
    first = ((start - star) ** 2).sum()
    path = descend(start, lambda x: 0.5 * ((x - ts) @ (th @ (x - ts))), 1.0, 500)
    for t, x in enumerate(path, 1):
        gap = x - star
        assert gap @ gap <= 0.9**t * first + SLACK
        assert 0.5 * gap @ h @ gap <= first / (2 * t) + SLACK


def test_proximal_gradient_solves_the_lasso():
    rng = np.random.default_rng(7)
    a = rng.normal(size=(50, 20))
    truth = np.zeros(20)
    truth[:3] = 1
    y = a @ truth + 0.1 * rng.normal(size=50)
    ta, ty = pb.tensor(a), pb.tensor(y)
    lr = 1 / np.linalg.norm(a, 2) ** 2
    reached = None
    for t, x in enumerate(descend(np.zeros(20), lambda v: 0.5 * ((ta @ v - ty) ** 2).sum(), lr, 1000, ("l1", 5.0)), 1):
        g = a.T @ (a @ x - y)
        on = x != 0
        residual = max(np.max(np.abs(g + 5 * np.sign(x))[on], initial=0), np.max(np.abs(g)[~on] - 5, initial=0))
        if residual < 1e-8:
            reached = t
            break
    assert reached is not None and reached <= 1000
    assert 0 < on.sum() < 20


@pytest.mark.parametrize(
    ("prox", "inside"),
    [
        (("box", -0.5, 0.25), lambda x: np.all((x >= -0.5) & (x <= 0.25))),
        (("ball", 0.5), lambda x: np.linalg.norm(x) <= 0.5 * (1 + 1e-15)),
    ],
)
def test_projected_gradient(prox, inside):
    """The point that the projections settle in is the projection of its own gradient step."""
    rng = np.random.default_rng(8)
    a = rng.normal(size=(6, 6))
    h, b = a @ a.T + np.eye(6), rng.normal(size=6)
    th, tb = pb.tensor(h), pb.tensor(b)
    lr = 1 / np.linalg.norm(h, 2)
    for x in descend(np.zeros(6), lambda v: 0.5 * (v @ (th @ v)) - v @ tb, lr, 2000, prox):
        assert inside(x)
    step = x - lr * (h @ x - b)
    again = np.clip(step, -0.5, 0.25) if prox[0] == "box" else step * min(1, 0.5 / np.linalg.norm(step))
    assert np.max(np.abs(again - x)) <= 1e-12


def test_polyak_lojasiewicz_in_one_dimension():
    """x^2 + 3 sin^2 x is not convex, L = 8 and mu = 1/32."""

    def f(x):
        return x[0] ** 2 + 3 * np.sin(x[0]) ** 2

    first = f(np.array([3.0]))
    for t, x in enumerate(descend(3.0, lambda v: (v * v + 3 * pb.sin(v) ** 2).sum(), 1 / 8, 200), 1):
        assert f(x) <= (1 - 1 / 256) ** t * first + SLACK


def test_polyak_lojasiewicz_of_an_underdetermined_system():
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(10, 20)), rng.normal(size=10)
    ta, tb = pb.tensor(a), pb.tensor(b)
    values = np.linalg.eigvalsh(a @ a.T)
    first = 0.5 * (b @ b)
    path = descend(np.zeros(20), lambda v: 0.5 * ((ta @ v - tb) ** 2).sum(), 1 / values[-1], 200)
    for t, x in enumerate(path, 1):
        assert 0.5 * ((a @ x - b) ** 2).sum() <= (1 - values[0] / values[-1]) ** t * first + SLACK
