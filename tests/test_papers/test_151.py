"""Row 151, "Revisiting Gradient Clipping: Stochastic bias and tight convergence guarantees". The whole check is run."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim


@pytest.mark.parametrize(("limit", "mean"), [(1.0, 0.5), (3.0, 0.0)])
def test_bias_of_clipped_chains(limit, mean):
    """f = x^2/2 with noise +2 (1/3) or -1 (2/3): clipping at 1 moves the mean to 1/2. One tensor holds all chains."""
    rng = np.random.default_rng(151)
    x = pb.tensor(np.zeros(10_000))
    opt = optim.SGD([x], lr=0.01)
    total = 0.0
    for t in range(1, 3001):
        noise = np.where(rng.random(10_000) < 1 / 3, 2.0, -1.0)
        opt.step(grads=[x + pb.tensor(noise)], clip_value=limit)
        if t > 1000:
            total += pb.mean(x).item() / 2000
    assert abs(total - mean) <= 0.002


def test_larger_steps_leave_the_interval_where_the_bias_is_exact():
    rng = np.random.default_rng(1)
    x = pb.tensor(np.zeros(10_000))
    opt = optim.SGD([x], lr=0.1)
    total = 0.0
    for t in range(1, 1501):
        opt.step(grads=[x + pb.tensor(np.where(rng.random(10_000) < 1 / 3, 2.0, -1.0))], clip_value=1.0)
        if t > 500:
            total += pb.mean(x).item() / 1000
    assert abs(total - 0.4976) <= 0.002


def test_clipped_descent_without_noise():
    x = pb.tensor(np.array([10.0]))
    opt = optim.SGD([x], lr=0.1)
    steps = 0
    while x.item() > 1:
        before = x.item()
        opt.step(grads=[x.detach().clone()], clip_norm=1.0)
        assert abs(before - x.item() - 0.1) <= 1e-6
        steps += 1
    assert steps in (90, 91)


def test_fused_step_equals_two_passes():
    rng = np.random.default_rng(2)
    start = [rng.normal(size=rng.integers(1, 60, size=2)).astype(np.float32) for _ in range(50)]
    params = [pb.tensor(p) for p in start]
    opt = optim.SGD(params, lr=0.1)
    ref = [p.copy() for p in start]
    for _ in range(5):
        grads = [rng.normal(size=p.shape).astype(np.float32) for p in start]
        opt.step(grads=[pb.tensor(g) for g in grads], clip_norm=2.0)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads))
        factor = np.float32(min(1.0, 2.0 / (norm + 1e-6)))
        ref = [p - np.float32(0.1) * (factor * g) for p, g in zip(ref, grads, strict=True)]
        assert abs(opt.last_norm / norm - 1) <= 1e-12
    x, y = (np.concatenate([np.asarray(p).ravel() for p in ps]) for ps in ([p.numpy() for p in params], ref))
    assert np.linalg.norm(x.astype(np.float64) - y) <= 1e-6 * np.linalg.norm(y)
