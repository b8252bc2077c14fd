"""Every reduction of the registry and the compositions of the family, against NumPy in float64."""

import numpy as np
import pytest
import refs

import pullback as pb

ROWS = {r["name"]: r for r in pb.ops() if r["family"] == "Reduce"}
AXES = [None, 0, 1, -1, (0, 1), (0, 2), (1, 2), (0, 1, 2)]


def public(name):
    return getattr(pb, name.lstrip("_"))


def close(got, want, tol):
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape
    assert got.size == 0 or np.max(np.abs(got - want) / np.maximum(1, np.abs(want))) <= tol


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_reference(name):
    assert name in refs.REDUCE, f"tests/refs.py has no reference for {name}"


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_forward(name, axis, keepdims):
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    want = refs.REDUCE[name](x.astype(np.float64), axis=axis, keepdims=keepdims)
    for v in (pb.asarray(x), pb.asarray(np.asfortranarray(x)), pb.asarray(x[:, ::-1])[:, ::-1]):
        close(public(name)(v, axis=axis, keepdims=keepdims).numpy(), want, 2e-6)
    close(public(name)(pb.asarray(x.astype(np.float64)), axis=axis, keepdims=keepdims).numpy(), want, 1e-13)


@pytest.mark.parametrize("name", ROWS)
def test_integers_and_bools(name):
    x = np.random.default_rng(1).integers(-3, 4, (3, 5))
    for dtype in ("int8", "int64", "uint8", "bool"):
        v = x.astype(dtype)
        got = public(name)(pb.asarray(v), axis=1)
        if name == "mean":
            close(got.numpy(), v.astype(np.float64).mean(1), 1e-6)
        else:
            assert got.tolist() == refs.REDUCE[name](v, axis=1).tolist()


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("shape,axis", [((300_001,), 0), ((3, 70_000), 1), ((70_000, 3), 0), ((700, 513), 0)])
def test_bits_do_not_depend_on_threads(name, shape, axis):
    x = pb.asarray(np.random.default_rng(2).normal(size=shape).astype(np.float32))
    pb.set_num_threads(1)
    one = public(name)(x, axis=axis)
    pb.set_num_threads(2)
    assert public(name)(x, axis=axis).tobytes() == one.tobytes()
    wide = x.numpy().astype(np.float64)
    scale = (
        np.sum(np.abs(wide), axis=axis) if name == "sum" else 1.0
    )  # rounding is relative to the terms, not their sum
    close(one.numpy() / scale, refs.REDUCE[name](wide, axis=axis) / scale, 1e-6)


def test_empty_and_scalar():
    assert pb.sum(pb.zeros((0, 3))).item() == 0
    assert pb.prod(pb.zeros((0,))).item() == 1
    assert pb.sum(pb.zeros((0, 3)), axis=0).tolist() == [0, 0, 0]
    assert pb.sum(pb.tensor(2.5)).item() == 2.5
    assert pb.max(pb.tensor(2.5)).item() == 2.5
    assert pb.sum(pb.zeros((2, 0)), axis=0).shape == (0,)
    assert np.isnan(pb.mean(pb.zeros((0,))).item())
    assert pb.logsumexp(pb.zeros((0,))).item() == -np.inf
    with pytest.raises(pb.ShapeError, match="empty slice"):
        pb.max(pb.zeros((0, 3)), axis=0)


def test_nan_propagates():
    x = pb.tensor([[1.0, float("nan")], [2.0, 3.0]])
    for f in (pb.sum, pb.mean, pb.max, pb.min, pb.prod, pb.var, pb.logsumexp):
        got = f(x, axis=1).numpy()
        assert np.isnan(got[0]) and not np.isnan(got[1])


COMPOSED = {
    "sum": lambda x: pb.sum(x, axis=1),
    "mean": lambda x: pb.mean(x, axis=(0, 2)),
    "max": lambda x: pb.max(x, axis=1),
    "min": lambda x: pb.min(x),
    "prod": lambda x: pb.prod(x, axis=2),
    "var": lambda x: pb.var(x, axis=1, correction=1),
    "std": lambda x: pb.std(x, axis=0),
    "logsumexp": lambda x: pb.logsumexp(x, axis=2),
    "norm": lambda x: pb.norm(x, axis=1),
    "norm1": lambda x: pb.norm(x, 1, axis=1),
    "norm3": lambda x: pb.norm(x, 3, axis=1),
    "norm inf": lambda x: pb.norm(x, float("inf"), axis=1),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_gradients(name):
    f = COMPOSED[name]
    x = np.random.default_rng(3).permutation(24).reshape(2, 3, 4) / 10 - 1.13
    pb.testing.gradcheck(f, (pb.tensor(x, dtype=pb.float64),), order=1)
    pb.testing.gradcheck(f, (pb.tensor(x, dtype=pb.float64),), order=2)


def test_references_of_compositions():
    x = np.random.default_rng(4).normal(size=(3, 4, 5))
    t = pb.asarray(x)
    close(pb.var(t, axis=1, correction=1).numpy(), x.var(1, ddof=1), 1e-13)
    close(pb.std(t, axis=(0, 2)).numpy(), x.std((0, 2)), 1e-13)
    close(
        pb.logsumexp(t * 300, axis=1).numpy(),
        np.log(np.sum(np.exp(300 * (x - x.max(1, keepdims=True))), 1)) + 300 * x.max(1),
        1e-13,
    )
    close(pb.norm(t, axis=1).numpy(), np.linalg.norm(x, axis=1), 1e-13)
    close(pb.norm(t, 3, axis=1).numpy(), (np.abs(x) ** 3).sum(1) ** (1 / 3), 1e-13)
    close(pb.norm(t, 0, axis=1).numpy(), (x != 0).sum(1), 0)


def test_ties_share_the_gradient():
    x = pb.tensor([1.0, 3.0, 3.0, 2.0], requires_grad=True)
    pb.max(x).backward()
    assert x.grad.tolist() == [0, 0.5, 0.5, 0]


def test_norm_has_gradient_zero_at_zero():
    for order in (1, 2, 3):
        x = pb.tensor([0.0, 0.0], requires_grad=True)
        pb.norm(x, order).backward()
        assert x.grad.tolist() == [0, 0]


def test_product_with_zeros():
    x = pb.tensor([2.0, 0.0, 3.0], requires_grad=True)
    pb.prod(x).backward()
    assert x.grad.tolist() == [0, 6, 0]
    y = pb.tensor([0.0, 0.0, 3.0], requires_grad=True)
    pb.prod(y).backward()
    assert y.grad.tolist() == [0, 0, 0]


def test_errors():
    x = pb.zeros((2, 3))
    with pytest.raises(pb.ShapeError, match="axis 2 is out of range"):
        pb.sum(x, axis=2)
    with pytest.raises(pb.ShapeError, match="named twice"):
        pb.sum(x, axis=(0, -2))
