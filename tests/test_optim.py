"""Update rules and their driver against float64 references, and everything around the step."""

import math

import numpy as np
import pytest

import pullback as pb
from pullback import _core as C
from pullback import optim

SHAPES = [(), (0,), (1,), (7,), (33, 5), (1025,), (40000,)]


# ---- references in float64, written from the formulas


def ref_sgd(p, grads, lr, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0, decoupled=False):
    m = None
    for g in grads:
        if weight_decay and decoupled:
            p = p - lr * weight_decay * p
        elif weight_decay:
            g = g + weight_decay * p
        if momentum:
            m = g if m is None else momentum * m + (1 - dampening) * g
            g = g + momentum * m if nesterov else m
        p = p - lr * g
    return p


def ref_adam(p, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, decoupled=False):
    b1, b2 = betas
    m = v = top = np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        if weight_decay and decoupled:
            p = p - lr * weight_decay * p
        elif weight_decay:
            g = g + weight_decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        top = np.maximum(top, v)
        second = top if amsgrad else v
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
    return p


CASES = [
    (optim.SGD, ref_sgd, {"lr": 0.1}),
    (optim.SGD, ref_sgd, {"lr": 0.1, "weight_decay": 0.3}),
    (optim.SGD, ref_sgd, {"lr": 0.1, "weight_decay": 0.3, "decoupled": True}),
    (optim.SGD, ref_sgd, {"lr": 0.05, "momentum": 0.9}),
    (optim.SGD, ref_sgd, {"lr": 0.05, "momentum": 0.8, "dampening": 0.4, "weight_decay": 0.1}),
    (optim.SGD, ref_sgd, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decoupled": True}),
    (optim.Adam, ref_adam, {"lr": 0.01}),
    (optim.Adam, ref_adam, {"lr": 0.01, "betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.2}),
    (optim.Adam, ref_adam, {"lr": 0.01, "amsgrad": True}),
    (optim.Adam, ref_adam, {"lr": 0.01, "betas": (0.0, 0.0), "eps": 1e-2}),
    (optim.AdamW, ref_adam, {"lr": 0.01, "weight_decay": 0.5, "decoupled": True}),
    (optim.AdamW, ref_adam, {"lr": 0.01, "weight_decay": 0.5, "decoupled": True, "amsgrad": True}),
    (optim.AdamW, ref_adam, {"lr": 0.01, "weight_decay": 0.5, "decoupled": False}),
]
IDS = [f"{c[0].__name__}-" + "-".join(f"{k}={v}" for k, v in c[2].items()) for c in CASES]


def data(shape, steps, dtype, seed=0):
    rng = np.random.default_rng([seed, *shape])
    p = rng.normal(size=shape).astype(dtype)
    return p, [(rng.normal(size=shape) + 0.3).astype(dtype) for _ in range(steps)]


def error(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm((a - b).ravel()) / (np.linalg.norm(b.ravel()) + 1e-300)


def tensor(x):
    return pb.tensor(np.asarray(x))


def array(x):
    return np.array(x.numpy())  # a copy: .numpy() shares memory


def run(cls, hyper, starts, grads, **step):
    """All tensors in one optimizer; grads[i] are those of tensor i."""
    params = [tensor(p) for p in starts]
    opt = cls(params, **hyper)
    for k in range(len(grads[0])):
        for p, gs in zip(params, grads, strict=True):
            p.grad = tensor(gs[k])
        opt.step(**step)
    return [array(p) for p in params], opt


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cls", "ref", "hyper"), CASES, ids=IDS)
def test_rule(cls, ref, hyper, dtype):
    pairs = [data(s, 24, dtype) for s in SHAPES]
    out, _ = run(cls, hyper, [p for p, _ in pairs], [g for _, g in pairs])
    for got, (p, grads) in zip(out, pairs, strict=True):
        want = ref(p.astype(np.float64), [g.astype(np.float64) for g in grads], **hyper)
        assert got.shape == p.shape
        assert got.dtype == dtype
        if p.size:
            assert error(got, want) <= (1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(("cls", "ref", "hyper"), CASES, ids=IDS)
def test_pure_form_equals_the_step(cls, ref, hyper):
    p, grads = data((33, 5), 20, "float32")
    q, qgrads = data((), 20, "float32")
    out, _ = run(cls, hyper, [p, q], [grads, qgrads])
    opt = cls(**hyper)
    params = {"a": tensor(p), "rest": [tensor(q)]}
    state = opt.init(params)
    for g, h in zip(grads, qgrads, strict=True):
        params, state = opt.update(params, {"rest": [tensor(h)], "a": tensor(g)}, state)
    assert error(array(params["a"]), out[0]) <= 1e-6
    assert error(array(params["rest"][0]), out[1]) <= 1e-6
    assert int(state["step"]) == 20


# ---- the driver


def test_learning_rate_may_change_at_any_time():
    p, grads = data((9,), 6, "float64")
    x = tensor(p)
    opt = optim.SGD([x], lr=1.0, momentum=0.9)
    m = np.zeros(9)
    for t, g in enumerate(grads):
        opt.param_groups[0]["lr"] = 0.5**t
        opt.step(grads=[tensor(g)])
        m = g if t == 0 else 0.9 * m + g
        p = p - 0.5**t * m
    assert error(array(x), p) <= 1e-14


def test_none_gradients_are_skipped_and_steps_are_counted_per_tensor():
    p, grads = data((50,), 10, "float64")
    a, b = tensor(p), tensor(p)
    opt = optim.Adam([a, b], lr=0.1, weight_decay=0.1)
    for t, g in enumerate(grads):
        opt.step(grads=[tensor(g), tensor(g) if t >= 4 else None])
    assert error(array(a), ref_adam(p, grads, 0.1, weight_decay=0.1)) <= 1e-12
    assert error(array(b), ref_adam(p, grads[4:], 0.1, weight_decay=0.1)) <= 1e-12
    assert opt.state_dict()["state.0.step"] == 10
    assert opt.state_dict()["state.1.step"] == 6


def test_groups_have_their_own_hyperparameters_and_may_be_added():
    p, grads = data((20,), 8, "float64")
    a, b, c = tensor(p), tensor(p), tensor(p)
    opt = optim.AdamW([{"params": [a]}, {"params": b, "lr": 0.2, "weight_decay": 0.0}], lr=0.1)
    for t, g in enumerate(grads):
        if t == 3:
            opt.add_param_group({"params": [("c", c)], "betas": (0.5, 0.9)})
        opt.step(grads=[tensor(g)] * (2 if t < 3 else 3))
    assert error(array(a), ref_adam(p, grads, 0.1, weight_decay=0.01, decoupled=True)) <= 1e-12
    assert error(array(b), ref_adam(p, grads, 0.2)) <= 1e-12
    want = ref_adam(p, grads[3:], 0.1, betas=(0.5, 0.9), weight_decay=0.01, decoupled=True)
    assert error(array(c), want) <= 1e-12
    assert opt.param_groups[2]["names"] == ["c"]


def test_freezing_and_replacing_parameters_keeps_the_states_of_the_rest():
    p, grads = data((30,), 9, "float64")
    a, b = tensor(p), tensor(p)
    opt = optim.SGD([a, b], lr=0.1, momentum=0.9)
    for t, g in enumerate(grads):
        if t == 3:
            opt.param_groups[0]["params"].remove(a)
        if t == 6:
            opt.param_groups[0]["params"].append(a)
        opt.step(grads=[tensor(g)] * len(opt.param_groups[0]["params"]))
    assert error(array(b), ref_sgd(p, grads, 0.1, momentum=0.9)) <= 1e-12
    assert error(array(a), ref_sgd(p, grads[:3] + grads[6:], 0.1, momentum=0.9)) <= 1e-12


@pytest.mark.parametrize("clip", [None, {"clip_norm": 1.0, "scale": 8.0}, {"clip_value": 0.5, "clip_norm": 20.0}])
def test_bits_do_not_depend_on_threads_order_or_grouping(clip):
    shapes = [(100003,), (), (3, 7), (0,), (70000,), (17,), (4096,)] * 2
    pairs = [data(s, 3, "float32", seed=i) for i, s in enumerate(shapes)]
    clip = clip or {}

    def result(threads, order, cut):
        before = C.get_num_threads()
        C.set_num_threads(threads)
        try:
            params = [tensor(p) for p, _ in pairs]
            split = [order[:cut], order[cut:]] if cut else [order]
            opt = optim.AdamW([{"params": [params[i] for i in part]} for part in split], lr=0.01)
            norms = []
            for t in range(3):
                opt.step(grads=[tensor(pairs[i][1][t]) for part in split for i in part], **clip)
                norms.append(opt.last_norm)
            return [x.tobytes() for x in params], norms
        finally:
            C.set_num_threads(before)

    plain = list(range(len(shapes)))
    first = result(1, plain, 0)
    assert first == result(2, plain, 0)
    assert first == result(3, plain[::-1], 5)
    assert first == result(2, plain[7:] + plain[:7], 1)


def test_clip_norm_value_and_scale():
    p, grads = data((40,), 1, "float64")
    q, qgrads = data((3, 5), 1, "float64")
    g, h = grads[0], qgrads[0]
    norm = math.sqrt((g**2).sum() + (h**2).sum())

    def step(**kw):
        a, b = tensor(p), tensor(q)
        opt = optim.SGD([a, b], lr=1.0)
        opt.step(grads=[tensor(g), tensor(h)], **kw)
        return p - array(a), q - array(b), opt.last_norm

    a, b, n = step(clip_norm=1.5)
    factor = 1.5 / (norm + 1e-6)
    assert abs(n - norm) <= 1e-13 * norm
    assert error(a, g * factor) <= 1e-12
    assert error(b, h * factor) <= 1e-12
    a, b, n = step(clip_norm=1e3)
    assert error(a, g) <= 1e-14
    assert abs(n - norm) <= 1e-13 * norm
    a, _, n = step(scale=4.0)
    assert error(a, g / 4) <= 1e-14
    assert abs(n - norm / 4) <= 1e-13 * norm
    a, _, n = step(clip_value=0.5)
    assert error(a, np.clip(g, -0.5, 0.5)) <= 1e-14
    assert n is None
    a, b, n = step(scale=2.0, clip_norm=1.5, clip_value=0.2)
    factor = 1.5 / (norm / 2 + 1e-6) / 2
    assert error(a, np.clip(g * factor, -0.2, 0.2)) <= 1e-12
    assert error(b, np.clip(h * factor, -0.2, 0.2)) <= 1e-12


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_that_is_not_finite_skips_the_step(bad, dtype):
    p, grads = data((20001,), 3, dtype)
    x = tensor(p)
    opt = optim.Adam([x], lr=0.1)
    opt.step(grads=[tensor(grads[0])], clip_norm=1.0)
    before = {k: v.tobytes() if isinstance(v, pb.Tensor) else v for k, v in opt.state_dict().items()}
    value, version = x.tobytes(), x._version
    grads[1][20000] = bad
    opt.step(grads=[tensor(grads[1])], scale=1.0)
    assert opt.last_skipped
    assert not math.isfinite(opt.last_norm)
    after = {k: v.tobytes() if isinstance(v, pb.Tensor) else v for k, v in opt.state_dict().items()}
    assert (x.tobytes(), x._version) == (value, version)
    assert before == after
    opt.step(grads=[tensor(grads[2])], clip_norm=1.0)
    assert not opt.last_skipped
    assert x.tobytes() != value


def test_large_finite_gradients_do_not_count_as_infinite():
    x = tensor(np.zeros(3, np.float32))
    opt = optim.SGD([x], lr=1.0)
    opt.step(grads=[tensor(np.full(3, 3e38, np.float32))], clip_norm=1.0)
    assert not opt.last_skipped
    assert error(array(x), np.full(3, -1 / math.sqrt(3))) <= 1e-6


def test_without_clipping_nan_reaches_the_weights():
    x = tensor(np.zeros(3, np.float32))
    optim.SGD([x], lr=1.0).step(grads=[tensor(np.array([1, np.nan, 2], np.float32))], clip_value=1.5)
    assert np.array_equal(array(x), np.array([-1, np.nan, -1.5], np.float32), equal_nan=True)


def test_strided_parameters_and_gradients():
    p, grads = data((12, 300), 5, "float32")
    base = tensor(np.zeros((300, 24), np.float32))
    view = base.T[::2, ::-1]
    view[...] = tensor(p)
    opt = optim.AdamW([view], lr=0.01, weight_decay=0.1)
    for g in grads:
        opt.step(grads=[tensor(np.ascontiguousarray(g.T)).T], clip_norm=2.0)
    factors = [min(1, 2.0 / (np.linalg.norm(g.astype(np.float64)) + 1e-6)) for g in grads]
    want = ref_adam(p.astype(np.float64), [g * f for g, f in zip(grads, factors, strict=True)], 0.01,
                    weight_decay=0.1, decoupled=True)  # fmt: skip
    assert error(array(view), want) <= 1e-6
    rest = array(base)[:, 1::2]
    assert not rest.any()


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_sixteen_bit_parameters_are_staged_through_float32(name):
    p, grads = data((2500,), 4, "float32")
    dtype = getattr(pb, name)
    x = tensor(p).astype(dtype)
    x = x.detach()
    start = array(x.astype(pb.float32)).astype(np.float64)
    opt = optim.SGD([x], lr=0.25, momentum=0.5)
    rounded = [tensor(g).astype(dtype).detach() for g in grads]
    m = 0
    for t, g in enumerate(rounded):
        opt.step(grads=[g])
        m = array(g.astype(pb.float32)).astype(np.float64) + (0.5 * m if t else 0)
        start = array((tensor((start - 0.25 * m).astype(np.float32))).astype(dtype).astype(pb.float32))
        start = start.astype(np.float64)
    assert x.dtype == dtype
    assert error(array(x.astype(pb.float32)), start) <= 1e-4
    assert opt.state_dict()["state.0.momentum_buffer"].dtype == pb.float32


def test_gradients_of_another_dtype_are_converted():
    p, grads = data((3000,), 3, "float32")
    wide, narrow = tensor(p), tensor(p.astype(np.float64))
    optim.SGD([wide, narrow], lr=0.1).step(grads=[tensor(grads[0].astype(np.float64)), tensor(grads[0])])
    assert error(array(wide), p - 0.1 * grads[0]) <= 1e-6
    assert error(array(narrow), p.astype(np.float64) - 0.1 * grads[0].astype(np.float64)) <= 1e-14


def test_a_step_raises_the_version_and_records_nothing():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    version = x._version
    optim.SGD([x], lr=0.5).step()
    assert x.tolist() == [0.0, 0.0]
    assert x._version == version + 1
    assert x.is_leaf
    with pytest.raises(pb.GraphError, match="modified in place"):
        loss.backward()


def test_a_step_allocates_nothing():
    params = [tensor(data((n,), 1, "float32")[0]) for n in (3, 100000, 0, 5000)]
    opt = optim.AdamW(params, lr=0.1)
    for p in params:
        p.grad = tensor(np.ones(p.shape, np.float32))
    for _ in range(3):
        opt.step(clip_norm=1.0, clip_value=0.5)
    before = pb.memory.stats()["allocations"]
    for _ in range(5):
        opt.step(clip_norm=1.0, clip_value=0.5)
    assert pb.memory.stats()["allocations"] == before


def test_zero_grad_closure_and_backward():
    x = pb.tensor([3.0], requires_grad=True)
    y = pb.tensor([1.0], requires_grad=True)
    opt = optim.SGD([x, y], lr=0.1)
    y.grad = pb.tensor([100.0])
    with pb.no_grad():
        loss = opt.step(lambda: (x * x).sum())
    assert loss.item() == 9.0
    assert abs(x.item() - 2.4) <= 1e-6
    assert y.item() == 1.0
    opt.zero_grad()
    assert x.grad is None
    assert y.grad is None


def test_gradients_by_name_order_and_grad():
    def fresh():
        return {"w": pb.tensor([1.0, 2.0]), "b": pb.tensor([3.0])}

    for make in (lambda d: d, lambda d: list(d.items()), lambda d: list(d.values())):
        d = fresh()
        opt = optim.SGD(make(d), lr=1.0)
        opt.step(grads={"w": pb.tensor([1.0, 1.0]), "b": pb.tensor([1.0])})
        assert (d["w"].tolist(), d["b"].tolist()) == ([0.0, 1.0], [2.0])
    d = fresh()
    optim.SGD(d, lr=1.0).step(grads={"b": pb.tensor([1.0]), "w": pb.tensor([1.0, 1.0])})
    assert d["w"].tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="unknown parameter 'x'"):
        optim.SGD(d, lr=1.0).step(grads={"x": pb.tensor([1.0])})
    with pytest.raises(ValueError, match="1 gradients for 2 parameters"):
        optim.SGD(d, lr=1.0).step(grads=[pb.tensor([1.0])])


def test_bytes_per_step():
    x, y = tensor(np.zeros(10, np.float32)), tensor(np.zeros(10, np.float64))
    assert optim.SGD([x]).bytes_per_step() == 120
    assert optim.SGD([x], momentum=0.9).bytes_per_step() == 200
    assert optim.AdamW([x]).bytes_per_step() == 280
    assert optim.AdamW([x], amsgrad=True).bytes_per_step() == 360
    assert optim.Adam([y]).bytes_per_step() == 560


# ---- states


@pytest.mark.parametrize(("cls", "ref", "hyper"), CASES, ids=IDS)
def test_save_load_continue_is_bit_exact(cls, ref, hyper):
    pairs = [data(s, 8, "float32") for s in [(5,), (), (0,), (3000,)]]
    whole, _ = run(cls, hyper, [p for p, _ in pairs], [g for _, g in pairs])
    half, opt = run(cls, hyper, [p for p, _ in pairs], [g[:5] for _, g in pairs])
    saved = opt.state_dict()
    opt.step()  # must not reach the copies
    params = [tensor(p) for p in half]
    again = cls([{"params": params}], lr=123.0)
    again.load_state_dict(saved)
    assert again.param_groups[0]["lr"] == hyper["lr"]
    for k in range(5, 8):
        again.step(grads=[tensor(g[k]) for _, g in pairs])
    assert [array(p).tobytes() for p in params] == [w.tobytes() for w in whole]


def test_state_dict_is_flat_and_plain():
    x = tensor(np.zeros(3, np.float32))
    opt = optim.AdamW([("w", x)], lr=0.1)
    opt.step(grads=[tensor(np.ones(3, np.float32))])
    d = opt.state_dict()
    tensors = {k for k, v in d.items() if isinstance(v, pb.Tensor)}
    assert tensors == {"state.0.exp_avg", "state.0.exp_avg_sq"}
    assert d["rule"] == "AdamW"
    assert d["groups.0.betas"] == [0.9, 0.999]
    assert d["groups.0.names"] == ["w"]
    for k, v in d.items():
        assert k in tensors or isinstance(v, (str, int, float, bool, list))


def test_load_state_dict_refuses_what_does_not_fit():
    def make(cls=optim.Adam, shapes=((3,), (2,)), **kw):
        params = [tensor(np.ones(s, np.float32)) for s in shapes]
        opt = cls(params, lr=0.1, **kw)
        opt.step(grads=[tensor(np.ones(s, np.float32)) for s in shapes])
        return opt

    good = make().state_dict()
    with pytest.raises(ValueError, match="a state of Adam, not of AdamW"):
        make(optim.AdamW).load_state_dict(good)
    with pytest.raises(pb.ShapeError, match=r"state 0, exp_avg: shape"):
        make(shapes=((4,), (2,))).load_state_dict(good)
    with pytest.raises(ValueError, match="has 2 parameters, here it has 1"):
        make(shapes=((3,),)).load_state_dict(good)
    opt = make()
    opt.add_param_group({"params": [tensor(np.ones(1, np.float32))]})
    with pytest.raises(ValueError, match="1 groups, this optimizer 2"):
        opt.load_state_dict(good)
    with pytest.raises(ValueError, match="state 1 has no exp_avg_sq"):
        make().load_state_dict({k: v for k, v in good.items() if k != "state.1.exp_avg_sq"})
    with pytest.raises(ValueError, match="state 1 has no step count"):
        make().load_state_dict({k: v for k, v in good.items() if k != "state.1.step"})
    with pytest.raises(ValueError, match="group 0 has no parameters"):
        make().load_state_dict({k: v for k, v in good.items() if k != "groups.0.params"})
    with pytest.raises(ValueError, match="unknown entry 'extra'"):
        make().load_state_dict({**good, "extra": 1})
    with pytest.raises(ValueError, match="state 0 has an unknown entry 'third'"):
        make().load_state_dict({**good, "state.0.third": good["state.0.exp_avg"]})
    with pytest.raises(ValueError, match="exp_avg: not a tensor"):
        make().load_state_dict({**good, "state.0.exp_avg": 1.0})
    with pytest.raises(ValueError, match="names parameter 7"):
        make().load_state_dict({**good, "state.7.step": 1})
    with pytest.raises(ValueError, match="lr must be finite"):
        make().load_state_dict({**good, "groups.0.lr": -1.0})
    named = optim.SGD({"a": tensor(np.ones(1))}, lr=0.1)
    other = optim.SGD({"b": tensor(np.ones(1))}, lr=0.1)
    with pytest.raises(ValueError, match="other names"):
        other.load_state_dict(named.state_dict())
    target = make()
    before = target.state_dict()
    with pytest.raises(ValueError, match="step count"):
        target.load_state_dict({**{k: v for k, v in good.items() if k != "state.1.step"}, "groups.0.lr": 0.5})
    assert target.param_groups[0]["lr"] == before["groups.0.lr"]


# ---- errors


def one():
    return tensor(np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD([one()], lr=-0.1), "lr must be finite and not negative"),
        (lambda: optim.SGD([one()], lr=math.nan), "lr must be finite and not negative"),
        (lambda: optim.SGD([one()], lr=math.inf), "lr must be finite and not negative"),
        (lambda: optim.SGD([one()], momentum=-0.1), "momentum must be finite and not negative"),
        (lambda: optim.SGD([one()], momentum=0.9, dampening=math.nan), "dampening must be a finite number"),
        (lambda: optim.SGD([one()], nesterov=True), "nesterov needs momentum and no dampening"),
        (lambda: optim.SGD([one()], momentum=0.9, dampening=0.1, nesterov=True), "nesterov needs momentum"),
        (lambda: optim.Adam([one()], betas=(1.0, 0.9)), r"beta1 must be in \[0, 1\)"),
        (lambda: optim.Adam([one()], betas=(0.9, -0.1)), r"beta2 must be in \[0, 1\)"),
        (lambda: optim.Adam([one()], betas=(0.9,)), "betas must be 2 numbers"),
        (lambda: optim.Adam([one()], betas=0.9), "betas must be 2 numbers"),
        (lambda: optim.Adam([one()], eps=-1.0), "eps must be finite and not negative"),
        (lambda: optim.Adam([one()], amsgrad="other"), "amsgrad must be False or True"),
        (lambda: optim.AdamW([one()], weight_decay=-1.0), "weight_decay must be finite and not negative"),
        (lambda: optim.AdamW([]), "empty parameter list"),
        (lambda: optim.AdamW([{"params": []}]), "empty parameter list"),
        (lambda: optim.AdamW([*([one()] * 2)]), "appears twice"),
        (lambda: optim.AdamW([{"params": [one()], "lr": -1.0}]), "lr must be finite"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.AdamW([one()], beta1=0.9), "unexpected keyword argument 'beta1'"),
        (lambda: optim.AdamW([{"params": [one()], "weight_deacy": 0.1}]), "no keyword 'weight_deacy'"),
        (lambda: optim.AdamW([{"lr": 0.1}]), 'needs the key "params"'),
        (lambda: optim.AdamW(one()), "params is one tensor"),
        (lambda: optim.AdamW(3), "not an iterable"),
        (lambda: optim.AdamW([1.0]), "a parameter is float"),
        (lambda: optim.AdamW([("w", one()), one()]), "some parameters have names"),
        (lambda: optim.AdamW([pb.tensor([1, 2])]), "only floating tensors can be trained"),
        (lambda: optim.SGD(lr=0.1).update([one()], [one()], {"step": 0}, rate=1), "no keyword 'rate'"),
        (lambda: optim.SGD(lr=0.1).init([1.0]), "a leaf is float"),
    ],
)
def test_bad_types(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_bad_parameters_and_gradients():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(pb.GraphError, match="must be a leaf"):
        optim.SGD([x * 2])
    with pytest.raises(pb.ShapeError, match="share memory"):
        optim.SGD([pb.broadcast_to(pb.tensor([1.0]), (3,))])
    opt = optim.SGD([x])
    with pytest.raises(pb.GraphError, match="no parameter has a gradient"):
        opt.step()
    with pytest.raises(pb.ShapeError, match="shape of its parameter"):
        opt.step(grads=[pb.tensor([1.0])])
    with pytest.raises(pb.DTypeError, match="must be floating"):
        opt.step(grads=[pb.tensor([1, 2])])
    with pytest.raises(ValueError, match="no parameters"):
        optim.SGD(lr=0.1).step()
    for word in ("clip_norm", "clip_value", "scale"):
        for bad in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=f"{word} must be positive"):
                opt.step(grads=[pb.tensor([1.0, 2.0])], **{word: bad})
    with pytest.raises(ValueError, match="scale must be finite"):
        opt.step(grads=[pb.tensor([1.0, 2.0])], scale=math.inf)
    opt.param_groups[0]["lr"] = math.nan
    with pytest.raises(ValueError, match="lr must be finite"):
        opt.step(grads=[pb.tensor([1.0, 2.0])])
    opt.param_groups[0].update(lr=0.1, params=[1.0])
    with pytest.raises(pb.DTypeError, match="a parameter is not a tensor"):
        opt.step(grads=[pb.tensor([1.0, 2.0])])
    assert x.tolist() == [1.0, 2.0]
    frozen = np.ones(2, np.float32)
    frozen.flags.writeable = False
    y = pb.asarray(frozen)
    with pytest.raises(ValueError, match="read-only"):
        optim.SGD([y]).step(grads=[one()])


def test_bad_closures():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    opt = optim.SGD([x], lr=0.1)

    def backward():
        loss = (x * x).sum()
        loss.backward()
        return loss

    with pytest.raises(pb.GraphError, match="closure called backward"):
        opt.step(backward)
    with pytest.raises(pb.GraphError, match="must return the loss"):
        opt.step(lambda: None)
    with pytest.raises(pb.GraphError, match="must return the loss"):
        opt.step(lambda: x * x)
    with pytest.raises(pb.GraphError, match="does not depend"):
        opt.step(lambda: pb.tensor([1.0]))
    with pytest.raises(ValueError, match="a closure and grads"):
        opt.step(lambda: (x * x).sum(), grads=[one()])
    assert x.tolist() == [1.0, 2.0]


def test_bad_pure_arguments():
    opt = optim.Adam(lr=0.1)
    p = {"a": one()}
    state = opt.init(p)
    with pytest.raises(ValueError, match="grads must have the keys of params"):
        opt.update(p, {"b": one()}, state)
    with pytest.raises(ValueError, match="grads must have the structure"):
        opt.update([one()], [one(), one()], opt.init([one()]))
    with pytest.raises(ValueError, match="state has no 'max_exp_avg_sq'"):
        opt.update(p, {"a": one()}, state, amsgrad=True)
    with pytest.raises(pb.ShapeError, match="shape of its parameter"):
        opt.update(p, {"a": tensor(np.ones(3, np.float32))}, state)
    with pytest.raises(pb.ShapeError, match="lr must be a number or a 0-d tensor"):
        opt.update(p, {"a": one()}, state, lr=one())
    with pytest.raises(ValueError, match="lr must be finite"):
        opt.update(p, {"a": one()}, state, lr=pb.tensor(-1.0))


# ---- the differentiable step


META = [
    (optim.SGD, {"lr": 0.1}, ["lr", "weight_decay"]),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9}, ["lr", "momentum", "dampening"]),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, ["lr", "momentum"]),
    (optim.Adam, {"lr": 0.1}, ["lr", "betas", "eps", "weight_decay"]),
    (optim.Adam, {"lr": 0.1, "amsgrad": True}, ["lr", "betas"]),
    (optim.AdamW, {"lr": 0.1}, ["lr", "betas", "weight_decay"]),
]


