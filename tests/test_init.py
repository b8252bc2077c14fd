"""Initialisers: exact values, scales, whole distributions, orthogonality, argument errors."""

import math

import numpy as np
import pytest

import pullback as pb
from pullback.nn import init

ALPHA = 1e-9


def values(t):
    return np.asarray(pb.reshape(t.detach(), (-1,)).tolist())


def check_law(x, cdf):
    """Kolmogorov-Smirnov distance within what n draws allow, except with probability ALPHA."""
    x = np.sort(x)
    n = x.size
    p = np.array([cdf(v) for v in x])
    i = np.arange(n)
    assert np.max(np.maximum(p - i / n, (i + 1) / n - p)) <= math.sqrt(math.log(2 / ALPHA) / (2 * n))


def uniform_cdf(bound):
    return lambda v: min(max((v + bound) / (2 * bound), 0.0), 1.0)


def normal_cdf(std):
    return lambda v: 0.5 * math.erfc(-v / (std * math.sqrt(2)))


def test_all_fill_in_place_and_return():
    for name in init.__all__:
        if name == "calculate_gain":
            continue
        t = pb.nn.Parameter(pb.empty((4, 3)))
        address = t._address
        args = (2.5,) if name == "constant" else ()
        assert getattr(init, name)(t, *args) is t
        assert t._address == address and t.is_leaf and t.requires_grad and t.dtype == pb.float32
        assert bool(pb.all(pb.isfinite(t)))
        double = pb.empty((4, 3), dtype=pb.float64)
        assert getattr(init, name)(double, *args).dtype == pb.float64


def test_constants():
    t = pb.empty((2, 3))
    assert init.zeros(t).tolist() == [[0.0] * 3] * 2
    assert init.ones(t).tolist() == [[1.0] * 3] * 2
    assert init.constant(t, -0.5).tolist() == [[-0.5] * 3] * 2
    assert init.eye(t).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert init.eye(pb.empty((3, 1))).tolist() == [[1.0], [0.0], [0.0]]


def test_views_are_filled():
    t = pb.zeros((4, 4))
    init.ones(t[1:3, ::2])
    assert t.tolist() == [[0.0] * 4, [1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0] * 4]


