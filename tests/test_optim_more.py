"""A-DoG, SPIDER, lookahead, averages, random scaling, extrapolated guesses, exact GAM, Muon as a function, batches."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim


def tensor(x, dtype="float64"):
    t = pb.tensor(np.asarray(x, dtype))
    t.requires_grad = True
    return t


def array(x):
    return np.array(x.detach().numpy())


def error(a, b):
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-300)


H = np.logspace(-3, 0, 40)


def quadratic(x, h=H):
    h = pb.tensor(h.astype(str(x.dtype).rpartition(".")[2]))
    return lambda: 0.5 * (h * x * x).sum()


# ---- A-DoG


def adog(slope, x0, steps, lr=1.0, reps_rel=1e-6, eps=1e-8, decay=0.0):
    """The authors' order: both sequences move, then the distance and the weight, then the coupling."""
    x, w = x0.copy(), x0.copy()
    r = reps_rel * (1 + np.linalg.norm(x0))
    total, a, square, average = r, 1.0, eps, None
    for t in range(1, steps + 1):
        g = slope(x) + decay * x
        square += a * a * (g @ g)
        eta = lr * r / np.sqrt(square)
        x, w = x - eta * g, w - a * eta * g
        r = max(r, np.linalg.norm(w - x0))
        total += r
        a = max(1.0, 0.5 * total / r)
        x = (1 - 1 / a) * x + w / a
        k = 9 / (8 + t)
        average = x if average is None else (1 - k) * average + k * x
    return x, average


@pytest.mark.parametrize("hyper", [{}, {"lr": 0.5, "reps_rel": 1e-2, "eps": 1.0, "weight_decay": 0.1}])
def test_adog_equals_the_recursion(hyper):
    x0 = np.random.default_rng(0).normal(size=40)
    x = tensor(x0)
    opt = optim.ADoG([x], **hyper)
    for _ in range(100):
        opt.step(quadratic(x))
    words = {"decay" if k == "weight_decay" else k: v for k, v in hyper.items()}
    want, average = adog(lambda v: H * v, x0, 100, **words)
    assert error(array(x), want) <= 1e-10
    assert error(array(opt.averaged_parameters()[0]), average) <= 1e-10
    low = tensor(x0, "float32")
    opt = optim.ADoG([low], **hyper)
    for _ in range(100):
        opt.step(quadratic(low))
    assert error(array(low), want) <= 1e-5


def test_adog_is_faster_than_gradient_descent_and_survives_empty_tensors():
    x, none = tensor(np.ones(40)), tensor(np.zeros((0, 3)))
    opt = optim.ADoG([x, none], average=False)
    h = pb.tensor(H)
    for _ in range(400):
        opt.step(lambda: 0.5 * (h * x * x).sum() + none.sum())
    loss = 0.5 * (H * array(x) ** 2).sum()
    assert loss < 0.1 * 0.5 * (H * (1 - H) ** 800).sum()
    zero = tensor([0.0])
    optim.ADoG([zero], reps_rel=0.0, eps=0.0).step(grads=[pb.tensor(np.zeros(1))])
    assert zero.item() == 0.0
    with pytest.raises(ValueError, match="cannot be decoupled"):
        optim.ADoG([x], decoupled=True)


def test_adog_pure_form_continues_and_saves():
    x0 = np.random.default_rng(1).normal(size=7)
    x, y = tensor(x0), tensor(x0)
    opt = optim.ADoG([x], reps_rel=1e-2)
    pure, state = {"x": pb.tensor(x0)}, None
    grads = [np.random.default_rng(i).normal(size=7) for i in range(8)]
    for g in grads:
        state = opt.init(pure) if state is None else state
        pure, state = opt.update(pure, {"x": pb.tensor(g)}, state)
        opt.step(grads=[pb.tensor(g)])
    assert error(array(pure["x"]), array(x)) <= 1e-13
    other = optim.ADoG([y], reps_rel=1e-2)
    for g in grads[:4]:
        other.step(grads=[pb.tensor(g)])
    again = optim.ADoG([z := tensor(array(y))], reps_rel=1e-2)
    again.load_state_dict(other.state_dict())
    for g in grads[4:]:
        again.step(grads=[pb.tensor(g)])
    assert np.array_equal(array(z), array(x))


