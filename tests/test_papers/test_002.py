"""Row 2, "Leveraging Continuously Differentiable Activation Functions for Learning in Quantized Noisy Environments".

The whole check is run, and a training of the layers around Linear, Conv2d and attention.
"""

import numpy as np
import pytest

import pullback as pb
from pullback import nn


def derivative_error(f, bits, n=200_000):
    step = 2 / (2**bits - 1)
    x = pb.random.uniform((n,), low=-step / 2, high=step / 2, dtype=pb.float64)
    noise = pb.random.normal((n,), std=step / 2, dtype=pb.float64)
    slope = pb.grad(lambda v: f(v).sum())
    return float(np.mean(np.abs(slope(x + noise).numpy() - slope(x).numpy())))


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_derivatives_under_the_noise_of_a_step(bits):
    """E |f'(x + n) - f'(x)|: ReLU's does not depend on the bits, GELU's falls with the step."""
    relu, gelu = derivative_error(pb.relu, bits), derivative_error(pb.gelu, bits)
    assert relu == pytest.approx(0.3156, rel=0.03)
    assert gelu == pytest.approx({4: 0.0423, 6: 0.0101, 8: 0.00250}[bits], rel=0.03)
    assert relu / gelu == pytest.approx({4: 7.5, 6: 31.3, 8: 126.6}[bits], rel=0.03)


@pytest.mark.parametrize("f", [pb.leaky_relu, pb.elu, pb.silu, pb.tanh])
def test_other_activations(f):
    """Where the derivative is continuous the error falls by four with two more bits; with a jump it stays."""
    ratio = derivative_error(f, 4) / derivative_error(f, 6)
    assert ratio == pytest.approx(1, rel=0.03) if f is pb.leaky_relu else ratio > 3.5


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_reduce_precision(bits):
    """sign(x p) max(floor |x p|, ceil(|x p| - 1/2)) / p, gradient 1; after a clip 1 on [-1, 1] and 0 outside."""
    p = 2**bits - 1
    x = np.linspace(-2, 2, 2001)
    y = nn.ReducePrecision(bits)(pb.asarray(x)).numpy()
    assert np.array_equal(y, np.sign(x) * np.maximum(np.floor(np.abs(x) * p), np.ceil(np.abs(x) * p - 0.5)) / p)
    grad = pb.grad(lambda v: nn.ReducePrecision(bits)(v).sum())(pb.asarray(x)).numpy()
    assert np.array_equal(grad, np.ones_like(x))
    clipped = pb.grad(lambda v: nn.ReducePrecision(bits)(pb.clip(v, -1, 1)).sum())(pb.asarray(x)).numpy()
    assert np.array_equal(clipped, (np.abs(x) <= 1).astype(float))


def test_stochastic_variant_takes_the_neighbours():
    p = 7
    x = np.random.default_rng(0).uniform(-1, 1, 5000)
    y = nn.ReducePrecision(3, stochastic=True)(pb.asarray(x)).numpy()
    assert np.max(np.abs(y - x)) <= 1 / p
    assert np.allclose(np.round(y * p), y * p, atol=1e-12, rtol=0)
    assert abs(np.mean(y - x)) <= 4 * 0.5 / p / np.sqrt(x.size)


def analog(layer, bits, leakage):
    """The layer with clipped, rounded, noisy inputs and weights and noisy, clipped, rounded outputs."""
    low, noise = nn.ReducePrecision(bits), nn.GaussianNoise(leakage, bits)

    def call(params, x):
        def enter(v):
            return noise(low(pb.clip(v, -1, 1)))

        return low(pb.clip(noise(pb.functional_call(layer, {k: enter(v) for k, v in params.items()}, enter(x))), -1, 1))

    return call


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(6, 4), (16, 6)),
        (lambda: nn.Conv2d(2, 4, 3), (4, 2, 6, 6)),
        (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (3, 5, 8)),
    ],
)
def test_gradients_pass_through_a_noisy_layer(layer, shape):
    """Every parameter gets a finite gradient, 0 exactly where the weight was clipped."""
    layer = layer()
    run = analog(layer, 4, 0.2)
    params = dict(layer.named_parameters())
    name = next(iter(params))
    params = {k: pb.tensor(v.numpy() * (3 if k == name else 1)) for k, v in params.items()}
    if isinstance(layer, nn.MultiheadAttention):
        inner = layer
        layer = type("Self", (nn.Module,), {"forward": lambda self, x: self.inner(x, x, x)[0]})()
        layer.inner = inner
        params = {f"inner.{k}": v for k, v in params.items()}
        name, run = f"inner.{name}", analog(layer, 4, 0.2)
    x = pb.random.normal(shape)
    grads = pb.grad(lambda p: (run(p, x) ** 2).sum())(params)
    for key, g in grads.items():
        assert np.isfinite(g.numpy()).all()
        assert (g.numpy()[np.abs(params[key].numpy()) > 1] == 0).all()
    assert np.abs(grads[name].numpy()).max() > 0


def test_training_in_noise():
    """A regression through 4-bit noisy layers learns with GELU."""
    pb.manual_seed(3)
    first, second = nn.Linear(4, 32), nn.Linear(32, 1)
    f, g = analog(first, 5, 0.2), analog(second, 5, 0.2)
    params = {"a": dict(first.named_parameters()), "b": dict(second.named_parameters())}
    x = pb.random.uniform((256, 4), low=-1.0)
    y = 0.5 * x[:, :1] * x[:, 1:2]

    def loss(p):
        return ((g(p["b"], pb.gelu(f(p["a"], x))) - y) ** 2).mean()

    before = np.mean([loss(params).item() for _ in range(10)])
    for _ in range(150):
        slope = pb.grad(loss)(params)
        params = {k: {n: (p - 0.2 * slope[k][n]).detach() for n, p in v.items()} for k, v in params.items()}
    after = np.mean([loss(params).item() for _ in range(10)])
    assert after < 0.6 * before
