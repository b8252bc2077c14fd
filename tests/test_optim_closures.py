"""Rules of several gradients against two-closure loops in NumPy, and what the closure may rely on."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

A = np.diag([1.0, 3.0, 0.5, 2.0]) + 0.1
B = np.array([[0.3, -0.2], [0.5, 1.0]])


def tensor(x):
    t = pb.tensor(np.asarray(x))
    t.requires_grad = True
    return t


def array(x):
    return np.array(x.detach().numpy())


def error(a, b):
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-300)


def grad(x):
    """Gradient of the function of `build`, at one vector of 4 + 2 numbers."""
    u, v = x[:4], x[4:]
    return np.concatenate([A @ u + np.sin(u), 4 * v**3 + B @ v + B.T @ v + u[0] * v]) + np.concatenate(
        [[0.5 * (v @ v), 0, 0, 0], [0, 0]]
    )


def build(x, dtype="float64"):
    u, v = tensor(x[:4].astype(dtype)), tensor(x[4:].astype(dtype))
    a, b = pb.tensor(A.astype(dtype)), pb.tensor(B.astype(dtype))

    def closure():
        quartic = (v**4).sum() + v @ (b @ v)
        return 0.5 * (u @ (a @ u)) - pb.cos(u).sum() + quartic + 0.5 * u[0] * (v * v).sum()

    return u, v, closure


def start():
    return np.random.default_rng(0).normal(size=6)


def sam(x, rho=0.1):
    g = grad(x)
    return grad(x + rho * g / (np.linalg.norm(g) + 1e-12))


def asam(x, rho=0.1):
    g = grad(x)
    return grad(x + rho * x * x * g / (np.linalg.norm(x * g) + 1e-12))


def usam(x, rho=0.1):
    return grad(x + rho * grad(x))


def gam(x, rho=0.05, rho_norm=0.2, betas=(1.0, -0.5, 0.7), gamma=0.3):
    def unit(v):
        return v / (np.linalg.norm(v) + 1e-12)

    g0 = grad(x)
    d = grad(x + rho * unit(g0)) - g0
    g1 = d + g0
    q = x + rho_norm * unit(d)
    g2 = grad(q)
    g3 = grad(q + rho * unit(g2))
    s, v = betas[0] * g1 + betas[2] * g3, g0 + abs(betas[1]) * g2
    return s - gamma * (v - (v @ s) / (s @ s) * s)


def regularised(x, mode, gamma=0.2, eps=0.1):
    g = grad(x)
    up, down = grad(x + eps * g), grad(x - eps * g)
    return g + gamma * {"ascent": up - g, "descent": g - down, "central": (up - down) / 2}[mode] / eps


def exact(x, gamma=0.2):
    g, h = grad(x), 1e-6
    return g + gamma * (grad(x + h * g) - grad(x - h * g)) / (2 * h)


CASES = {
    "SAM": (lambda b: optim.SAM(b, rho=0.1), sam, 1e-12),
    "ASAM": (lambda b: optim.ASAM(b, rho=0.1), asam, 1e-12),
    "USAM": (lambda b: optim.USAM(b, rho=0.1), usam, 1e-12),
    "DNSAM": (lambda b: optim.DNSAM(b, rho=0.1, norm=2.0), lambda x: usam(x, 0.05), 1e-11),
    "GAM": (lambda b: optim.GAM(b, 0.05, 0.2, (1.0, -0.5, 0.7), 0.3), gam, 1e-10),
    "ascent": (lambda b: optim.GradientRegularization(b, 0.2, 0.1), lambda x: regularised(x, "ascent"), 1e-12),
    "descent": (lambda b: optim.GradientRegularization(b, 0.2, 0.1, "descent"), lambda x: regularised(x, "descent"),
                1e-12),
    "central": (lambda b: optim.GradientRegularization(b, 0.2, 0.1, "central"), lambda x: regularised(x, "central"),
                1e-12),
    "exact": (lambda b: optim.GradientRegularization(b, 0.2, mode="exact"), exact, 1e-7),
}  # fmt: skip


def loop(slope, x, steps, momentum=0.5, lr=0.05, decay=0.1):
    m = None
    for _ in range(steps):
        g = slope(x) + decay * x
        m = g if m is None else momentum * m + g
        x = x - lr * m
    return x


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equals_the_loop_of_closures(name, dtype):
    make, slope, tolerance = CASES[name]
    u, v, closure = build(start(), dtype)
    opt = make(optim.SGD([{"params": [u]}, {"params": [v]}], lr=0.05, momentum=0.5, weight_decay=0.1))
    for _ in range(20):
        opt.step(closure)
    want = loop(slope, start(), 20)
    got = np.concatenate([array(u), array(v)])
    assert error(got, want) <= (tolerance if dtype == "float64" else 2e-5 if name == "GAM" else 2e-6)


@pytest.mark.parametrize("base", ["sgd", "nesterov", "adam", "adamw", "amsgrad"])
def test_xgrad(base):
    hyper = {
        "sgd": {"momentum": 0.9},
        "nesterov": {"momentum": 0.9, "nesterov": True},
        "adam": {"eps": 1e-3, "eps_mode": "before"},
        "adamw": {"weight_decay": 0.1},
        "amsgrad": {"amsgrad": True},
    }[base]
    cls = {"sgd": optim.SGD, "nesterov": optim.SGD, "adamw": optim.AdamW}.get(base, optim.Adam)
    u, v, closure = build(start())
    opt = optim.XGrad(cls([u, v], lr=0.02, **hyper), steps=2)
    x, m, s, top = start(), np.zeros(6), np.zeros(6), np.zeros(6)
    eps = hyper.get("eps", 1e-8)
    for t in range(1, 25):
        opt.step(closure)
        if base in ("sgd", "nesterov"):
            g = grad(x - 2 * 0.02 * m)
            m = g if t == 1 else 0.9 * m + g
            x = x - 0.02 * (g + 0.9 * m if base == "nesterov" else m)
            continue

        def direction(k, m=None, s=None):
            c1, c2 = 1 - 0.9**k, 1 - 0.999**k
            if base == "adam":
                return m / c1 / ((np.sqrt(s) + eps) / np.sqrt(c2))
            return m / c1 / (np.sqrt(s / c2) + eps)

        second = top if base == "amsgrad" else s
        g = grad(x - 2 * 0.02 * direction(t - 1, m, second) if t > 1 else x)
        if base == "adamw":
            x = x - 0.02 * 0.1 * x
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
        top = np.maximum(top, s)
        x = x - 0.02 * direction(t, m, top if base == "amsgrad" else s)
    assert error(np.concatenate([array(u), array(v)]), x) <= 1e-12


def test_loss_is_that_of_the_parameters_and_clipping_concerns_the_last_gradient():
    u, v, closure = build(start())
    loss = closure().item()
    opt = optim.SAM(optim.SGD([u, v], lr=1.0), rho=0.1)
    assert opt.step(closure, clip_norm=0.5).item() == loss
    g = sam(start())
    assert abs(opt.last_norm - np.linalg.norm(g)) <= 1e-12 * np.linalg.norm(g)
    moved = start() - np.concatenate([array(u), array(v)])
    assert error(moved, g * 0.5 / (np.linalg.norm(g) + 1e-6)) <= 1e-12


def test_loss_scale():
    for name in ("USAM", "SAM", "GAM", "ascent", "exact"):
        u, v, closure = build(start())
        opt = CASES[name][0](optim.SGD([u, v], lr=0.1))
        opt.step(lambda closure=closure: 8.0 * closure(), scale=8.0)
        want = start() - 0.1 * CASES[name][1](start())
        assert error(np.concatenate([array(u), array(v)]), want) <= 1e-7, name


def test_flooding():
    u, v, closure = build(start())
    opt = optim.GradientRegularization(optim.SGD([u, v], lr=0.1), gamma=0.0, flood=1e6)
    opt.step(closure)
    assert error(np.concatenate([array(u), array(v)]), start() + 0.1 * grad(start())) <= 1e-12


def test_quadratic_usam_and_saddle():
    """USAM on x'Hx/2 is descent on the loss plus rho/2 |grad|^2."""
    h = np.array([1.0, 0.5, -0.2])
    x = tensor(np.array([1.0, -2.0, 0.3]))
    diagonal = pb.tensor(h)
    opt = optim.USAM(optim.SGD([x], lr=0.1), rho=0.3)
    want = array(x)
    for _ in range(30):
        opt.step(lambda: 0.5 * (diagonal * x * x).sum())
        want = want - 0.1 * (h * want + 0.3 * h * h * want)
    assert error(array(x), want) <= 1e-12