SHAPE = (96, 20, 3, 3)  # fan in 180, fan out 864
CASES = {
    "uniform": (lambda t: init.uniform(t, -0.7, 0.7), uniform_cdf(0.7)),
    "normal": (lambda t: init.normal(t, 0.0, 0.3), normal_cdf(0.3)),
    "xavier_uniform": (lambda t: init.xavier_uniform(t, gain=2.0), uniform_cdf(2 * math.sqrt(6 / 1044))),
    "xavier_normal": (lambda t: init.xavier_normal(t), normal_cdf(math.sqrt(2 / 1044))),
    "kaiming_uniform": (lambda t: init.kaiming_uniform(t, a=math.sqrt(5)), uniform_cdf(1 / math.sqrt(180))),
    "kaiming_uniform_out": (
        lambda t: init.kaiming_uniform(t, mode="fan_out", nonlinearity="relu"),
        uniform_cdf(math.sqrt(6 / 864)),
    ),
    "kaiming_normal": (lambda t: init.kaiming_normal(t), normal_cdf(math.sqrt(2 / 180))),
    "kaiming_normal_out": (
        lambda t: init.kaiming_normal(t, mode="fan_out", nonlinearity="tanh"),
        normal_cdf(5 / 3 / math.sqrt(864)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_distribution(name):
    fill, cdf = CASES[name]
    check_law(values(fill(pb.empty(SHAPE))), cdf)


def test_rng_fixes_the_values():
    for name in (
        "uniform",
        "normal",
        "xavier_uniform",
        "xavier_normal",
        "kaiming_uniform",
        "kaiming_normal",
        "orthogonal",
        "trunc_normal",
    ):
        f = getattr(init, name)
        a, b = (f(pb.empty((5, 4)), rng=pb.random.Generator(3)) for _ in range(2))
        assert a.tobytes() == b.tobytes()
        assert f(pb.empty((5, 4)), rng=pb.random.Generator(4)).tobytes() != a.tobytes()
        pb.manual_seed(3)
        assert f(pb.empty((5, 4))).tobytes() == a.tobytes()


def test_gains():
    assert init.calculate_gain("linear") == init.calculate_gain("conv2d") == init.calculate_gain("sigmoid") == 1.0
    assert init.calculate_gain("tanh") == 5 / 3 and init.calculate_gain("selu") == 0.75
    assert init.calculate_gain("relu") == math.sqrt(2)
    assert init.calculate_gain("leaky_relu") == math.sqrt(2 / (1 + 1e-4))
    assert init.calculate_gain("leaky_relu", 1.0) == 1.0


@pytest.mark.parametrize("shape", [(7, 7), (3, 8), (8, 3), (6, 2, 3, 2), (1, 5), (5, 1), (65, 130), (200, 150)])
@pytest.mark.parametrize("dtype, tolerance", [(pb.float64, 2e-14), (pb.float32, 2e-6)])
def test_orthogonal(shape, dtype, tolerance):
    w = init.orthogonal(pb.empty(shape, dtype=dtype), gain=1.5)
    m = values(w).reshape(shape[0], -1) / 1.5
    gram = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    assert np.max(np.abs(gram - np.eye(len(gram)))) <= tolerance


def test_orthogonal_is_uniform():
    """First entry of a random rotation of the plane: the cosine of a uniform angle; determinants have both signs."""
    g = pb.random.Generator(5)
    matrices = np.array([init.orthogonal(pb.empty((2, 2), dtype=pb.float64), rng=g).tolist() for _ in range(2000)])
    check_law(matrices[:, 0, 0], lambda v: 1 - math.acos(min(max(v, -1.0), 1.0)) / math.pi)
    signs = np.linalg.det(matrices) > 0
    assert abs(signs.mean() - 0.5) <= math.sqrt(math.log(2 / ALPHA) / 4000)


def test_orthogonal_empty():
    assert init.orthogonal(pb.empty((0, 3))).shape == (0, 3)


def truncated(mean, std, a, b):
    lo, hi = (0.5 * math.erfc(-(v - mean) / (std * math.sqrt(2))) for v in (a, b))
    return lambda v: (0.5 * math.erfc(-(v - mean) / (std * math.sqrt(2))) - lo) / (hi - lo)


@pytest.mark.parametrize(
    "args",
    [(0.0, 1.0, -2.0, 2.0), (1.0, 0.5, 0.0, 1.2), (0.0, 1.0, -9.0, -4.0), (0.0, 1.0, -1.0, 8.0), (3.0, 0.1, 2.0, 4.0)],
)
@pytest.mark.parametrize("dtype", [pb.float32, pb.float64])
def test_trunc_normal(args, dtype):
    x = values(init.trunc_normal(pb.empty(20_000, dtype=dtype), *args))
    assert np.min(x) >= args[2] and np.max(x) <= args[3]
    check_law(x, truncated(*args))


def test_trunc_normal_upper_tail_keeps_its_digits():
    """Mean of a normal beyond 9: density(9) / tail(9)."""
    x = values(init.trunc_normal(pb.empty(20_000, dtype=pb.float64), a=9.0, b=100.0))
    tail = 0.5 * math.erfc(9 / math.sqrt(2))
    mean = math.exp(-40.5) / math.sqrt(2 * math.pi) / tail
    assert np.min(x) >= 9.0 and abs(x.mean() - mean) <= 6.2 * x.std() / math.sqrt(x.size)


def test_quantile_inverts_the_distribution():
    z = init._quantile(
        pb.tensor([0.5 * math.erfc(v / math.sqrt(2)) for v in (0.0, 1e-9, 0.5, 2.0, 8.0, 20.0, 35.0)], dtype=pb.float64)
    )
    for got, v in zip(z.tolist(), (0.0, 1e-9, 0.5, 2.0, 8.0, 20.0, 35.0), strict=True):
        assert abs(got + v) <= 1e-13 * max(1.0, v)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: init.eye(pb.empty(3)), pb.ShapeError, "needs a matrix"),
        (lambda: init.xavier_uniform(pb.empty(3)), pb.ShapeError, "need two axes"),
        (lambda: init.kaiming_normal(pb.empty(())), pb.ShapeError, "need two axes"),
        (lambda: init.kaiming_normal(pb.empty((2, 2)), mode="fan"), ValueError, "unknown mode"),
        (lambda: init.kaiming_uniform(pb.empty((2, 2)), nonlinearity="gelu"), ValueError, "no gain known for 'gelu'"),
        (lambda: init.orthogonal(pb.empty(3)), pb.ShapeError, "needs two axes"),
        (lambda: init.trunc_normal(pb.empty(3), std=0.0), ValueError, "std must be positive"),
        (lambda: init.trunc_normal(pb.empty(3), a=1.0, b=1.0), ValueError, "a below b"),
        (lambda: init.trunc_normal(pb.empty(3), a=math.nan), ValueError, "a below b"),
        (lambda: init.trunc_normal(pb.empty(3), a=50.0, b=60.0), ValueError, "has no probability"),
        (lambda: init.uniform(pb.empty(3, dtype=pb.int64)), pb.DTypeError, "draws are floating"),
        (lambda: init.uniform(pb.empty(3), 1.0, 0.0), ValueError, "below low"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as info:
        call()
    assert "help: " in str(info.value)
