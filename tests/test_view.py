"""Views and writes in place: shapes against NumPy, gradients as PyTorch defines them."""

import gc
import weakref

import numpy as np
import pytest

import pullback as pb

RNG = np.random.default_rng(1)


def leaf(a):
    return pb.tensor(np.asarray(a, dtype=np.float64), requires_grad=True)


A = RNG.normal(size=(2, 3, 4))

#: (name, function of pb or np, expected to share memory)
VIEWS = [
    ("reshape", lambda m, x: m.reshape(x, (4, 6)), True),
    ("reshape_infer", lambda m, x: m.reshape(x, (-1, 2)), True),
    ("reshape_of_transposed", lambda m, x: m.reshape(m.permute_dims(x, (1, 0, 2)), (6, 4)), False),
    ("reshape_of_strided", lambda m, x: m.reshape(x[:, :, ::2], (2, 3, 2, 1)), True),
    ("permute", lambda m, x: m.permute_dims(x, (2, 0, 1)), True),
    ("expand", lambda m, x: m.expand_dims(x, axis=-1), True),
    ("squeeze", lambda m, x: m.squeeze(m.expand_dims(x, axis=1), axis=1), True),
    ("broadcast", lambda m, x: m.broadcast_to(x[:, :1], (5, 2, 3, 4)), True),
    ("flip", lambda m, x: m.flip(x, axis=(0, 2)), True),
    ("flip_all", lambda m, x: m.flip(x), True),
    ("moveaxis", lambda m, x: m.moveaxis(x, 0, -1), True),
    ("moveaxes", lambda m, x: m.moveaxis(x, (0, 1), (2, 0)), True),
    ("transpose", lambda m, x: m.matrix_transpose(x), True),
    ("slice", lambda m, x: x[1, ::-1, 1:3], True),
    ("chain", lambda m, x: m.flip(m.permute_dims(x[:, 1:], (2, 0, 1))[::2], axis=1)[..., None], True),
    ("slice_of_broadcast", lambda m, x: m.broadcast_to(x, (3, 2, 3, 4))[1], True),
    ("part_of_broadcast", lambda m, x: m.broadcast_to(x[:1, :1], (2, 3, 4))[0, 1:], True),
    ("concat", lambda m, x: m.concat([x, x[:, ::-1], m.permute_dims(x, (0, 1, 2))], axis=1), False),
    ("concat_flat", lambda m, x: m.concat([x, x], axis=None), False),
    ("stack", lambda m, x: m.stack([x, x[::-1]], axis=-1), False),
    ("roll", lambda m, x: m.roll(x, (1, -2), axis=(1, 2)), False),
    ("roll_flat", lambda m, x: m.roll(x, 5), False),
    ("tile", lambda m, x: m.tile(x, (2, 1, 3)), False),
    ("tile_more", lambda m, x: m.tile(x, (2, 1, 1, 2)), False),
    ("repeat", lambda m, x: m.repeat(x, 2, axis=1), False),
    ("unstack", lambda m, x: m.unstack(x, axis=1)[2], False),
    ("tril", lambda m, x: m.tril(x, k=1), False),
    ("triu", lambda m, x: m.triu(x, k=-1), False),
]
IDS = [v[0] for v in VIEWS]


@pytest.mark.parametrize("name,f,shares", VIEWS, ids=IDS)
def test_values_and_memory(name, f, shares):
    x = pb.tensor(A)
    y = f(pb, x)
    np.testing.assert_array_equal(y.numpy(), f(np, A))
    assert np.shares_memory(x.numpy(), y.numpy()) == shares


