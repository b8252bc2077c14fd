"""Row 24, "Grams: Gradient Descent with Adaptive Momentum Scaling". The whole check is run."""

import numpy as np

import pullback as pb
from pullback import optim

WORDS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0}
SHAPES = [(7,), (3, 5), (129,), (64, 64)]


def test_a_hundred_steps_in_float32():
    rng = np.random.default_rng(24)
    start = [rng.normal(size=s) for s in SHAPES]
    params = [pb.tensor(p.astype(np.float32)) for p in start]
    opt = optim.Grams(params, **WORDS)
    ref = [p.astype(np.float32).astype(np.float64) for p in start]
    m, v = [np.zeros(s) for s in SHAPES], [np.zeros(s) for s in SHAPES]
    for t in range(1, 101):
        grads = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
        before = [np.array(p.numpy()) for p in params]
        opt.step(grads=[pb.tensor(g) for g in grads])
        for i, g in enumerate(grads):
            wide = g.astype(np.float64)
            m[i] = 0.9 * m[i] + 0.1 * wide
            v[i] = 0.999 * v[i] + 0.001 * wide * wide
            u = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-6)
            ref[i] = ref[i] - 1e-3 * np.sign(wide) * np.abs(u)
            assert np.all(g * (before[i] - params[i].numpy()) >= 0)
    got, want = (np.concatenate([x.ravel() for x in xs]) for xs in ([p.numpy() for p in params], ref))
    assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want)


def test_nothing_moves_where_the_gradient_is_zero():
    rng = np.random.default_rng(1)
    p = pb.tensor(rng.normal(size=200).astype(np.float32))
    opt = optim.Grams([p], **WORDS)
    for _ in range(20):
        g = rng.normal(size=200).astype(np.float32)
        g[rng.random(200) < 0.3] = 0
        before = np.array(p.numpy())
        opt.step(grads=[pb.tensor(g)])
        assert np.array_equal(before[g == 0], p.numpy()[g == 0])
        assert not np.array_equal(before, p.numpy())


def test_equals_adamw_while_signs_agree():
    rng = np.random.default_rng(2)
    start = rng.normal(size=1000).astype(np.float32)
    p, q = pb.tensor(start), pb.tensor(start)
    a, b = optim.Grams([p], **WORDS), optim.AdamW([q], **WORDS)
    for _ in range(50):
        g = pb.tensor(np.abs(rng.normal(size=1000)).astype(np.float32) + np.float32(1e-3))
        a.step(grads=[g])
        b.step(grads=[g])
        assert np.array_equal(p.numpy(), q.numpy())
    assert not np.array_equal(p.numpy(), start)