# ---- SPIDER


def test_spider_follows_its_recursion():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 6))
    x = tensor(np.ones(6))
    opt = optim.SPIDER([x], lr=0.05, period=4, beta=0.5)
    v, before, p = None, None, np.ones(6)

    def slope(rows, w):
        return (np.tanh(rows @ w)[:, None] * rows).mean(axis=0)

    for t in range(11):
        fresh = opt.refreshes
        assert fresh == (t % 4 == 0)
        rows = data if fresh else data[rng.integers(0, 64, 8)]
        batch = pb.tensor(rows)
        # the derivative of log cosh is tanh
        opt.step(lambda b=batch: pb.log(pb.exp(b @ x) + pb.exp(-(b @ x))).mean())
        v = slope(rows, p) if fresh else v + slope(rows, p) - slope(rows, before)
        before, p = p, p - 0.05 * v / np.linalg.norm(v) ** 0.5
        assert error(array(opt.estimate[0]), v) <= 1e-12
        assert error(array(x), p) <= 1e-12


def test_spider_saves_and_skips():
    x = tensor([3.0, 4.0])
    opt = optim.SPIDER([x], lr=0.1, period=3)
    loss = quadratic(x, np.array([1.0, 2.0]))
    for _ in range(4):
        opt.step(loss)
    y = tensor(array(x))
    other = optim.SPIDER([y], lr=0.1, period=3)
    other.load_state_dict(opt.state_dict())
    opt.step(lambda: loss() * float("nan"), scale=2.0)
    assert opt.last_skipped and np.array_equal(array(x), array(y))
    for _ in range(3):
        opt.step(loss)
        other.step(quadratic(y, np.array([1.0, 2.0])))
    assert np.array_equal(array(x), array(y))
    before = array(x)
    opt.step(lambda: 8.0 * loss(), scale=8.0)
    other.step(quadratic(y, np.array([1.0, 2.0])))
    assert np.array_equal(array(x), array(y)) and not np.array_equal(array(x), before)
    with pytest.raises(ValueError, match="has no spider"):
        other.load_state_dict({k: v for k, v in opt.state_dict().items() if k != "spider.before.0"})
    with pytest.raises(pb.GraphError, match="gradients at two points"):
        opt.step()
    with pytest.raises(ValueError, match="period must be at least 1"):
        optim.SPIDER([x], period=0)
    with pytest.raises(pb.GraphError, match="needs a closure"):
        opt.init({})
    with pytest.raises(pb.GraphError, match="needs a closure"):
        opt.update({}, {}, {})


# ---- around a base


def test_lookahead():
    rng = np.random.default_rng(3)
    x0 = rng.normal(size=5)
    x = tensor(x0)
    opt = optim.Lookahead(optim.SGD([x], lr=0.1, momentum=0.9), k=3, alpha=0.25)
    pure, state = {"x": pb.tensor(x0)}, opt.init({"x": pb.tensor(x0)})
    p, slow, m = x0.copy(), x0.copy(), 0
    saved = None
    grads = rng.normal(size=(8, 5))
    for t, g in enumerate(grads, 1):
        opt.step(grads=[pb.tensor(g)])
        pure, state = opt.update(pure, {"x": pb.tensor(g)}, state)
        m = 0.9 * m + g
        p = p - 0.1 * m
        if t % 3 == 0:
            slow = slow + 0.25 * (p - slow)
            p = slow
        assert error(array(x), p) <= 1e-13
        assert error(array(pure["x"]), p) <= 1e-13
        if t == 4:
            saved = opt.state_dict(), array(x)
    assert error(array(opt.slow[0]), slow) <= 1e-13
    y = tensor(saved[1])
    other = optim.Lookahead(optim.SGD([y], lr=0.1, momentum=0.9))
    other.load_state_dict(saved[0])
    for g in grads[4:]:
        other.step(grads=[pb.tensor(g)])
    assert np.array_equal(array(y), array(x))
    assert "Lookahead(k=3" in repr(opt) and opt.bytes_per_step() > opt.base.bytes_per_step()
    z = tensor([1.0])
    opt.add_param_group({"params": [z]})
    assert len(opt.slow) == 2 and not opt.needs_closure
    optim.lr_scheduler.ExponentialLR(opt, 0.5).step()
    assert opt.base.param_groups[0]["lr"] == 0.05
    with pytest.raises(TypeError, match="must be an optimizer"):
        optim.Lookahead([x])
    with pytest.raises(ValueError, match="k must be at least 1"):
        optim.Lookahead(optim.SGD([x]), k=0)
    with pytest.raises(ValueError, match="alpha must be in"):
        optim.Lookahead(optim.SGD([x]), alpha=0.0)
    with pytest.raises(ValueError, match="not of Lookahead"):
        other.load_state_dict(optim.SGD([x]).state_dict())
    with pytest.raises(ValueError, match=r"has no slow\.0"):
        other.load_state_dict({k: v for k, v in saved[0].items() if k != "slow.0"})


