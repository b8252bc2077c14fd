"""Scaled dot-product attention, against NumPy in float64, finite differences and forward mode."""

import numpy as np
import pytest

import pullback as pb

attention = pb.scaled_dot_product_attention


def close(got, want, tol=1e-12):
    got = np.asarray(got.numpy() if isinstance(got, pb.Tensor) else got, dtype=np.float64)
    want = np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape
    err = np.abs(got - want) / np.maximum(1.0, np.abs(want))
    assert got.size == 0 or np.max(err) <= tol, f"max error {np.max(err)}"


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def reference(q, k, v, mask=None, causal=False, scale=None):
    s = np.matmul(q, np.swapaxes(k, -1, -2)) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        s = np.where(np.arange(s.shape[-2])[:, None] >= np.arange(s.shape[-1]), s, -np.inf)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    top = s.max(-1, keepdims=True)
    e = np.where(np.isneginf(top), 0.0, np.exp(s - np.where(np.isneginf(top), 0.0, top)))
    total = e.sum(-1, keepdims=True)
    return np.matmul(e / np.where(total == 0, 1.0, total), v)


def inputs(lead=(2, 3), queries=5, keys=7, width=4, out=6):
    return draw(*lead, queries, width), draw(*lead, keys, width, seed=1), draw(*lead, keys, out, seed=2)


MASK = np.random.default_rng(3).uniform(size=(5, 7)) > 0.4
OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "bool mask": {"mask": MASK},
    "float mask": {"mask": draw(3, 1, 7, seed=4)},
    "mask and causal": {"mask": MASK, "causal": True},
    "scale": {"scale": 0.3},
    "key padding": {"mask": np.arange(7) < np.array([7, 3, 0])[:, None, None]},
}


def call(q, k, v, kw, f=attention):
    kw = {a: pb.asarray(b) if isinstance(b, np.ndarray) else b for a, b in kw.items()}
    return f(q, k, v, **kw)


