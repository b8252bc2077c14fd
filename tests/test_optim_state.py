"""States and errors of optimizers."""

import math

import numpy as np
import pytest
from optim_cases import CASES, IDS, array, data, one, run, tensor

import pullback as pb
from pullback import optim

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
