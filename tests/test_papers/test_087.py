"""Row 87, "Accelerated Parameter-Free Stochastic Optimization": U-DoG on a quadratic. The whole check is run.

A-DoG, which the check does not speak of, is compared with its recursion in tests/test_optim_more.py.
"""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

H = np.logspace(-3, 0, 100)


def value(x):
    return 0.5 * (H * x * x).sum()


def udog(iterations, reps_rel=1e-6):
    x, h = pb.tensor(np.ones(100)), pb.tensor(H)
    x.requires_grad = True
    opt = optim.UDoG([x], reps_rel=reps_rel, eps=1e-8)
    found = {}
    for t in range(1, iterations + 1):
        opt.step(lambda: 0.5 * (h * x * x).sum())
        if t in (100, 200, 400):
            found[t] = value(np.array(opt.averaged_parameters()[0].numpy()))
    return found


def test_acceleration():
    got = udog(400)
    for t, want in {100: 1.10e-3, 200: 6.95e-5, 400: 4.37e-6}.items():
        assert abs(got[t] / want - 1) <= 0.05
    descent = {t: value((1 - H) ** t) for t in (100, 200, 400)}  # L = 1
    for t, want in {100: 2.94e-2, 200: 1.21e-2, 400: 4.13e-3}.items():
        assert abs(descent[t] / want - 1) <= 5e-3
    assert got[100] >= 4 * got[200] and got[200] >= 4 * got[400]
    assert descent[400] >= 100 * got[400]
    assert abs(descent[400] / got[400] / 945 - 1) <= 0.05


def test_the_first_distance_hardly_matters():
    ends = [udog(400, r / (1 + 10.0))[400] for r in (1e-8, 1e-6, 1e-4)]
    assert max(ends) <= 1.3 * min(ends)
    assert abs(max(ends) / min(ends) - 1) <= 0.05  # 3.3 % as printed


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dog_equals_its_transcription(dtype):
    x, h = pb.tensor(np.ones(100, dtype)), pb.tensor(H.astype(dtype))
    x.requires_grad = True
    opt = optim.DoG([x], lr=1.0, reps_rel=1e-6, eps=1e-8)
    p, r, square = np.ones(100), 1e-6 * 11, 1e-8
    for _ in range(100):
        opt.step(lambda: 0.5 * (h * x * x).sum())
        r = max(r, np.linalg.norm(p - 1))
        g = H * p
        square += g @ g
        p = p - r / np.sqrt(square) * g
        assert np.linalg.norm(x.detach().numpy() - p) <= 1e-6 * np.linalg.norm(p)
