"""Products of matrices and tensors against NumPy in float64: values, both modes, second order, types, errors."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import pullback as pb

TOL = {"float32": 2e-6, "float64": 4e-15}  # times the sum of |a||b|
SIZES = [1, 2, 3, 5, 6, 7, 13, 14, 15, 16, 17, 29, 31, 32, 33, 63, 65]


def rng(seed=0):
    return np.random.default_rng(seed)


def check_product(got, a, b, dtype):
    """|got - a b| against the error bound of a sum, which scales with |a||b|."""
    want = np.matmul(a.astype(np.float64), b.astype(np.float64))
    size = np.matmul(np.abs(a).astype(np.float64), np.abs(b).astype(np.float64))
    got = got.numpy()
    assert got.dtype == np.dtype(dtype)
    assert got.shape == want.shape
    assert got.size == 0 or np.max(np.abs(got - want) / np.maximum(size, 1)) <= TOL[dtype]


def close(got, want, tol=1e-10):
    got, want = np.asarray(got.numpy(), np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert got.size == 0 or np.max(np.abs(got - want) / np.maximum(1, np.abs(want))) <= tol


# ---- values


@pytest.mark.parametrize("dtype", TOL)
@pytest.mark.parametrize("m", SIZES)
def test_sizes_around_the_tiles(m, dtype):
    r = rng(m)
    for n in SIZES:
        k = int(r.integers(1, 70))
        a, b = r.normal(size=(m, k)).astype(dtype), r.normal(size=(k, n)).astype(dtype)
        check_product(pb.tensor(a) @ pb.tensor(b), a, b, dtype)


@pytest.mark.parametrize("dtype", TOL)
@pytest.mark.parametrize("k", [1, 4, 7, 8, 9, 255, 256, 257, 511, 512, 513, 1031])
@pytest.mark.parametrize("m,n", [(1, 1), (1, 130), (130, 1), (3, 40), (60, 5), (90, 70)])
def test_depth_around_the_blocks(m, n, k, dtype):
    r = rng(k)
    a, b = r.normal(size=(m, k)).astype(dtype), r.normal(size=(k, n)).astype(dtype)
    x, y = pb.tensor(a), pb.tensor(b)
    xt, yt = pb.tensor(np.ascontiguousarray(a.T)), pb.tensor(np.ascontiguousarray(b.T))
    for p in (x, xt.mT):
        for q in (y, yt.mT):
            check_product(p @ q, a, b, dtype)


@pytest.mark.parametrize("dtype", TOL)
def test_large(dtype):
    r = rng(1)
    a, b = r.normal(size=(1100, 300)).astype(dtype), r.normal(size=(300, 1310)).astype(dtype)
    check_product(pb.tensor(a) @ pb.tensor(b), a, b, dtype)
    bt = pb.tensor(np.ascontiguousarray(b.T))
    check_product(pb.tensor(a) @ bt.mT, a, b, dtype)


@pytest.mark.parametrize("dtype", TOL)
@pytest.mark.parametrize("m,n,k", [(1, 50, 300), (50, 1, 300), (45, 70, 33), (1, 1, 9)])
def test_strides(m, n, k, dtype):
    r = rng(2)
    a, b = r.normal(size=(2 * m, 3 * k)).astype(dtype), r.normal(size=(3 * k, 2 * n)).astype(dtype)
    x, y = pb.asarray(a), pb.asarray(b)
    for ka, kb in ((slice(None, k), slice(k, 2 * k)), (slice(None, None, 3), slice(None, None, -3))):
        for rows in (slice(None, m), slice(None, None, 2), slice(None, None, -2)):
            for cols in (slice(n, None), slice(None, None, -2)):
                check_product(x[rows, ka] @ y[kb, cols], a[rows, ka], b[kb, cols], dtype)
    row = pb.broadcast_to(x[:1, :k], (m, k))
    check_product(row @ y[:k, :n], np.broadcast_to(a[:1, :k], (m, k)), b[:k, :n], dtype)
    column = pb.broadcast_to(y[:k, :1], (k, n))
    check_product(x[:m, :k] @ column, a[:m, :k], np.broadcast_to(b[:k, :1], (k, n)), dtype)


BATCHES = [
    ((), (3,)),
    ((3,), ()),
    ((3,), (3,)),
    ((1,), (3,)),
    ((3,), (1,)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((2, 1, 3), (4, 1)),
    ((5, 1, 2), (5, 3, 1)),
    ((0,), (1,)),
    ((2, 0), (0,)),
    ((2, 3), (2, 3)),
]


@pytest.mark.parametrize("ba,bb", BATCHES)
@pytest.mark.parametrize("m,n,k", [(4, 5, 6), (1, 7, 20), (9, 1, 20), (1, 1, 3)])
def test_batches(ba, bb, m, n, k):
    r = rng(3)
    a, b = r.normal(size=(*ba, m, k)), r.normal(size=(*bb, k, n))
    check_product(pb.tensor(a) @ pb.tensor(b), a, b, "float64")
    at, bt = np.ascontiguousarray(np.swapaxes(a, -1, -2)), np.ascontiguousarray(np.swapaxes(b, -1, -2))
    check_product(pb.tensor(at).mT @ pb.tensor(bt).mT, a, b, "float64")


def test_moved_batch_axes():
    r = rng(4)
    a, b = r.normal(size=(3, 4, 5, 6)), r.normal(size=(6, 5, 4, 7))
    p, q = (2, 0, 1, 3), (1, 2, 0, 3)
    x, y = np.transpose(a, p), np.transpose(b, (1, 2, 0, 3))[:, :1]
    check_product(pb.permute_dims(pb.tensor(a), p) @ pb.permute_dims(pb.tensor(b), q)[:, :1], x, y, "float64")


@pytest.mark.parametrize(
    "sa,sb",
    [
        ((4,), (4,)),
        ((4,), (4, 3)),
        ((3, 4), (4,)),
        ((4,), (2, 4, 3)),
        ((2, 3, 4), (4,)),
        ((1,), (1, 1)),
        ((0,), (0,)),
        ((0,), (0, 2)),
        ((5, 2, 3, 4), (5, 1, 4, 2)),
    ],
)
def test_one_dimensional_operands(sa, sb):
    a, b = rng(5).normal(size=sa), rng(6).normal(size=sb)
    close(pb.matmul(pb.tensor(a), pb.tensor(b)), np.matmul(a, b), 1e-14)


@pytest.mark.parametrize(
    "sa,sb",
    [
        ((0, 4), (4, 3)),
        ((3, 4), (4, 0)),
        ((3, 0), (0, 5)),
        ((0, 0), (0, 0)),
        ((2, 3, 0), (2, 0, 4)),
        ((1, 0), (0, 1)),
        ((0, 3, 4), (4, 5)),
    ],
)
def test_empty(sa, sb):
    for dtype in (pb.float32, pb.float64, pb.int32, pb.float16):
        c = pb.zeros(sa, dtype=dtype) @ pb.zeros(sb, dtype=dtype)
        assert c.shape == np.matmul(np.zeros(sa), np.zeros(sb)).shape
        assert c.dtype == dtype
        assert not np.any(np.asarray(c.astype(pb.float64).numpy()))


def test_non_finite_values_stay():
    a = np.ones((20, 40), np.float32)
    a[3, 5], a[7, 0], a[9, 39] = np.nan, np.inf, -np.inf
    b = np.ones((40, 33), np.float32)
    got = (pb.tensor(a) @ pb.tensor(b)).numpy()
    assert np.isnan(got[3]).all() and (got[7] == np.inf).all() and (got[9] == -np.inf).all()
    assert np.isfinite(np.delete(got, [3, 7, 9], axis=0)).all()
    got = (pb.tensor(b.T.copy()) @ pb.tensor(a.T.copy())).numpy()  # columns: neighbours of a strip do not mix
    assert np.isnan(got[:, 3]).all() and np.isfinite(np.delete(got, [3, 7, 9], axis=1)).all()


# ---- types


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_are_exact(dtype):
    info = np.iinfo(dtype)
    r = rng(7)
    a = r.integers(info.min, info.max, size=(3, 17, 23), dtype=dtype, endpoint=True)
    b = r.integers(info.min, info.max, size=(23, 19), dtype=dtype, endpoint=True)
    got = (pb.tensor(a) @ pb.tensor(b)).numpy()
    assert got.dtype == a.dtype
    assert np.array_equal(got, np.matmul(a, b))  # modulo 2^bits
    assert np.array_equal((pb.tensor(b).mT @ pb.tensor(a).mT).numpy(), np.matmul(b.T, np.swapaxes(a, 1, 2)))


def test_bools_ask_for_any():
    a, b = rng(8).integers(0, 2, (5, 7)).astype(bool), rng(9).integers(0, 2, (7, 4)).astype(bool)
    assert np.array_equal((pb.tensor(a) @ pb.tensor(b)).numpy(), a @ b)


@pytest.mark.parametrize(
    "a,b,want",
    [
        ("float32", "float64", "float64"),
        ("int32", "float32", "float32"),
        ("int8", "int32", "int32"),
        ("float16", "bfloat16", "float32"),
        ("uint8", "float16", "float16"),
        ("bool", "int16", "int16"),
    ],
)
def test_promotion(a, b, want):
    x, y = pb.ones((2, 3), dtype=getattr(pb, a)), pb.ones((3, 2), dtype=getattr(pb, b))
    for c in (x @ y, pb.einsum("ij,jk->ik", x, y), pb.tensordot(x, y, axes=1), pb.linear(x, y.mT)):
        assert c.dtype == getattr(pb, want)
        assert c.astype(pb.float64).tolist() == [[3.0, 3.0], [3.0, 3.0]]


@pytest.mark.parametrize("name,eps", [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_half_floats_are_summed_in_float32(name, eps):
    dtype = getattr(pb, name)
    a, b = (
        pb.tensor(rng(10).normal(size=(9, 500))).astype(dtype),
        pb.tensor(rng(11).normal(size=(500, 8))).astype(dtype),
    )
    x, y = a.astype(pb.float64).numpy(), b.astype(pb.float64).numpy()
    c = a @ b
    assert c.dtype == dtype
    got, want = c.astype(pb.float64).numpy(), x @ y
    assert np.max(np.abs(got - want) / (eps * np.abs(want) + 2e-6 * (np.abs(x) @ np.abs(y)))) <= 1


# ---- linear


@pytest.mark.parametrize("lead", [(), (1,), (7,), (2, 5), (3, 1, 2), (0,), (2, 0)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype,tol", [("float32", 1e-5), ("float64", 1e-13)])
def test_linear(lead, bias, dtype, tol):
    r = rng(12)
    x, w, b = (
        r.normal(size=(*lead, 33)).astype(dtype),
        r.normal(size=(45, 33)).astype(dtype),
        r.normal(size=45).astype(dtype),
    )
    want = x.astype(np.float64) @ w.T.astype(np.float64) + (b if bias else 0)
    px, pw, p = (pb.tensor(v, requires_grad=True) for v in (x, w, b))
    y = pb.linear(px, pw, p if bias else None)
    assert y.dtype == px.dtype
    close(y, want, tol)
    g = r.normal(size=want.shape).astype(dtype)
    y.backward(pb.tensor(g))
    flat_g, flat_x = g.reshape(-1, 45).astype(np.float64), x.reshape(-1, 33).astype(np.float64)
    close(px.grad, g.astype(np.float64) @ w.astype(np.float64), tol)
    close(pw.grad, flat_g.T @ flat_x, tol)
    if bias:
        close(p.grad, flat_g.sum(0), tol)


def test_linear_takes_any_strides():
    r = rng(13)
    x, w, b = r.normal(size=(4, 6, 10)), r.normal(size=(10, 14)), r.normal(size=14)
    got = pb.linear(
        pb.permute_dims(pb.tensor(x), (1, 0, 2))[:, ::-1, ::2], pb.tensor(w).mT[::-1, ::2], pb.tensor(b)[::-1]
    )
    close(got, np.transpose(x, (1, 0, 2))[:, ::-1, ::2] @ w.T[::-1, ::2].T + b[::-1], 1e-13)


def test_linear_of_integers_is_exact():
    x, w = pb.tensor([[1, 2, 3]]), pb.tensor([[4, 5, 6], [7, 8, 9]])
    assert pb.linear(x, w, pb.tensor([1, -1])).tolist() == [[33, 49]]


def test_linear_is_one_node_and_keeps_what_it_needs():
    x, w = pb.ones((64, 32)), pb.tensor(np.ones((16, 32), np.float32), requires_grad=True)
    y = pb.linear(x, w, pb.tensor(np.ones(16, np.float32), requires_grad=True))
    with pytest.raises(pb.GraphError, match="linear: a tensor kept for backward was modified in place"):
        x[0, 0] = 2.0
        y.backward(pb.ones((64, 16)))
    z = pb.linear(x, pb.ones((16, 32)), pb.tensor(np.ones(16, np.float32), requires_grad=True))
    x[0, 0] = 3.0  # no weight gradient, so x was not kept
    z.backward(pb.ones((64, 16)))


# ---- tensordot, vecdot, outer, einsum


@pytest.mark.parametrize(
    "sa,sb,axes",
    [
        ((2, 3, 4), (3, 4, 5), 2),
        ((2, 3), (3, 4), 1),
        ((2,), (3,), 0),
        ((), (3,), 0),
        ((2, 3, 4), (4, 3, 2), ([0, 1, 2], [2, 1, 0])),
        ((2, 3, 4), (4, 5, 3), ([-1, 1], [0, 2])),
        ((2, 3), (5, 3), (1, 1)),
        ((2, 0), (0, 3), 1),
        ((0, 2), (2, 3), 1),
    ],
)
def test_tensordot(sa, sb, axes):
    a, b = rng(14).normal(size=sa), rng(15).normal(size=sb)
    close(pb.tensordot(pb.tensor(a), pb.tensor(b), axes=axes), np.tensordot(a, b, axes=axes), 1e-13)


@pytest.mark.parametrize(
    "sa,sb,axis",
    [
        ((4,), (4,), -1),
        ((3, 4), (4,), -1),
        ((3, 4), (3, 4), 0),
        ((2, 1, 4), (3, 4), -1),
        ((4, 3), (4, 1), -2),
        ((2, 0), (2, 0), -1),
        ((0, 3), (0, 3), -1),
    ],
)
def test_vecdot(sa, sb, axis):
    a, b = rng(16).normal(size=sa), rng(17).normal(size=sb)
    close(pb.vecdot(pb.tensor(a), pb.tensor(b), axis=axis), np.sum(a * b, axis=axis), 1e-13)


def test_outer():
    a, b = rng(18).normal(size=5), rng(19).normal(size=3)
    close(pb.outer(pb.tensor(a), pb.tensor(b)), np.outer(a, b), 0)
    assert pb.outer(pb.zeros(0), pb.zeros(4)).shape == (0, 4)
    assert pb.outer(pb.tensor([1, 2]), pb.tensor([3, 4])).tolist() == [[3, 4], [6, 8]]


EINSUM = [
    ("ij,jk->ik", (3, 4), (4, 5)), ("ij,jk", (3, 4), (4, 5)), ("ij,jk->ki", (3, 4), (4, 5)), ("ij->ji", (3, 4)),
    ("ii->i", (4, 4)), ("ii", (4, 4)), ("ii->", (4, 4)), ("iij->ji", (3, 3, 2)), ("iji->j", (3, 2, 3)),
    ("iii->i", (3, 3, 3)),
    ("ij->", (3, 4)), ("ij->j", (3, 4)), ("i,j->ij", (3,), (4,)), ("i,i->", (5,), (5,)), ("i,i->i", (5,), (5,)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("bqhd,bkhd->bhqk", (2, 3, 2, 5), (2, 4, 2, 5)),
    ("ij,kl->ijkl", (2, 3), (4, 5)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("i,ij,j->", (3,), (3, 4), (4,)),
    ("ab,bc,cd,de->ae", (2, 3), (3, 4), (4, 2), (2, 3)), ("...ij,...jk->...ik", (2, 3, 4), (4, 5)),
    ("...ij,jk", (6, 2, 3, 4), (4, 5)), ("...i,...i->...", (2, 3), (4, 1, 3)), ("i...->...", (3, 2, 2)),
    ("...", (2, 3)),
    ("ij,ij->ij", (3, 1), (3, 4)), ("ij,jk->ik", (3, 1), (4, 5)), ("ij,jk->ik", (3, 4), (1, 5)),
    ("ba,cb", (2, 3), (4, 2)),
    ("ij,jk->ik", (0, 3), (3, 2)), ("ij,jk->ik", (2, 0), (0, 3)), (",i->i", (), (3,)), ("->", ()),
    ("iij,jk->ik", (3, 3, 4), (4, 2)),
    ("ijk,ilm,njm,nlk->ijlm", (2, 3, 4), (2, 5, 3), (2, 3, 3), (2, 5, 4)), ("i j , j k -> i k", (2, 3), (3, 4)),
    ("...ii->...i", (2, 3, 3)), ("A,bA->b", (3,), (2, 3)), ("ij,k->i", (2, 3), (4,)),
]  # fmt: skip


@pytest.mark.parametrize("case", EINSUM, ids=lambda c: f"{c[0]} {c[1:]}")
def test_einsum(case):
    text, *shapes = case
    r = rng(20)
    arrays = [r.normal(size=s) for s in shapes]
    tensors = [pb.tensor(a, requires_grad=True) for a in arrays]
    want = np.einsum(text, *arrays)
    out = pb.einsum(text, *tensors)
    close(out, want, 1e-12)
    # einsum is linear in each operand: <g, d out> = <grad, d operand> for the operand's own value as direction
    g = r.normal(size=want.shape)
    out.backward(pb.tensor(g))
    for i, t in enumerate(tensors):
        d = r.normal(size=arrays[i].shape)
        moved = np.einsum(text, *[d if i == j else a for j, a in enumerate(arrays)])
        assert abs(np.sum(t.grad.numpy() * d) - np.sum(g * moved)) <= 1e-10 * (1 + np.sum(np.abs(g * moved)))


def test_einsum_of_integers_and_broadcast_diagonals():
    a, b = rng(21).integers(-9, 9, (3, 4), dtype=np.int8), rng(22).integers(-9, 9, (4, 3), dtype=np.int8)
    got = pb.einsum("ij,ji->", pb.tensor(a), pb.tensor(b))
    assert got.dtype == pb.int8 and got.item() == int(np.einsum("ij,ji->", a, b))
    x = pb.tensor([1.0, 2.0, 3.0], requires_grad=True)
    pb.einsum("ii->i", pb.broadcast_to(x, (3, 3))).backward(pb.tensor([1.0, 10.0, 100.0]))
    assert x.grad.tolist() == [1.0, 10.0, 100.0]


# ---- derivatives: f(*arrays) is multilinear

CASES = {
    "matmul": (pb.matmul, (5, 3), (3, 4)),
    "vector matrix": (pb.matmul, (3,), (3, 4)),
    "matrix vector": (pb.matmul, (5, 3), (3,)),
    "vector vector": (pb.matmul, (3,), (3,)),
    "shared matrix": (pb.matmul, (2, 5, 3), (3, 4)),
    "shared first": (pb.matmul, (5, 3), (2, 3, 4)),
    "broadcast batch": (pb.matmul, (2, 1, 5, 3), (4, 3, 2)),
    "no products": (pb.matmul, (2, 0), (0, 3)),
    "empty batch": (pb.matmul, (0, 2, 3), (3, 4)),
    "linear": (pb.linear, (2, 5, 3), (4, 3), (4,)),
    "linear without bias": (pb.linear, (5, 3), (4, 3)),
    "linear of a vector": (pb.linear, (3,), (4, 3), (4,)),
    "tensordot": (lambda a, b: pb.tensordot(a, b, axes=([0, 2], [1, 0])), (2, 3, 4), (4, 2, 5)),
    "vecdot": (lambda a, b: pb.vecdot(a, b, axis=0), (3, 1), (3, 4)),
    "outer": (pb.outer, (3,), (4,)),
    "einsum": (lambda a, b: pb.einsum("iij,jk->ki", a, b), (3, 3, 4), (4, 2)),
    "three operands": (lambda a, b, c: pb.einsum("ij,jk,ki->i", a, b, c), (2, 3), (3, 4), (4, 2)),
}  # fmt: skip


def primal(name, seed=23):
    f, *shapes = CASES[name]
    r = rng(seed)
    return f, [pb.tensor(r.normal(size=s)) for s in shapes], [pb.tensor(r.normal(size=s)) for s in shapes], r


@pytest.mark.parametrize("name", CASES)
def test_gradients_against_differences(name):
    f, x, v, r = primal(name)
    g = pb.tensor(r.normal(size=f(*x).shape))
    loss = lambda *a: (f(*a) * g).sum()  # noqa: E731
    grads = pb.grad(loss, argnums=tuple(range(len(x))))(*x)
    for i in range(len(x)):  # linear in each argument, so a central difference is exact to rounding
        up, down = ([p + s * v[i] if j == i else p for j, p in enumerate(x)] for s in (1.0, -1.0))
        want = (loss(*up).item() - loss(*down).item()) / 2
        assert grads[i].shape == x[i].shape
        assert abs((grads[i] * v[i]).sum().item() - want) <= 1e-11 * max(1, abs(want))


@pytest.mark.parametrize("name", CASES)
def test_forward_mode_is_the_transpose(name):
    f, x, v, r = primal(name)
    out, tangent = pb.jvp(f, tuple(x), tuple(v))
    assert tangent.shape == out.shape
    g = pb.tensor(r.normal(size=out.shape))
    _, pull = pb.vjp(f, *x)
    both = sum((a * b).sum().item() for a, b in zip(pull(g), v, strict=True))
    assert abs((tangent * g).sum().item() - both) <= 1e-11 * max(1, abs(both))
    for i in range(len(x)):  # one active argument at a time: the rule copes with missing tangents
        one = lambda a: f(*[a if j == i else p for j, p in enumerate(x)])  # noqa: E731, B023
        _, t = pb.jvp(one, (x[i],), (v[i],))
        close(t, one(v[i] + x[i]).numpy() - one(x[i]).numpy() if "bias" not in name else t.numpy(), 1e-10)


@pytest.mark.parametrize("name", CASES)
def test_second_order(name):
    """Hessian times vector: reverse over reverse, forward over reverse and a difference of gradients agree."""
    f, x, v, _ = primal(name)
    loss = lambda *a: (f(*a) ** 2).sum()  # noqa: E731
    n = tuple(range(len(x)))
    products = pb.hvp(loss, tuple(x), tuple(v))
    for p in x:
        p.requires_grad = True
    inner = pb.gradients([loss(*x)], x, create_graph=True)
    twice = pb.gradients([sum((a * b).sum() for a, b in zip(inner, v, strict=True))], x)
    eps = 1e-5
    ahead = pb.grad(loss, argnums=n)(*[p.detach() + eps * d for p, d in zip(x, v, strict=True)])
    behind = pb.grad(loss, argnums=n)(*[p.detach() - eps * d for p, d in zip(x, v, strict=True)])
    for h, t, a, b in zip(products, twice, ahead, behind, strict=True):
        close(h, t.numpy(), 1e-11)
        close(h, (a.numpy() - b.numpy()) / (2 * eps), 1e-7)


def test_third_order():
    x = pb.tensor(rng(24).normal(size=(2, 3)))
    f = lambda x: (x @ x.mT @ x).sum()  # noqa: E731
    d3 = pb.grad(lambda x: pb.grad(lambda x: pb.grad(f)(x).sum())(x).sum())(x)
    # f is a cubic form: its third derivative, three times in the direction e of ones, is 6 f(e)
    assert abs(d3.sum().item() - 6 * f(pb.ones((2, 3))).item()) <= 1e-9


def test_gradient_of_float16_keeps_its_type():
    x, w = (pb.tensor(rng(i).normal(size=s)).astype(pb.float16) for i, s in ((25, (4, 5)), (26, (3, 5))))
    x.requires_grad = w.requires_grad = True
    pb.linear(x, w).sum().backward()
    assert x.grad.dtype == w.grad.dtype == pb.float16
    mixed = pb.tensor(np.ones((4, 5), np.float32), requires_grad=True)
    (mixed @ pb.ones((5, 2), dtype=pb.float64)).sum().backward()
    assert mixed.grad.dtype == pb.float32 and mixed.grad.tolist() == [[2.0] * 5] * 4


# ---- the same bits

PROBE = """
import hashlib, sys
import numpy as np, pullback as pb
pb.set_num_threads(int(sys.argv[1]))
r, h = np.random.default_rng(0), hashlib.sha256()
for dtype in (np.float32, np.float64):
    for m, n, k in [(1, 1000, 777), (1000, 1, 777), (200, 300, 700), (257, 259, 31), (600, 1100, 40), (3, 500, 600)]:
        a, b = pb.tensor(r.normal(size=(m, k)).astype(dtype)), pb.tensor(r.normal(size=(k, n)).astype(dtype))
        at, bt = pb.tensor(a.numpy().T.copy()), pb.tensor(b.numpy().T.copy())
        for p in (a, at.mT):
            for q in (b, bt.mT):
                h.update((p @ q).numpy().tobytes())
    s, t = pb.tensor(r.normal(size=(40, 33, 50)).astype(dtype)), pb.tensor(r.normal(size=(40, 50, 33)).astype(dtype))
    h.update((s @ t).numpy().tobytes())