def test_lookahead_with_a_closure_and_a_skip():
    x = tensor([1.0])
    opt = optim.Lookahead(optim.SAM(optim.SGD([x], lr=0.1), rho=0.0), k=1, alpha=0.5)
    assert opt.needs_closure
    assert opt.step(lambda: (x * x).sum()).item() == 1.0
    assert abs(x.item() - 0.9) <= 1e-14
    opt.step(lambda: (x * float("inf")).sum(), scale=1.0)
    assert opt.last_skipped
    assert abs(x.item() - 0.9) <= 1e-14


def test_polynomial_average():
    rng = np.random.default_rng(0)
    x = tensor(np.zeros(4))
    mean, plain = optim.PolynomialAverage([x]), optim.PolynomialAverage({"x": x}, gamma=0.0)
    want, seen = np.zeros(4), []
    for t in range(1, 30):
        seen.append(rng.normal(size=4))
        with pb.no_grad():
            x[...] = pb.tensor(seen[-1])
        mean.update(), plain.update()
        want = want + 9 / (8 + t) * (seen[-1] - want)
    assert error(array(mean.averages[0]), want) <= 1e-13
    assert error(array(plain.averages[0]), np.mean(seen, axis=0)) <= 1e-13
    other = optim.PolynomialAverage([x])
    other.load_state_dict(mean.state_dict())
    mean.update(), other.update()
    assert np.array_equal(array(mean.averages[0]), array(other.averages[0]))
    with pytest.raises(ValueError, match="gamma must be finite"):
        optim.PolynomialAverage([x], gamma=-1.0)
    with pytest.raises(ValueError, match="entry 'count' is missing"):
        other.load_state_dict({k: v for k, v in mean.state_dict().items() if k != "count"})


def test_random_scaling_of_any_base():
    x, y = tensor([1.0, -2.0]), tensor([1.0, -2.0])
    scales = [0.5, 2.0, 1.5]
    opt, plain = optim.ExpScaled(optim.AdamW([x], lr=0.1), scales), optim.AdamW([y], lr=0.1)
    pure, state = {"x": pb.tensor([1.0, -2.0], dtype=pb.float64)}, None
    for t in range(5):
        g = np.array([1.0 + t, 0.3 * t])
        opt.step(grads=[pb.tensor(g)])
        plain.param_groups[0]["lr"] = 0.1 * scales[t % 3]
        plain.step(grads=[pb.tensor(g)])
        state = opt.init(pure) if state is None else state
        pure, state = opt.update(pure, {"x": pb.tensor(g)}, state)
    assert np.array_equal(array(x), array(y)) and opt.param_groups[0]["lr"] == 0.1
    assert error(array(pure["x"]), array(x)) <= 1e-14
    z = tensor(array(x))
    other = optim.ExpScaled(optim.AdamW([z], lr=0.1), scales)
    other.load_state_dict(opt.state_dict())
    opt.step(grads=[pb.tensor(g)]), other.step(grads=[pb.tensor(g)])
    assert np.array_equal(array(x), array(z))
    assert "ExpScaled" in repr(opt) and opt.bytes_per_step() == opt.base.bytes_per_step()