@pytest.mark.parametrize(("cls", "fixed", "free"), META)
def test_meta_gradients_equal_finite_differences(cls, fixed, free):
    rng = np.random.default_rng(3)
    target = rng.normal(size=4)
    start = {"lr": 0.1, "momentum": 0.6, "dampening": 0.2, "weight_decay": 0.3, "eps": 1e-2, "betas": (0.6, 0.8)}
    values = []
    for k in free:
        values += list(start[k]) if k == "betas" else [start[k]]
    w0 = rng.normal(size=4)

    def outer(w, *hyper):
        """Loss after 3 steps from w; the last `len(values)` arguments are the hyper-parameters in `free`."""
        words, it = {}, iter(hyper)
        for k in free:
            words[k] = (next(it), next(it)) if k == "betas" else next(it)
        opt = cls(**fixed)
        params = {"w": w}
        state = opt.init(params)
        for t in range(3):
            d = params["w"] - tensor(target)
            params, state = opt.update(params, {"w": d * d * d + 0.3 * (t + 1) * params["w"]}, state, **words)
        d = params["w"] - tensor(target)
        return (d * d).sum()

    args = [tensor(w0), *[pb.tensor(v, dtype=pb.float64) for v in values]]
    got = pb.grad(outer, argnums=tuple(range(len(args))))(*args)
    h = 1e-6
    for i, a in enumerate(args):
        base = array(a).copy()
        want = np.zeros_like(base)
        for j in np.ndindex(base.shape):
            moved = []
            for s in (h, -h):
                x = base.copy()
                x[j] += s
                moved.append(outer(*[tensor(x) if k == i else v for k, v in enumerate(args)]).item())
            want[j] = (moved[0] - moved[1]) / (2 * h)
        assert np.linalg.norm(want) > 1e-6
        assert error(array(got[i]), want) <= 1e-6