def test_gam_without_perturbation_doubles_the_gradient():
    u, v, closure = build(start())
    opt = optim.GAM(optim.SGD([u, v], lr=0.1), rho=0.0, rho_norm=0.0)
    opt.step(closure)
    assert error(np.concatenate([array(u), array(v)]), start() - 0.2 * grad(start())) <= 1e-12


def test_dnsam_keeps_a_running_norm():
    u, v, closure = build(start())
    opt = optim.DNSAM(optim.SGD([u, v], lr=0.0), rho=0.1)
    opt.step(closure)
    assert abs(opt.state_dict()["words.estimate"] - np.linalg.norm(grad(start()))) <= 1e-9


def test_state_continues_bit_for_bit():
    u, v, closure = build(start(), "float32")
    opt = optim.SAM(optim.AdamW([u, v], lr=0.01), rho=0.1)
    for _ in range(3):
        opt.step(closure)
    saved = opt.state_dict()
    x = np.concatenate([array(u), array(v)]).astype("float64")
    a, b, again = build(x, "float32")
    other = optim.SAM(optim.AdamW([a, b], lr=0.5), rho=0.7)
    other.load_state_dict(saved)
    for _ in range(3):
        opt.step(closure)
        other.step(again)
    assert u.detach().tobytes() == a.detach().tobytes()
    assert v.detach().tobytes() == b.detach().tobytes()
    with pytest.raises(ValueError, match="a state of SAM, not of ASAM"):
        optim.ASAM(optim.AdamW([a, b])).load_state_dict(saved)


