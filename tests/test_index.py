"""Indexing and item assignment against NumPy, with gradients against a dense linear map."""

import numpy as np
import pytest

import pullback as pb

RNG = np.random.default_rng(0)
NPA = np.array
MASK3 = np.array([True, False, True])
MASK34 = np.array([[True, False, False, True], [False] * 4, [True, True, False, False]])
MASK2345 = RNG.random((2, 3, 4, 5)) > 0.6

#: (shape, key) pairs; keys use NumPy arrays, lists and Python objects and are tried with tensors too.
KEYS = [
    ((5,), 0),
    ((5,), -1),
    ((5,), slice(None)),
    ((5,), slice(4, None, -1)),
    ((5,), slice(10, 2, -2)),
    ((5,), slice(3, 1)),
    ((5,), slice(-100, 100, 2)),
    ((5,), ()),
    ((5,), ...),
    ((5,), None),
    ((5,), (None, slice(1, 3), None)),
    ((5,), [0, 4, -1, 0]),
    ((5,), []),
    ((5,), NPA([[0, 1], [-2, 3]])),
    ((5,), NPA([], dtype=np.int64)),
    ((5,), NPA(2)),
    ((5,), np.int64(3)),
    ((5,), NPA([1, 2], dtype=np.uint8)),
    ((5,), NPA([1, -2], dtype=np.int16)),
    ((5,), NPA([True, False, True, False, True])),
    ((5,), [True, False, True, False, True]),
    ((5,), np.zeros(5, bool)),
    ((5,), range(1, 4)),
    ((), ()),
    ((), ...),
    ((), None),
    ((), True),
    ((), False),
    ((), NPA(True)),
    ((3, 4), (1, 2)),
    ((3, 4), (-1, slice(None, None, 2))),
    ((3, 4), (..., 1)),
    ((3, 4), (1, ...)),
    ((3, 4), (slice(None), None, 2)),
    ((3, 4), (slice(None, None, -1), slice(None, None, -2))),
    ((3, 4), (NPA([0, 2]), NPA([1, 3]))),
    ((3, 4), (NPA([[0], [2]]), NPA([1, 3]))),
    ((3, 4), (NPA([0, 2]), 1)),
    ((3, 4), (1, NPA([0, 0, 3]))),
    ((3, 4), (slice(None), NPA([[0, 1], [2, 2]]))),
    ((3, 4), (NPA([0, 2]), slice(1, 3))),
    ((3, 4), (NPA([0, 2]), None)),
    ((3, 4), (None, NPA([0, 2]), None, NPA([1, 1]))),
    ((3, 4), MASK34),
    ((3, 4), MASK3),
    ((3, 4), (MASK3, 1)),
    ((3, 4), (MASK3, NPA([0, 1]))),
    ((3, 4), (slice(0, 2), NPA([True, False, True, True]))),
    ((3, 4), True),
    ((3, 4), False),
    ((3, 4), (True, 0)),
    ((3, 4), (0, True)),
    ((3, 4), (NPA([0, 2]), True)),
    ((3, 4), (NPA([0]), False)),
    ((3, 4), (np.bool_(True), slice(None))),
    ((2, 3, 4, 5), (0, slice(None), NPA([0, 1]))),
    ((2, 3, 4, 5), (slice(None), NPA([0, 1]), NPA([2, 3]))),
    ((2, 3, 4, 5), (slice(None), NPA([0, 1]), 2)),
    ((2, 3, 4, 5), (slice(None), 2, NPA([0, 1]))),
    ((2, 3, 4, 5), (NPA([0, 1]), slice(None), NPA([2, 3]))),
    ((2, 3, 4, 5), (NPA([0, 1]), slice(None), 2)),
    ((2, 3, 4, 5), (1, slice(None), slice(None), NPA([2, 3]))),
    ((2, 3, 4, 5), (slice(None), NPA([0, 1]), slice(None), NPA([2, 3]))),
    ((2, 3, 4, 5), (slice(None), NPA([0, 1]), None, NPA([2, 3]))),
    ((2, 3, 4, 5), (NPA([0, 1]), ..., NPA([2, 3]))),
    ((2, 3, 4, 5), (..., NPA([0, 1]), NPA([[2], [3]]))),
    ((2, 3, 4, 5), (slice(None), NPA([0, 2]), NPA([3, 3]), ..., NPA([0, 1]))),
    ((2, 3, 4, 5), (slice(None, None, -1), NPA([[0, 1]]), slice(None, None, 2), slice(4, 0, -3))),
    ((2, 3, 4, 5), (slice(None), MASK34)),
    ((2, 3, 4, 5), (slice(None), MASK34, NPA([0, 1, 2, 4]))),
    ((2, 3, 4, 5), (NPA([0, 0, 1, 1]), MASK34)),
    ((2, 3, 4, 5), (NPA([0, 0, 1, 1]), MASK34, slice(None, None, 2))),
    ((2, 3, 4, 5), (0, MASK34)),
    ((2, 3, 4, 5), MASK2345),
    ((2, 3, 4, 5), (..., NPA([True, False, True, True, False]))),
    ((2, 3, 4, 5), (None, ..., None, 0)),
    ((2, 3, 4, 5), (slice(None), True, NPA([0, 1]))),
    ((0, 3), (slice(None), NPA([0, 2]))),
    ((0, 3), NPA([], dtype=int)),
    ((3, 0), (NPA([0, 2]),)),
    ((3, 0), (slice(None), slice(None))),
    ((2, 1, 2, 1, 2, 1, 2, 1, 2, 1), (..., 0)),
    ((2, 1, 2, 1, 2, 1, 2, 1, 2, 1), (0, ..., NPA([0, 0]))),
]
IDS = [f"{i}-{s}-{str(k)[:40]}" for i, (s, k) in enumerate(KEYS)]