def test_meta_gradient_is_finite_where_a_gradient_is_zero():
    opt = optim.Adam(lr=0.1)

    def outer(lr, w):
        p, s = [w], opt.init([w])
        for _ in range(2):
            p, s = opt.update(p, [p[0] * pb.tensor([1.0, 0.0])], s, lr=lr)
        return p[0].sum()

    g_lr, g_w = pb.grad(outer, argnums=(0, 1))(pb.tensor(0.1), pb.tensor([1.0, 2.0]))
    assert np.isfinite(g_lr.item())
    assert np.isfinite(array(g_w)).all()
    assert array(g_w)[1] == 1.0


def test_meta_learned_rate_lowers_the_loss():
    opt = optim.SGD()

    def outer(lr):
        p, s = {"w": pb.tensor([1.0, -2.0])}, opt.init({"w": pb.tensor([1.0, -2.0])})
        for _ in range(3):
            p, s = opt.update(p, {"w": p["w"]}, s, lr=lr)
        return (p["w"] * p["w"]).sum()

    lr = pb.tensor(0.1)
    for _ in range(20):
        lr = lr - 0.02 * pb.grad(outer)(lr)
    assert outer(lr).item() < 0.1 * outer(pb.tensor(0.1)).item()


def test_the_pure_form_writes_nothing_and_keeps_dtypes():
    p = {"w": one(), "h": one().astype(pb.bfloat16)}
    g = {"w": one(), "h": one().astype(pb.bfloat16)}
    opt = optim.AdamW(lr=0.1)
    state = opt.init(p)
    new, after = opt.update(p, g, state)
    assert p["w"].tolist() == [1.0, 1.0]
    assert int(state["step"]) == 0
    assert not array(state["exp_avg"]["w"]).any()
    assert (new["w"].dtype, new["h"].dtype) == (pb.float32, pb.bfloat16)
    assert after["exp_avg"]["h"].dtype == pb.float32
    same, _ = opt.update(p, {"w": None, "h": g["h"]}, state)
    assert same["w"] is p["w"]