def test_the_closure_sees_the_same_random_numbers_and_statistics_move_once():
    pb.manual_seed(0)
    model = pb.nn.Sequential(pb.nn.Linear(4, 8), pb.nn.BatchNorm1d(8), pb.nn.Dropout(0.5), pb.nn.Linear(8, 1))
    x, seen = pb.random.normal((16, 4)), []

    def closure():
        seen.append(pb.random.uniform(()).item())
        return (model(x) ** 2).mean()

    norm = model[1]
    opt = optim.SAM(optim.SGD(model.parameters(), lr=0.0))
    opt.step(closure)
    assert seen[0] == seen[1]
    assert int(norm.num_batches_tracked) == 1
    hidden = array(model[0](x))
    assert error(array(norm.running_mean), 0.1 * hidden.mean(axis=0)) <= 1e-5
    opt.step(closure)
    assert seen[2] == seen[3] != seen[0]


def test_a_failing_closure_and_a_bad_gradient_leave_the_parameters():
    u, v, closure = build(start())
    opt = optim.SAM(optim.Adam([u, v], lr=0.1))
    opt.step(closure)
    before = u.detach().tobytes(), v.detach().tobytes()
    calls = 0

    def fails():
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("stop")
        return closure()

    with pytest.raises(RuntimeError, match="stop"):
        opt.step(fails)
    assert before == (u.detach().tobytes(), v.detach().tobytes())
    for options in ({"scale": 2.0}, {"clip_norm": 1.0}):
        opt.step(lambda: closure() * float("nan"), **options)
        assert opt.last_skipped
        assert before == (u.detach().tobytes(), v.detach().tobytes())
    opt.step(closure)
    assert not opt.last_skipped