def normal(size):
    return np.asarray(RNG.normal(size=size))


def gradient(x):
    """A leaf that was not reached has no gradient, which means zero."""
    return np.zeros(x.shape) if x.grad is None else x.grad.numpy()


def data(shape):
    return np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)


def as_tensors(key):
    def one(k):
        return pb.asarray(k) if isinstance(k, np.ndarray) else k

    return tuple(map(one, key)) if isinstance(key, tuple) else one(key)


def np_key(key):
    return list(key) if isinstance(key, range) else key


@pytest.mark.parametrize("shape,key", KEYS, ids=IDS)
def test_get(shape, key):
    a = data(shape)
    want = a[np_key(key)]
    for k in (key, as_tensors(key)):
        got = pb.tensor(a, dtype=pb.float64)[k]
        assert got.shape == want.shape
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("shape,key", KEYS, ids=IDS)
def test_get_from_strided(shape, key):
    a = data(shape)
    big = np.full([2 * s for s in shape], -1.0)
    window = big[(..., *(slice(None, None, -2) for _ in shape))]
    window[...] = a
    np.testing.assert_array_equal(pb.asarray(window)[as_tensors(key)].numpy(), a[np_key(key)])
    np.testing.assert_array_equal(pb.asarray(a.T.copy()).T[key].numpy(), a[np_key(key)])


@pytest.mark.parametrize("shape,key", KEYS, ids=IDS)
def test_gradient_of_get(shape, key):
    a = data(shape)
    x = pb.tensor(a, dtype=pb.float64, requires_grad=True)
    y = x[key]
    w = normal(size=y.shape)
    (y * pb.asarray(w)).sum().backward()
    want = np.zeros(shape)
    np.add.at(want, np_key(key), w)
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape,key", KEYS, ids=IDS)
def test_second_order_and_jvp_of_get(shape, key):
    a = data(shape)
    v = normal(size=shape)

    def f(x):
        return (x[key] ** 3).sum()

    _, t = pb.jvp(lambda x: x[key], (pb.asarray(a),), (pb.asarray(v),))
    np.testing.assert_array_equal(t.numpy(), v[np_key(key)])
    times = np.zeros(shape)
    np.add.at(times, np_key(key), 1.0)
    np.testing.assert_allclose(pb.grad(lambda x: pb.grad(f)(x).sum())(pb.asarray(a)).numpy(), 6 * a * times, rtol=1e-12)


@pytest.mark.parametrize("shape,key", KEYS, ids=IDS)
def test_set(shape, key):
    place = data(shape)[np_key(key)].shape
    for value in (7.0, normal(size=place), normal(size=place[-1:]), normal(size=(1, 1, *place))):
        a = data(shape)
        a[np_key(key)] = np.broadcast_to(np.reshape(value, np.shape(value)[-len(place) :] if place else ()), place)
        for k in (key, as_tensors(key)):
            x = pb.tensor(data(shape), dtype=pb.float64)
            x[k] = pb.asarray(value) if isinstance(value, np.ndarray) else value
            np.testing.assert_array_equal(x.numpy(), a)


