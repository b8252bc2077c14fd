"""pullback.torch.optim: PyTorch parameters stepped in place, against torch.optim; states in both directions."""

import copy

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
import rule_cases as R  # noqa: E402

import pullback as pb  # noqa: E402
from pullback import optim as pb_optim  # noqa: E402
from pullback.torch import optim  # noqa: E402

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99)}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1}),
    ("Adadelta", {"lr": 0.5}),
    ("NAdam", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01}),
]
IDS = ["-".join([n, *h]) for n, h in CASES]
SHAPES = [(3, 4), (), (50,), (0,), (700, 3)]


def parameters(dtype=torch.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.normal(size=s), dtype=dtype, requires_grad=True) for s in SHAPES]


def gradients(params, rng):
    for p in params:
        p.grad = torch.tensor(rng.normal(size=tuple(p.shape)), dtype=p.dtype)


def run(pairs, steps, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        gradients(pairs[0][0], rng)
        for params, opt in pairs:
            for p, q in zip(params, pairs[0][0], strict=True):
                p.grad = q.grad
            opt.step()


def close(a, b, tolerance):
    for p, q in zip(a, b, strict=True):
        p, q = p.detach().double().numpy(), q.detach().double().numpy()
        assert np.linalg.norm((p - q).ravel()) <= tolerance * (np.linalg.norm(q.ravel()) + 1e-30)


def ours(name, params, hyper):
    more = {"eps_mode": "before"} if name == "RAdam" else {}
    return getattr(optim, name)(params, **hyper, **more)


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rules(name, hyper, dtype):
    a, b = parameters(dtype), parameters(dtype)
    memory = [p.data_ptr() for p in a]
    run([(a, ours(name, a, hyper)), (b, getattr(torch.optim, name)(b, **hyper))], 10)
    # torch keeps NAdam's running product in float32
    close(a, b, 2e-6 if dtype == torch.float32 else 1e-6 if name == "NAdam" else 1e-12)
    assert memory == [p.data_ptr() for p in a]


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=IDS)
def test_state_from_torch(name, hyper):
    a, b = parameters(), parameters()
    theirs = getattr(torch.optim, name)(b, **hyper)
    run([(b, theirs)], 4)
    with torch.no_grad():
        for p, q in zip(a, b, strict=True):
            p.copy_(q)
    mine = ours(name, a, hyper)
    mine.load_state_dict(theirs.state_dict())
    run([(a, mine), (b, theirs)], 4, seed=2)
    close(a, b, 1e-6 if name == "NAdam" else 1e-12)


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=IDS)
def test_state_to_torch(name, hyper):
    a, b = parameters(), parameters()
    mine, theirs = ours(name, a, hyper), getattr(torch.optim, name)(b, **hyper)
    run([(a, mine)], 4)
    with torch.no_grad():
        for p, q in zip(b, a, strict=True):
            p.copy_(q)
    theirs.load_state_dict(mine.state_dict())
    run([(a, mine), (b, theirs)], 4, seed=2)
    close(a, b, 1e-6 if name == "NAdam" else 1e-12)


@pytest.mark.parametrize(("name", "hyper"), CASES, ids=IDS)
def test_state_of_pullback_to_torch_and_back(name, hyper):
    more = {"eps_mode": "before"} if name == "RAdam" else {}
    a, b = [pb.tensor(p.detach().numpy()) for p in parameters()], parameters()
    mine = getattr(pb_optim, name)(a, **hyper, **more)
    theirs = getattr(torch.optim, name)(b, lr=0.7)
    rng = np.random.default_rng(0)
    for _ in range(3):
        mine.step(grads=[pb.tensor(rng.normal(size=p.shape)) for p in a])
    with torch.no_grad():
        for p, q in zip(b, a, strict=True):
            p.copy_(torch.from_dlpack(q))
    theirs.load_state_dict(optim.state_dict(mine))
    assert theirs.param_groups[0]["lr"] == hyper["lr"]
    gradients(b, rng)
    mine.step(grads=[pb.tensor(p.grad.numpy()) for p in b])
    theirs.step()
    close([torch.from_dlpack(p) for p in a], b, 1e-6 if name == "NAdam" else 1e-12)
    back = getattr(pb_optim, name)(a, lr=0.3)
    back.load_state_dict(theirs.state_dict())
    assert back.param_groups[0]["lr"] == hyper["lr"]
    gradients(b, rng)
    back.step(grads=[pb.tensor(p.grad.numpy()) for p in b])
    theirs.step()
    close([torch.from_dlpack(p) for p in a], b, 1e-6 if name == "NAdam" else 1e-12)


@pytest.mark.parametrize("name", [n for n in optim.__all__ if n[0].isupper() and n != "Optimizer"])
def test_every_class_has_the_bits_of_pullback(name):
    shapes = [(6, 5), (40, 3)] if name == "Muon" else [(6, 5), (), (1000,), (0,)]
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=s).astype(np.float32) for s in shapes]
    theirs = [pb.tensor(s) for s in starts]
    mine = [torch.tensor(s, requires_grad=True) for s in starts]
    pb.manual_seed(0)
    a = getattr(optim, name)(mine)
    pb.manual_seed(0)
    b = getattr(pb_optim, name)(theirs)
    for step in range(3):
        grads = [rng.normal(size=s).astype(np.float32) for s in shapes]
        for p, g in zip(mine, grads, strict=True):
            p.grad = torch.tensor(g)
        pb.manual_seed(step)
        a.step()
        pb.manual_seed(step)
        b.step(grads=[pb.tensor(g) for g in grads])
    for p, q in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.numpy())


