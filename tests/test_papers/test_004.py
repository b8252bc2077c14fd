"""Row 4, "Understanding Gradient Regularization in Deep Learning": differences of gradients against Hessian products.

The whole check is run. With SGD at lr 1 and gamma 1 a step is p - g - dR, which gives dR back.
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


def penalty(x0, loss, g, mode, eps):
    """dR at x0."""
    x = tensor(x0)
    opt = optim.GradientRegularization(optim.SGD([x], lr=1.0), gamma=1.0, eps=eps, mode=mode)
    opt.step(lambda: loss(x))
    return np.asarray(x0) - array(x) - g


@pytest.mark.parametrize(
    ("mode", "errors"),
    [
        ("ascent", (1.1266, 0.10801, 0.010755)),
        ("descent", (1.0234, 0.10698, 0.010744)),
        ("central", (5.160e-2, 5.160e-4, 5.160e-6)),
    ],
)
def test_errors_of_the_differences_on_a_quartic(mode, errors):
    """L = x^4/4 at 1.2: g = 1.728 and H g = 7.46496."""
    for eps, error in zip((0.1, 0.01, 0.001), errors, strict=True):
        got = penalty([1.2], lambda x: (x**4).sum() / 4, np.array([1.728]), mode, eps)
        assert abs(abs(got[0] - 7.46496) / error - 1) <= 1e-3, eps


def test_all_equal_the_product_on_a_quadratic():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(20, 20))
    h, w = a @ a.T / 20, rng.normal(size=20)
    th = pb.tensor(h)
    for mode in ("ascent", "descent", "central"):
        got = penalty(w, lambda x: 0.5 * (x @ (th @ x)), h @ w, mode, 0.1)
        assert np.max(np.abs(got - h @ h @ w)) <= 1e-10 * np.linalg.norm(h @ h @ w), mode


def test_exact_is_the_gradient_of_half_the_squared_norm():
    w = np.random.default_rng(5).normal(size=9)

    def loss(x):
        return (pb.tanh(x) ** 2 + x**4 / 4).sum()

    def half(x):
        return 0.5 * (pb.grad(loss)(x) ** 2).sum()

    t = np.tanh(w)
    g = 2 * t * (1 - t**2) + w**3
    want = (2 * (1 - t**2) * (1 - 3 * t**2) + 3 * w**2) * g  # the Hessian is diagonal
    assert np.max(np.abs(array(pb.grad(half)(pb.tensor(w))) - want)) <= 1e-10
    assert np.max(np.abs(penalty(w, loss, g, "exact", 0.01) - want)) <= 1e-10


def test_ascent_with_gamma_eps_is_usam():
    w = np.random.default_rng(6).normal(size=9)
    x, y = tensor(w), tensor(w)
    optim.GradientRegularization(optim.SGD([x], lr=0.1), gamma=0.05, eps=0.05, mode="ascent").step(
        lambda: (pb.tanh(x) ** 2 + x**4 / 4).sum()
    )
    optim.USAM(optim.SGD([y], lr=0.1), rho=0.05).step(lambda: (pb.tanh(y) ** 2 + y**4 / 4).sum())
    assert np.max(np.abs(array(x) - array(y))) <= 1e-12
    assert np.max(np.abs(array(x) - w)) > 1e-3