@pytest.mark.parametrize("shape,key", KEYS, ids=IDS)
def test_set_in_strided(shape, key):
    a = data(shape)
    b = data(shape).T.copy()
    value = normal(size=a[np_key(key)].shape)
    a[np_key(key)] = value
    x = pb.asarray(b).T
    x[key] = value
    np.testing.assert_array_equal(x.numpy(), a)
    np.testing.assert_array_equal(b.T, a)


def dense_set(x, key, v):
    """The same assignment as a linear map, by NumPy on positions: out = keep * x + place @ v."""
    where = np.full(x.shape, -1)
    where[key] = np.arange(v.size).reshape(v.shape)
    return where


@pytest.mark.parametrize("shape,key", KEYS, ids=IDS)
def test_gradient_of_set(shape, key):
    a = data(shape)
    v0 = normal(size=a[np_key(key)].shape)
    x = pb.tensor(a, dtype=pb.float64, requires_grad=True)
    v = pb.tensor(v0, requires_grad=True)
    y = x * 2.0
    y[key] = v * 3.0
    w = normal(size=shape)
    (y * y * pb.asarray(w)).sum().backward()
    at = dense_set(a, np_key(key), v0)
    want = np.asarray(2 * a)
    want[np_key(key)] = 3 * v0
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-14)
    gy = np.asarray(2 * want * w)
    gv = np.zeros(v0.size)
    gv[at[at >= 0]] = 3 * gy[at >= 0]
    np.testing.assert_allclose(gradient(x), np.where(at >= 0, 0, 2 * gy), rtol=1e-12)
    np.testing.assert_allclose(gradient(v), gv.reshape(v0.shape), rtol=1e-12)


@pytest.mark.parametrize("shape,key", KEYS[::3], ids=IDS[::3])
def test_jvp_and_second_order_of_set(shape, key):
    a = data(shape)
    v0 = normal(size=a[np_key(key)].shape)
    ta, tv = normal(size=shape), normal(size=v0.shape)

    def f(x, v):
        y = x * x
        y[key] = v * v * v
        return y

    _, t = pb.jvp(f, (pb.asarray(a), pb.asarray(v0)), (pb.asarray(ta), pb.asarray(tv)))
    want = np.asarray(2 * a * ta)
    want[np_key(key)] = 3 * v0**2 * tv
    np.testing.assert_allclose(t.numpy(), want, rtol=1e-12, atol=1e-12)

    def g(x, v):
        gx, gv = pb.grad(lambda x, v: (f(x, v) ** 2).sum(), argnums=(0, 1))(x, v)
        return gx.sum() + gv.sum()

    hx, hv = pb.grad(g, argnums=(0, 1))(pb.asarray(a), pb.asarray(v0))
    at = dense_set(a, np_key(key), v0)
    won = np.zeros(v0.size)
    won[at[at >= 0]] = 30
    np.testing.assert_allclose(hx.numpy(), np.where(at >= 0, 0, 12 * a**2), rtol=1e-12)
    np.testing.assert_allclose(hv.numpy(), won.reshape(v0.shape) * v0**4, rtol=1e-12)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16"]
)
def test_dtypes(dtype):
    a = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    x = pb.tensor(a)
    np.testing.assert_array_equal(x[[2, 0], 1:].numpy(), a[[2, 0], 1:])
    x[[0, 2], [1, 1]] = 1
    a[[0, 2], [1, 1]] = 1
    x[MASK34] = 0
    a[MASK34] = 0
    np.testing.assert_array_equal(x.numpy(), a)


def test_bfloat16():
    x = pb.arange(6, dtype=pb.bfloat16)
    x[[1, 2]] = 0.5
    assert x[[2, 3]].tolist() == [0.5, 3.0]
    g = pb.tensor([1.0, 2.0], dtype=pb.bfloat16, requires_grad=True)
    g[[0, 0, 1]].sum().backward()
    assert g.grad.dtype == pb.bfloat16 and g.grad.tolist() == [2.0, 1.0]


def test_basic_indexing_is_a_view():
    x = pb.zeros((3, 4))
    y = x[1:, ::2]
    y[0, 1] = 5.0
    assert x[1, 2].item() == 5.0
    x[2, 0] = 3.0
    assert y[1, 0].item() == 3.0
    z = x[[0, 1]]
    z[0, 0] = 9.0
    assert x[0, 0].item() == 0.0


