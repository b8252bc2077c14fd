"""Creation functions and dtype queries against NumPy."""

import math

import numpy as np
import pytest

import pullback as pb


def same(x, a, dtype=pb.float32):
    assert x.dtype == dtype and x.shape == a.shape
    np.testing.assert_array_equal(x.numpy(), a)


def test_fills():
    for shape in ((), 3, (2, 0), (2, 3)):
        same(pb.zeros(shape), np.zeros(shape))
        same(pb.ones(shape, dtype=pb.int8), np.ones(shape), pb.int8)
        same(pb.full(shape, 2.5), np.full(shape, 2.5))
        same(pb.full(shape, 7), np.full(shape, 7), pb.int64)
        same(pb.full(shape, True), np.full(shape, True), pb.bool)
        assert pb.empty(shape, dtype=pb.bfloat16).dtype == pb.bfloat16
    x = pb.asarray(np.arange(6.0).reshape(2, 3).T)
    same(pb.zeros_like(x), np.zeros((3, 2)), pb.float64)
    same(pb.ones_like(x, dtype=pb.uint8), np.ones((3, 2)), pb.uint8)
    same(pb.full_like(x, 3), np.full((3, 2), 3), pb.float64)
    assert pb.empty_like(x).shape == (3, 2)
    assert not pb.zeros_like(pb.tensor(1.0, requires_grad=True)).requires_grad


@pytest.mark.parametrize(
    "args", [(5,), (0,), (-3,), (2, 7), (2, 7, 3), (7, 2, -2), (7, 2), (0.5, 3.0), (0, 1, 0.25), (3.0,)]
)
def test_arange(args):
    a = np.arange(*args)
    same(pb.arange(*args), a, pb.float32 if a.dtype.kind == "f" else pb.int64)
    same(pb.arange(*args, dtype=pb.float64), a, pb.float64)


def test_linspace():
    for args in ((0, 1, 5), (1, -2, 7), (3, 3, 2), (0, 1, 1), (0, 1, 0)):
        for endpoint in (True, False):
            np.testing.assert_allclose(
                pb.linspace(*args, endpoint=endpoint, dtype=pb.float64).numpy(),
                np.linspace(*args, endpoint=endpoint),
                rtol=1e-15,
            )
    assert pb.linspace(0, 0.1, 11)[-1].item() == np.float32(0.1)
    assert pb.linspace(0, 1, 3).dtype == pb.float32


@pytest.mark.parametrize("k", [-5, -1, 0, 1, 2, 5])
def test_eye_and_triangles(k):
    same(pb.eye(3, k=k), np.eye(3, k=k))
    same(pb.eye(2, 4, k=k, dtype=pb.int32), np.eye(2, 4, k=k), pb.int32)
    for dtype in ("float64", "int16", "bool"):
        a = (np.arange(24).reshape(2, 3, 4) + 1).astype(dtype)
        same(pb.tril(pb.asarray(a), k=k), np.tril(a, k), pb.dtype(dtype))
        same(pb.triu(pb.asarray(a), k=k), np.triu(a, k), pb.dtype(dtype))
    inf = pb.tril(pb.full((2, 2), math.inf), k=-1)
    assert inf.tolist() == [[0.0, 0.0], [math.inf, 0.0]]


def test_meshgrid():
    for shapes in ((), (2,), (2, 3), (2, 3, 4)):
        a = [np.arange(n) for n in shapes]
        for kw in ({}, {"indexing": "ij"}, {"indexing": "xy"}):
            got, want = pb.meshgrid(*map(pb.asarray, a), **kw), np.meshgrid(*a, **kw)
            assert len(got) == len(want)
            for x, y in zip(got, want, strict=True):
                same(x, y, pb.int64)
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    (pb.meshgrid(x, pb.arange(3))[0]).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_data():
    assert pb.tensor([1.0, 2.0]).dtype == pb.float32 and pb.tensor([1, 2]).dtype == pb.int64
    assert pb.tensor([True, 1]).dtype == pb.int64 and pb.tensor([1, 2.5]).tolist() == [1.0, 2.5]
    assert pb.tensor([]).shape == (0,) and pb.tensor([[], []]).shape == (2, 0)
    assert pb.tensor([2**63, 1]).dtype == pb.uint64 and pb.tensor([2**63, 1]).tolist() == [2**63, 1]
    assert pb.tensor([2**63 + 1], dtype=pb.uint64).tolist() == [2**63 + 1]
    assert pb.tensor(0.1, dtype=pb.float64).item() == 0.1
    assert pb.tensor([pb.asarray(1.5), 2]).tolist() == [1.5, 2.0]
    assert pb.tensor(((1, 2), (3, 4))).tolist() == [[1, 2], [3, 4]]
    x = pb.tensor([1.0], requires_grad=True)
    assert x.requires_grad and x.is_leaf
    assert pb.asarray(x) is x and not pb.tensor(x).requires_grad