@pytest.mark.parametrize("name,f,shares", VIEWS, ids=IDS)
def test_gradients_of_every_order(name, f, shares):
    out = f(np, A)
    w, v = RNG.normal(size=out.shape), RNG.normal(size=A.shape)
    x = leaf(A)
    (f(pb, x) * pb.asarray(w)).sum().backward()
    position = np.arange(A.size, dtype=float).reshape(A.shape) + 1
    source = f(np, position)  # every op here moves elements or writes zeros
    want = np.bincount(source.astype(int).ravel(), weights=w.ravel(), minlength=A.size + 1)[1:].reshape(A.shape)
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-12, atol=1e-14)
    _primal, t = pb.jvp(lambda x: f(pb, x), (pb.asarray(A),), (pb.asarray(v),))
    np.testing.assert_array_equal(t.numpy(), f(np, v))
    second = pb.hvp(lambda x: (f(pb, x) ** 3 * pb.asarray(w)).sum(), (pb.asarray(A),), (pb.asarray(v),))
    second = second[0] if isinstance(second, tuple) else second
    np.testing.assert_allclose(second.numpy(), 6 * A * v * want, rtol=1e-9, atol=1e-12)


def test_parts_of_a_split_share_one_node():
    w = pb.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], requires_grad=True)
    (pb.split(w, [2, 4])[1] ** 2).sum().backward()  # the other parts take no part
    assert w.grad.tolist() == [0, 0, 6, 8, 0, 0]

    def f(t):
        a, b, c = pb.split(t, [2, 4])
        return (b**3).sum() + (a[:1] * c[1:]).sum()

    want = np.diag([0.0, 0, 18, 24, 0, 0])
    want[0, 5] = want[5, 0] = 1
    np.testing.assert_array_equal(pb.hessian(f)(w.detach()).numpy(), want)
    out, tangent = pb.jvp(lambda t: pb.split(t, [2, 2, 4])[3], (w.detach(),), (2 * pb.ones(6),))
    assert out.tolist() == [5, 6] and tangent.tolist() == [2, 2]
    w.grad = None
    pb.split(w, [0, 9])[1].sum().backward()  # cuts at and past the ends
    assert w.grad.tolist() == [1] * 6
    w.grad = None
    right = pb.split(pb.reshape(w, (2, 3)), [1], axis=-1)[1]
    (right * pb.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert w.grad.tolist() == [0, 1, 2, 0, 3, 4]


def test_writes_to_and_under_the_parts_of_a_split():
    w = pb.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = w * 1.0
    a, _ = pb.split(x, [2])
    a *= 10.0
    (x * x).sum().backward()
    assert x.tolist() == [10, 20, 3] and w.grad.tolist() == [200, 400, 6]
    w.grad = None
    x = w * 1.0
    a, _ = pb.split(x, [2])
    x *= 2.0
    (a * a).sum().backward()
    assert w.grad.tolist() == [8, 16, 0]


def test_split():
    x = leaf(np.arange(6.0))
    a, b, c = pb.split(x, 3)
    d, e = pb.split(x, [4])
    (a * 2 + b * c).sum().backward()
    assert x.grad.tolist() == [2, 2, 4, 5, 2, 3]
    assert d.shape == (4,) and e.shape == (2,)
    with pytest.raises(pb.ShapeError, match="do not split into 4 equal parts"):
        pb.split(x, 4)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("widths", [1, (0, 2), ((1, 2), (0, 0), (3, 1)), ((2, 1),), ((0, 0), (4, 0), (0, 5))])
def test_pad(mode, widths):
    kw = {"mode": mode}
    x = leaf(A)
    y = pb.pad(x, widths, **kw, value=1.5) if mode == "constant" else pb.pad(x, widths, **kw)
    want = np.pad(A, widths, **kw, constant_values=1.5) if mode == "constant" else np.pad(A, widths, **kw)
    np.testing.assert_array_equal(y.numpy(), want)
    w = RNG.normal(size=want.shape)
    (y * pb.asarray(w)).sum().backward()
    source = np.pad(np.arange(A.size).reshape(A.shape) + 1, widths, **kw)
    grad = np.bincount(source.ravel(), weights=w.ravel(), minlength=A.size + 1)[1:].reshape(A.shape)
    np.testing.assert_allclose(x.grad.numpy(), grad, rtol=1e-12, atol=1e-14)


def test_pad_empty_and_dtypes():
    assert pb.pad(pb.zeros((0, 2)), 1, value=3).tolist() == [[3.0] * 4] * 2
    assert pb.pad(pb.asarray([True]), 1).tolist() == [False, True, False]
    assert pb.pad(pb.asarray(5), ()).item() == 5


ERRORS = [
    (lambda x: pb.pad(x, -1), pb.ShapeError, "negative width"),
    (lambda x: pb.pad(x, ((1, 1), (1, 1))), pb.ShapeError, "2 pairs of widths for 3 axes"),
    (lambda x: pb.pad(x, ((1, 2, 3),)), pb.ShapeError, "a pair of widths has 3 numbers"),
    (lambda x: pb.pad(x, 2**62), pb.ShapeError, "overflow"),
    (lambda x: pb.pad(x, 1, mode="mirror"), ValueError, "unknown mode 'mirror'"),
    (lambda x: pb.pad(x[:0], 1, mode="edge"), pb.ShapeError, "no elements to repeat"),
    (lambda x: pb.concat([]), ValueError, "nothing to join"),
    (lambda x: pb.concat([pb.asarray(1.0)]), pb.ShapeError, "0-d tensors have no axis"),
    (lambda x: pb.concat([x, x[0]]), pb.ShapeError, "shapes differ beside axis 0"),
    (lambda x: pb.concat([x, x], axis=3), pb.ShapeError, "axis 3 is out of range"),
    (lambda x: pb.stack([x, x[:1]]), pb.ShapeError, "shapes differ"),
    (lambda x: pb.reshape(x, (5, 5)), pb.ShapeError, "24 elements do not fit"),
    (lambda x: pb.reshape(x, (-1, -1)), pb.ShapeError, "at most one size may be -1"),
    (lambda x: pb.reshape(x, (-2, 3)), pb.ShapeError, "negative size"),
    (lambda x: pb.reshape(x, (2**40, 2**40)), pb.ShapeError, "overflows"),
    (lambda x: pb.permute_dims(x, (0, 1)), pb.ShapeError, "must name each of the dimensions once"),
    (lambda x: pb.permute_dims(x, (0, 1, 1)), pb.ShapeError, "named twice"),
    (lambda x: pb.squeeze(x, axis=0), pb.ShapeError, "only axes of size 1"),
    (lambda x: pb.broadcast_to(x, (2, 3, 5)), pb.ShapeError, "do not broadcast"),
    (lambda x: pb.broadcast_to(x, (4,)), pb.ShapeError, "smaller than the tensor"),
    (lambda x: pb.moveaxis(x, (0, 1), (0,)), pb.ShapeError, "different numbers of axes"),
    (lambda x: pb.moveaxis(x, (0, 0), (0, 1)), pb.ShapeError, "named twice"),
    (lambda x: pb.tile(x, (-1,)), pb.ShapeError, "negative number of repetitions"),
    (lambda x: pb.tile(x, (2**62, 2**62, 1)), pb.ShapeError, "overflows"),
    (lambda x: pb.repeat(x, -1, axis=0), ValueError, "negative"),
    (lambda x: pb.repeat(x, pb.asarray([1, 2, 3]), axis=0), pb.ShapeError, "one count, or one per element"),
    (lambda x: pb.repeat(x, 1.5, axis=0), pb.DTypeError, "counts must be integers"),
    (lambda x: pb.roll(x, (1, 2), axis=(0, 1, 2)), pb.ShapeError, "2 shifts for 3 axes"),
    (lambda x: pb.tril(x[0, 0]), pb.ShapeError, "at least 2 dimensions"),
]


@pytest.mark.parametrize("f,error,match", ERRORS, ids=[e[2] for e in ERRORS])
def test_errors(f, error, match):
    with pytest.raises(error, match=match):
        f(pb.asarray(A))


def test_methods():
    x = pb.asarray(A)
    assert x.reshape(6, 4).shape == x.reshape((6, 4)).shape == x.reshape([-1, 4]).shape == (6, 4)
    assert x.permute_dims(2, 0, 1).shape == x.permute_dims((2, 0, 1)).shape == (4, 2, 3)
    assert x.T.shape == (4, 3, 2) and x.mT.shape == (2, 4, 3)
    np.testing.assert_array_equal(x.repeat(pb.asarray([1, 0, 2]), axis=1).numpy(), A.repeat([1, 0, 2], axis=1))


# ---- writing in place


def test_write_through_a_view():
    x = leaf([1.0, 2.0, 3.0, 4.0])
    y = x * 2.0
    v = y[1:3]
    v *= 10.0
    assert y.tolist() == [2.0, 40.0, 60.0, 8.0]
    (y * y).sum().backward()
    assert x.grad.tolist() == [8.0, 1600.0, 2400.0, 32.0]


def test_write_to_the_base_is_seen_by_the_view():
    x = leaf([1.0, 2.0, 3.0])
    y = x * 1.0
    v = y[:2]
    y *= 3.0
    assert v.tolist() == [3.0, 6.0]
    v.sum().backward()
    assert x.grad.tolist() == [3.0, 3.0, 0.0]


def test_write_through_one_view_is_seen_by_another():
    x = leaf([1.0, 2.0, 3.0])
    y = x * 1.0
    a, b = y[:2], y.reshape(3, 1)[1:]
    a *= x[1:]
    assert b.tolist() == [[6.0], [3.0]]
    b.sum().backward()
    assert x.grad.tolist() == [0.0, 3.0, 3.0]


def test_view_of_a_view_of_a_flipped_base():
    x = leaf(np.arange(12.0).reshape(3, 4))
    y = x + 0.0
    v = pb.flip(y, axis=1).T[1:, ::2][::-1]
    v += pb.asarray([[100.0, 200.0]])
    want = np.arange(12.0).reshape(3, 4)
    w = np.flip(want, 1).T[1:, ::2][::-1]
    w += [[100.0, 200.0]]
    np.testing.assert_array_equal(y.numpy(), want)
    (y * pb.asarray(want)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), want)