def test_last_write_wins():
    x = pb.zeros((3,), dtype=pb.float64)
    v = pb.tensor([1.0, 2.0, 3.0], dtype=pb.float64, requires_grad=True)
    x[[1, 1, 0]] = v
    assert x.tolist() == [3.0, 2.0, 0.0]
    x.sum().backward()
    assert v.grad.tolist() == [0.0, 1.0, 1.0]
    w = pb.tensor([1.0, float("nan"), 1.0], dtype=pb.float64)
    x = pb.zeros((3,), dtype=pb.float64)
    v.grad = None
    x[[1, 1, 0]] = v
    (x * w).sum().backward()
    assert v.grad.tolist()[0] == 0.0 and np.isnan(v.grad.tolist()[1])


def test_sparse_last_write_wins():
    x = pb.zeros((1000,), dtype=pb.float64)
    v = pb.tensor([1.0, 2.0, 3.0], dtype=pb.float64, requires_grad=True)
    x[[900, 7, 900]] = v
    x.sum().backward()
    assert v.grad.tolist() == [0.0, 1.0, 1.0] and x[900].item() == 3.0


def test_broadcast_value_gradient():
    x = pb.zeros((3, 4), dtype=pb.float64)
    v = pb.tensor([1.0, 2.0], dtype=pb.float64, requires_grad=True)
    x[[0, 2], 1:3] = v
    x[:, 0] = v[0]
    (x * pb.asarray(data((3, 4)))).sum().backward()
    assert v.grad.tolist() == [2.0 + 10 + 1 + 5 + 9, 3.0 + 11]


def test_assignment_of_overlapping_views():
    a = np.arange(6.0)
    x = pb.tensor(a, dtype=pb.float64)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3, 4]
    x[[0, 1, 2, 3, 4, 5]] = x[::-1]
    assert x.tolist() == [4, 3, 2, 1, 0, 0]


def test_augmented_assignment():
    x = pb.tensor([1.0, 2.0, 3.0], dtype=pb.float64, requires_grad=True)
    y = x * 1.0
    y[1:] *= x[:2]
    y[[0, 2]] += 10.0
    y[pb.asarray([True, False, False])] -= 1.0
    assert y.tolist() == [10.0, 2.0, 16.0]
    y.sum().backward()
    assert x.grad.tolist() == [1.0 + 2.0, 1.0 + 3.0, 2.0]


def test_chained_writes():
    x = pb.tensor([2.0, 3.0], dtype=pb.float64, requires_grad=True)
    h = pb.zeros((4,), dtype=pb.float64)
    h[0] = x[0]
    for i in range(3):
        h[i + 1] = h[i] * 2.0 + x[1]
    h[3].backward()
    assert h.tolist() == [2.0, 7.0, 17.0, 37.0]
    assert x.grad.tolist() == [8.0, 7.0]


def test_detached_value_cuts_the_gradient():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3.0
    y[0] = y.detach()[0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 3.0]


def test_iteration_and_contains():
    x = pb.asarray([[1, 2], [3, 4]])
    assert [r.tolist() for r in x] == [[1, 2], [3, 4]]
    assert 3 in x and 7 not in x
    a, b = pb.tensor([1.0, 2.0], requires_grad=True)
    assert (a * b).item() == 2.0
    with pytest.raises(TypeError, match="0-d"):
        iter(pb.asarray(1))