def test_a_training_script():
    losses = []
    for module in (optim, torch.optim):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        opt = module.AdamW(model.parameters(), lr=0.02, foreach=None, fused=False)
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 0.05, total_steps=30)
        x = torch.randn(64, 4)
        y = x.sum(1, keepdim=True).sin()
        for _ in range(30):
            opt.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            opt.step()
            schedule.step()
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) <= 1e-4 * losses[1]


def test_closure_groups_and_missing_gradients():
    p, q = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    opt = optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=0.25)

    def closure():
        opt.zero_grad()
        loss = (p * 2).sum()
        loss.backward()
        return loss

    assert opt.step(closure).item() == 6.0
    assert p.tolist() == [0.5] * 3
    assert q.tolist() == [1.0] * 2
    extra = torch.ones(1, requires_grad=True)
    opt.add_param_group({"params": [extra]})
    extra.grad = torch.ones(1)
    p.grad = None
    opt.step()
    assert extra.tolist() == [0.75]
    opt.zero_grad()
    opt.step()  # nothing to do, as in torch


def test_saved_tensors_see_the_step():
    p = torch.ones(3, requires_grad=True)
    opt = optim.SGD([p], lr=0.5)
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_clipping_and_skipping():
    p = torch.zeros(4, requires_grad=True)
    opt = optim.AdamW([p])
    p.grad = torch.tensor([1.0, float("nan"), 0.0, 0.0])
    opt.step(scale=2.0)
    assert opt.last_skipped
    assert p.tolist() == [0.0] * 4
    p.grad = torch.full((4,), 3.0)
    opt.step(clip_norm=1.0)
    assert opt.last_norm == 6.0
    assert not opt.last_skipped


def test_memory_that_was_replaced():
    a, b = parameters()[:1], parameters()[:1]
    one, two = optim.Adam(a, lr=0.1), optim.Adam(b, lr=0.1)
    run([(a, one), (b, two)], 2)
    a[0].data = a[0].data.clone()
    run([(a, one), (b, two)], 2, seed=3)
    np.testing.assert_array_equal(a[0].detach().numpy(), b[0].detach().numpy())


def test_copies_and_files(tmp_path):
    a = parameters()
    opt = optim.NAdam(a, lr=0.1)
    run([(a, opt)], 2)
    torch.save(opt.state_dict(), tmp_path / "state.pt")
    b = [p.detach().clone().requires_grad_(True) for p in a]
    loaded = optim.NAdam(b, lr=0.2)
    loaded.load_state_dict(torch.load(tmp_path / "state.pt"))
    c, copied = copy.deepcopy((a, opt))
    run([(a, opt), (b, loaded), (c, copied)], 2, seed=4)
    for p, q, r in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())
        np.testing.assert_array_equal(p.detach().numpy(), r.detach().numpy())


def test_formats():
    p = torch.ones(5000, dtype=torch.bfloat16, requires_grad=True)
    opt = optim.AdamW([p], lr=0.1, state="int8", rounding="master")
    p.grad = torch.ones(5000, dtype=torch.bfloat16)
    opt.step()
    entry = opt.state_dict()["state"][0]
    assert entry["exp_avg"].shape == p.shape
    assert entry["master"].dtype == torch.float32


def test_a_rule_of_ones_own():
    Mine = optim.wrap(R.LAMB)
    a = torch.ones(9, requires_grad=True)
    b = pb.ones(9)
    one, two = Mine([a], lr=0.1), R.LAMB([b], lr=0.1)
    a.grad = torch.arange(9.0)
    one.step()
    two.step(grads=[pb.arange(9.0)])
    np.testing.assert_array_equal(a.detach().numpy(), b.numpy())


def test_errors():
    p = torch.ones(3, requires_grad=True)
    cases = [
        (lambda: optim.AdamW([p], maximize=True), ValueError, "maximize=True is not offered"),
        (lambda: optim.AdamW([p], rate=1.0), TypeError, "rate"),
        (lambda: optim.AdamW([p], lr=-1.0), ValueError, "lr must be"),
        (lambda: optim.AdamW([]), ValueError, "empty parameter list"),
        (lambda: optim.AdamW([torch.ones(3, dtype=torch.int64)]), TypeError, "only floating"),
        (lambda: optim.AdamW([torch.ones(3, device="meta")]), TypeError, "on meta"),
        (lambda: optim.wrap(pb_optim.SAM), TypeError, "more than once"),
        (lambda: optim.Nothing, AttributeError, "no 'Nothing'"),
        (lambda: optim.state_dict(pb_optim.Lion([pb.ones(2)])), TypeError, "torch.optim has no Lion"),
        (lambda: optim.state_dict(pb_optim.Adam([pb.ones(2)], amsgrad="paper")), ValueError, "no amsgrad='paper'"),
        (lambda: optim.state_dict(pb_optim.RAdam([pb.ones(2)])), ValueError, "no eps_mode='after'"),
        (
            lambda: optim.state_dict(pb_optim.SGD([pb.ones(2)], weight_decay=0.1, decoupled=True)),
            ValueError,
            "no decoupled weight decay",
        ),
        (lambda: optim.SGD([p]).load_state_dict({"state": {}, "param_groups": []}), ValueError, "0 groups"),
    ]
    for call, error, match in cases:
        with pytest.raises(error, match=match):
            call()
    q = torch.ones(3, requires_grad=True)
    opt = optim.SGD([q])
    q.grad = torch.ones(3).to_sparse()
    with pytest.raises(TypeError, match="sparse"):
        opt.step()
