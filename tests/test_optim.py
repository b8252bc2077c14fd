"""Every basic rule against NumPy in float64, and the driver."""

import math

import numpy as np
import pytest
from optim_cases import CASES, IDS, SHAPES, array, data, error, ref_adam, ref_sgd, run, tensor

import pullback as pb
from pullback import _core as C
from pullback import optim


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