def test_a_view_made_before_the_base_got_a_gradient():
    base = pb.zeros((3,), dtype=pb.float64)
    v = base[:2]
    w = leaf(5.0)
    base[0] = w * 2.0
    assert v.requires_grad
    (v * 3.0).sum().backward()
    assert w.grad.item() == 6.0


def test_a_stale_view_in_forward_mode():
    def f(w):
        base = pb.zeros((3,), dtype=pb.float64)
        v = base[:2]
        base[1] = w * w
        before = v * 2.0
        base[1] = 0.0
        return before.sum() + v.sum()

    out, t = pb.jvp(f, (pb.asarray(np.array(3.0)),), (pb.asarray(np.array(1.0)),))
    assert out.item() == 18.0 and t.item() == 12.0


def test_overwritten_values_lose_their_gradient():
    x = leaf([1.0, 2.0, 3.0])
    y = x * x
    y[1:] = 7.0
    (y * y).sum().backward()
    assert x.grad.tolist() == [4.0, 0.0, 0.0]


def test_infinite_cotangents_stay_inside_the_window():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    y[0] = 0.0
    (y * pb.asarray(np.array([np.inf, 1.0]))).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]


def test_second_order_through_writes():
    def f(x):
        y = x * x
        y[1:] *= x[:-1]
        y[0] = (y[2] + 0.0) * x[1]
        return (y * y).sum()

    def g(x):
        a, b, c = x[0] * 1.0, x[1] * 1.0, x[2] * 1.0
        p, q = b * b * a, c * c * b
        return (q * b) * (q * b) + p * p + q * q

    x = pb.asarray(np.array([0.7, -1.3, 0.4]))
    np.testing.assert_allclose(pb.grad(f)(x).numpy(), pb.grad(g)(x).numpy(), rtol=1e-12)
    np.testing.assert_allclose(pb.hessian(f)(x).numpy(), pb.hessian(g)(x).numpy(), rtol=1e-12)
    v = pb.asarray(np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(pb.jvp(f, (x,), (v,))[1].item(), (pb.grad(g)(x) * v).sum().item(), rtol=1e-12)


def test_leaf_is_protected():
    x = leaf([1.0, 2.0])
    for write in (lambda: x.__iadd__(1.0), lambda: x[:1].__imul__(2.0), lambda: x.__setitem__(0, 1.0)):
        with pytest.raises(pb.GraphError, match="a leaf that requires grad cannot be written in place"):
            write()
    with pb.no_grad():
        x += 1.0
        x[0] = 5.0
    assert x.tolist() == [5.0, 3.0] and x.is_leaf


def test_stale_saved_tensor():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    z = y * y
    y += 1.0
    with pytest.raises(pb.GraphError, match="modified in place after the forward"):
        z.sum().backward()
    y = x * 1.0
    z = y[1:] * y[:1]
    y[0] = 3.0
    with pytest.raises(pb.GraphError, match="modified in place after the forward"):
        z.sum().backward()


def test_a_write_that_harms_nothing_is_allowed():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    z = y + 3.0  # keeps nothing of y
    y *= 2.0
    (z.sum() + y.sum()).backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_in_place_op_that_reads_its_own_input():
    x = leaf([0.5, 2.0])
    y = x * 1.0
    y **= 3.0
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * np.array([0.5, 2.0]) ** 2, rtol=1e-14)
    x.grad = None
    y = x * 1.0
    y *= y
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 4.0]


