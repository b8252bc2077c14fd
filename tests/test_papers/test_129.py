"""Row 129, "Sensitivity Analysis On Loss Landscape": first, second and third derivatives by the inputs of a network.

The whole check is run. The rank correlation is a recipe of argsort; it is not a public function of the package.
"""

from itertools import permutations

import numpy as np
import pytest

import pullback as pb


def test_three_derivatives_of_a_function_of_one_variable():
    x = np.linspace(-3, 3, 1000)
    sin, cos = np.sin(x), np.cos(x)
    exact = [
        3 * x**2 * sin + x**3 * cos,
        (6 * x - x**3) * sin + 6 * x**2 * cos,
        (6 - 9 * x**2) * sin + (18 * x - x**3) * cos,
    ]

    def f(x):
        return x**3 * pb.sin(x)

    def reverse(f):
        return pb.grad(lambda x: f(x).sum())

    def forward(f):
        return lambda x: pb.jvp(f, (x,), (pb.ones_like(x),))[1]

    points = pb.asarray(x)
    for order in (1, 2, 3):
        for modes in np.ndindex(*(2,) * order):  # every mix of modes
            g = f
            for m in modes:
                g = (reverse, forward)[m](g)
            assert np.max(np.abs(g(points).numpy() - exact[order - 1])) <= 1e-10, (order, modes)


def network():
    rng = np.random.default_rng(129)
    w1, b1, w2, x = (pb.asarray(rng.normal(size=s)) for s in ((16, 3), (16,), (16,), (3,)))

    def f(z):
        return pb.vecdot(w2, pb.tanh(w1 @ z + b1))

    # d^n f / dz_i dz_j ... = sum over hidden units of w2 tanh^(n)(W1 z + b1) W1_i W1_j ...
    w, v = w1.numpy(), w2.numpy()
    t = np.tanh(w @ x.numpy() + b1.numpy())
    second = np.einsum("h,hi,hj->ij", v * (-2 * t * (1 - t**2)), w, w)
    third = np.einsum("h,hi,hj,hk->ijk", v * (1 - t**2) * (6 * t**2 - 2), w, w, w)
    return f, x, second, third


def test_third_derivative_is_symmetric():
    f, x, second, third = network()
    tensors = {
        "reverse over reverse over reverse": pb.jacobian(pb.jacobian(pb.grad(f), mode="reverse"), mode="reverse"),
        "forward over reverse over reverse": pb.jacobian(pb.jacobian(pb.grad(f), mode="reverse"), mode="forward"),
        "reverse over forward over reverse": pb.jacobian(pb.jacobian(pb.grad(f), mode="forward"), mode="reverse"),
        "forward over forward over reverse": pb.jacobian(pb.jacobian(pb.grad(f), mode="forward"), mode="forward"),
    }
    values = {name: d(x).numpy() for name, d in tensors.items()}
    scale = np.max(np.abs(third))
    for name, d in values.items():
        assert d.shape == (3, 3, 3)
        assert np.max(np.abs(d - third)) <= 1e-12 * scale, name
        for axes in permutations(range(3)):
            assert np.max(np.abs(d - d.transpose(axes))) <= 1e-12, (name, axes)
    reverse = values["reverse over reverse over reverse"]
    assert np.max(np.abs(reverse - values["forward over reverse over reverse"])) <= 1e-12
    reverse_hessian = pb.jacobian(pb.grad(f), mode="reverse")(x).numpy()
    assert np.max(np.abs(reverse_hessian - pb.hessian(f)(x).numpy())) <= 1e-12
    assert np.max(np.abs(reverse_hessian - second)) <= 1e-12 * np.max(np.abs(second))


def average_ranks(x):
    """Ranks from 1 of a vector; equal values share the mean of theirs."""
    n = x.shape[0]
    order = pb.argsort(x)
    ordered = x[order]
    starts = pb.concat([pb.tensor([True]), ordered[1:] != ordered[:-1]])  # of runs of equal values
    run = pb.cumulative_sum(starts.astype(pb.int64)) - 1
    place = pb.arange(1, n + 1).astype(pb.float64)
    sums = pb.scatter_add(pb.zeros((n,), dtype=pb.float64), run, place, axis=0)
    counts = pb.scatter_add(pb.zeros((n,), dtype=pb.float64), run, pb.ones((n,), dtype=pb.float64), axis=0)
    ranks = pb.zeros((n,), dtype=pb.float64)
    ranks[order] = (sums / pb.maximum(counts, 1.0))[run]
    return ranks


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / pb.sqrt((a * a).sum() * (b * b).sum())


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_pearson_of_average_ranks(ties):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    a = rng.normal(size=500)
    b = a + rng.normal(size=500)
    if ties:
        a, b = np.round(a * 2), np.round(b * 2)
        assert len(set(a)) < 30
    ranks = [average_ranks(pb.asarray(v)) for v in (a, b)]
    np.testing.assert_array_equal(ranks[0].numpy(), stats.rankdata(a))
    got = pearson(*ranks).item()
    assert abs(got - np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1]) <= 1e-12
    assert abs(got - stats.spearmanr(a, b).statistic) <= 1e-12


def test_sensitivity_table():
    """Mean derivatives of the loss by each feature, orders 1 to 3: nested vjp, along one axis at a time, against the
    closed form. The loss is the square of the network's output; the derivatives of a square follow from Leibniz."""
    rng = np.random.default_rng(5)
    w1, b1, w2 = rng.normal(size=(16, 3)), rng.normal(size=16), rng.normal(size=16)
    x = rng.normal(size=(200, 3))

    def loss(x):  # one value per sample
        return pb.square(pb.tanh(x @ pb.asarray(w1.T.copy()) + pb.asarray(b1)) @ pb.asarray(w2))

    def along(f, i):  # per-sample derivative by feature i
        return lambda x: pb.grad(lambda x: f(x).sum())(x)[:, i]

    t = np.tanh(x @ w1.T + b1)
    units = [t, 1 - t**2, -2 * t * (1 - t**2), (1 - t**2) * (6 * t**2 - 2)]
    for i in range(3):
        y = [(u * w1[:, i] ** n) @ w2 for n, u in enumerate(units)]
        exact = [2 * y[0] * y[1], 2 * (y[1] ** 2 + y[0] * y[2]), 2 * (3 * y[1] * y[2] + y[0] * y[3])]
        f = loss
        for want in exact:
            f = along(f, i)
            got = f(pb.asarray(x)).numpy()
            assert np.max(np.abs(got - want)) <= 1e-12 * np.max(np.abs(want))
            assert abs(got.mean() - want.mean()) <= 1e-12 * np.max(np.abs(want))
