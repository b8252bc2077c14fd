"""pb.fused: the update rules on arrays of any library, in place."""

import numpy as np
import pytest
from optim_cases import SHAPES, tensor

import pullback as pb
from pullback import fused, optim

RULES = [name for name in fused.__all__ if name.endswith("_")]
CLASSES = {f"{name.lower()}_": getattr(optim, name) for name in optim.__all__}


def test_names():
    assert {"sgd_", "adam_", "adamw_", "lion_", "rmsprop_", "adagrad_", "lamb_", "dog_", "prodigy_"} <= set(
        fused.__all__
    )
    assert not {"sam_", "gam_", "udog_", "oasis_", "optimizer_"} & set(fused.__all__)
    for name in RULES:
        assert "lr=" in getattr(fused, name).__doc__


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_as_the_class(name, dtype):
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.normal(size=s).astype(dtype)) for s in SHAPES]
    tensors = [tensor(a) for a in arrays]
    states = [{} for _ in arrays]
    pb.manual_seed(0)
    opt = CLASSES[name](tensors)
    pb.manual_seed(0)  # SGLD and Gravity draw when a state begins
    for _ in range(3):
        grads = [np.asarray(rng.normal(size=s).astype(dtype)) for s in SHAPES]
        assert getattr(fused, name)(arrays, grads, states)
        opt.step(grads=[tensor(g) for g in grads])
    for a, t in zip(arrays, tensors, strict=True):
        np.testing.assert_array_equal(a, t.numpy())
    assert all(s["step"] == 3 for s in states)


def test_keywords_and_variants():
    w = np.ones(4, np.float32)
    state = {}
    fused.sgd_([w], [np.ones(4, np.float32)], [state], lr=0.5, momentum=0.9)
    assert w.tolist() == [0.5] * 4
    assert set(state) == {"step", "momentum_buffer"}
    assert isinstance(state["momentum_buffer"], np.ndarray)
    fused.sgd_([w], [np.ones(4, np.float32)], [state], lr=0.5, momentum=0.9)
    np.testing.assert_allclose(w, 0.5 - 0.5 * 1.9, rtol=1e-6)


def test_tensors_strided_arrays_and_clipping():
    x = pb.ones((3, 4))
    state = {}
    assert fused.adamw_([x], [pb.ones((3, 4))], [state], lr=0.5, weight_decay=0.0)
    assert isinstance(state["exp_avg"], pb.Tensor)
    assert x[0, 0].item() == 0.5
    base = np.ones((6, 4), np.float32)
    fused.sgd_([base[::2].T], [np.ones((4, 3), np.float32)], [{}], lr=1.0, clip_norm=np.sqrt(12) / 2)
    np.testing.assert_allclose(base[::2], 0.5, rtol=1e-5)
    assert (base[1::2] == 1).all()


def test_numbers_and_skipped_steps():
    w, state = np.ones(4), {}
    fused.nadam_([w], [np.ones(4)], [state])
    kept = dict(state)
    assert 0 < state["mu_product"] < 1
    before = w.copy()
    assert not fused.nadam_([w], [np.array([1, np.inf, 1, 1])], [state], scale=1.0)
    np.testing.assert_array_equal(w, before)
    assert state["step"] == kept["step"] == 1
    assert state["mu_product"] == kept["mu_product"]
    assert fused.nadam_([w], [None], [state])
    assert state["step"] == 1


def test_errors():
    w, g = np.ones(3, np.float32), np.ones(3, np.float32)
    cases = [
        (lambda: fused.adamw_(w, [g], [{}]), TypeError, "params is a ndarray"),
        (lambda: fused.adamw_([w], [g, g], [{}]), ValueError, "1 params, but 2 grads"),
        (lambda: fused.adamw_([[1.0]], [g], [{}]), TypeError, "parameter 0 is a list, not an array"),
        (lambda: fused.adamw_([w], [g], [None]), TypeError, "state 0 is a NoneType"),
        (lambda: fused.adamw_([w], [g], [{"step": 1}]), ValueError, "unknown entry 'exp_avg'"),
        (lambda: fused.adamw_([w], [g], [{}], rate=1.0), TypeError, "rate"),
        (lambda: fused.adamw_([w], [g], [{}], lr=-1.0), ValueError, "lr must be"),
        (lambda: fused.adamw_([w], [g], [{}], state="int8"), ValueError, "states are arrays"),
        (lambda: fused.adamw_([w], [np.ones(4, np.float32)], [{}]), pb.ShapeError, "shape of its parameter"),
        (lambda: fused.adamw_([np.ones(3, int)], [g], [{}]), TypeError, "only floating"),
        (lambda: fused.nothing_, AttributeError, "no 'nothing_'"),
    ]
    for call, error, match in cases:
        with pytest.raises(error, match=match):
            call()
    bad = {"step": 1, "exp_avg": np.ones(3), "exp_avg_sq": np.ones(3, np.float32)}
    with pytest.raises(pb.ShapeError, match="a state is a contiguous array"):
        fused.adamw_([w], [g], [bad])
    bad = {"step": -1, "exp_avg": np.ones(3, np.float32), "exp_avg_sq": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match="step count is negative"):
        fused.adamw_([w], [g], [bad])
    frozen = np.ones(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        fused.adamw_([frozen], [g], [{}])