def test_overlapping_views_refuse():
    wide = pb.broadcast_to(pb.zeros((1, 3)), (2, 3))
    with pytest.raises(pb.ShapeError, match="several elements of this view share one address"):
        wide += 1.0
    with pytest.raises(pb.ShapeError, match="several elements of this view share one address"):
        wide[:, 0] = 1.0
    wide[:0] = 1.0
    empty = pb.broadcast_to(pb.zeros((1, 0)), (2, 0))
    empty += 1.0


def test_in_place_shapes_and_dtypes():
    x = pb.zeros((3,))
    with pytest.raises(pb.ShapeError, match=r"shape of its target|do not broadcast"):
        x += pb.zeros((2, 3))
    i = pb.zeros((3,), dtype=pb.int64)
    with pytest.raises(pb.DTypeError, match="cannot hold in place"):
        i += 0.5
    i += pb.asarray([1, 2, 3], dtype=pb.int8)
    assert i.tolist() == [1, 2, 3]
    x += pb.ones((3,), dtype=pb.float64)
    assert x.dtype == pb.float32 and x.tolist() == [1.0, 1.0, 1.0]


def test_aliasing_operands():
    x = pb.arange(6, dtype=pb.float64)
    x[1:] += x[:-1]
    assert x.tolist() == [0, 1, 3, 5, 7, 9]
    x += x[::-1]
    assert x.tolist() == [9, 8, 8, 8, 8, 9]