def test_random_scaling_draws():
    results = []
    for _ in range(2):
        pb.manual_seed(5)
        x = tensor([0.0])
        opt = optim.ExpScaled(optim.SGD([x], lr=1.0))
        moves = []
        for _ in range(2000):
            before = x.item()
            opt.step(grads=[pb.tensor([-1.0], dtype=pb.float64)])
            moves.append(x.item() - before)
        results.append(moves)
    assert results[0] == results[1]
    assert abs(np.mean(results[0]) - 1) <= 0.1 and abs(np.var(results[0]) - 1) <= 0.25
    with pytest.raises(TypeError, match="with a learning rate"):
        optim.ExpScaled(optim.OASIS([x]))
    with pytest.raises(ValueError, match="numbers from 0 on"):
        optim.ExpScaled(optim.SGD([x]), scales=[])
    with pytest.raises(ValueError, match="not of ExpScaled"):
        opt.load_state_dict({"rule": "SGD"})


def test_exact_gam_equals_the_formula():
    a, b = np.diag([1.0, 3.0, 0.5, 2.0]) + 0.1, np.array([0.3, -0.2, 0.5, 1.0])

    def grad(x):
        return a @ x + 4 * b * x**3

    def slope_of_norm(x):
        g = grad(x)
        return (a + np.diag(12 * b * x * x)) @ g / np.linalg.norm(g)

    x0 = np.random.default_rng(0).normal(size=4)
    x = tensor(x0)
    opt = optim.GAM(optim.SGD([x], lr=0.05), rho_norm=0.3, betas=(1.0, -1.0, 0.7), exact=True)
    ta, tb = pb.tensor(a), pb.tensor(b)
    want = x0
    for _ in range(10):
        opt.step(lambda: 0.5 * x @ (ta @ x) + (tb * x**4).sum())
        f = slope_of_norm(want)
        q = want + 0.3 * f / np.linalg.norm(f)
        want = want - 0.05 * (grad(want) + 0.7 * 0.3 * slope_of_norm(q))
        assert error(array(x), want) <= 1e-9
    flat = tensor([1.0])
    optim.GAM(optim.SGD([flat], lr=0.5), exact=True).step(lambda: flat.sum())
    assert flat.item() == 0.5


# ---- extrapolated guesses


def test_optamsgrad_with_extrapolated_guesses():
    rng = np.random.default_rng(0)
    x0, r = rng.normal(size=6), 4
    x, y = tensor(x0[:4]), tensor(x0[4:])
    opt = optim.OptAMSGrad([x, y], lr=0.01, guess="extrapolate", history=r, reg=0.01)
    w, m, v, top, guess, kept = x0.copy(), np.zeros(6), np.zeros(6), np.full(6, 1e-8), np.zeros(6), []
    saved = None
    grads = rng.normal(size=(9, 6))
    for t, g in enumerate(grads):
        opt.step(grads=[pb.tensor(3 * g[:4]), pb.tensor(3 * g[4:])], scale=3.0)
        kept = [*kept, g][-r:]
        old, m = m, 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * (g - guess) ** 2
        top = np.maximum(top, v)
        guess = g
        if len(kept) > 2:
            u = np.diff(kept, axis=0)
            gram = u @ u.T
            z = np.linalg.solve(gram / np.linalg.norm(gram, 2) + 0.01 * np.eye(len(u)), np.ones(len(u)))
            guess = (z / z.sum()) @ np.array(kept[1:])
        w = w - 0.01 * m / np.sqrt(top)
        p = w - 0.01 * (0.9 * old + 0.1 * guess) / np.sqrt(top)
        assert error(np.concatenate([array(x), array(y)]), p) <= 1e-12
        if t == 5:
            saved = opt.state_dict(), [array(x), array(y)]
    params = [tensor(a) for a in saved[1]]
    other = optim.OptAMSGrad(params, lr=0.01, guess="extrapolate", history=r, reg=0.01)
    other.load_state_dict(saved[0])
    for g in grads[6:]:
        other.step(grads=[pb.tensor(3 * g[:4]), pb.tensor(3 * g[4:])], scale=3.0)
    assert np.array_equal(array(params[0]), array(x)) and np.array_equal(array(params[1]), array(y))
    before = array(x), opt.state_dict()["optimistic.0.0"].tolist()
    opt.step(grads=[pb.tensor(np.full(4, np.nan)), pb.tensor(np.ones(2))], clip_norm=1.0)
    assert opt.last_skipped and np.array_equal(array(x), before[0])
    assert opt.state_dict()["optimistic.0.0"].tolist() == before[1]
    with pytest.raises(ValueError, match="a kept gradient is missing"):
        other.load_state_dict({k: v for k, v in saved[0].items() if k != "optimistic.0.0"})


