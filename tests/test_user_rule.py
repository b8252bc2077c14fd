"""pb.optim.rule: rules written in Python against the built-in ones, and what the tracing refuses."""

import math
import pickle

import numpy as np
import pytest
import rule_cases as R
from optim_cases import SHAPES, array, tensor

import pullback as pb
from pullback import _core, optim

PAIRS = {
    "adamw": (R.Adam, optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "adam": (R.Adam, optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "decoupled": False}),
    "lion": (R.Lion, optim.Lion, {"lr": 0.01}),
    "lamb": (R.LAMB, optim.LAMB, {"lr": 0.01, "weight_decay": 0.1}),
    "lamb_coupled": (R.LAMB, optim.LAMB, {"lr": 0.01, "weight_decay": 0.1, "decoupled": False}),
    "dog": (R.DoG, optim.DoG, {}),
    "ldog": (R.LDoG, optim.LDoG, {"weight_decay": 0.1, "decoupled": False}),
}


def pair(name):
    mine, theirs, hyper = PAIRS[name]
    more = {"average": False} if theirs in (optim.DoG, optim.LDoG) else {}
    return (lambda p, **k: mine(p, **{**hyper, **k})), (lambda p, **k: theirs(p, **{**hyper, **more, **k}))


def start(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [tensor(rng.normal(size=s).astype(dtype)) for s in SHAPES]


def run(opt, steps, dtype=np.float32, seed=1, **options):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        opt.step(grads=[tensor(rng.normal(size=p.shape).astype(dtype)) for p in opt._parameters()], **options)


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(array(x), array(y), strict=True)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"clip_value": 0.3}, {"scale": 4.0}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_bits_of_the_built_in_rule(name, dtype, options):
    mine, theirs = pair(name)
    a, b = start(dtype), start(dtype)
    ours, built_in = mine(a), theirs(b)
    run(ours, 5, dtype, **options)
    run(built_in, 5, dtype, **options)
    same(a, b)
    kept, other = ours.state_dict(), built_in.state_dict()
    assert {k for k in kept if k.startswith("state.")} == {k for k in other if k.startswith("state.")}
    for key in kept:
        if key.startswith("state.") and isinstance(kept[key], pb.Tensor):
            np.testing.assert_array_equal(array(kept[key]), array(other[key]))
        elif key.startswith("state."):
            assert kept[key] == other[key]


@pytest.mark.parametrize("formats", [{"state": "bfloat16"}, {"state": "int8"}], ids=str)
@pytest.mark.parametrize("name", ["adamw", "lion", "lamb", "dog"])
def test_state_formats(name, formats):
    mine, theirs = pair(name)
    a, b = start(), start()
    run(mine(a, **formats), 4)
    run(theirs(b, **formats), 4)
    same(a, b)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan", "master"])
def test_low_precision_parameters(rounding):
    mine, theirs = pair("adamw")
    a, b = ([p.astype(pb.bfloat16) for p in start()] for _ in range(2))
    run(mine(a, rounding=rounding), 4)
    run(theirs(b, rounding=rounding), 4)
    same([p.astype(pb.float32) for p in a], [p.astype(pb.float32) for p in b])


@pytest.mark.parametrize("step", [("l1", 0.5), ("box", -0.2, 0.3), ("ball", 1.0), ("group", 0.5)], ids=lambda s: s[0])
def test_proximal_steps(step):
    mine, theirs = pair("adamw")
    a, b = start(), start()
    run(mine([{"params": a, "prox": step}]), 3)
    run(theirs([{"params": b, "prox": step}]), 3)
    same(a, b)


def test_strided_parameters():
    mine, theirs = pair("lamb")
    a, b = (tensor(np.random.default_rng(0).normal(size=(70, 90)).astype(np.float32)).T for _ in range(2))
    run(mine([a]), 3)
    run(theirs([b]), 3)
    same([a], [b])


def test_threads_and_grouping_do_not_change_bits():
    results = []
    for threads in (1, 2):
        before = pb.get_num_threads()
        pb.set_num_threads(threads)
        try:
            for split in (False, True):
                p = [*start(), tensor(np.random.default_rng(5).normal(size=200_000).astype(np.float32))]
                groups = [{"params": p[:3]}, {"params": p[3:]}] if split else p
                run(R.DoG(groups), 3)
                results.append(p)
        finally:
            pb.set_num_threads(before)
    for other in results[1:]:
        same(results[0], other)


