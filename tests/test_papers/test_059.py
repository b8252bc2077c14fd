"""Row 59, "diffGrad: An Optimization Method for Convolutional Neural Networks".

The clause on its speed (36 bytes per parameter against memcpy) is a measurement and stands in bench/optim.py; the
number of bytes is checked here, and all else of the check is run.
"""

import numpy as np

import pullback as pb
from pullback import optim

WORDS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}


def test_a_hundred_steps_in_float32():
    rng = np.random.default_rng(59)
    start = rng.normal(size=5000).astype(np.float32)
    p = pb.tensor(start)
    opt = optim.DiffGrad([p], **WORDS)
    ref, m, v, last = start.astype(np.float64), 0.0, 0.0, np.zeros(5000)
    for t in range(1, 101):
        g32 = rng.normal(size=5000).astype(np.float32)
        opt.step(grads=[pb.tensor(g32)])
        g = g32.astype(np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        friction = 1 / (1 + np.exp(-np.abs(last - g)))
        ref = ref - 1e-3 * friction * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        last = g
    assert np.linalg.norm(p.numpy() - ref) <= 1e-6 * np.linalg.norm(ref)


def test_constant_gradient_halves_the_step_of_adam():
    p, q = pb.tensor(np.zeros(3)), pb.tensor(np.zeros(3))
    a, b = optim.DiffGrad([p], **WORDS), optim.Adam([q], **WORDS)
    g = pb.tensor(np.full(3, 0.3))
    for t in range(1, 30):
        x, y = np.array(p.numpy()), np.array(q.numpy())
        a.step(grads=[g])
        b.step(grads=[g])
        ratio = (p.numpy() - x) / (q.numpy() - y)
        friction = 1 / (1 + np.exp(-0.3)) if t == 1 else 0.5
        # the moves are differences of p, whose last bit is worth 1e-16 of |p| <= 0.03
        assert np.max(np.abs(ratio / friction - 1)) <= 1e-12
    assert abs(1 / (1 + np.exp(-0.3)) - 0.574443) <= 5e-7


def test_the_step_itself_is_half_to_the_last_bits():
    """From p = 0 with the state of a constant gradient, a step is the whole of p."""
    for t in (1, 2, 10, 100):
        p, q = pb.tensor(np.zeros(1)), pb.tensor(np.zeros(1))
        a, b = optim.DiffGrad([p], **WORDS), optim.Adam([q], **WORDS)
        for i in range(t):
            if i == t - 1:
                p[...] = 0.0
                q[...] = 0.0
            a.step(grads=[pb.tensor(np.full(1, 0.3))])
            b.step(grads=[pb.tensor(np.full(1, 0.3))])
        friction = 1 / (1 + np.exp(-0.3)) if t == 1 else 0.5
        assert abs(p.item() / (friction * q.item()) - 1) <= 1e-14


def test_bytes_of_a_step():
    n = 1000
    p = pb.tensor(np.zeros(n, np.float32))
    opt = optim.DiffGrad([p], **WORDS)
    opt.step(grads=[pb.tensor(np.ones(n, np.float32))])
    assert opt.bytes_per_step() == 36 * n
    assert sorted(k for k in opt.state_dict() if k.startswith("state.0.")) == [
        "state.0.exp_avg", "state.0.exp_avg_sq", "state.0.previous_grad", "state.0.step",
    ]  # fmt: skip
