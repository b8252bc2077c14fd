"""Row 60, "An Optimistic Acceleration of AMSGrad for Nonconvex Optimization". The whole check is run."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

WORDS = {"lr": 1e-3, "betas": (0.9, 0.999), "v0": 1e-8}


def reference(p, grads, lr=1e-3):
    """(p, w) after the steps; the guess is the last gradient."""
    w, m, v, top, guess = p, np.zeros_like(p), np.zeros_like(p), np.full_like(p, 1e-8), np.zeros_like(p)
    for g in grads:
        old, m = m, 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * (g - guess) ** 2
        top = np.maximum(top, v)
        w = w - lr * m / np.sqrt(top)
        guess = g
        p = w - lr * (0.9 * old + 0.1 * guess) / np.sqrt(top)
    return p, w


def amsgrad(p, grads, lr=1e-3):
    """As published with a constant rate: nothing is corrected, no eps, the maximum starts at v0."""
    m, v, top = np.zeros_like(p), np.zeros_like(p), np.full_like(p, 1e-8)
    path = []
    for g in grads:
        g = g(p) if callable(g) else g
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        top = np.maximum(top, v)
        p = p - lr * m / np.sqrt(top)
        path.append(p)
    return p, path


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-6)])
def test_fifty_steps(dtype, tolerance):
    rng = np.random.default_rng(60)
    start = rng.normal(size=300).astype(dtype)
    grads = [rng.normal(size=300).astype(dtype) for _ in range(50)]
    p = pb.tensor(start)
    opt = optim.OptAMSGrad([p], guess="last", **WORDS)
    for g in grads:
        opt.step(grads=[pb.tensor(g)])
    want, w = reference(start.astype(np.float64), [g.astype(np.float64) for g in grads])
    assert np.linalg.norm(p.numpy() - want) <= tolerance * np.linalg.norm(want)
    assert np.linalg.norm(opt.state_dict()["state.0.iterate"].numpy() - w) <= tolerance * np.linalg.norm(w)


def test_without_guesses_the_iterate_is_that_of_amsgrad():
    """The step of the base class leaves the guess from outside at 0: v takes g^2, and w is the sequence without h."""
    rng = np.random.default_rng(61)
    start, grads = rng.normal(size=50), [rng.normal(size=50) for _ in range(50)]
    p = pb.tensor(start)
    opt = optim.OptAMSGrad([p], guess="extrapolate", **WORDS)
    for g in grads:
        optim.Optimizer.step(opt, grads=[pb.tensor(g)])
    got = opt.state_dict()["state.0.iterate"].numpy()
    assert np.max(np.abs(got - amsgrad(start, grads)[0])) <= 1e-14 * np.max(np.abs(start))


def test_extrapolation_finds_the_limit_of_a_recurrence():
    rng = np.random.default_rng(62)
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    a, b = q @ np.diag([0.5, 0.3, -0.2]) @ q.T, rng.normal(size=3)
    g = [rng.normal(size=3)]
    for _ in range(4):
        g.append(a @ g[-1] + b)
    limit = np.linalg.solve(np.eye(3) - a, b)
    got = optim.extrapolate([pb.tensor(x) for x in g], reg=0.0).numpy()
    assert np.linalg.norm(got - limit) <= 1e-8 * np.linalg.norm(limit)
    null = np.linalg.svd(np.diff(g, axis=0).T)[2][-1]  # 4 differences in 3 dimensions
    c = null / null.sum()
    assert np.linalg.norm(c @ np.array(g[1:]) - got) <= 1e-8 * np.linalg.norm(limit)


def test_regret_on_a_circling_target():
    """f_t = |w - a_t|^2 / 2 with a_t on a circle: guesses pay, for the next gradient is like the last."""
    t = np.arange(1000)
    targets = 3 * np.stack([np.cos(0.05 * t), np.sin(0.05 * t)], axis=1)
    best = 0.5 * ((targets.mean(axis=0) - targets) ** 2).sum()
    p = pb.tensor(np.zeros(2))
    opt = optim.OptAMSGrad([p], lr=0.03, betas=(0.9, 0.999), v0=1e-8, guess="last")
    loss = 0.0
    for a in targets:
        off = np.array(p.numpy()) - a
        loss += 0.5 * off @ off
        opt.step(grads=[pb.tensor(off)])
    assert abs((loss - best) / -4388 - 1) <= 0.01
    _, path = amsgrad(np.zeros(2), [lambda w, a=a: w - a for a in targets], lr=0.03)
    points = np.array([np.zeros(2), *path[:-1]])
    assert abs((0.5 * ((points - targets) ** 2).sum() - best) / -230 - 1) <= 0.05