def test_clipping_comes_before_the_guess():
    x, y = tensor([1.0, 2.0]), tensor([1.0, 2.0])
    a = optim.OptAMSGrad([x], guess="extrapolate")
    b = optim.OptAMSGrad([y], guess="extrapolate")
    for t in range(6):
        g = np.array([3.0 + t, 4.0])
        a.step(grads=[pb.tensor(g)], clip_norm=1.0, clip_value=0.7)
        b.step(grads=[pb.tensor(np.clip(g / (np.linalg.norm(g) + 1e-6), -0.7, 0.7))])
        assert abs(a.last_norm - np.linalg.norm(g)) <= 1e-12
    assert error(array(x), array(y)) <= 1e-14


def test_extrapolation_of_linear_recurrences():
    rng = np.random.default_rng(4)
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    a, b = q @ np.diag([0.5, 0.3, -0.2]) @ q.T, rng.normal(size=3)
    g = [rng.normal(size=3)]
    for _ in range(4):
        g.append(a @ g[-1] + b)
    limit = np.linalg.solve(np.eye(3) - a, b)
    assert error(array(optim.extrapolate([pb.tensor(v) for v in g], reg=0.0)), limit) <= 1e-8
    split = optim.extrapolate([[pb.tensor(v[:1]), pb.tensor(v[1:])] for v in g], reg=0.0)
    assert error(np.concatenate([array(t) for t in split]), limit) <= 1e-8
    assert array(optim.extrapolate([pb.tensor(g[0]), pb.tensor(g[1])])).tolist() == g[1].tolist()
    assert array(optim.extrapolate([pb.tensor(g[0])] * 4)).tolist() == g[0].tolist()
    with pytest.raises(ValueError, match="got no gradients"):
        optim.extrapolate([])
    with pytest.raises(ValueError, match="reg must be finite"):
        optim.extrapolate([pb.tensor(g[0])], reg=-1.0)


def test_optamsgrad_bad_words():
    x = tensor([1.0])
    with pytest.raises(ValueError, match="guess must be"):
        optim.OptAMSGrad([x], guess="next")
    with pytest.raises(ValueError, match="history must be at least 3"):
        optim.OptAMSGrad([x], history=2)
    with pytest.raises(ValueError, match="reg must be finite"):
        optim.OptAMSGrad([x], reg=-1.0)
    with pytest.raises(ValueError, match="the same kind of guess"):
        optim.OptAMSGrad([x]).add_param_group({"params": [tensor([1.0])], "guess": "extrapolate"})
    opt = optim.OptAMSGrad([x], guess="extrapolate")
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        opt.step(grads=[pb.tensor([1.0])], clip_norm=0.0)
    with pytest.raises(ValueError, match="got a closure and grads"):
        opt.step(lambda: x.sum(), grads=[pb.tensor([1.0])])
    with pytest.raises(NotImplementedError, match="no pure form"):
        opt.init({"x": x})
    with pytest.raises(NotImplementedError, match="no pure form"):
        opt.update({}, {}, {})


# ---- the pure form of Muon


@pytest.mark.parametrize("hyper", [{}, {"nesterov": False, "decoupled": False, "adjust_lr": "match_rms_adamw"}])
def test_muon_pure_form(hyper):
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(size=(5, 3)), "b": [rng.normal(size=(2, 3, 2))]}
    params = [tensor(values["a"]), tensor(values["b"][0])]
    opt = optim.Muon(params, lr=0.1, **hyper)
    tree = {"a": pb.tensor(values["a"]), "b": [pb.tensor(values["b"][0])]}
    state = opt.init(tree)
    for _ in range(4):
        g = [rng.normal(size=p.shape) for p in params]
        opt.step(grads=[pb.tensor(v) for v in g])
        tree, state = opt.update(tree, {"a": pb.tensor(g[0]), "b": [pb.tensor(g[1])]}, state)
    assert error(array(tree["a"]), array(params[0])) <= 1e-12
    assert error(array(tree["b"][0]), array(params[1])) <= 1e-12
    assert int(state["step"]) == 4


