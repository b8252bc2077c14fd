"""Formats of optimizer states in files and between steps; allocations, bytes, errors."""

import numpy as np
import pytest
from optim_cases import array, data, error, ref_adam, tensor
from test_optim_states import HALVES, ROUNDINGS, STATES, slots, widened
from trainer_cases import cross_entropy, net, problem

import pullback as pb
from pullback import _core as C
from pullback import optim
from pullback.data import DataLoader
from pullback.train import Trainer

# ---- saving


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("cls", [optim.AdamW, optim.Lion, optim.AdEMAMix])
def test_save_load_continue_is_bit_exact(cls, state, rounding, tmp_path):
    pairs = [data(s, 8, "float32", seed=i) for i, s in enumerate([(5000,), (), (0,), (70, 90)])]
    kinds = [pb.float32, pb.bfloat16, pb.float16, pb.bfloat16]

    def fresh():
        return [tensor(p).astype(k) for (p, _), k in zip(pairs, kinds, strict=True)]

    def run(params, opt, begin, end):
        for t in range(begin, end):
            opt.step(grads=[tensor(g[t]) for _, g in pairs])
        return [array(x.astype(pb.float32)).tobytes() for x in params]

    words = {"lr": 0.01, "state": state, "rounding": rounding}
    whole = fresh()
    want = run(whole, cls(whole, **words), 0, 8)
    half = fresh()
    opt = cls(half, **words)
    run(half, opt, 0, 5)
    saved = opt.state_dict()
    pb.save(tmp_path / "x.safetensors", {k: v for k, v in saved.items() if isinstance(v, pb.Tensor)})
    back = {**saved, **pb.load(tmp_path / "x.safetensors")}
    copies = [x.clone() for x in half]
    run(half, opt, 5, 6)  # must not reach the copies
    again = cls(copies, **words)
    again.load_state_dict(back)
    assert run(copies, again, 5, 8) == want


@pytest.mark.parametrize("source", STATES)
@pytest.mark.parametrize("target", STATES)
def test_a_state_of_another_format_is_converted(source, target):
    p, grads = data((6000,), 6, "float32")
    x, y = tensor(p), tensor(p)
    opt = optim.AdamW([x], lr=0.01, state=source)
    for g in grads[:3]:
        opt.step(grads=[tensor(g)])
    again = optim.AdamW([y], lr=0.5, state=target)
    again.load_state_dict(opt.state_dict())
    assert again.param_groups[0]["lr"] == 0.01
    assert again.param_groups[0]["state"] == target
    before = widened(opt, x)
    again.step(grads=[tensor(np.zeros(6000, np.float32))])
    kind = {"float32": pb.float32, "bfloat16": pb.bfloat16, "int8": pb.uint8}[target]
    assert [s[0].dtype for s in slots(again, y)] == [kind, kind]
    for got, want, keep in zip(widened(again, y), before, (0.9, 0.999), strict=True):
        assert error(got, keep * want) <= {"float32": 1e-6, "bfloat16": 6e-3, "int8": 4e-2}[target]


def test_the_format_may_change_between_steps():
    p, grads = data((5000,), 9, "float32")
    x = tensor(p)
    opt = optim.Adam([x], lr=0.01)
    for t, g in enumerate(grads):
        opt.param_groups[0]["state"] = STATES[t // 3]
        opt.step(grads=[tensor(g)])
    want = ref_adam(p.astype(np.float64), [g.astype(np.float64) for g in grads], 0.01)
    assert np.linalg.norm(array(x) - want) <= 0.02 * np.linalg.norm(want - p)
    assert opt.state_dict()["state.0.step"] == 9


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_step_allocates_nothing(state, rounding):
    params = [tensor(np.ones(n, np.float32)).astype(k) for n in (9000, 50) for k in (pb.float32, *HALVES)]
    for p in params:
        p.grad = tensor(np.ones(p.shape, np.float32))
    for cls in (optim.AdamW, optim.LAMB, optim.DoG):
        opt = cls(params, state=state, rounding=rounding)
        for _ in range(2):
            opt.step(clip_norm=0.5, clip_value=0.4)
            opt.step(clip_norm=0.5)
        before = pb.memory.stats()["allocations"]
        for _ in range(3):
            opt.step(clip_norm=0.5)
            opt.step()
        assert pb.memory.stats()["allocations"] == before


def test_bytes_per_step_counts_formats():
    n = 10_240

    def total(dtype=pb.float32, cls=optim.AdamW, n=n, **words):
        return cls([tensor(np.ones(n, np.float32)).astype(dtype)], **words).bytes_per_step()

    scales = 4 * n // 256
    assert total() == 28 * n
    assert total(state="bfloat16") == 20 * n
    assert total(state="int8") == 16 * n + 4 * scales
    assert total(state="int8", n=4095) == 28 * 4095
    assert total(pb.float64, state="int8") == 56 * n
    assert total(pb.bfloat16) == 22 * n
    assert total(pb.bfloat16, rounding="stochastic", state="bfloat16") == 14 * n
    assert total(pb.float16, rounding="kahan", state="int8") == 14 * n + 4 * scales
    assert total(pb.bfloat16, rounding="master") == 30 * n
    assert total(rounding="master") == 28 * n
    assert total(cls=optim.Lion, state="int8") == 14 * n + 2 * scales
    assert total(cls=optim.DoG, state="int8") == total(cls=optim.DoG)
    assert total(cls=optim.SGD) == 12 * n


@pytest.mark.parametrize("state", STATES)
def test_a_trainer_resumes_exactly_in_each_format(state, tmp_path):
    def trainer(seed, folder):
        model = net(seed)
        wide = pb.tensor(np.full((80, 80), 0.01, np.float32)).astype(pb.bfloat16)
        model.extra = pb.nn.Parameter(wide)  # large enough for 8 bits
        optimizer = optim.AdamW(model.parameters(), lr=0.01, state=state, rounding="stochastic")

        def step(model, batch, ctx):
            extra = model.extra.astype(pb.float32)
            return cross_entropy(model(batch[0]), batch[1]) + ((extra @ extra.T) ** 2).mean()

        return Trainer(model, optimizer, step=step, clip_norm=1.0, checkpoint_dir=folder, progress=False)

    def loader():
        return DataLoader(problem(22), 4, shuffle=True, seed=5)

    whole = trainer(1, None)
    whole.fit(loader(), steps=9)
    first = trainer(1, None)
    first.fit(loader(), steps=5)
    first.save(tmp_path / "f")
    second = trainer(2, None)
    second.load(tmp_path / "f")
    second.fit(loader(), steps=9)
    whole.save(tmp_path / "whole")
    second.save(tmp_path / "second")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "second").read_bytes()