@pytest.mark.parametrize("dtype,tol", [("float32", 2e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("name", OPTIONS)
def test_forward(name, dtype, tol):
    kw = OPTIONS[name]
    q, k, v = (x.astype(dtype) for x in inputs())
    got = call(*[pb.asarray(x) for x in (q, k, v)], kw)
    close(got, reference(*[x.astype(np.float64) for x in (q, k, v)], **kw), tol)


@pytest.mark.parametrize("dtype,tol", [("float32", 3e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("lengths", [(1, 1), (3, 3), (64, 64), (65, 130), (200, 33), (130, 130)])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths(lengths, dtype, tol, causal):
    x = [v.astype(dtype) for v in inputs((2,), *lengths, 16, 16)]
    t = [pb.tensor(v, requires_grad=True) for v in x]
    y = attention(*t, causal=causal)
    wide = [v.astype(np.float64) for v in x]
    close(y.detach(), reference(*wide, causal=causal), tol)
    c = draw(*y.shape, seed=9)
    (y * pb.asarray(c.astype(dtype))).sum().backward()
    q, k, v = wide
    s = np.matmul(q, np.swapaxes(k, -1, -2)) / 4
    if causal:
        s = np.where(np.arange(s.shape[-2])[:, None] >= np.arange(s.shape[-1]), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = np.matmul(c, np.swapaxes(v, -1, -2))
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / 4
    close(t[0].grad, np.matmul(ds, k), 4 * tol)
    close(t[1].grad, np.matmul(np.swapaxes(ds, -1, -2), q), 4 * tol)
    close(t[2].grad, np.matmul(np.swapaxes(p, -1, -2), c), 4 * tol)


def test_leading_axes_broadcast():
    q, k, v = draw(2, 3, 5, 4), draw(3, 7, 4, seed=1), draw(1, 1, 7, 6, seed=2)
    k4 = np.broadcast_to(k, (2, 3, 7, 4))
    v4 = np.broadcast_to(v, (2, 3, 7, 6))
    t = [pb.tensor(x, requires_grad=True) for x in (q, k, v)]
    y = attention(*t)
    close(y.detach(), reference(q, k4, v4))
    y.sum().backward()
    for x in t:
        assert x.grad.shape == x.shape


def test_strided_inputs():
    q, k, v = (np.swapaxes(x, 1, 2) for x in (draw(2, 5, 3, 4), draw(2, 7, 3, 4, seed=1), draw(2, 7, 3, 4, seed=2)))
    close(attention(pb.asarray(q), pb.asarray(k), pb.asarray(v), causal=True), reference(q, k, v, causal=True))


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_of_both_orders_and_forward_mode(name):
    kw = OPTIONS[name]
    x = inputs((3,), 5, 7, 2, 2)
    c = pb.asarray(draw(3, 5, 2, seed=9))

    def loss(*a):
        y = call(*a, kw)
        return pb.sum(c * y + y * y)

    def gradient(at, graph=False):
        t = [pb.tensor(v, requires_grad=True) for v in at]
        return t, pb.gradients(loss(*t), t, create_graph=graph)

    _, first = gradient(x)
    t, graph = gradient(x, graph=True)
    ways = [draw(*v.shape, seed=20 + i) for i, v in enumerate(x)]
    up = [v + 1e-5 * w for v, w in zip(x, ways, strict=True)]
    down = [v - 1e-5 * w for v, w in zip(x, ways, strict=True)]
    slope = (loss(*[pb.asarray(v) for v in up]).item() - loss(*[pb.asarray(v) for v in down]).item()) / 2e-5
    along = sum(float((g.numpy() * w).sum()) for g, w in zip(first, ways, strict=True))
    assert abs(slope - along) <= 1e-7 * max(1.0, abs(along))
    for a, b in zip(first, graph, strict=True):
        close(b.detach(), a.numpy(), 1e-12)
    second = pb.gradients(
        sum((pb.sum(g * pb.asarray(w)) for g, w in zip(graph, ways, strict=True)), pb.asarray(0.0)), t
    )
    for got, a, b in zip(second, gradient(up)[1], gradient(down)[1], strict=True):
        close(got, (a.numpy() - b.numpy()) / 2e-5, 1e-6)
    _, pushed = pb.jvp(loss, tuple(pb.asarray(v) for v in x), tuple(pb.asarray(w) for w in ways))
    assert abs(pushed.item() - along) <= 1e-11 * max(1.0, abs(along))


def test_a_query_that_attends_to_nothing_gives_zero():
    x = [pb.tensor(v, requires_grad=True) for v in inputs((2,), 3, 4, 4, 4)]
    for mask in (np.zeros((3, 4), dtype=bool), np.full((3, 4), -np.inf)):
        y = attention(*x, pb.asarray(mask))
        assert y.detach().numpy().tolist() == np.zeros((2, 3, 4)).tolist()
        for v in x:
            v.grad = None
        y.sum().backward()
        for v in x:
            assert v.grad.numpy().tolist() == np.zeros(v.shape).tolist()
    empty = attention(pb.ones((2, 3, 4)), pb.ones((2, 0, 4)), pb.ones((2, 0, 5)))
    assert empty.tolist() == np.zeros((2, 3, 5)).tolist()
    assert attention(pb.ones((0, 3, 4)), pb.ones((0, 2, 4)), pb.ones((0, 2, 5))).shape == (0, 3, 5)


def test_nan_stays_nan():
    q, k, v = inputs((1,), 3, 4, 4, 4)
    q[0, 1, 0] = np.nan
    y = attention(pb.asarray(q), pb.asarray(k), pb.asarray(v)).numpy()
    assert np.isnan(y[0, 1]).all() and np.isfinite(y[0, [0, 2]]).all()


def test_dropout():
    q, k = pb.zeros((1, 200, 4), dtype=pb.float64), pb.zeros((1, 100, 4), dtype=pb.float64)
    v = pb.asarray(np.eye(100)[None])
    y = attention(q, k, v, dropout=0.25).numpy()
    assert set(np.round(np.unique(y), 12)) == {0.0, np.round(0.01 / 0.75, 12)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    a, b = (attention(q, k, v, dropout=0.25, rng=pb._core.Generator(3)).tolist() for _ in range(2))
    assert a == b


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 7, 4, 6), (1, 2, 64, 64, 32, 32), (2, 1, 130, 130, 16, 48), (1, 1, 65, 200, 7, 3)]
)
def test_dropout_of_the_blocked_kernel_is_that_of_the_composition(shape, causal):
    b, h, queries, keys, width, out = shape
    x = [v.astype(np.float32) for v in inputs((b, h), queries, keys, width, out)]
    c = pb.asarray(draw(b, h, queries, out, seed=9).astype(np.float32))

    def composed(q, k, v, rng):
        s = pb.matmul(q, k.mT) / np.sqrt(width)
        if causal:
            s = pb.where(pb.expand_dims(pb.arange(queries), 1) >= pb.arange(keys), s, -np.inf)
        return pb.matmul(pb.dropout(pb.softmax(s), 0.3, rng=rng), v)

    def run(f, graph):
        t = [pb.tensor(v, requires_grad=True) for v in x]
        y = f(*t)
        return [y.detach(), *(g.detach() for g in pb.gradients(pb.sum(y * c), t, create_graph=graph))]

    want = run(lambda *t: composed(*t, pb._core.Generator(3)), False)
    for graph in (False, True):
        got = run(lambda *t: attention(*t, causal=causal, dropout=0.3, rng=pb._core.Generator(3)), graph)
        for a, w in zip(got, want, strict=True):
            close(a, w.numpy(), 2e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_heads_are_read_and_written_where_they_lie(causal):
    """The parts of one projection, permuted: the same bits as from contiguous operands, gradients joined again."""
    b, t, h, d = 2, 70, 3, 20
    x = pb.tensor(draw(b, t, 3 * h * d).astype(np.float32), requires_grad=True)
    c = pb.asarray(draw(b, h, t, d, seed=1).astype(np.float32))

    def heads(part):
        return pb.permute_dims(pb.reshape(part, (b, t, h, d)), (0, 2, 1, 3))

    y = attention(*(heads(p) for p in pb.split(x, 3, axis=-1)), causal=causal)
    pb.sum(y * c).backward()
    leaves = [
        pb.tensor(np.ascontiguousarray(heads(p).numpy()), requires_grad=True) for p in pb.split(x.detach(), 3, axis=-1)
    ]
    z = attention(*leaves, causal=causal)
    pb.sum(z * c).backward()
    assert y.detach().numpy().tobytes() == z.detach().numpy().tobytes()
    want = np.concatenate([np.swapaxes(v.grad.numpy(), 1, 2).reshape(b, t, h * d) for v in leaves], -1)
    assert x.grad.numpy().tobytes() == want.tobytes()


def test_backward_with_dropout_keeps_no_probabilities():
    x = [pb.tensor(v.astype(np.float32), requires_grad=True) for v in inputs((2, 2), 256, 256, 16, 16)]
    y = attention(*x, causal=True, dropout=0.1)
    assert pb.memory.saved_bytes(pb.sum(y)) <= 4 * (4 * 4 * 256 * 16 + 4 * 256)


def test_causal_rows_do_not_see_the_future():
    q, k, v = inputs((1,), 6, 6, 4, 4)
    before = attention(*[pb.asarray(x) for x in (q, k, v)], causal=True).numpy()
    k[0, 4:] = 100.0
    v[0, 4:] = -100.0
    after = attention(*[pb.asarray(x) for x in (q, k, v)], causal=True).numpy()
    assert before[0, :4].tolist() == after[0, :4].tolist()
    assert before[0, 4:].tolist() != after[0, 4:].tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types(dtype):
    d = getattr(pb, dtype)
    x = [pb.tensor(v, dtype=d, requires_grad=True) for v in inputs((2,), 5, 7, 4, 4)]
    y = attention(*x)
    assert y.dtype == d
    close(y.detach().astype(pb.float64), reference(*[v.detach().astype(pb.float64).numpy() for v in x]), 3e-2)
    y.sum().backward()
    assert all(v.grad.dtype == d for v in x)


def test_same_bits_for_any_number_of_threads():
    x = [v.astype(np.float32) for v in inputs((4, 4), 96, 96, 32, 32)]

    def run(threads):
        pb.set_num_threads(threads)
        t = [pb.tensor(v, requires_grad=True) for v in x]
        y = attention(*t, causal=True)
        pb.sum(y * y).backward()
        return [v.numpy().tobytes() for v in (y.detach(), *(u.grad for u in t))]

    assert run(1) == run(2) == run(3)


O = pb.ones  # noqa: E741
ERRORS = [
    (lambda: attention(O((4,)), O((3, 4)), O((3, 4))), pb.ShapeError, r"must have shape \(\.\.\., length, width\)"),
    (lambda: attention(O((2, 4)), O((3, 5)), O((3, 4))), pb.ShapeError, "different widths"),
    (lambda: attention(O((2, 4)), O((3, 4)), O((2, 4))), pb.ShapeError, "different lengths"),
    (
        lambda: attention(O((2, 4)), O((3, 4)), O((3, 4)), O((2, 3)).astype(pb.int64)),
        TypeError,
        "mask must be bool or floating",
    ),
    (lambda: attention(O((2, 4)), O((3, 4)), O((3, 4)), O((2, 5)) > 0), pb.ShapeError, "broadcast"),
    (lambda: attention(O((2, 4)).astype(pb.int64), O((3, 4)), O((3, 4))), TypeError, "must be floating"),
    (lambda: attention(O((2, 4)), O((3, 4)), O((3, 4)), dropout=1.0), ValueError, r"dropout must be in \[0, 1\)"),
    (lambda: attention(O((2, 4)), O((3, 4)), O((3, 4)), saved=3), ValueError, "saved= takes 4 or 8"),
    (lambda: attention(O((2, 2, 4)), O((3, 3, 4)), O((3, 3, 4))), pb.ShapeError, "broadcast"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors(number):
    f, kind, message = ERRORS[number]
    with pytest.raises(kind, match=message) as e:
        f()
    assert "help:" in str(e.value)