def test_muon_meta_gradient():
    rng = np.random.default_rng(1)
    w, x = pb.tensor(rng.normal(size=(3, 2))), pb.tensor(rng.normal(size=(2, 3)))
    opt = optim.Muon(momentum=0.5)

    def after(lr):
        p, state = w, opt.init(w)
        for _ in range(2):
            p, state = opt.update(p, 2 * (p @ x) @ x.T, state, lr=lr)
        return ((p @ x) ** 2).sum()

    slope = pb.grad(after)(pb.tensor(0.1, dtype=pb.float64)).item()
    h = 1e-5
    want = (after(0.1 + h).item() - after(0.1 - h).item()) / (2 * h)
    assert abs(slope - want) <= 1e-6 * abs(want)
    with pytest.raises(ValueError, match="has 1 axes"):
        opt.init({"b": pb.tensor([1.0])})
    with pytest.raises(TypeError, match="no keyword 'speed'"):
        opt.update(w, w, opt.init(w), speed=1.0)
    with pytest.raises(ValueError, match="has no 'momentum_buffer'"):
        opt.update(w, w, {"step": 0})


# ---- batches


def test_clip_per_sample():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(8, 3, 2)), rng.normal(size=(8,))
    mean, norms = optim.clip_per_sample({"a": pb.tensor(a), "b": pb.tensor(b)}, 2.0)
    size = np.sqrt((a**2).sum(axis=(1, 2)) + b**2)
    factor = np.minimum(1, 2.0 / (size + 1e-6))
    assert error(array(norms), size) <= 1e-14
    assert error(array(mean["a"]), (factor[:, None, None] * a).mean(axis=0)) <= 1e-14
    assert error(array(mean["b"]), (factor * b).mean()) <= 1e-13
    assert mean["a"].shape == (3, 2) and mean["b"].shape == ()
    with pytest.raises(ValueError, match="max_norm must be positive"):
        optim.clip_per_sample([pb.tensor(a)], 0.0)
    with pytest.raises(ValueError, match="got no gradients"):
        optim.clip_per_sample([], 1.0)
    with pytest.raises(pb.ShapeError, match="the same first axis"):
        optim.clip_per_sample([pb.tensor(a), pb.tensor(b[:3])], 1.0)


def test_norm_test_counts_micro_batches():
    rng = np.random.default_rng(0)
    g = 0.3 + rng.normal(size=(12, 5))
    test = optim.NormTest(eta=0.5)
    for chunk in g.reshape(4, 3, 5):
        test.add([pb.tensor(chunk.mean(axis=0)[:2]), pb.tensor(chunk.mean(axis=0)[2:])])
    means = g.reshape(4, 3, 5).mean(axis=1)
    each = 3 * ((means - means.mean(axis=0)) ** 2).sum() / 3
    want = max(12, int(np.ceil(each / (0.25 * (means.mean(axis=0) ** 2).sum()))))
    assert error(np.concatenate([array(m) for m in test.mean]), means.mean(axis=0)) <= 1e-14
    assert test.next(12) == want and test.count == 0
    worst = optim.NormTest(eta=0.5, coordinates=True, largest=10_000)
    for row in g:
        worst.add([pb.tensor(row)])
    ratio = np.max(g.var(axis=0, ddof=1) / (0.25 * g.mean(axis=0) ** 2))
    assert abs(worst.variance() - g.var(axis=0, ddof=1).sum()) <= 1e-12
    assert worst.next(12) == max(12, int(np.ceil(ratio)))
    capped = optim.NormTest(eta=0.1, largest=20)
    for row in (1.0, -1.0):
        capped.add([pb.tensor([row])])
    assert capped.next(2) == 20  # the mean gradient is 0
    capped = optim.NormTest(coordinates=True)
    for row in (1.0, -1.0):
        capped.add([pb.tensor([row, 1.0])])
    assert capped.next(2) == 2**62


def test_norm_test_errors():
    with pytest.raises(ValueError, match="eta must be in"):
        optim.NormTest(eta=1.0)
    test = optim.NormTest()
    test.add([pb.tensor([1.0])])
    with pytest.raises(ValueError, match="got 1 gradients"):
        test.next(1)
    with pytest.raises(pb.ShapeError, match="other shapes"):
        test.add([pb.tensor([1.0, 2.0])])
    test.add([pb.tensor([1.0])])
    with pytest.raises(ValueError, match="cannot make up a batch of 3"):
        test.next(3)
