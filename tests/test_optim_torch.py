"""The rules, their state dicts and the schedules against torch.optim."""

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

import pullback as pb  # noqa: E402
from pullback import optim  # noqa: E402
from pullback.optim import lr_scheduler as S  # noqa: E402

T = torch.optim.lr_scheduler

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.7, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True}),
]
IDS = ["-".join([n, *h]) for n, h in CASES]


def both(name, hyper, dtype=np.float64):
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=s).astype(dtype) for s in [(3, 4), (), (50,)]]
    theirs = [torch.tensor(s, requires_grad=True) for s in starts]
    ours = [pb.tensor(s) for s in starts]
    return rng, theirs, ours, getattr(torch.optim, name)(theirs, **hyper), getattr(optim, name)(ours, **hyper)


def advance(rng, theirs, ours, their_opt, our_opt, steps):
    for _ in range(steps):
        grads = [rng.normal(size=tuple(t.shape)) for t in theirs]
        for t, o, g in zip(theirs, ours, grads, strict=True):
            t.grad = torch.tensor(g, dtype=t.dtype)
            o.grad = pb.tensor(g.astype(str(t.dtype).split(".")[-1]))
        their_opt.step()
        our_opt.step()


def compare(theirs, ours, tolerance):
    for t, o in zip(theirs, ours, strict=True):
        a, b = np.asarray(o.numpy()), t.detach().numpy()
        assert np.linalg.norm((a - b).ravel()) <= tolerance * np.linalg.norm(b.ravel())


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rule(name, hyper, dtype):
    rng, *rest = both(name, hyper, dtype)
    advance(rng, *rest, steps=25)
    compare(rest[0], rest[1], 2e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=IDS)
def test_loads_the_state_of_torch(name, hyper):
    rng, theirs, _, their_opt, _ = both(name, hyper)
    for _ in range(5):
        for t in theirs:
            t.grad = torch.tensor(rng.normal(size=tuple(t.shape)))
        their_opt.step()
    ours = [pb.tensor(t.detach().numpy()) for t in theirs]
    our_opt = getattr(optim, name)(ours, lr=7.0)
    our_opt.load_state_dict(their_opt.state_dict())
    assert our_opt.param_groups[0]["lr"] == hyper["lr"]
    advance(rng, theirs, ours, their_opt, our_opt, 10)
    compare(theirs, ours, 1e-12)


def test_refuses_what_it_does_not_know():
    t = torch.zeros(3, requires_grad=True)
    theirs = torch.optim.Adam([t], maximize=True)
    with pytest.raises(ValueError, match="maximize=True is not supported"):
        optim.Adam([pb.tensor([0.0, 0.0, 0.0])]).load_state_dict(theirs.state_dict())


def test_clip_grad_norm():
    rng = np.random.default_rng(1)
    theirs = [torch.zeros(s) for s in [(5, 5), (100,)]]
    ours = [pb.zeros(s) for s in [(5, 5), (100,)]]
    for t, o in zip(theirs, ours, strict=True):
        g = rng.normal(size=tuple(t.shape)).astype(np.float32)
        t.requires_grad_()
        t.grad, o.grad = torch.tensor(g), pb.tensor(g)
    a = torch.nn.utils.clip_grad_norm_(theirs, 1.5)
    b = optim.clip_grad_norm_(ours, 1.5)
    assert abs(float(a) - b) <= 1e-6 * b
    compare([t.grad for t in theirs], [o.grad for o in ours], 1e-6)


SCHEDULES = {
    "lambda": lambda m, o: m.LambdaLR(o, lambda t: 1 / (1 + t)),
    "step": lambda m, o: m.StepLR(o, 3, 0.5),
    "multistep": lambda m, o: m.MultiStepLR(o, [2, 5, 5], 0.3),
    "constant": lambda m, o: m.ConstantLR(o),
    "linear": lambda m, o: m.LinearLR(o, 0.25, 0.75, 7),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.9),
    "polynomial": lambda m, o: m.PolynomialLR(o, 12, 1.7),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 9, 0.01),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "restarts1": lambda m, o: m.CosineAnnealingWarmRestarts(o, 4),
    "onecycle": lambda m, o: m.OneCycleLR(o, 1.0, 40),
    "onecycle3": lambda m, o: m.OneCycleLR(o, [1.0, 2.0], 40, three_phase=True, anneal_strategy="linear"),
    "onecycle-epochs": lambda m, o: m.OneCycleLR(o, 1.0, epochs=4, steps_per_epoch=10, cycle_momentum=False),
    "cyclic": lambda m, o: m.CyclicLR(o, 0.1, 1.0, 4, 6),
    "cyclic2": lambda m, o: m.CyclicLR(o, 0.1, [1.0, 2.0], 3, mode="triangular2"),
    "cyclic-exp": lambda m, o: m.CyclicLR(o, 0.1, 1.0, 4, mode="exp_range", gamma=0.97, cycle_momentum=False),
    "chained": lambda m, o: m.ChainedScheduler([m.ConstantLR(o, 0.1, 4), m.ExponentialLR(o, 0.9)]),
    "chained-cosine": lambda m, o: m.ChainedScheduler([m.LinearLR(o, 0.5), m.CosineAnnealingLR(o, 30)]),
    "sequential": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, 20, 0.01), m.StepLR(o, 2, 0.5)], [5, 15]
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name):
    x, y, v, w = torch.zeros(1), torch.zeros(1), pb.zeros(1), pb.zeros(1)
    theirs = torch.optim.SGD([{"params": [x]}, {"params": [y], "lr": 0.3}], lr=0.5, momentum=0.6)
    ours = optim.SGD([{"params": [v]}, {"params": [w], "lr": 0.3}], lr=0.5, momentum=0.6)
    a, b = SCHEDULES[name](T, theirs), SCHEDULES[name](S, ours)
    for t in range(38):
        for g, h in zip(theirs.param_groups, ours.param_groups, strict=True):
            assert abs(g["lr"] - h["lr"]) <= 1e-12 * max(abs(g["lr"]), 1e-3), t
            assert abs(g["momentum"] - h["momentum"]) <= 1e-12, t
        a.step()
        b.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau(mode, threshold_mode):
    theirs = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    ours = optim.SGD([pb.zeros(1)], lr=0.5)
    kw = {"mode": mode, "threshold_mode": threshold_mode, "factor": 0.5, "patience": 2, "cooldown": 2, "min_lr": 0.01}
    a, b = T.ReduceLROnPlateau(theirs, threshold=0.05, **kw), S.ReduceLROnPlateau(ours, threshold=0.05, **kw)
    rng = np.random.default_rng(0)
    for t in range(60):
        value = float(1 + 3 / (1 + t) + 0.1 * rng.normal())
        a.step(value)
        b.step(value)
        assert theirs.param_groups[0]["lr"] == ours.param_groups[0]["lr"]
