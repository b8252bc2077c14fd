"""Row 152, "Gravity Optimizer: a Kinematic Approach on Optimization in Deep Learning". The whole check is run."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

SHAPES = [(40, 3), (129,), (1,)]


def transcription(p, v, grads, lr=0.1, beta=0.9, t0=0):
    for t, g in enumerate(grads, t0):
        m = 1 / np.abs(g).max()
        zeta = g / (1 + (g / m) ** 2)
        assert np.all(np.abs(zeta) <= m / 2 * (1 + 1e-6))
        bhat = (beta * t + 1) / (t + 2)
        v = bhat * v + (1 - bhat) * zeta
        p = p - lr * v
    return p


@pytest.mark.parametrize("alpha", [0.0, 0.01])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_twenty_steps(alpha, dtype):
    rng = np.random.default_rng(152)
    pb.manual_seed(152)
    start = [rng.normal(size=s).astype(dtype) for s in SHAPES]
    params = [pb.tensor(p) for p in start]
    opt = optim.Gravity(params, lr=0.1, alpha=alpha, beta=0.9, t0=0)
    first = [np.array(opt.state_dict()[f"state.{i}.velocity"].numpy()).astype(np.float64) for i in range(3)]
    grads = [[rng.normal(size=s).astype(dtype) for s in SHAPES] for _ in range(20)]
    for g in grads:
        opt.step(grads=[pb.tensor(x) for x in g])
    for i, p in enumerate(params):
        want = transcription(start[i].astype(np.float64), first[i], [g[i].astype(np.float64) for g in grads])
        if dtype == "float64":
            assert np.max(np.abs(p.numpy() - want)) < 1e-13
        else:
            assert np.linalg.norm(p.numpy() - want) < 1e-6 * np.linalg.norm(want)


def test_velocities_start_with_deviation_alpha_over_lr():
    pb.manual_seed(1)
    p = pb.tensor(np.zeros(200_000))
    v = optim.Gravity([p], lr=0.1, alpha=0.01).state_dict()["state.0.velocity"].numpy()
    assert abs(v.std() / 0.1 - 1) <= 0.01 and abs(v.mean()) <= 1e-3


@pytest.mark.parametrize(("t0", "share"), [(0, 0.5), (1, 1 - 1.9 / 3)])
def test_first_step(t0, share):
    g = np.array([0.3, -2.0, 1.0])
    p = pb.tensor(np.zeros(3))
    optim.Gravity([p], lr=0.1, alpha=0.0, beta=0.9, t0=t0).step(grads=[pb.tensor(g)])
    zeta = g / (1 + (2 * g) ** 2)
    assert np.max(np.abs(p.numpy() + 0.1 * share * zeta)) <= 1e-15
    assert abs(share - {0: 0.5, 1: 0.36667}[t0]) <= 5e-6


def test_empty_and_zero_tensors():
    params = [pb.tensor(np.zeros((0, 4))), pb.tensor(np.ones(5)), pb.tensor(np.asarray(2.0))]
    opt = optim.Gravity(params, alpha=0.0)
    for _ in range(3):
        opt.step(grads=[pb.tensor(np.zeros(p.shape)) for p in params])
    assert params[1].tolist() == [1.0] * 5 and params[2].item() == 2.0
    noisy = [pb.tensor(np.zeros((0, 4))), pb.tensor(np.ones(5))]
    optim.Gravity(noisy).step(grads=[pb.tensor(np.zeros(p.shape)) for p in noisy])
    assert np.all(np.isfinite(noisy[1].numpy()))
