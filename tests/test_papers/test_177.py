"""Row 177, "Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts". The whole check is run."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

B = np.array([3.0, 0.05, -3.0, 0.0])
START = np.array([3.95, 3.95, -3.95, 3.95])


@pytest.mark.parametrize(("dtype", "slack"), [("float64", 1e-12), ("float32", 1e-6)])
def test_the_box_attracts(dtype, slack):
    x = pb.tensor(START.astype(dtype))
    b = pb.tensor(B.astype(dtype))
    opt = optim.Lion([x], lr=0.01, betas=(0.9, 0.99), weight_decay=1.0)
    violations = [np.max(np.abs(START) - 1)]
    for t in range(2000):
        lr = 0.01 / np.sqrt(1 + t / 100)
        opt.param_groups[0]["lr"] = lr
        before = np.maximum(np.abs(x.numpy().astype(np.float64)) - 1, 0)
        opt.step(grads=[x - b])
        after = np.maximum(np.abs(x.numpy().astype(np.float64)) - 1, 0)
        outside = before > 0
        assert np.all(after[outside] <= (1 - lr) * before[outside] + slack)
        violations.append(np.max(after))
    assert abs(violations[0] - 2.95) <= 1e-6
    assert abs(violations[100] - 0.937) <= 0.01
    assert violations[2000] < 0.005
    assert np.max(np.abs(x.numpy() - np.clip(B, -1, 1))) <= 0.012


def test_a_hundred_steps_in_float32():
    rng = np.random.default_rng(177)
    start, grads = rng.normal(size=3000).astype(np.float32), rng.normal(size=(100, 3000)).astype(np.float32)
    p = pb.tensor(start)
    opt = optim.Lion([p], lr=0.01, betas=(0.9, 0.99), weight_decay=1.0)
    ref, m = start.astype(np.float64), np.zeros(3000)
    for g32 in grads:
        opt.step(grads=[pb.tensor(g32)])
        g = g32.astype(np.float64)
        ref = ref - 0.01 * (np.sign(0.9 * m + 0.1 * g) + ref)
        m = 0.99 * m + 0.01 * g
    assert np.linalg.norm(p.numpy() - ref) < 1e-6 * np.linalg.norm(ref)