def test_no_grad_write_keeps_the_graph():
    x = leaf([1.0, 2.0])
    y = x * 2.0
    with pb.no_grad():
        y[0] = 100.0
    assert y.tolist() == [100.0, 4.0]
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_detached_view_shares_memory_and_version():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    z = y * y
    y.detach()[0] = 5.0
    with pytest.raises(pb.GraphError, match="modified in place"):
        z.sum().backward()


def test_write_into_a_tensor_that_several_writes_fill():
    x = leaf(np.arange(4.0))
    out = pb.zeros((4, 2), dtype=pb.float64)
    for i in range(4):
        out[i, 0] = x[i]
        out[i, 1] = x[i] * x[i]
    (out * out).sum().backward()
    a = np.arange(4.0)
    np.testing.assert_allclose(x.grad.numpy(), 2 * a + 4 * a**3)


def test_views_do_not_leak():
    def use():
        w = leaf(np.ones(100))
        y = pb.zeros((100, 100), dtype=pb.float64)
        y[3] = w
        v = y[3:5]
        v *= 2.0
        y[[0, 1]] = v[:1]
        y.sum().backward()
        ref = weakref.ref(y)
        del y, v
        assert ref() is None

    use()
    gc.collect()
    before = pb._core.memory_stats()["current"]
    for _ in range(50):
        use()
    assert pb._core.memory_stats()["current"] == before