# ---- averages, clipping, groups


def test_clip_grad_norm_and_value():
    a, b, c = one(), tensor(np.ones((2, 2), np.float64)), one()
    a.grad, b.grad = tensor(np.array([3, 4], np.float32)), tensor(np.full((2, 2), 6.0))
    norm = optim.clip_grad_norm_([a, b, c], 2.0)
    assert abs(norm - 13.0) <= 1e-12
    factor = 2.0 / (13.0 + 1e-6)
    assert error(array(a.grad), np.array([3, 4]) * factor) <= 1e-6
    assert error(array(b.grad), np.full((2, 2), 6.0) * factor) <= 1e-14
    before = a.grad.tobytes()
    assert optim.clip_grad_norm_([a], 100.0) == pytest.approx(5.0 * factor, rel=1e-6)
    assert a.grad.tobytes() == before
    assert optim.clip_grad_norm_([c], 1.0) == 0.0
    a.grad = tensor(np.array([np.nan, -4], np.float32))
    optim.clip_grad_value_([a, c], 1.5)
    assert np.array_equal(array(a.grad), np.array([np.nan, -1.5], np.float32), equal_nan=True)
    with pytest.raises(pb.GraphError, match="gradient is not finite"):
        optim.clip_grad_norm_([a], 1.0, error_if_nonfinite=True)
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be positive"):
            optim.clip_grad_norm_([a], bad)
        with pytest.raises(ValueError, match="clip_value must be positive"):
            optim.clip_grad_value_([a], bad)