def test_groups_schedules_and_step_counts():
    mine, theirs = pair("adamw")
    results = []
    for make in (mine, theirs):
        p, q = start(seed=2)[4:6]
        opt = make([{"params": [p]}, {"params": [q], "lr": 0.2}])
        schedule = optim.lr_scheduler.StepLR(opt, 2, 0.5)
        rng = np.random.default_rng(3)
        for i in range(5):
            g, h = (tensor(rng.normal(size=x.shape).astype(np.float32)) for x in (p, q))
            opt.step(grads=[g, None if i < 2 else h])
            schedule.step()
        assert opt.state_dict()["state.1.step"] == 3
        results.append([p, q])
    same(*results)


@pytest.mark.parametrize("name", ["adamw", "dog"])
def test_save_load_continue(name, tmp_path):
    mine, _ = pair(name)
    a, b = start(), start()
    one = mine(a)
    run(one, 3)
    for x, y in zip(a, b, strict=True):
        y[...] = x
    two = mine(b)
    two.load_state_dict(one.state_dict())
    run(one, 3, seed=9)
    run(two, 3, seed=9)
    same(a, b)


@pytest.mark.parametrize("outer", [optim.SAM, optim.GradientRegularization], ids=lambda c: c.__name__)
def test_as_the_base_of_another_optimizer(outer):
    target = tensor(np.linspace(-1, 1, 2000).astype(np.float32))
    results = []
    for cls in (R.Adam, optim.AdamW):
        p = pb.zeros(2000)
        p.requires_grad = True
        base = cls([p], lr=0.1, weight_decay=0.01)
        opt = outer(base)
        for _ in range(4):
            opt.step(lambda p=p: pb.sum((p - target) ** 2))
        results.append([p.detach()])
    same(*results)


def test_not_finite_gradients_change_nothing():
    p = tensor(np.ones(5, np.float32))
    opt = R.DoG([p])
    run(opt, 1)
    before, kept = array(p), opt.state_dict()
    opt.step(grads=[tensor(np.array([1, np.nan, 1, 1, 1], np.float32))], scale=2.0)
    assert opt.last_skipped
    np.testing.assert_array_equal(array(p), before)
    after = opt.state_dict()
    assert after["state.0.step"] == 1
    assert after["state.0.grad_squares"] == kept["state.0.grad_squares"]


@pytest.mark.parametrize("name", PAIRS)
def test_pure_form(name):
    mine, _ = pair(name)
    p = [x for x in start(np.float64) if x.size]
    q = [x.clone() for x in p]
    opt, pure = mine(p), mine(None)
    state = pure.init(q)
    rng = np.random.default_rng(4)
    for _ in range(3):
        grads = [tensor(rng.normal(size=x.shape)) for x in p]
        opt.step(grads=grads)
        q, state = pure.update(q, grads, state)
    for x, y in zip(p, q, strict=True):
        np.testing.assert_allclose(array(x), array(y), rtol=1e-13, atol=1e-15)


def test_meta_gradient():
    w, target = tensor(np.array([1.0, -2.0, 0.5])), tensor(np.array([0.3, 0.1, -0.4]))
    pure = R.Adam(None, lr=0.1)

    def after(lr):
        p, state = w, pure.init(w)
        for _ in range(3):
            g = 2 * (p - target)
            p, state = pure.update(p, g, state, lr=lr, weight_decay=0.1)
        return pb.sum((p - target) ** 2)

    slope = pb.grad(after)(pb.tensor(0.1, dtype=pb.float64)).item()
    h = 1e-6
    plus, minus = after(pb.tensor(0.1 + h, dtype=pb.float64)).item(), after(pb.tensor(0.1 - h, dtype=pb.float64)).item()
    assert abs(slope - (plus - minus) / (2 * h)) <= 1e-7 * abs(slope)


def test_meta_gradient_without_gradient():
    pure = R.Adam(None, lr=0.1)
    w = pb.zeros(2, dtype=pb.float64)

    def after(lr):
        p, _ = pure.update(w, pb.zeros(2, dtype=pb.float64), pure.init(w), lr=lr)
        return pb.sum(p)

    assert pb.grad(after)(pb.tensor(0.1, dtype=pb.float64)).item() == 0.0


# ---- programs


def test_states_may_change_places():
    def update(p, g, states, hyper):
        return p - hyper.lr * (g + 0 * states.a), states.b, g

    Swap = optim.rule("Swap", states=["a", "b"], hyper={"lr": 1.0}, update=update)
    p = tensor(np.zeros(3000, np.float32))
    opt = Swap([p])
    opt.step(grads=[pb.full((3000,), 1.0)])
    opt.step(grads=[pb.full((3000,), 2.0)])
    d = opt.state_dict()
    assert np.unique(array(d["state.0.a"])).tolist() == [1.0]
    assert np.unique(array(d["state.0.b"])).tolist() == [2.0]
    assert np.unique(array(p)).tolist() == [-3.0]