print(pb._core.isa_level(), h.hexdigest())
"""


def probe(threads, level=None):
    env = dict(os.environ)
    env.pop("PULLBACK_ISA", None)
    if level:
        env["PULLBACK_ISA"] = level
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(threads)], env=env, capture_output=True, text=True, check=False
    )
    if level and "does not run level" in run.stderr:
        pytest.skip(f"this CPU has no {level}")
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_bits_do_not_depend_on_threads():
    r = rng(27)
    for m, n, k in [(300, 500, 600), (1, 3000, 900), (3000, 1, 900), (1500, 20, 300), (40, 900, 3000)]:
        a, b = pb.tensor(r.normal(size=(m, k)).astype(np.float32)), pb.tensor(r.normal(size=(k, n)).astype(np.float32))
        results = []
        for threads in (1, 2, 3, 8):
            pb.set_num_threads(threads)
            results.append(hashlib.sha256((a @ b).numpy().tobytes()).hexdigest())
        assert len(set(results)) == 1


def test_bits_do_not_depend_on_the_level():
    """v3 and v4 add the same products in the same order with fused multiply-add."""
    one, two = probe(1, "v3"), probe(2, "v4")
    assert one[0] == "v3" and two[0] == "v4"
    assert one[1] == two[1]


def test_rows_do_not_depend_on_the_batch():
    r = rng(28)
    a, b = r.normal(size=(70, 600)).astype(np.float32), r.normal(size=(600, 90)).astype(np.float32)
    whole, y = (pb.tensor(a) @ pb.tensor(b)).numpy(), pb.tensor(b)
    for rows in (1, 2, 15, 33):
        assert np.array_equal((pb.tensor(a[:rows]) @ y).numpy(), whole[:rows])


def test_a_row_through_a_large_matrix():
    """Beyond the caches one row takes another way through memory to the same bits."""
    r = rng(29)
    for m, n, k in [(2, 2500, 1001), (2, 300, 8001)]:
        a, b = r.normal(size=(m, k)).astype(np.float32), r.normal(size=(k, n)).astype(np.float32)
        whole, y = (pb.tensor(a) @ pb.tensor(b)).numpy(), pb.tensor(b)
        check_product(pb.tensor(a[:1]) @ y, a[:1], b, "float32")
        assert np.array_equal((pb.tensor(a[:1]) @ y).numpy(), whole[:1])


def test_panels_of_both_operands():
    """More than one panel along rows, columns and the inner axis, and parts that end inside a tile."""
    r = rng(30)
    for m, n, k in [(1100, 1090, 1300), (70, 2200, 2100), (1300, 70, 2100), (530, 1500, 300), (30, 600, 5000)]:
        a, b = r.normal(size=(m, k)).astype(np.float32), r.normal(size=(k, n)).astype(np.float32)
        x, y = pb.tensor(a), pb.tensor(b)
        xt, yt = pb.tensor(np.ascontiguousarray(a.T)), pb.tensor(np.ascontiguousarray(b.T))
        pb.set_num_threads(3)
        many = (x @ y).numpy()
        check_product(x @ y, a, b, "float32")
        for p, q in [(xt.mT, y), (x, yt.mT), (xt.mT, yt.mT)]:
            assert np.array_equal((p @ q).numpy(), many)
        pb.set_num_threads(1)
        assert np.array_equal((x @ y).numpy(), many)


# ---- errors

ones, shape = pb.ones, pb.ShapeError


@pytest.mark.parametrize("f,error,match", [
    (lambda: ones((2, 3)) @ ones((4, 5)), shape, r"differ, 3 and 4 \(got float32\[2, 3\], float32\[4, 5\]\)"),
    (lambda: ones((2, 3)) @ ones(2), shape, "inner sizes differ, 3 and 2"),
    (lambda: ones(3) @ ones((2, 3)), shape, "inner sizes differ, 3 and 2"),
    (lambda: pb.matmul(ones(()), ones(2)), shape, "matmul: a 0-d operand has no axis"),
    (lambda: ones((2, 2, 3)) @ ones((5, 3, 4)), shape, "matmul"),
    (lambda: pb.broadcast_to(ones(1), (2**40, 1)) @ pb.broadcast_to(ones(1), (1, 2**40)), shape, "overflow"),
    (lambda: pb.linear(ones((2, 3)), ones(3)), shape, "linear: the weight must be 2-d"),
    (lambda: pb.linear(ones((2, 3)), ones((5, 4))), shape, "linear: inner sizes differ"),
    (lambda: pb.linear(ones(()), ones((5, 4))), shape, "linear: inner sizes differ"),
    (lambda: pb.linear(ones((2, 3)), ones((5, 3)), ones(4)), shape, "linear: the bias must have one element per row"),
    (lambda: pb.tensordot(ones((2, 3)), ones((2, 3)), axes=1), shape, "axis 1 of the first and axis 0 of the second"),
    (lambda: pb.tensordot(ones((2, 3)), ones((2, 3)), axes=3), shape, "cannot sum over 3 axes"),
    (lambda: pb.tensordot(ones((2, 3)), ones((2, 3)), axes=-1), shape, "cannot sum over -1 axes"),
    (lambda: pb.tensordot(ones((2, 3)), ones((2, 3)), axes=([0], [0, 1])), shape, "lists of axes have different"),
    (lambda: pb.tensordot(ones((2, 2)), ones((2, 2)), axes=([0, 0], [0, 1])), shape, "named twice"),
    (lambda: pb.tensordot(ones((2, 2)), ones((2, 2)), axes="ij k"), shape, "axes must be an int or a pair"),
    (lambda: pb.vecdot(ones((2, 3)), ones((2, 1))), shape, "vecdot: the summed axes have different sizes"),
    (lambda: pb.vecdot(ones(()), ones(2)), shape, "vecdot: a 0-d operand"),
    (lambda: pb.outer(ones((2, 3)), ones(2)), shape, "outer: both operands must be 1-d"),
    (lambda: pb.einsum("ij,jk->ik", ones((2, 3))), ValueError, "1 operands for 2 terms"),
    (lambda: pb.einsum("i1->i", ones((2, 3))), ValueError, "unexpected '1'"),
    (lambda: pb.einsum("i....->i", ones((2, 3))), ValueError, "unexpected '.'"),
    (lambda: pb.einsum("ij->ik", ones((2, 3))), ValueError, "output letter 'k' is in no operand"),
    (lambda: pb.einsum("ij->ii", ones((2, 3))), ValueError, "an output letter occurs twice"),
    (lambda: pb.einsum("i->i", ones((2, 3))), shape, "names 1 axes"),
    (lambda: pb.einsum("ijk->i", ones((2, 3))), shape, "names 3 axes"),
    (lambda: pb.einsum("ii->i", ones((2, 3))), shape, "a repeated letter names axes of different sizes"),
    (lambda: pb.einsum("ij,jk->ik", ones((2, 3)), ones((4, 5))), shape, "names axes of sizes 3 and 4"),
])  # fmt: skip
def test_errors(f, error, match):
    with pytest.raises(error, match=match):
        f()
