"""Row 94, "The AdEMAMix Optimizer: Better, Faster, Older". The whole check is run."""

import numpy as np

import pullback as pb
from pullback import nn, optim

WORDS = {"lr": 1e-3, "betas": (0.9, 0.999, 0.9999), "alpha": 5.0, "eps": 1e-8, "weight_decay": 0.0}


def reference(p, gradient, steps, lr=1e-3, alpha=5.0):
    m, n, v = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        g = gradient(p, t)
        m, n, v = 0.9 * m + 0.1 * g, 0.9999 * n + 0.0001 * g, 0.999 * v + 0.001 * g * g
        p = p - lr * (m / (1 - 0.9**t) + alpha * n) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def test_a_hundred_steps_in_float32():
    rng = np.random.default_rng(94)
    start, grads = rng.normal(size=3000).astype(np.float32), rng.normal(size=(100, 3000)).astype(np.float32)
    p = pb.tensor(start)
    opt = optim.AdEMAMix([p], **WORDS)
    for g in grads:
        opt.step(grads=[pb.tensor(g)])
    want = reference(start.astype(np.float64), lambda _, t: grads[t - 1].astype(np.float64), 100)
    assert np.linalg.norm(p.numpy() - want) <= 1e-6 * np.linalg.norm(want)


def test_without_the_slow_mean_it_is_adamw_to_the_bit():
    rng = np.random.default_rng(1)
    start = rng.normal(size=1000).astype(np.float32)
    p, q = pb.tensor(start), pb.tensor(start)
    a = optim.AdEMAMix([p], **{**WORDS, "alpha": 0.0})
    b = optim.AdamW([q], lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    for _ in range(50):
        g = pb.tensor(rng.normal(size=1000).astype(np.float32))
        a.step(grads=[g])
        b.step(grads=[g])
        assert np.array_equal(p.numpy(), q.numpy())


def test_beta3_at_half_of_its_warm_up():
    """With a gradient of 0 the slow mean is multiplied by beta3 alone."""
    p = pb.tensor(np.zeros(1))
    opt = optim.AdEMAMix([p], **WORDS, beta3_steps=100)
    for t in range(1, 51):
        before = opt.state_dict()["state.0.exp_avg_slow"].item() if t > 1 else 0.0
        opt.step(grads=[pb.tensor(np.array([0.0 if t == 50 else 1.0]))])
    assert abs(opt.state_dict()["state.0.exp_avg_slow"].item() / before - 0.9998001996) <= 1e-9
    half = (0.5 * (np.log(0.5) / np.log(0.9) - 1) + 0.5 * (np.log(0.5) / np.log(0.9999) - 1)) + 1
    assert abs(0.5 ** (1 / half) - 0.9998001996) <= 1e-9


def test_first_step():
    g = np.array([0.1, -0.1, 0.5, -3.0, 100.0])
    p = pb.tensor(np.zeros(5))
    optim.AdEMAMix([p], **WORDS).step(grads=[pb.tensor(g)])
    assert np.max(np.abs(-p.numpy() / (1.0005e-3 * np.sign(g)) - 1)) <= 1e-6


def test_two_thousand_steps_in_a_curved_valley():
    p = pb.tensor(np.array([-3.0, 5.0]))

    def slope(p, _=None):
        x, y = p
        return np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])

    opt = optim.AdEMAMix([p], **WORDS)
    for _ in range(2000):
        opt.step(grads=[pb.tensor(slope(np.array(p.numpy())))])
    assert np.max(np.abs(p.numpy() - reference(np.array([-3.0, 5.0]), slope, 2000))) <= 1e-8
    assert np.max(np.abs(p.numpy() - [-2.266805, 5.645230])) <= 1e-6


def test_eight_bit_states_reach_the_same_loss():
    def train(state):
        rng = np.random.default_rng(3)
        pb.manual_seed(3)
        net = nn.Sequential(nn.Linear(32, 128), nn.Tanh(), nn.Linear(128, 10))
        x, y = pb.tensor(rng.normal(size=(512, 32)).astype(np.float32)), pb.tensor(rng.integers(0, 10, 512))
        opt = optim.AdEMAMix(net.parameters(), **WORDS, state=state)
        for i in range(200):
            at = slice(64 * (i % 8), 64 * (i % 8) + 64)
            opt.step(lambda at=at: pb.losses.cross_entropy(net(x[at]), y[at]))
        return pb.losses.cross_entropy(net(x), y).item()

    wide, narrow = train("float32"), train("int8")
    assert wide < 2.2  # it learns: ln 10 = 2.303
    assert abs(narrow / wide - 1) <= 0.01
