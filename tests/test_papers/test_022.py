"""Row 22, "An SDE for Modeling SAM": USAM as descent on a modified loss, its saddle threshold, and its SDE.

The comparison with a torch loop stands in test_022_torch.py; all else of the check is run here, with 100,000 simulated
paths at the longest step and 20,000 at the shorter ones, which keep it below ten seconds.
"""

import numpy as np
import pytest

import pullback as pb
from pullback import optim


def tensor(x):
    t = pb.tensor(np.asarray(x, np.float64))
    t.requires_grad = True
    return t


def array(x):
    return np.array(x.detach().numpy())


def test_usam_on_a_quadratic_descends_the_modified_loss():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 6))
    h, w = a @ a.T / 6, rng.normal(size=6)
    x, th = tensor(w), pb.tensor(h)
    optim.USAM(optim.SGD([x], lr=0.1), rho=0.3).step(lambda: 0.5 * (x @ (th @ x)))

    def modified(v):
        return 0.5 * (v @ (th @ v)) + 0.15 * ((th @ v) ** 2).sum()

    want = w - 0.1 * array(pb.grad(modified)(pb.tensor(w)))
    assert np.max(np.abs(array(x) - want)) <= 1e-12
    drift = optim.sde.usam_drift(lambda v: 0.5 * (v @ th * v).sum(axis=-1), 0.3)(pb.tensor(w[None]))
    assert np.max(np.abs(w - 0.1 * array(drift)[0] - want)) <= 1e-12


@pytest.mark.parametrize(("rho", "y"), [(0.5, 2148.0), (1.0, 0.1), (2.0, 1.9e-10)])
def test_saddle(rho, y):
    """f = (x^2 - y^2)/2: USAM leaves the saddle only while rho |lambda| < 1."""
    x, signs = tensor([0.1, 0.1]), pb.tensor(np.array([0.5, -0.5]))
    opt = optim.USAM(optim.SGD([x], lr=0.01), rho=rho)
    for _ in range(2000):
        opt.step(lambda: (signs * x * x).sum())
    got = array(x)
    exact = 0.1 * (1 + 0.01 * (1 - rho)) ** 2000
    assert abs(got[1] / exact - 1) <= 1e-9
    assert abs(got[1] / y - 1) <= 0.025  # y as printed: two digits where they are few
    assert abs(got[0]) <= 1e-9


LAMBDA, START, RHO, VARIANCE = np.array([1.0, 0.5]), np.array([1.0, -1.0]), 0.1, 0.25
FACTOR = 1 + RHO * LAMBDA  # USAM meets the noise of a minibatch twice: H (rho noise) + noise


def usam_moment(eta):
    """E|x_T|^2 of USAM with one minibatch a step, by its exact recursion."""
    square = START**2
    for _ in range(round(1 / eta)):
        square = (1 - eta * LAMBDA * FACTOR) ** 2 * square + eta**2 * FACTOR**2 * VARIANCE
    return square.sum()


def sde_moment(eta):
    """E|X_T|^2 of dX = -(H + rho H^2) X dt + sqrt(eta) (I + rho H) Sigma^(1/2) dW."""
    k = LAMBDA * FACTOR
    return (START**2 * np.exp(-2 * k) + eta * FACTOR**2 * VARIANCE * (1 - np.exp(-2 * k)) / (2 * k)).sum()


def test_weak_error_of_the_sde():
    etas, errors = (0.1, 0.05, 0.025), (0.0218, 0.0112, 0.00569)
    got = [abs(usam_moment(eta) - sde_moment(eta)) for eta in etas]
    for g, want in zip(got, errors, strict=True):
        assert abs(g / want - 1) <= 5e-3
    slope = np.polyfit(np.log(etas), np.log(got), 1)[0]
    assert abs(slope - 0.97) <= 0.2


def test_the_recursion_is_usam():
    """The mean square over many runs of the optimizer itself agrees with the recursion."""
    eta, runs = 0.1, 20_000
    rng = np.random.default_rng(1)
    x = tensor(np.tile(START, (runs, 1)))
    h = pb.tensor(LAMBDA)
    opt = optim.USAM(optim.SGD([x], lr=eta), rho=RHO)  # no norm: the runs do not meet
    for _ in range(10):
        noise = pb.tensor(rng.normal(scale=VARIANCE**0.5, size=(runs, 2)))
        opt.step(lambda z=noise: (0.5 * h * x * x + z * x).sum())
    squares = (array(x) ** 2).sum(axis=1)
    assert abs(squares.mean() - usam_moment(eta)) <= 4 * squares.std() / runs**0.5


@pytest.mark.parametrize(("eta", "paths"), [(0.1, 100_000), (0.05, 20_000), (0.025, 20_000)])
def test_simulated_paths(eta, paths):
    h = pb.tensor(LAMBDA)
    drift = optim.sde.usam_drift(lambda v: 0.5 * (h * v * v).sum(), RHO)
    noise = pb.tensor((eta * VARIANCE) ** 0.5 * FACTOR)
    x = pb.tensor(np.tile(START, (paths, 1)))
    x = optim.sde.simulate(drift, lambda v: noise, x, eta / 10, round(10 / eta), rng=pb.random.Generator(22))
    assert abs((array(x) ** 2).sum(axis=1).mean() / sde_moment(eta) - 1) <= 0.01


def test_drift_of_sam_and_bad_words():
    w = np.random.default_rng(2).normal(size=(5, 3))
    drift = optim.sde.sam_drift(lambda v: (v**4).sum(axis=-1), 0.2)
    g = 4 * w**3
    want = g + 0.2 * 12 * w**2 * g / np.linalg.norm(g, axis=1, keepdims=True)
    assert np.max(np.abs(array(drift(pb.tensor(w))) - want)) <= 1e-12
    with pytest.raises(ValueError, match="dt must be positive"):
        optim.sde.simulate(drift, 0.0, pb.tensor(w), 0.0, 1)