def test_ema():
    rng = np.random.default_rng(0)
    p = tensor(rng.normal(size=(5, 3)))
    ema = optim.EMA({"w": p}, decay=0.9)
    want = array(p).copy()
    for _ in range(5):
        value = rng.normal(size=(5, 3))
        p[...] = tensor(value)
        ema.update()
        want = 0.9 * want + 0.1 * value
    assert error(array(ema.averages[0]), want) <= 1e-14
    live = p.tobytes()
    with ema.applied():
        assert error(array(p), want) <= 1e-14
    assert p.tobytes() == live
    other = optim.EMA({"w": tensor(np.zeros((5, 3)))}, decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.decay == 0.9
    assert other.averages[0].tobytes() == ema.averages[0].tobytes()
    target = tensor(np.zeros((5, 3)))
    ema.copy_to([target])
    assert target.tobytes() == ema.averages[0].tobytes()
    ema.copy_to()
    assert p.tobytes() == ema.averages[0].tobytes()
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        optim.EMA([p], decay=1.0)
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.EMA([])
    with pytest.raises(ValueError, match="missing or unknown"):
        ema.load_state_dict({"decay": 0.9})
    with pytest.raises(ValueError, match="2 tensors for 1 averages"):
        ema.copy_to([p, p])
    with pytest.raises(pb.ShapeError, match="another shape than its target"):
        ema.load_state_dict({"decay": 0.9, "average.0": tensor(np.zeros(2))})


def test_groups_without_decay():
    class LayerNorm:
        pass

    class Model:
        def named_modules(self):
            return [("", self), ("0", object()), ("1", LayerNorm()), ("final_norm", object())]

        def named_parameters(self):
            self.all = {n: one() for n in ("0.weight", "0.bias", "1.weight", "final_norm.weight", "head")}
            return list(self.all.items())

    decayed, plain = optim.groups(Model())
    assert [n for n, _ in decayed["params"]] == ["0.weight", "head"]
    assert [n for n, _ in plain["params"]] == ["0.bias", "1.weight", "final_norm.weight"]
    opt = optim.AdamW([decayed, plain], weight_decay=0.3)
    assert [g["weight_decay"] for g in opt.param_groups] == [0.3, 0.0]
    assert len(optim.groups(Model(), no_decay=())) == 1


def test_repr_names_the_groups():
    text = repr(optim.SGD([one()], lr=0.25))
    assert "SGD" in text
    assert "group 0: 1 tensors, lr=0.25" in text


def test_training_a_model_with_groups_clipping_and_an_average():
    pb.manual_seed(0)
    model = pb.nn.Sequential(pb.nn.Linear(4, 16), pb.nn.LayerNorm(16), pb.nn.ReLU(), pb.nn.Linear(16, 1))
    decayed, plain = optim.groups(model)
    assert [n for n, _ in decayed["params"]] == ["0.weight", "3.weight"]
    opt = optim.AdamW([decayed, plain], lr=1e-2, weight_decay=1e-3)
    ema = optim.EMA(model, decay=0.9)
    x = pb.random.normal((64, 4))
    y = x.sum(axis=1, keepdims=True)

    def loss(m=model):
        return ((m(x) - y) ** 2).mean()

    first = loss().item()
    for step in range(150):
        if step % 2:
            opt.step(loss, clip_norm=5.0)
        else:
            opt.step(grads=pb.value_and_grad(loss)(model)[1])
        ema.update()
    assert loss().item() < 0.05 * first
    with ema.applied():
        assert loss().item() < 0.05 * first
    frozen = model[0].weight
    frozen.requires_grad = False
    opt.zero_grad()
    before = frozen.tobytes()
    opt.step(loss)
    assert frozen.tobytes() == before
    assert model[3].weight.grad is not None
