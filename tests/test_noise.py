"""Layers of reduced precision and analog noise, and the blend of rectifier and smooth function."""

import math

import numpy as np
import pytest

import pullback as pb
from pullback import nn


def test_rounding_by_formula():
    """sign(x) ceil(|p x| - 1/2) / p in exact arithmetic, halves towards 0."""
    x = np.concatenate([np.linspace(-3, 3, 1201), [0.0, 0.5, -0.5, 1.5]])
    for bits in (1, 2, 4, 8):
        p = 2**bits - 1
        y = nn.ReducePrecision(bits)(pb.asarray(x)).numpy()
        assert np.array_equal(y, np.sign(x) * np.ceil(np.abs(x) * p - 0.5) / p)
        assert np.max(np.abs(y - x)) <= 0.5 / p + 1e-12
    assert nn.ReducePrecision(1)(pb.asarray([0.5, -0.5, 1.5])).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [pb.float32, pb.bfloat16, pb.float16])
def test_rounding_keeps_the_dtype(dtype):
    """Products are formed in float32: 8 bits are right in bfloat16 too."""
    x = pb.random.uniform((1000,), low=-1.0).astype(dtype)
    y = nn.ReducePrecision(8)(x)
    assert y.dtype == dtype
    wide = x.astype(pb.float32).numpy()
    exact = np.sign(wide) * np.ceil(np.abs(wide) * np.float32(255) - np.float32(0.5)) / np.float32(255)
    assert np.array_equal(y.astype(pb.float32).numpy(), pb.asarray(exact).astype(dtype).astype(pb.float32).numpy())


def test_stochastic_rounding_is_unbiased():
    """Only the two neighbours come; their mean is x within 4 sigma; multiples stay."""
    layer, n, p = nn.ReducePrecision(3, stochastic=True), 200_000, 7
    for value in (0.1, -0.43, 0.9, 1.7):
        y = layer(pb.full((n,), value, dtype=pb.float64)).numpy()
        low = math.floor(abs(value) * p)
        share = abs(value) * p - low
        found = np.unique(np.round(np.abs(y) * p).astype(int))
        assert found.tolist() == [low, low + 1]
        sigma = math.sqrt(share * (1 - share) / n) / p
        assert abs(y.mean() - value) <= 4 * sigma
    k = np.arange(-7, 8) / 7
    assert np.allclose(layer(pb.asarray(k)).numpy(), k, atol=1e-15, rtol=0)


def test_gradient_passes_straight_through():
    """1 everywhere; after a clip 1 on [-1, 1], ends included, and 0 outside. In both modes and at second order."""
    x = pb.asarray([-1.5, -1.0, -0.2, 0.0, 0.5, 1.0, 1.01])
    for layer in (nn.ReducePrecision(2), nn.ReducePrecision(2, stochastic=True), nn.GaussianNoise(0.1, 2)):
        assert pb.grad(lambda v, f=layer: f(v).sum())(x).tolist() == [1.0] * 7
        clipped = pb.grad(lambda v, f=layer: f(pb.clip(v, -1, 1)).sum())(x)
        assert clipped.tolist() == [0, 1, 1, 1, 1, 1, 0]
        assert pb.jvp(layer, (x,), (x * 2,))[1].tolist() == (x * 2).tolist()
        curve = pb.grad(lambda v, f=layer: (pb.grad(lambda u: (f(u) ** 2).sum())(v)).sum())(x)
        assert curve.tolist() == [2.0] * 7


def test_rounding_keeps_nothing_for_backward():
    x = pb.ones((1000,))
    x.requires_grad = True
    assert pb.memory.saved_bytes(nn.ReducePrecision(4)(x).sum()) == 0


