"""Row 25, "XGrad: Boosting Gradient-Based Optimizers With Weight Prediction". The whole check is run."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

H = np.logspace(-1, 1, 10)


def sgdm(x, steps, predict_decay):
    v = np.zeros_like(x)
    for _ in range(steps):
        g = H * (x - 0.01 * v)
        v = 0.9 * v + g
        x = x - 0.01 * v
    return x


def adam(x, steps, predict_decay, decay=0.0):
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t in range(1, steps + 1):
        ahead = 0.0
        if t > 1:
            ahead = m / (1 - 0.9 ** (t - 1)) / (np.sqrt(v / (1 - 0.999 ** (t - 1))) + 1e-8) + predict_decay * decay * x
        g = H * (x - 0.01 * ahead)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x * (1 - 0.01 * decay) - 0.01 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


BASES = {
    "SGDM": (lambda p: optim.SGD(p, lr=0.01, momentum=0.9), sgdm),
    "Adam": (lambda p: optim.Adam(p, lr=0.01, betas=(0.9, 0.999), eps=1e-8), adam),
    "AdamW": (
        lambda p: optim.AdamW(p, lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
        lambda x, n, d: adam(x, n, d, 0.1),
    ),
}


def run(make, x0, steps=50):
    x, h = pb.tensor(x0), pb.tensor(H.astype(x0.dtype))
    x.requires_grad = True
    opt = optim.XGrad(make([x]))
    for _ in range(steps):
        opt.step(lambda: 0.5 * (h * x * x).sum())
    return np.array(x.detach().numpy()).astype(np.float64)


@pytest.mark.parametrize("name", BASES)
def test_fifty_steps_on_a_quadratic(name):
    make, reference = BASES[name]
    x0 = np.random.default_rng(25).normal(size=10)
    want = reference(x0, 50, 0.0)
    assert np.max(np.abs(run(make, x0) - want)) <= 1e-6
    low = x0.astype(np.float32)
    assert np.max(np.abs(run(make, low) - reference(low.astype(np.float64), 50, 0.0))) <= 1e-5


def test_the_prediction_has_no_decay_term():
    make, reference = BASES["AdamW"]
    x0 = np.ones(10)
    got = run(make, x0)
    away = np.max(np.abs(got - reference(x0, 50, 1.0)))
    assert np.max(np.abs(got - reference(x0, 50, 0.0))) <= 1e-6 < away


def test_heavy_ball_with_a_look_ahead():
    x = pb.tensor(np.array([1.0]))
    x.requires_grad = True
    opt = optim.XGrad(optim.SGD([x], lr=0.1, momentum=0.9))
    want, v = 1.0, 0.0
    for _ in range(50):
        opt.step(lambda: (x * x).sum())
        v = 0.9 * v + 2 * (want - 0.1 * v)
        want = want - 0.1 * v
        assert abs(x.item() - want) <= 1e-12
    assert abs(x.item() + 9.100147e-5) <= 5e-12


def test_weights_are_the_same_bits_after_the_forward():
    """A closure sees moved weights from the second step on; when it fails, the weights are those of before."""
    rng = np.random.default_rng(1)
    x = pb.tensor(rng.normal(size=100).astype(np.float32))
    x.requires_grad = True
    opt = optim.XGrad(optim.Adam([x], lr=0.01))
    start = np.array(x.detach().numpy())
    seen = []

    def loss(fail=False):
        seen.append(np.array(x.detach().numpy()))
        if fail:
            raise RuntimeError("no")
        return (x**4).sum()

    opt.step(loss)
    assert np.array_equal(seen[0], start)  # the first step predicts nothing
    before = np.array(x.detach().numpy())
    with pytest.raises(RuntimeError):
        opt.step(lambda: loss(fail=True))
    assert np.array_equal(x.detach().numpy(), before) and not np.array_equal(seen[1], before)