ERRORS = [
    (lambda: pb.zeros((-1,)), pb.ShapeError, "negative size"),
    (lambda: pb.zeros((2**40, 2**40)), pb.ShapeError, "overflows"),
    (lambda: pb.zeros((2**70,)), pb.ShapeError, "out of the range of int64"),
    (lambda: pb.zeros((1,) * 33), pb.ShapeError, "at most 32 dimensions"),
    (lambda: pb.zeros(2, device="cuda"), pb.DeviceError, "device 'cuda' is not available"),
    (lambda: pb.zeros(2, dtype="f4"), pb.DTypeError, "the dtype must be one of pullback's"),
    (lambda: pb.arange(0, 1, 0), ValueError, "the step must not be 0"),
    (lambda: pb.arange(0, float("inf"), 1), pb.ShapeError, "overflows or is NaN"),
    (lambda: pb.linspace(0, 1, -1), pb.ShapeError, "the number of values is -1"),
    (lambda: pb.eye(-1), pb.ShapeError, "negative size"),
    (lambda: pb.meshgrid(pb.zeros(2), indexing="yx"), ValueError, "unknown indexing 'yx'"),
    (lambda: pb.meshgrid(pb.zeros((2, 2))), pb.ShapeError, "takes 1-d tensors"),
    (lambda: pb.tensor([[1, 2], [3]]), pb.ShapeError, "different lengths at depth 1"),
    (lambda: pb.tensor([1, [2]]), pb.ShapeError, "different lengths|mixed"),
    (lambda: pb.tensor([[1], 2]), pb.ShapeError, "mixed at depth"),
    (lambda: pb.tensor(["a"]), pb.DTypeError, "cannot make a tensor of str"),
    (lambda: pb.tensor([pb.zeros(2)]), pb.DTypeError, "a list of tensors is not data"),
    (lambda: pb.tensor([1, 2], requires_grad=True), pb.DTypeError, "only floating tensors can require grad"),
    (lambda: pb._core.frombuffer(b"abc", pb.float32, (1,)), pb.ShapeError, "3 bytes do not fill shape"),
    (lambda: pb.finfo(pb.int8), pb.DTypeError, "is no floating dtype"),
    (lambda: pb.iinfo(pb.float32), pb.DTypeError, "is no integer dtype"),
    (lambda: pb.finfo("x"), pb.DTypeError, "is no dtype or tensor"),
    (lambda: pb.isdtype(pb.int8, "number"), ValueError, "unknown kind 'number'"),
    (lambda: pb.result_type(1, 2.0), ValueError, "there is no tensor or dtype"),
]


@pytest.mark.parametrize("f,error,match", ERRORS, ids=[e[2] for e in ERRORS])
def test_errors(f, error, match):
    with pytest.raises(error, match=match):
        f()


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_finfo(name):
    got, want = pb.finfo(pb.dtype(name)), np.finfo(name)
    assert (got.bits, got.eps, got.max, got.min) == (want.bits, float(want.eps), float(want.max), float(want.min))
    assert got.smallest_normal == float(want.smallest_normal) and got.dtype == pb.dtype(name)
    assert pb.finfo(pb.zeros(1, dtype=pb.bfloat16)).eps == 2.0**-7
    assert pb.finfo(pb.bfloat16).max == pytest.approx(3.3895313892515355e38, rel=0)


@pytest.mark.parametrize("name", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_iinfo(name):
    got, want = pb.iinfo(pb.dtype(name)), np.iinfo(name)
    assert (got.bits, got.max, got.min) == (want.bits, want.max, want.min)


def test_dtype_queries():
    assert pb.isdtype(pb.float32, "real floating") and not pb.isdtype(pb.bool, "numeric")
    assert pb.isdtype(pb.uint8, ("signed integer", pb.uint8)) and not pb.isdtype(pb.float32, "complex floating")
    assert pb.can_cast(pb.zeros(1, dtype=pb.int8), pb.float32) and not pb.can_cast(pb.float64, pb.float32)
    names = ["bool", "int8", "int32", "uint8", "uint32", "float32", "float64"]
    for a in names:
        for b in names:
            got = pb.result_type(pb.dtype(a), pb.dtype(b))
            if not ("float" in a) ^ ("float" in b) or "bool" in (a, b):
                assert got.name == np.result_type(a, b).name
            else:
                assert got.name == (a if "float" in a else b)
    assert pb.result_type(pb.int8, 1) == pb.int8 and pb.result_type(pb.int8, 1.0) == pb.float32
    assert pb.result_type(pb.bool, 1) == pb.int64 and pb.result_type(pb.bool, True) == pb.bool
    assert pb.astype(pb.arange(2), pb.float32).dtype == pb.float32
    x = pb.arange(2)
    assert pb.astype(x, pb.int64, copy=False) is x and pb.astype(x, pb.int64) is not x
    assert [a.shape for a in pb.broadcast_arrays(x, pb.zeros((3, 1)), pb.zeros(()))] == [(3, 2)] * 3