@pytest.mark.parametrize("leakage", [0.01, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_leakage(leakage, bits):
    """The share of values that noise moves by more than half a step, within 4 sigma; std by its formula."""
    layer, n, p = nn.GaussianNoise(leakage, bits), 200_000, 2**bits - 1
    assert abs(math.erf(1 / (2 * math.sqrt(2) * p * layer.std)) - (1 - leakage)) <= 1e-12
    noise = layer(pb.zeros((n,), dtype=pb.float64)).numpy()
    share = (np.abs(noise) > 0.5 / p).mean()
    assert abs(share - leakage) <= 4 * math.sqrt(leakage * (1 - leakage) / n)
    assert abs(noise.mean()) <= 4 * layer.std / math.sqrt(n)


def test_noise_is_drawn_from_a_given_generator_also_in_eval():
    layer = nn.GaussianNoise(0.3, 2).eval()
    layer._rng = pb.random.Generator(5)
    a = layer(pb.zeros(8))
    layer._rng = pb.random.Generator(5)
    assert a.tolist() == layer(pb.zeros(8)).tolist() and np.std(a.numpy()) > 0
    assert layer(pb.zeros(8, dtype=pb.bfloat16)).dtype == pb.bfloat16


def cdf(x):
    return np.asarray([0.5 * math.erfc(-v / 2**0.5) for v in x])


@pytest.mark.parametrize("i", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("s", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_blend(i, s, alpha):
    x = np.linspace(-4, 4, 401)
    blend = nn.RectifierBlend(i, s, alpha)
    relu = np.where(x > 0, x, alpha * x)
    assert np.max(np.abs(blend(pb.asarray(x)).numpy() - (relu + i * (x * cdf(s * x) - relu)))) <= 1e-14
    slope = np.where(x > 0, 1, alpha)
    smooth = cdf(s * x) + s * x * np.exp(-((s * x) ** 2) / 2) / np.sqrt(2 * np.pi)
    grad = pb.grad(lambda v: blend(v).sum())(pb.asarray(x)).numpy()
    assert np.max(np.abs(grad - (slope + i * (smooth - slope)))[x != 0]) <= 1e-14


def test_blend_has_a_table():
    """Its derivative jumps at 0: with the jump as a breakpoint the boundary sits on it."""
    blend = nn.RectifierBlend(0.5, 1.0, 0.0)

    def derivative(x):
        return pb.grad(lambda v: blend(v).sum())(x)

    t = pb.fewbit.solve(derivative, 2, breakpoints=[0])
    assert 0.0 in t.boundaries
    x = np.linspace(-6, 6, 2001)
    assert np.max(np.abs(t(x).numpy() - derivative(pb.asarray(x)).numpy())) <= t.max_error


def test_layers_show_themselves():
    model = nn.Sequential(nn.ReducePrecision(4, True), nn.GaussianNoise(0.5, 4), nn.RectifierBlend(0.5, 1.0, 0.0))
    for text in ("bits=4, stochastic=True", "leakage=0.5, bits=4", "i=0.5, s=1.0, alpha=0.0"):
        assert text in repr(model)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: nn.ReducePrecision(0), ValueError, r"ReducePrecision: bits must be 1 to 24, got 0\nhelp"),
        (lambda: nn.ReducePrecision(25), ValueError, "bits must be 1 to 24, got 25"),
        (lambda: nn.ReducePrecision(2.5), TypeError, "integer"),
        (lambda: nn.GaussianNoise(0.5, 0), ValueError, "GaussianNoise: bits must be 1 to 24"),
        (lambda: nn.GaussianNoise(0.0, 4), ValueError, r"leakage must lie between 0 and 1, got 0.0\nhelp"),
        (lambda: nn.GaussianNoise(1.0, 4), ValueError, "leakage must lie between 0 and 1"),
        (lambda: nn.GaussianNoise(math.nan, 4), ValueError, "leakage must lie between 0 and 1"),
        (lambda: nn.RectifierBlend(1.5, 1.0, 0.0), ValueError, r"RectifierBlend: i must be in \[0, 1\], got 1.5"),
        (lambda: nn.RectifierBlend(0.5, 0.0, 0.0), ValueError, "s must be positive and finite, got 0.0"),
        (lambda: nn.RectifierBlend(0.5, math.inf, 0.0), ValueError, "s must be positive and finite"),
    ],
)
def test_errors(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
