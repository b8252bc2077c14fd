"""Row 149, "Gradient Norm Aware Minimization Seeks First-Order Flatness". The whole check is run."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim


def tensor(x):
    t = pb.tensor(np.asarray(x, np.float64))
    t.requires_grad = True
    return t


def quadratic():
    rng = np.random.default_rng(149)
    a = rng.normal(size=(20, 20))
    return a @ a.T / 20, rng.normal(size=20)


def test_hessian_product_of_the_unit_gradient():
    h, w = quadratic()
    th = pb.tensor(h)
    g = h @ w
    unit = g / np.linalg.norm(g)
    want = h @ unit

    def loss(x):
        return 0.5 * (x @ (th @ x))

    (got,) = pb.hvp(loss, (pb.tensor(w),), (pb.tensor(unit),))
    assert np.max(np.abs(got.numpy() - want)) < 1e-10
    slope = pb.grad(loss)
    near = slope(pb.tensor(w + 0.02 * unit)).numpy()
    assert np.max(np.abs((near - slope(pb.tensor(w)).numpy()) / 0.02 - want)) <= 1e-8
    x = tensor(w)  # the same number through the optimizer: p - g - rho_norm H u at q, and H is constant
    optim.GAM(optim.SGD([x], lr=1.0), rho_norm=0.02, exact=True).step(lambda: loss(x))
    q = w + 0.02 * want / np.linalg.norm(want)
    far = h @ q / np.linalg.norm(h @ q)
    assert np.max(np.abs(w - x.detach().numpy() - g - 0.02 * h @ far)) < 1e-10


@pytest.mark.parametrize(("words", "factor"), [({}, 2.0), ({"betas": (1.0, 0.0, 0.0), "gamma": 0.0}, 1.0)])
def test_without_radii_the_base_steps_by_a_multiple_of_the_gradient(words, factor):
    h, w = quadratic()
    x, th = tensor(w), pb.tensor(h)
    optim.GAM(optim.SGD([x], lr=0.1), rho=0.0, rho_norm=0.0, **words).step(lambda: 0.5 * (x @ (th @ x)))
    assert np.max(np.abs(x.detach().numpy() - (w - 0.1 * factor * h @ w))) <= 1e-12


C = np.array([1.0, 0.0])


def landscape(w):
    c = pb.tensor(C)
    return lambda: 0.225 * (w * w).sum() - 0.05 * pb.exp(-200.0 * ((w - c) ** 2).sum())


def test_the_sharp_minimum():
    def slope(x):
        return 0.45 * x + 20 * (x - C) * np.exp(-200 * ((x - C) ** 2).sum())

    w = tensor([0.9752, 0.0])
    hessian = pb.hessian(lambda v: 0.225 * (v * v).sum() - 0.05 * pb.exp(-200.0 * ((v - pb.tensor(C)) ** 2).sum()))
    assert np.linalg.norm(slope(np.array([0.9752, 0.0]))) <= 2e-3
    assert abs(np.linalg.eigvalsh(hessian(w.detach()).numpy())[-1] - 18.1) <= 0.05
    assert np.max(np.abs(hessian(pb.tensor(np.zeros(2))).numpy() - 0.45 * np.eye(2))) <= 1e-9


def end(make, seed):
    rng = np.random.default_rng(seed)
    w = tensor(C + np.array([-0.065, 0.0]) + 0.005 * rng.normal(size=2))
    opt, loss = make(optim.SGD([w], lr=0.02)), landscape(w)
    for _ in range(1000):
        opt.step(loss)
    return np.array(w.detach().numpy())


def test_descent_stays_in_the_sharp_minimum():
    for seed in range(20):
        assert np.linalg.norm(end(lambda base: base, seed) - C) < 0.05


def test_gam_goes_to_the_flat_minimum():
    def make(base):
        return optim.GAM(base, rho=0.02, rho_norm=0.2, gamma=0.03, betas=(1.0, -1.0, 1.0), exact=False)

    for seed in range(20):
        assert np.linalg.norm(end(make, seed)) < 0.05
