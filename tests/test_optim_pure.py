"""The differentiable step, averages, clipping and groups."""

import math

import numpy as np
import pytest
from optim_cases import array, error, one, tensor

import pullback as pb
from pullback import optim

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