@pytest.mark.parametrize(
    "key,error,match",
    [
        ((0, 0, 0), IndexError, "3 indices for a tensor of 2 dimensions"),
        (3, IndexError, "index 3 is out of bounds for axis 0 with size 3"),
        (-4, IndexError, "index -4 is out of bounds for axis 0 with size 3"),
        ((0, 4), IndexError, "index 4 is out of bounds for axis 1 with size 4"),
        ([0, 3], IndexError, "index 3 is out of bounds for axis 0 with size 3"),
        ((slice(None), NPA([0, -5])), IndexError, "index -5 is out of bounds for axis 1 with size 4"),
        (2**70, IndexError, "cannot fit"),
        (1.0, IndexError, "a float is no index"),
        ("a", IndexError, "a str is no index"),
        ([0.5], IndexError, "an array of float32 is no index"),
        (NPA([1.0]), IndexError, "an array of float64 is no index"),
        ((..., ...), IndexError, "more than once"),
        (NPA([True, False]), IndexError, "a mask of size 2 stands at axis 0 of size 3"),
        (np.ones((3, 3), bool), IndexError, "a mask of size 3 stands at axis 1 of size 4"),
        ((NPA([0, 1]), NPA([0, 1, 2])), pb.ShapeError, "do not broadcast"),
        (slice(None, None, 0), ValueError, "zero"),
        (NPA([2**63 + 1], dtype=np.uint64), IndexError, "index 9223372036854775809 is out of bounds"),
    ],
    ids=str,
)
def test_errors(key, error, match):
    x = pb.zeros((3, 4))
    with pytest.raises(error, match=match):
        x[key]
    with pytest.raises(error, match=match):
        x[key] = 0.0
    assert x.tolist() == [[0.0] * 4] * 3


def test_assignment_errors():
    x = pb.zeros((3, 4))
    with pytest.raises(pb.ShapeError, match="does not fit the selection of shape"):
        x[0] = pb.zeros((3,))
    with pytest.raises(pb.ShapeError, match="does not fit the selection of shape"):
        x[[0, 1]] = pb.zeros((3, 4))
    with pytest.raises(pb.DTypeError, match="float value cannot be written"):
        pb.zeros((3,), dtype=pb.int64)[[0]] = pb.zeros((1,))
    with pytest.raises(TypeError, match="cannot be deleted"):
        del x[0]
    leaf = pb.zeros((3,))
    leaf.requires_grad = True
    for key in (0, [0], slice(None), ...):
        with pytest.raises(pb.GraphError, match="leaf that requires grad cannot be written in place"):
            leaf[key] = 1.0
    with pb.no_grad():
        leaf[[0]] = 1.0
    assert leaf.tolist() == [1.0, 0.0, 0.0]
    wide = pb.broadcast_to(pb.zeros((1, 4)), (3, 4))
    for key in (0, [0]):
        if key == [0]:
            with pytest.raises(pb.ShapeError, match="share one address"):
                wide[key] = 1.0
    with pytest.raises(IndexError, match="out of bounds for axis 0 with size 0"):
        pb.zeros((0,))[0]


# ---- functions


def test_take():
    a = normal(size=(3, 4, 5))
    x = pb.asarray(a)
    for axis in (0, 1, -1):
        for index in (np.array([0, 2, -1, 2]), np.array([[1], [0]]), np.array(1), np.array([], int)):
            np.testing.assert_array_equal(pb.take(x, index, axis=axis).numpy(), np.take(a, index, axis=axis))
    np.testing.assert_array_equal(pb.take(x, pb.asarray([0, 59])).numpy(), np.take(a, [0, 59]))
    with pytest.raises(IndexError, match="take: index 3 is out of bounds for axis 0 with size 3"):
        pb.take(x, pb.asarray([3]), axis=0)
    with pytest.raises(pb.DTypeError, match="indices must be integers"):
        pb.take(x, pb.asarray([0.0]), axis=0)
    with pytest.raises(pb.DTypeError, match="indices must be integers"):
        pb.take(x, pb.asarray([True]), axis=0)


def test_embedding():
    w = pb.tensor(data((5, 3)), dtype=pb.float64, requires_grad=True)
    i = pb.asarray([[0, 4, 4], [-1, 2, 0]])
    y = pb.embedding(i, w)
    np.testing.assert_array_equal(y.numpy(), data((5, 3))[i.numpy()])
    y.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), np.array([2.0, 0, 1, 0, 3])[:, None] * np.ones(3))


def test_index_written_after_use():
    w = pb.tensor(data((5, 3)), requires_grad=True)
    i = pb.asarray([0, 1])
    y = pb.take(w, i, axis=0)
    i[0] = 2
    with pytest.raises(pb.GraphError, match="modified in place"):
        y.sum().backward()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take_along_axis(axis):
    a = normal(size=(3, 4, 5))
    order = np.argsort(a, axis=axis)
    x = pb.tensor(a, requires_grad=True, dtype=pb.float64)
    y = pb.take_along_axis(x, pb.asarray(order), axis=axis)
    np.testing.assert_array_equal(y.numpy(), np.sort(a, axis=axis))
    w = normal(size=a.shape)
    (y * y * pb.asarray(w)).sum().backward()
    want = np.zeros_like(a)
    np.put_along_axis(want, order, 2 * np.sort(a, axis=axis) * w, axis=axis)
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-12)
    one = np.take(order, [0], axis=axis) - a.shape[axis]
    np.testing.assert_array_equal(
        pb.take_along_axis(x, pb.asarray(one), axis=axis).numpy(), a.min(axis=axis, keepdims=True)
    )