def test_exchange_of_states():
    def update(p, g, states, hyper):
        first = hyper.t == 1
        a, b = pb.where(first, g, states.a), pb.where(first, 2 * g, states.b)
        return p - hyper.lr * (a - b), b, a

    Exchange = optim.rule("Exchange", states=["a", "b"], hyper={"lr": 1.0}, update=update)
    p = tensor(np.zeros(5, np.float32))
    opt = Exchange([p])
    seen = []
    for _ in range(3):
        opt.step(grads=[pb.full((5,), 1.0)])
        d = opt.state_dict()
        seen.append((float(d["state.0.a"][0]), float(d["state.0.b"][0]), float(p[0])))
    assert seen == [(2.0, 1.0, 1.0), (1.0, 2.0, 0.0), (2.0, 1.0, 1.0)]


def reference(p, g, a, c):
    """The operations of the next test in float64."""
    m = np.where(np.logical_and(g > 0, ~(p < a)), np.exp(-np.abs(g)), np.maximum(p, 0.25) % 0.75)
    s = (g > 0.5) * 1.0 + (p >= 0) * 2.0
    return p - c * (m * s - p * m) - np.tanh(a) / (1 + g * g) + np.minimum(p, -g) // 0.5 + np.sign(g) ** 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_operations(dtype):
    def update(p, g, states, hyper):
        a = states.a
        m = pb.where((g > 0) & ~(p < a), pb.exp(-abs(g)), pb.maximum(p, 0.25) % 0.75)
        s = (g > 0.5) * 1.0 + (p >= 0) * 2.0
        new = p - hyper.c * (m * s - p * m) - pb.tanh(a) / (1 + g**2) + pb.minimum(p, -g) // 0.5 + pb.sign(g) ** 3
        return new + 0 * hyper.lr, a + g

    Many = optim.rule("Many", states=["a"], hyper={"lr": 0.0, "c": 0.3}, update=update)
    rng = np.random.default_rng(0)
    p, a = rng.normal(size=2777), np.zeros(2777)
    x = tensor(p.astype(dtype))
    opt = Many([x])
    q, state = x.clone(), opt.init(x)
    for _ in range(2):
        g = rng.normal(size=p.shape).astype(dtype).astype(np.float64)
        before = array(x).astype(np.float64)
        expected = reference(before, g, a, 0.3)
        a = (a.astype(dtype) + g.astype(dtype)).astype(np.float64)
        opt.step(grads=[tensor(g.astype(dtype))])
        q, state = opt.update(q, tensor(g.astype(dtype)), state)
        for result in (x, q):
            off = np.abs(array(result) - expected)
            assert np.max(off) <= (2e-6 if dtype == np.float32 else 1e-14)


def test_changing_a_keyword():
    def update(p, g, states, hyper):
        return p - hyper.lr * hyper.scales[1] * g + hyper.scales[0] * 0 * g

    Scaled = optim.rule("Scaled", states=[], hyper={"lr": 1.0, "scales": (1.0, 2.0)}, update=update)
    p = pb.zeros(2)
    opt = Scaled([p], 0.5)
    opt.step(grads=[pb.ones(2)])
    assert p.tolist() == [-1.0, -1.0]
    opt.param_groups[0]["scales"] = (0.0, 4.0)
    opt.step(grads=[pb.ones(2)])
    assert p.tolist() == [-3.0, -3.0]


def test_model_and_tensor_sums():
    def update(p, g, states, hyper, sums):
        return p - hyper.lr * g / sums.g

    kinds = {
        over: optim.rule(
            f"Over_{over}", states=[], hyper={"lr": 1.0}, update=update, measure=lambda p, g, s, h: {"g": g}, over=over
        )
        for over in ("tensor", "model")
    }
    for over, total in (("tensor", (3.0, 5.0)), ("model", (8.0, 8.0))):
        p, q = pb.zeros(3), pb.zeros(5)
        kinds[over]([p, q]).step(grads=[pb.ones(3), pb.ones(5)])
        np.testing.assert_allclose([p[0].item(), q[0].item()], [-1 / total[0], -1 / total[1]], rtol=1e-6)


