"""Proximal steps after a rule."""

import numpy as np
import pytest

import pullback as pb
from pullback import _core as C
from pullback import optim

SHAPES = [(), (0,), (7,), (40, 3), (20011,)]


def prox(p, step, lr):
    name, a = step[:2]
    if name == "l1":
        return np.sign(p) * np.maximum(np.abs(p) - lr * a, 0)
    if name == "box":
        return np.clip(p, a, step[2])
    norm = np.linalg.norm(p.ravel())
    if name == "ball":
        return p * min(1, a / norm) if norm else p
    return p * max(0, 1 - lr * a / norm) if norm else p


STEPS = [("l1", 0.3), ("box", -0.5, 0.8), ("ball", 2.0), ("group", 0.7)]


def data(dtype, steps=20):
    rng = np.random.default_rng(4)
    ps = [np.asarray(rng.normal(size=s) + (1 if np.prod(s) != 1 else 9), dtype) for s in SHAPES]
    return ps, [[np.asarray(rng.normal(size=s), dtype) for s in SHAPES] for _ in range(steps)]


def error(a, b):
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-300)


@pytest.mark.parametrize("step", STEPS, ids=[s[0] for s in STEPS])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
def test_after_momentum(step, dtype, tolerance):
    ps, grads = data(dtype)
    params = [pb.tensor(p) for p in ps]
    opt = optim.SGD([{"params": params, "prox": step}], lr=0.1, momentum=0.5)
    for gs in grads:
        opt.step(grads=[pb.tensor(g) for g in gs])
    for i, got in enumerate(params):
        p, m = ps[i].astype("float64"), 0
        for gs in grads:
            m = 0.5 * m + gs[i].astype("float64")
            p = prox(p - 0.1 * m, step, 0.1)
        if p.size:
            assert error(got.numpy(), p) <= tolerance


@pytest.mark.parametrize("step", STEPS, ids=[s[0] for s in STEPS])
def test_bits_and_narrow_types(step):
    ps, grads = data("float32", 3)

    def run(threads, split, dtype=None):
        before = C.get_num_threads()
        C.set_num_threads(threads)
        try:
            params = [pb.tensor(p).astype(dtype) if dtype else pb.tensor(p) for p in ps]
            parts = [params[:split], params[split:]] if split else [params]
            opt = optim.AdamW([{"params": part, "prox": step} for part in parts], lr=0.1)
            for gs in grads:
                opt.step(grads=[pb.tensor(g) for g in gs], clip_norm=5.0)
            return params
        finally:
            C.set_num_threads(before)

    first = run(1, 0)
    assert [p.tobytes() for p in first] == [p.tobytes() for p in run(3, 2)]
    for a, b in zip(run(2, 0, pb.float16), first, strict=True):
        if a.size:
            assert np.max(np.abs(np.asarray(a.astype(pb.float32).numpy()) - np.asarray(b.numpy()))) <= 1e-2


def test_l1_makes_zeros_and_nan_stays():
    p = pb.tensor(np.array([0.05, -0.05, 1.0, np.nan]))
    optim.SGD([{"params": [p], "prox": ("l1", 1.0)}], lr=0.1).step(grads=[pb.tensor(np.zeros(4))])
    assert p.tolist()[:3] == [0.0, 0.0, 0.9]
    assert np.isnan(p.tolist()[3])


def test_amsgrad_counterexample_in_its_box():
    x = pb.tensor(np.array(0.0))
    opt = optim.Adam(
        [{"params": [x], "prox": ("box", -1.0, 1.0)}], lr=0.1, betas=(0.0, 0.1), amsgrad="paper", adamnc=False
    )
    for t in range(1, 30001):
        opt.step(grads=[pb.tensor(np.array(3.0 if t % 3 == 1 else -1.0))])
    assert abs(x.item() + 0.99960) <= 1e-4


def test_state_and_closures():
    ps, _ = data("float32", 2)
    p = pb.tensor(ps[3])
    p.requires_grad = True
    opt = optim.SAM(optim.SGD([{"params": [p], "prox": ("box", -0.1, 0.1)}], lr=0.1))
    opt.step(lambda: (p * p).sum())
    assert np.max(np.abs(np.asarray(p.detach().numpy()))) <= np.float32(0.1)
    other = optim.SGD([{"params": [p.detach().clone()], "prox": ("box", -3.0, 3.0)}], lr=0.1)
    other.load_state_dict(opt.base.state_dict())
    assert list(other.param_groups[0]["prox"]) == ["box", -0.1, 0.1]


@pytest.mark.parametrize("step", ["l1", ("l2", 1.0), ("l1",), ("box", 1.0), ()])
def test_unknown_steps(step):
    with pytest.raises(
        ValueError, match=r"prox must be \('l1', c\), \('box', low, high\), \('ball', radius\) or \('group', c\), got"
    ):
        optim.SGD([{"params": [pb.ones(3)], "prox": step}])


def test_steps_without_meaning():
    for step in (("l1", -1.0), ("ball", float("nan")), ("box", 2.0, 1.0)):
        with pytest.raises(ValueError, match=r"SGD: prox=.* has no meaning"):
            optim.SGD([{"params": [pb.ones(3)], "prox": step}])
    for cls in (
        optim.DoG,
        optim.Prodigy,
        optim.UDoG,
        optim.OptAMSGrad,
        optim.ScheduleFreeAdamW,
        optim.OASIS,
        optim.Muon,
    ):
        with pytest.raises(ValueError, match="the iterate is kept in the state, so prox cannot move it"):
            cls([{"params": [pb.ones((3, 3))], "prox": ("l1", 1.0)}])