def test_bad_arguments():
    u, v, _ = build(start())
    base = optim.SGD([u, v], lr=0.1)
    with pytest.raises(pb.GraphError, match="gradients at several points"):
        optim.SAM(base).step()
    with pytest.raises(pb.GraphError, match="needs a closure"):
        optim.SAM(base).init([u])
    with pytest.raises(pb.GraphError, match="needs a closure"):
        optim.SAM(base).update([u], [u], {})
    with pytest.raises(TypeError, match="base must be an optimizer of one gradient"):
        optim.SAM([u])
    with pytest.raises(TypeError, match="base must be an optimizer of one gradient"):
        optim.SAM(optim.SAM(base))
    with pytest.raises(TypeError, match="base must be SGD, Adam or AdamW"):
        optim.XGrad(optim.Lion([u]))
    with pytest.raises(ValueError, match="rho must be finite, got nan"):
        optim.SAM(base, rho=float("nan"))
    with pytest.raises(ValueError, match="mode must be"):
        optim.GradientRegularization(base, mode="up")
    with pytest.raises(ValueError, match="eps must be positive"):
        optim.GradientRegularization(base, eps=0.0)
    with pytest.raises(ValueError, match="betas must be 3 numbers"):
        optim.GAM(base, betas=(1.0, 2.0))
    with pytest.raises(pb.GraphError, match="takes two gradients"):
        optim.UDoG([u]).step()
    with pytest.raises(ValueError, match="cannot be decoupled"):
        optim.UDoG([u], decoupled=True)


def test_scheduler_and_groups_reach_the_base():
    u, v, closure = build(start())
    base = optim.SGD([u], lr=1.0)
    opt = optim.SAM(base)
    opt.add_param_group({"params": [v], "lr": 0.5})
    schedule = optim.lr_scheduler.ExponentialLR(opt, 0.5)
    opt.step(closure)
    schedule.step()
    assert [g["lr"] for g in base.param_groups] == [0.5, 0.25]
    assert opt.bytes_per_step() > base.bytes_per_step()
    assert "SAM(rho=0.05)" in repr(opt)


# ---- U-DoG


def udog(slope, x0, iterations, reps_rel=1e-6, eps=1e-8):
    y = x0.copy()
    r = reps_rel * (1 + np.linalg.norm(x0))
    total, weights, mean, largest, changes = 0.0, 0.0, np.zeros_like(x0), 0.0, eps
    for _ in range(iterations):
        total += r
        a, w = total / r, total
        z = (weights * mean + w * y) / (weights + w)
        m = slope(z)
        largest = max(largest, a * a * (m @ m))
        x = y - a * r / np.sqrt(largest + changes) * m
        mean = (weights * mean + w * x) / (weights + w)
        weights += w
        g = slope(mean)
        changes += a * a * ((g - m) @ (g - m))
        y = y - a * r / np.sqrt(largest + changes) * g
        r = max(r, np.linalg.norm(x - x0), np.linalg.norm(y - x0))
    return mean


def test_udog_equals_the_recursion():
    u, v, closure = build(start())
    opt = optim.UDoG([u, v], reps_rel=1e-3)
    for _ in range(20):
        opt.step(closure)
    got = np.concatenate([array(a) for a in opt.averaged_parameters()])
    assert error(got, udog(grad, start(), 20, reps_rel=1e-3)) <= 1e-10
    with pytest.raises(ValueError, match="no average is kept"):
        optim.UDoG([u], average=False).averaged_parameters()


def test_udog_accelerates():
    h = np.logspace(-3, 0, 100)
    x = tensor(np.ones(100))
    diagonal = pb.tensor(h)
    opt = optim.UDoG([x])
    reached = {}
    for t in range(1, 401):
        opt.step(lambda: 0.5 * (diagonal * x * x).sum())
        if t in (100, 200, 400):
            mean = array(opt.averaged_parameters()[0])
            reached[t] = 0.5 * (h * mean * mean).sum()
    for t, value in {100: 1.10e-3, 200: 6.95e-5, 400: 4.37e-6}.items():
        assert abs(reached[t] / value - 1) <= 0.05, reached