# ---- Muon


def test_muon_keeps_bfloat16_momentum_and_rounds():
    p, grads = data((70, 64), 6, "float32")

    def run(begin, end, x, opt):
        for g in grads[begin:end]:
            opt.step(grads=[tensor(g)])
        return array(x.astype(pb.float32)).tobytes()

    words = {"lr": 0.01, "state": "bfloat16", "rounding": "kahan"}
    x = tensor(p).astype(pb.bfloat16)
    want = run(0, 6, x, optim.Muon([x], **words))
    y = tensor(p).astype(pb.bfloat16)
    opt = optim.Muon([y], **words)
    run(0, 3, y, opt)
    saved = opt.state_dict()
    assert saved["state.0.momentum_buffer"].dtype == pb.bfloat16
    assert saved["state.0.compensation"].dtype == pb.bfloat16
    again = optim.Muon([y], **words)
    again.load_state_dict(saved)
    assert run(3, 6, y, again) == want
    with pytest.raises(ValueError, match="Muon: state must be 'float32' or 'bfloat16', got 'int8'"):
        optim.Muon([y], state="int8")


# ---- errors


def test_bad_formats():
    x = tensor(np.ones(5000, np.float32))
    with pytest.raises(ValueError, match="AdamW: state must be 'float32' or 'bfloat16' or 'int8', got 'int4'"):
        optim.AdamW([x], state="int4")
    with pytest.raises(ValueError, match=r"SGD: rounding must be .* got 'up'"):
        optim.SGD([x], rounding="up")
    with pytest.raises(ValueError, match="state must be"):
        optim.AdamW([{"params": [x], "state": 8}])
    with pytest.raises(ValueError, match="OASIS: state must be 'float32', got 'int8'"):
        optim.OASIS([x], state="int8")
    opt = optim.AdamW([x], state="int8")
    opt.param_groups[0]["rounding"] = None
    with pytest.raises(ValueError, match="rounding must be"):
        opt.step(grads=[x])


def test_the_pure_form_refuses_formats():
    p = {"w": tensor(np.ones(3, np.float32))}
    with pytest.raises(ValueError, match="init: the pure form keeps float32 states"):
        optim.AdamW(state="bfloat16").init(p)
    state = optim.AdamW().init(p)
    with pytest.raises(ValueError, match="update: the pure form keeps float32 states"):
        optim.AdamW(state="int8").update(p, p, state)
    with pytest.raises(ValueError, match="rounding='master'"):
        optim.AdamW(rounding="master").update(p, p, state)


def test_damaged_states_are_refused():
    def make(dtype=pb.bfloat16, n=5000, **words):
        x = tensor(np.ones(n, np.float32)).astype(dtype)
        opt = optim.SGD([x], lr=0.1, momentum=0.9, **words)
        opt.step(grads=[x])
        return opt

    good = make(state="int8", rounding="master").state_dict()
    key = "state.0.momentum_buffer"
    make(state="int8").load_state_dict(good)
    with pytest.raises(ValueError, match="momentum_buffer: uint8 without scales"):
        make().load_state_dict({k: v for k, v in good.items() if k != f"{key}.scale"})
    with pytest.raises(ValueError, match="8-bit states are uint8 codes with 20 float32 scales here"):
        make().load_state_dict({**good, f"{key}.scale": tensor(np.ones(19, np.float32))})
    with pytest.raises(ValueError, match="8-bit states are uint8 codes"):
        make().load_state_dict({**good, key: tensor(np.ones(5000, np.float32))})
    with pytest.raises(pb.ShapeError, match=r"momentum_buffer: shape \(5000,\), the parameter has \(5001,\)"):
        make(n=5001).load_state_dict(good)
    with pytest.raises(ValueError, match="has a master, but the parameter is float32"):
        make(pb.float32).load_state_dict(good)
    with pytest.raises(ValueError, match=r"master: must be float32\[5000\]"):
        make().load_state_dict({**good, "state.0.master": tensor(np.ones(5000, np.float64))})
    driver, x = C.OptimDriver(), tensor(np.ones(5000, np.float32))
    with pytest.raises(pb.ShapeError, match="8-bit states are uint8 codes"):
        driver.set_state(x, 1, [(x, x)])
    with pytest.raises(pb.ShapeError, match="rest of the rounding"):
        driver.set_state(x.astype(pb.float16), 1, [], [], tensor(np.ones(3, np.float32)))
    with pytest.raises(pb.DTypeError, match="a state must be floating"):
        driver.set_state(x, 1, [tensor(np.ones(5000, np.int32))])