def test_take_along_axis_broadcasts_and_checks():
    a = normal(size=(3, 4))
    i = np.array([[2, 0, 0]])
    np.testing.assert_array_equal(
        pb.take_along_axis(pb.asarray(a), pb.asarray(i), axis=1).numpy(), np.take_along_axis(a, i, axis=1)
    )
    with pytest.raises(pb.ShapeError, match="as many dimensions"):
        pb.take_along_axis(pb.asarray(a), pb.asarray([0]), axis=1)
    with pytest.raises(IndexError, match="take_along_axis: index 4 is out of bounds for axis 1 with size 4"):
        pb.take_along_axis(pb.asarray(a), pb.asarray([[4]]), axis=1)
    with pytest.raises(pb.ShapeError, match="do not broadcast"):
        pb.take_along_axis(pb.asarray(a), pb.asarray([[0], [0]]), axis=1)


@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_add(axis):
    a = normal(size=(3, 4))
    i = RNG.integers(-3, 3, size=(3, 4) if axis == 1 else (6, 4))
    v = normal(size=i.shape)
    want = a.copy()
    at = list(np.indices(i.shape))
    at[axis] = i
    np.add.at(want, tuple(at), v)
    x, t = (pb.tensor(k, dtype=pb.float64, requires_grad=True) for k in (a, v))
    y = pb.scatter_add(x, pb.asarray(i), t, axis=axis)
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-12)
    w = normal(size=a.shape)
    (y * pb.asarray(w)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), w)
    np.testing.assert_array_equal(t.grad.numpy(), w[tuple(at)])
    n = pb.scatter_add(pb.zeros((3, 4), dtype=pb.int32), pb.asarray(i), 1, axis=axis)
    count = np.zeros((3, 4), int)
    np.add.at(count, tuple(at), 1)
    np.testing.assert_array_equal(n.numpy(), count)
    assert n.dtype == pb.int32


def test_scatter_add_errors():
    x = pb.zeros((3, 4))
    with pytest.raises(pb.ShapeError, match="as many dimensions"):
        pb.scatter_add(x, pb.asarray([0]), x, axis=0)
    with pytest.raises(pb.ShapeError, match=r"do not fit the indices|do not broadcast"):
        pb.scatter_add(x, pb.asarray([[0]]), pb.zeros((3, 3)), axis=0)
    with pytest.raises(pb.DTypeError, match="higher kind"):
        pb.scatter_add(pb.zeros((3, 4), dtype=pb.int64), pb.asarray([[0]]), pb.zeros((1, 4)), axis=0)
    with pytest.raises(pb.ShapeError, match="larger than x"):
        pb.scatter_add(pb.zeros((3, 1)), pb.zeros((2, 4), dtype=pb.int64), pb.zeros((2, 4)), axis=0)
    with pytest.raises(pb.DTypeError, match="cannot be added"):
        pb.scatter_add(
            pb.zeros((3, 1), dtype=pb.bool), pb.zeros((2, 1), dtype=pb.int64), pb.zeros((2, 1), dtype=pb.bool), axis=0
        )


def test_the_same_bits_for_any_thread_count():
    w = pb.asarray(normal(size=(200, 64)).astype(np.float32))
    i = pb.asarray(RNG.integers(0, 200, size=(300, 50)))
    g = pb.asarray(normal(size=(300, 50, 64)).astype(np.float32))
    flat = pb.asarray(RNG.integers(0, 50, size=500_000))
    v = pb.asarray(normal(size=500_000).astype(np.float32))
    found = []
    before = pb.get_num_threads()
    try:
        for n in (1, 2, 3):
            pb.set_num_threads(n)
            grad = pb.grad(lambda w: (pb.take(w, i, axis=0) * g).sum())(w)
            found.append((grad.tobytes(), pb.scatter_add(pb.zeros((50,)), flat, v, axis=0).tobytes()))
    finally:
        pb.set_num_threads(before)
    assert found[0] == found[1] == found[2]
