"""Row 90, "On the Convergence of Adam and Beyond": the counterexample, in the box [-1, 1].

The comparison of AMSGrad with torch stands in test_090_torch.py; all else of the check is run here.
"""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

STEPS = 30_000
BIG, SMALL = pb.tensor(np.array([3.0])), pb.tensor(np.array([-1.0]))


def run(amsgrad, correct):
    """x after all steps. Without correction: what c2 would divide by is multiplied back in lr and eps."""
    x = pb.tensor(np.zeros(1))
    opt = optim.Adam([{"params": [x], "prox": ("box", -1.0, 1.0)}], betas=(0.0, 0.1), eps=1e-8, amsgrad=amsgrad)
    group = opt.param_groups[0]
    for t in range(1, STEPS + 1):
        root = 1.0 if correct else (1 - 0.1**t) ** 0.5
        group["lr"], group["eps"] = 0.1 / t**0.5 / root, 1e-8 / root
        opt.step(grads=[BIG if t % 3 == 1 else SMALL])
    return x.item()


@pytest.mark.parametrize("correct", [True, False])
def test_adam_ends_at_the_worst_point(correct):
    assert abs(run(False, correct) - 1.0) <= 1e-4


@pytest.mark.parametrize("correct", [True, False])
def test_amsgrad_ends_near_the_best(correct):
    assert abs(run(True, correct) + 0.99960) <= 1e-4


def test_the_published_form_with_its_own_schedule():
    """amsgrad="paper" holds lr / sqrt(t) itself and corrects nothing: the same run with a constant lr."""
    x = pb.tensor(np.zeros(1))
    opt = optim.Adam([{"params": [x], "prox": ("box", -1.0, 1.0)}], lr=0.1, betas=(0.0, 0.1), amsgrad="paper")
    for t in range(1, STEPS + 1):
        opt.step(grads=[BIG if t % 3 == 1 else SMALL])
    assert abs(x.item() + 0.99960) <= 1e-4


def test_adamnc_in_its_box():
    """beta2 = 1 - 1/t makes v the mean of all squares, 11/3 in the limit, so that the mean gradient 1/3 wins."""
    x = pb.tensor(np.zeros(1))
    opt = optim.Adam(
        [{"params": [x], "prox": ("box", -1.0, 1.0)}], lr=0.1, betas=(0.0, 0.1), amsgrad=False, adamnc=True
    )
    want, v = 0.0, 0.0
    for t in range(1, 3001):
        opt.param_groups[0]["lr"] = 0.1 / t**0.5
        g = 3.0 if t % 3 == 1 else -1.0
        opt.step(grads=[BIG if t % 3 == 1 else SMALL])
        v += (g * g - v) / t
        want = min(1.0, max(-1.0, want - 0.1 / t**0.5 * g / (v**0.5 + 1e-8)))
        assert abs(x.item() - want) <= 1e-12
    assert abs(v - 11 / 3) <= 1e-12 and x.item() < -0.98


def test_the_maximum_never_falls():
    rng = np.random.default_rng(0)
    for amsgrad in (True, "paper"):
        p = pb.tensor(rng.normal(size=1000).astype(np.float32))
        opt = optim.Adam([p], amsgrad=amsgrad)
        before = np.zeros(1000, np.float32)
        for _ in range(60):
            opt.step(grads=[pb.tensor((rng.normal(size=1000) * rng.exponential(size=1000)).astype(np.float32))])
            now = np.array(opt.state_dict()["state.0.max_exp_avg_sq"].numpy())
            assert np.all(now >= before)
            before = now
