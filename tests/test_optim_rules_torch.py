"""Rules that torch.optim has, their states, and Muon."""

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

import pullback as pb  # noqa: E402
from pullback import optim  # noqa: E402

CASES = [
    ("RMSprop", {}, {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.9, "weight_decay": 0.1}, {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "centered": True, "eps": 1e-4}, {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-4}, {}),
    ("Adagrad", {}, {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-3}, {}),
    ("Adadelta", {}, {}),
    ("Adadelta", {"lr": 0.3, "rho": 0.7, "weight_decay": 0.1, "eps": 1e-3}, {}),
    ("NAdam", {}, {}),
    ("NAdam", {"lr": 0.02, "betas": (0.7, 0.95), "momentum_decay": 0.05, "weight_decay": 0.1}, {}),
    ("RAdam", {}, {"eps_mode": "before"}),
    ("RAdam", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}, {"eps_mode": "before"}),
]
IDS = ["-".join([n, *h]) for n, h, _ in CASES]


def start(name, hyper, own, dtype):
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=s).astype(dtype) + (3 if s == () else 0) for s in [(3, 4), (), (50,)]]
    theirs = [torch.tensor(s, requires_grad=True) for s in starts]
    ours = [pb.tensor(np.asarray(s, dtype)) for s in starts]
    return rng, theirs, ours, getattr(torch.optim, name)(theirs, **hyper), getattr(optim, name)(ours, **hyper, **own)


def advance(rng, theirs, ours, their_opt, our_opt, steps):
    for _ in range(steps):
        for t, o in zip(theirs, ours, strict=True):
            g = rng.normal(size=tuple(t.shape)) + 0.2
            t.grad = torch.tensor(g, dtype=t.dtype)
            o.grad = pb.tensor(np.asarray(g, str(t.dtype).split(".")[-1]))
        their_opt.step()
        our_opt.step()


def compare(theirs, ours, tolerance):
    for t, o in zip(theirs, ours, strict=True):
        a, b = np.asarray(o.numpy(), np.float64), t.detach().double().numpy()
        assert np.linalg.norm((a - b).ravel()) <= tolerance * np.linalg.norm(b.ravel())


@pytest.mark.parametrize(("name", "hyper", "own"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rule(name, hyper, own, dtype):
    rng, *rest = start(name, hyper, own, dtype)
    advance(rng, *rest, steps=25)
    # torch keeps NAdam's running product in float32; test_optim_rules holds the rule to 1e-12.
    compare(rest[0], rest[1], 2e-6 if dtype == "float32" else 1e-8 if name == "NAdam" else 1e-12)


@pytest.mark.parametrize(("name", "hyper", "own"), CASES, ids=IDS)
def test_loads_the_state_of_torch(name, hyper, own):
    rng, theirs, _, their_opt, _ = start(name, hyper, own, "float64")
    for _ in range(7):
        for t in theirs:
            t.grad = torch.tensor(rng.normal(size=tuple(t.shape)))
        their_opt.step()
    ours = [pb.tensor(t.detach().numpy()) for t in theirs]
    our_opt = getattr(optim, name)(ours, lr=7.0, **own)
    our_opt.load_state_dict(their_opt.state_dict())
    advance(rng, theirs, ours, their_opt, our_opt, 10)
    compare(theirs, ours, 1e-12)


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adadelta", "NAdam", "RAdam"])
def test_defaults_are_those_of_torch(name):
    theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
    ours = getattr(optim, name)([pb.zeros((1,))]).defaults
    shared = {k: v for k, v in theirs.items() if k in ours}
    assert {k: ours[k] for k in shared} == shared
    assert {"lr", "weight_decay", "eps"} <= set(shared)


# ---- Muon


@pytest.mark.parametrize("hyper", [{}, {"lr": 0.1, "nesterov": False, "weight_decay": 0.0}, {"momentum": 0.5}])
def test_muon(hyper):
    """torch iterates in bfloat16, so the steps agree to that; the rule itself is compared in float64 below."""
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=s).astype("float32") for s in [(20, 6), (6, 20), (8, 8)]]
    theirs = [torch.tensor(s, requires_grad=True) for s in starts]
    ours = [pb.tensor(s) for s in starts]
    a, b = torch.optim.Muon(theirs, **hyper), optim.Muon(ours, **hyper)
    for _ in range(3):
        advance(rng, theirs, ours, a, b, 1)
    for t, o, s in zip(theirs, ours, starts, strict=True):
        moved, want = np.asarray(o.numpy()) - s, t.detach().numpy() - s
        assert np.linalg.norm(moved - want) <= 0.08 * np.linalg.norm(want)  # 15 products in bfloat16


def newton_schulz(x, steps=5):
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    x = x / np.linalg.norm(x)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.T if flip else x


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 3, 2)])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
def test_muon_against_numpy(shape, adjust, dtype, tolerance):
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape)
    p = pb.tensor(x.astype(dtype))
    opt = optim.Muon([p], lr=0.1, weight_decay=0.2, momentum=0.8, adjust_lr=adjust)
    x = x.astype(dtype).astype("float64")
    m, (tall, wide) = np.zeros(shape), x.reshape(shape[0], -1).shape
    ratio = max(1, tall / wide) ** 0.5 if adjust == "original" else 0.2 * max(tall, wide) ** 0.5
    for _ in range(20):
        g = rng.normal(size=shape).astype(dtype)
        opt.step(grads=[pb.tensor(g)], clip_norm=2.0)
        g = g.astype("float64") * min(1, 2.0 / (np.linalg.norm(g.astype("float64")) + 1e-6))
        m = 0.8 * m + 0.2 * g
        u = newton_schulz((0.2 * g + 0.8 * m).reshape(tall, wide)).reshape(shape)
        x = x - 0.1 * 0.2 * x - 0.1 * ratio * u
    assert np.linalg.norm(np.asarray(p.numpy()) - x) <= tolerance * np.linalg.norm(x)


def test_muon_state_and_errors():
    rng = np.random.default_rng(2)
    x, grads = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=(6, 4, 3)).astype("float32")
    p = pb.tensor(x)
    opt = optim.Muon([p])
    for g in grads[:3]:
        opt.step(grads=[pb.tensor(g)])
    q = p.detach().clone()
    other = optim.Muon([q], lr=3.0)
    other.load_state_dict(opt.state_dict())
    for g in grads[3:]:
        opt.step(grads=[pb.tensor(g)])
        other.step(grads=[pb.tensor(g)])
    assert p.tobytes() == q.tobytes()
    before = p.tobytes()
    opt.step(grads=[pb.tensor(grads[0] * np.float32("nan"))], clip_norm=1.0)
    assert opt.last_skipped
    assert p.tobytes() == before
    with pytest.raises(ValueError, match="a parameter has 1 axes"):
        optim.Muon([pb.zeros((3,))])
    with pytest.raises(ValueError, match="adjust_lr must be"):
        optim.Muon([p], adjust_lr="other")
    with pytest.raises(ValueError, match="ns_coefficients must be 3 numbers"):
        optim.Muon([p], ns_coefficients=(1.0, 2.0))
    with pytest.raises(ValueError, match="a closure and grads"):
        opt.step(lambda: p.sum(), grads=[p])