def test_trainer_and_class():
    assert R.Adam.__doc__ == "Adam."
    assert R.Adam.__name__ == "Adam"
    assert R.Adam.__module__ == "rule_cases"
    assert pickle.loads(pickle.dumps(R.Adam)) is R.Adam
    model = pb.nn.Linear(3, 1)
    opt = R.Adam(model.named_parameters(), lr=0.05)
    x = pb.tensor(np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32))
    y = x @ pb.tensor([[1.0], [-2.0], [0.5]])
    trainer = pb.train.Trainer(model, opt, lambda a, b: pb.mean((a - b) ** 2), clip_norm=10.0, progress=False)
    data = pb.data.DataLoader(pb.data.TensorDataset(x, y), 64)
    trainer.fit(data, epochs=150)
    assert pb.mean((model(x) - y) ** 2).item() < 1e-3


def test_bytes_per_step():
    p = pb.zeros(1000)
    assert R.Adam([p]).bytes_per_step() == optim.AdamW([p]).bytes_per_step() == 28_000


# ---- errors


def make(update, states=(), hyper=None, **more):
    return optim.rule("Mine", states=states, hyper={"lr": 0.1} if hyper is None else hyper, update=update, **more)


def plain(p, g, s, h):
    return p - h.lr * g


BAD = {
    "branch": (lambda p, g, s, h: p if g > 0 else p - h.lr * g, TypeError, "branches on a value that is being traced"),
    "math": (lambda p, g, s, h: p - math.sqrt(h.lr) * g, TypeError, "use pb.sqrt"),
    "numpy": (lambda p, g, s, h: p - np.sqrt(h.lr) * g, TypeError, "ufunc"),
    "array": (lambda p, g, s, h: p - h.lr * np.asarray(g), TypeError, "NumPy reads a value"),
    "sum": (lambda p, g, s, h: p - h.lr * pb.sum(g), TypeError, "not element-wise"),
    "method": (lambda p, g, s, h: p - h.lr * g.sum(), AttributeError, "sums belong to measure"),
    "index": (lambda p, g, s, h: p - h.lr * g[0], TypeError, "an index reads"),
    "loop": (lambda p, g, s, h: p - h.lr * sum(g), TypeError, "a loop runs over"),
    "len": (lambda p, g, s, h: p - h.lr * g / len(g), TypeError, "len"),
    "tensor": (lambda p, g, s, h: p - h.lr * pb.maximum(g, pb.ones(3)), TypeError, "maximum meets a Tensor"),
    "string": (lambda p, g, s, h: p - h.lr * pb.maximum(g, "x"), TypeError, "maximum meets a str"),
    "random": (lambda p, g, s, h: p - h.lr * pb.dropout(g), ValueError, "cannot be part of a rule"),
    "nothing": (lambda p, g, s, h: None, ValueError, "returned nothing"),
    "too many": (lambda p, g, s, h: (p - h.lr * g, g), ValueError, "2 values, not the new p and 0 states"),
    "unknown state": (lambda p, g, s, h: (p - h.lr * g, {"m": g}), ValueError, "unknown state 'm'"),
    "unused": (lambda p, g, s, h: p - g, ValueError, "does not use lr"),
    "no gradient": (lambda p, g, s, h: p - h.lr, ValueError, "does not use the gradient"),
    "number": (lambda p, g, s, h: h.lr, ValueError, "the new p is one number"),
    "kind": (lambda p, g, s, h: "p", TypeError, "the new p is str"),
    "no state": (lambda p, g, s, h: p - h.lr * s.m, AttributeError, "states has no 'm'"),
    "no keyword": (lambda p, g, s, h: p - h["rate"] * g, KeyError, "hyper has no 'rate'"),
    "written": (lambda p, g, s, h: setattr(s, "m", g), TypeError, "cannot be written"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_functions(name):
    update, error, match = BAD[name]
    with pytest.raises(error, match=match):
        make(update)


DECLARED = {
    "name": (lambda: optim.rule("no name", states=[], hyper={"lr": 1}, update=plain), ValueError, "identifier"),
    "over": (lambda: make(plain, over="world"), ValueError, "'tensor' or 'model'"),
    "string": (lambda: make(plain, "m"), TypeError, "one string"),
    "twice": (lambda: make(plain, ["m", "m"]), ValueError, "twice"),
    "state name": (lambda: make(plain, ["step"]), ValueError, "other than step"),
    "kind": (lambda: make(plain, {"m": "matrix"}), ValueError, "'tensor', 'exact' or 'number'"),
    "lr": (lambda: make(plain, hyper={"rate": 1.0}), ValueError, 'no "lr"'),
    "taken": (lambda: make(plain, hyper={"lr": 1.0, "t": 2}), ValueError, "cannot hold 't'"),
    "default": (lambda: make(plain, hyper={"lr": 1.0, "mode": "x"}), TypeError, "numbers or tuples"),
    "clash": (lambda: make(plain, hyper={"lr": 1.0, "betas": (0, 0), "beta1": 0}), ValueError, "'beta1' twice"),
    "missing": (lambda: make(lambda p, g, s, h: (p - h.lr * g, {}), ["m"]), ValueError, "returned no state 'm'"),
    "element": (
        lambda: make(lambda p, g, s, h: (p - h.lr * g, g), {"n": "number"}), ValueError, "from element to element",
    ),
    "one number": (lambda: make(lambda p, g, s, h: (p - h.lr * g, h.t), ["m"]), ValueError, "'m' is one number"),
    "measure": (lambda: make(lambda p, g, s, h, m: p, measure=lambda *a: a[1]), TypeError, "return a dict"),
    "summand": (lambda: make(lambda p, g, s, h, m: p, measure=lambda *a: {"n": 1}), ValueError, "'n' is one number"),
    "unused sum": (
        lambda: make(lambda p, g, s, h, m: p - h.lr * g, measure=lambda *a: {"g": a[1]}), ValueError, "the sum 'g'",
    ),
    "states": (
        lambda: make(lambda p, g, s, h: (p - h.lr * g, *s), [f"s{i}" for i in range(9)]), ValueError, "9 states",
    ),
    "numbers": (
        lambda: make(lambda p, g, s, h: (p - h.lr * g, *s), {f"s{i}": "number" for i in range(9)}), ValueError,
        "9 numbers",
    ),
    "sums": (
        lambda: make(
            lambda p, g, s, h, m: p - h.lr * g * sum(m), measure=lambda *a: {f"{i}": a[1] * i for i in range(9)}
        ),
        ValueError, "9 sums",
    ),
    "met": (
        lambda: make(lambda p, g, s, h: p - sum((h.lr + i) * g**i for i in range(3, 23))), ValueError, "meet elements",
    ),
    "constants": (lambda: make(lambda p, g, s, h: p - h.lr * sum(g * i for i in range(40))), ValueError, "constants"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_bad_declarations(name):
    call, error, match = DECLARED[name]
    with pytest.raises(error, match=match):
        call()


def test_bad_keywords():
    p = [pb.zeros(3)]
    for hyper, error, match in [
        ({"rate": 1.0}, TypeError, "rate"),
        ({"lr": -1.0}, ValueError, "lr must be finite and not negative"),
        ({"lr": float("nan")}, ValueError, "lr must be finite"),
        ({"betas": (0.9, 1.0)}, ValueError, r"beta2 must be in \[0, 1\)"),
        ({"betas": 0.9}, ValueError, "betas must be 2 numbers"),
        ({"eps": float("inf")}, ValueError, "eps must be finite"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
    ]:
        with pytest.raises(error, match=match):
            R.Adam(p, **hyper)
    with pytest.raises(TypeError, match="update: Adam has no keyword 'rate'"):
        R.Adam(None).update(p[0], p[0], R.Adam(None).init(p[0]), rate=1.0)
    with pytest.raises(ValueError, match="state of LAMB, not of Adam"):
        R.Adam(p).load_state_dict(R.LAMB(p).state_dict())


def test_values_of_another_trace():
    leaked = []

    def leak(p, g, s, h):
        leaked.append(g)
        return p - h.lr * g

    make(leak)
    with pytest.raises(ValueError, match="another trace"):
        make(lambda p, g, s, h: p - h.lr * leaked[0])


def test_too_many_values_at_once():
    def update(p, g, s, h):
        values = [g]
        for _ in range(60):
            values.append(pb.tanh(values[-1]))
        total = sum(values)
        return p - h.lr * sum(v * total for v in values)

    with pytest.raises(ValueError, match="more than 48 values are alive at once"):
        make(update)


def test_damaged_nodes():
    def add(*nodes):
        return _core.optim_add_rule("Raw", "", [], 0, [], [("lr", 0.1, 0)], False, list(nodes), 0, [], [], [])

    with pytest.raises(ValueError, match="sqrt has another number of inputs"):
        add(("@p", (), ()), ("sqrt", (0, 0), ()))
    with pytest.raises(ValueError, match="sqrt reads a later value"):
        add(("@p", (), ()), ("sqrt", (1,), ()))
