"""The Row family: softmax, norms, orders, running sums; against NumPy in float64, differences, forward mode."""

import os
import subprocess
import sys

import numpy as np
import pytest

import pullback as pb


def close(got, want, tol=1e-12):
    got = np.asarray(got.numpy() if isinstance(got, pb.Tensor) else got, dtype=np.float64)
    want = np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape
    err = np.abs(got - want) / np.maximum(1.0, np.abs(want))
    assert got.size == 0 or np.max(err) <= tol, f"max error {np.max(err)}"


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def np_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def np_layer_norm(x, w=1.0, b=0.0, axes=(-1,), eps=1e-5):
    d = x - x.mean(axes, keepdims=True)
    return d / np.sqrt((d * d).mean(axes, keepdims=True) + eps) * w + b


def np_rms_norm(x, w=1.0, axes=(-1,), eps=1e-6):
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps) * w


def np_batch_norm(x, mean, var, w, b, eps=1e-5):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    m, v, w, b = (np.reshape(t, shape) for t in (mean, var, w, b))
    return (x - m) / np.sqrt(v + eps) * w + b


def np_group_norm(x, groups, w, b):
    rows = x.reshape(x.shape[0], groups, -1)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return np_layer_norm(rows).reshape(x.shape) * w.reshape(shape) + b.reshape(shape)


def weighted(f, shape, seed=9):
    """f made scalar: the sum of its result times fixed weights, squared once so that second derivatives exist."""
    c = draw(*shape, seed=seed)

    def scalar(*args):
        y = f(*args)
        return pb.sum(y * pb.asarray(c) + 0.3 * y * y)

    return scalar


# name: (function of tensors, its inputs)
CASES = {
    "softmax": (lambda x: pb.softmax(x), [draw(3, 5)]),
    "softmax, first axis": (lambda x: pb.softmax(x, axis=0), [draw(3, 4)]),
    "log_softmax": (lambda x: pb.log_softmax(x), [draw(3, 5)]),
    "log_softmax, middle axis": (lambda x: pb.log_softmax(x, 1), [draw(2, 3, 2)]),
    "layer_norm": (lambda x, w, b: pb.layer_norm(x, w, b), [draw(3, 6), draw(6, seed=1), draw(6, seed=2)]),
    "layer_norm, no weight": (lambda x: pb.layer_norm(x), [draw(2, 5)]),
    "layer_norm, two axes": (
        lambda x, w, b: pb.layer_norm(x, w, b, axis=(-2, -1)),
        [draw(2, 3, 2), draw(3, 2, seed=1), draw(3, 2, seed=2)],
    ),
    "rms_norm": (lambda x, w: pb.rms_norm(x, w), [draw(3, 6), draw(6, seed=1)]),
    "group_norm": (lambda x, w, b: pb.group_norm(x, 2, w, b), [draw(2, 4, 3), draw(4, seed=1), draw(4, seed=2)]),
    "group_norm, planes": (
        lambda x, w, b: pb.group_norm(x, 2, w, b),
        [draw(2, 4, 5, 4), draw(4, seed=1), draw(4, seed=2)],
    ),
    "group_norm, planes without weight": (lambda x: pb.group_norm(x, 1), [draw(2, 2, 17)]),
    "group_norm, planes with bias": (lambda x, b: pb.group_norm(x, 3, None, b), [draw(1, 3, 16), draw(3, seed=2)]),
    "batch_norm": (
        lambda x, w, b: pb.batch_norm(x, None, None, w, b, training=True),
        [draw(3, 2, 4), draw(2, seed=1), draw(2, seed=2)],
    ),
    "batch_norm, columns": (
        lambda x, w, b: pb.batch_norm(x, None, None, w, b, training=True),
        [draw(5, 3), draw(3, seed=1), draw(3, seed=2)],
    ),
    "batch_norm, evaluation": (
        lambda x, w, b: pb.batch_norm(x, pb.asarray(draw(2, seed=3)), pb.asarray(draw(2, seed=4) ** 2), w, b),
        [draw(3, 2, 4), draw(2, seed=1), draw(2, seed=2)],
    ),
    "cumulative_sum": (lambda x: pb.cumulative_sum(x, axis=1), [draw(3, 4)]),
    "cumulative_sum, initial": (lambda x: pb.cumulative_sum(x, axis=0, include_initial=True), [draw(3, 4)]),
    "sort": (lambda x: pb.sort(x, axis=0, descending=True), [draw(4, 3)]),
    "topk": (lambda x: pb.topk(x, 2)[0], [draw(3, 5)]),
}


def out_shape(f, inputs):
    return f(*[pb.asarray(x) for x in inputs]).shape


@pytest.mark.parametrize("name", CASES)
def test_gradients_against_finite_differences(name):
    f, inputs = CASES[name]
    g = weighted(f, out_shape(f, inputs))
    tensors = [pb.tensor(x, requires_grad=True) for x in inputs]
    g(*tensors).backward()
    for i, x in enumerate(inputs):
        numeric = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            steps = []
            for h in (1e-5, -1e-5):
                moved = [v.copy() for v in inputs]
                moved[i][at] += h
                steps.append(g(*[pb.asarray(v) for v in moved]).item())
            numeric[at] = (steps[0] - steps[1]) / 2e-5
        close(tensors[i].grad, numeric, 2e-8)


@pytest.mark.parametrize("name", CASES)
def test_fused_pull_is_the_graph_pull(name):
    f, inputs = CASES[name]
    g = weighted(f, out_shape(f, inputs))
    fused = [pb.tensor(x, requires_grad=True) for x in inputs]
    g(*fused).backward()
    graph = [pb.tensor(x, requires_grad=True) for x in inputs]
    g(*graph).backward(create_graph=True)
    for a, b in zip(fused, graph, strict=True):
        close(a.grad, b.grad.detach(), 1e-13)


@pytest.mark.parametrize("name", CASES)
def test_second_order_against_differences_of_gradients(name):
    f, inputs = CASES[name]
    g = weighted(f, out_shape(f, inputs))
    ways = [draw(*x.shape, seed=20 + i) for i, x in enumerate(inputs)]

    def gradient(at):
        t = [pb.tensor(x, requires_grad=True) for x in at]
        g(*t).backward()
        return [v.grad.numpy() for v in t]

    tensors = [pb.tensor(x, requires_grad=True) for x in inputs]
    first = pb.gradients(g(*tensors), tensors, create_graph=True)
    along = sum((pb.sum(a * pb.asarray(w)) for a, w in zip(first, ways, strict=True)), pb.asarray(0.0))
    second = pb.gradients(along, tensors)
    up = gradient([x + 1e-5 * w for x, w in zip(inputs, ways, strict=True)])
    down = gradient([x - 1e-5 * w for x, w in zip(inputs, ways, strict=True)])
    for got, a, b in zip(second, up, down, strict=True):
        close(got, (a - b) / 2e-5, 2e-7)


@pytest.mark.parametrize("name", CASES)
def test_jvp_is_the_transpose_of_vjp(name):
    f, inputs = CASES[name]
    primals = tuple(pb.asarray(x) for x in inputs)
    tangents = tuple(pb.asarray(draw(*x.shape, seed=30 + i)) for i, x in enumerate(inputs))
    out, pushed = pb.jvp(f, primals, tangents)
    close(out, f(*primals), 1e-13)
    c = pb.asarray(draw(*out.shape, seed=40))
    _, pull = pb.vjp(f, *primals)
    pulled = pull(c)
    left = pb.sum(pushed * c).item()
    right = sum(pb.sum(a * b).item() for a, b in zip(pulled, tangents, strict=True))
    assert abs(left - right) <= 1e-11 * max(1.0, abs(right))


@pytest.mark.parametrize("name", CASES)
def test_forward_over_reverse_is_reverse_over_reverse(name):
    f, inputs = CASES[name]
    g = weighted(f, out_shape(f, inputs))
    x = [pb.asarray(v) for v in inputs]
    way = pb.asarray(draw(*inputs[0].shape, seed=50))
    mixed = pb.hvp(lambda a: g(a, *x[1:]), (x[0],), (way,))
    t = pb.tensor(inputs[0], requires_grad=True)
    (first,) = pb.gradients(g(t, *x[1:]), [t], create_graph=True)
    (second,) = pb.gradients(pb.sum(first * way), [t])
    close(mixed if isinstance(mixed, pb.Tensor) else mixed[0], second, 1e-11)


@pytest.mark.parametrize("dtype,tol", [("float32", 3e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("shape", [(1, 1), (4, 31), (3, 32), (5, 33), (2, 1000), (2, 5000), (70, 65), (2, 3, 7)])
def test_forward(shape, dtype, tol):
    x = (3 * draw(*shape)).astype(dtype)
    w, b = draw(shape[-1], seed=1).astype(dtype), draw(shape[-1], seed=2).astype(dtype)
    t, tw, tb = pb.asarray(x), pb.asarray(w), pb.asarray(b)
    x, w, b = (v.astype(np.float64) for v in (x, w, b))
    close(pb.softmax(t), np_softmax(x), tol)
    close(pb.softmax(t, 0), np_softmax(x, 0), tol)
    close(pb.log_softmax(t), np.log(np_softmax(x)), tol)
    close(pb.rms_norm(t, tw), np_rms_norm(x, w), tol)
    if shape[-1] > 1:
        close(pb.layer_norm(t, tw, tb), np_layer_norm(x, w, b), tol)
        close(pb.layer_norm(t, bias=tb), np_layer_norm(x, 1.0, b), tol)
    close(pb.layer_norm(t, axis=tuple(range(-len(shape), 0))), np_layer_norm(x, axes=tuple(range(len(shape)))), tol)


def test_layer_norm_takes_the_mean_out_first():
    x = np.full((2, 64), 1e4, dtype=np.float32) + np.tile(np.array([0.0, 1.0], dtype=np.float32), 32)
    close(pb.layer_norm(pb.asarray(x)), np_layer_norm(x.astype(np.float64)), 1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_compute_in_float32(dtype):
    d = getattr(pb, dtype)
    x = pb.asarray(draw(4, 50)).astype(d)
    w = pb.asarray(draw(50, seed=1)).astype(d)
    for f in (pb.softmax, pb.log_softmax, pb.layer_norm, pb.rms_norm):
        got = f(x)
        assert got.dtype == d
        assert got.tolist() == f(x.astype(pb.float32)).astype(d).tolist()
    assert pb.layer_norm(x, w).dtype == d
    assert pb.layer_norm(x, w.astype(pb.float32)).dtype == pb.float32
    t = pb.tensor(x.astype(pb.float32).numpy(), dtype=d, requires_grad=True)
    pb.sum(pb.layer_norm(t) * pb.layer_norm(t)).backward()
    assert t.grad.dtype == d
    assert t.grad.shape == (4, 50)


def test_integers_become_float32():
    x = pb.asarray(np.arange(6).reshape(2, 3))
    for f in (pb.softmax, pb.log_softmax, pb.layer_norm, pb.rms_norm):
        assert f(x).dtype == pb.float32
    close(pb.softmax(x), np_softmax(np.arange(6.0).reshape(2, 3)), 1e-6)


def test_layouts():
    x = draw(6, 8)
    for view in (lambda v: v[::2, ::-1], lambda v: v.T, lambda v: v[:, 1:2] + 0 * v[:, :5], lambda v: v[3]):
        v, t = view(x), view(pb.asarray(x))
        close(pb.softmax(t), np_softmax(v))
        close(pb.layer_norm(t), np_layer_norm(v))
        close(pb.rms_norm(t), np_rms_norm(v))
    wide = pb.broadcast_to(pb.asarray(draw(8)), (3, 8))
    close(pb.softmax(wide), np_softmax(np.broadcast_to(draw(8), (3, 8))))


def test_no_dimensions_and_no_elements():
    assert pb.softmax(pb.tensor(3.0)).item() == 1.0
    assert pb.log_softmax(pb.tensor(3.0)).item() == 0.0
    for shape in ((0,), (0, 3), (3, 0), (2, 0, 4)):
        x = pb.tensor(np.zeros(shape), requires_grad=True)
        w = pb.tensor(np.ones(shape[-1]), requires_grad=True)
        for y in (pb.softmax(x), pb.log_softmax(x), pb.layer_norm(x, w), pb.rms_norm(x, w)):
            assert y.shape == shape
            x.grad = None
            pb.sum(y).backward()
            assert x.grad.shape == shape
        assert w.grad.tolist() == [0.0] * shape[-1]
        if x.ndim > 1:
            assert pb.batch_norm(x, None, None, training=True).shape == shape
            if shape[1]:
                assert pb.group_norm(x, 1).shape == shape


def test_rows_that_are_not_finite():
    nan, inf = np.nan, np.inf
    x = np.array([[0.0, nan, 1.0], [inf, 0.0, 1.0], [-inf, 0.0, -inf], [-inf, -inf, -inf], [1.0, 2.0, 3.0]])
    got = pb.softmax(pb.asarray(x)).numpy()
    assert np.isnan(got[[0, 1, 3]]).all()
    assert got[2].tolist() == [0.0, 1.0, 0.0]
    close(got[4], np_softmax(x[4]))
    logs = pb.log_softmax(pb.asarray(x)).numpy()
    assert np.isnan(logs[[0, 1, 3]]).all()
    assert logs[2].tolist() == [-inf, 0.0, -inf]
    norm = pb.layer_norm(pb.asarray(x)).numpy()
    assert np.isnan(norm[:4]).all() and np.isfinite(norm[4]).all()
    huge = pb.softmax(pb.asarray(np.array([[1e38, -1e38, 0.0]], dtype=np.float32)))
    assert huge.tolist() == [[1.0, 0.0, 0.0]]


def test_gradient_of_softmax_at_minus_infinity_is_zero():
    x = pb.tensor(np.array([[0.0, -np.inf, 1.0]]), requires_grad=True)
    pb.sum(pb.softmax(x) * pb.asarray(np.array([[1.0, 2.0, 3.0]]))).backward()
    assert x.grad.numpy()[0, 1] == 0.0
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("rows,n", [(300, 700), (4000, 96), (17, 5000)])
def test_same_bits_for_any_number_of_threads(rows, n):
    x = draw(rows, n).astype(np.float32)

    def run(threads):
        pb.set_num_threads(threads)
        t = pb.tensor(x, requires_grad=True)
        w, b = pb.tensor(draw(n, seed=1).astype(np.float32), requires_grad=True), pb.zeros((n,)) + 1
        b = pb.tensor(b, requires_grad=True)
        pb.sum(pb.layer_norm(t, w, b) * pb.softmax(t) + pb.rms_norm(t, w)).backward()
        c = pb.batch_norm(t, None, None, training=True)
        return [
            v.numpy().tobytes() for v in (t.grad, w.grad, b.grad, c.detach(), pb.cumulative_sum(t.detach(), axis=0))
        ]

    assert run(1) == run(2) == run(3)


BITS = """
import hashlib
import pullback as pb
from pullback import losses
pb.set_num_threads({threads})
pb.manual_seed(5)
x, w, q, k, v = (pb.random.normal(s) for s in ((300, 333), (333,), (2, 3, 70, 20), (2, 3, 90, 20), (2, 3, 90, 36)))
image = pb.random.normal((4, 6, 9, 9))
leaves = [pb.tensor(t, requires_grad=True) for t in (x, w, q, k, v, image)]
x, w, q, k, v, image = leaves
target = pb.random.randint(0, 333, (300,))
total = (
    pb.sum(pb.softmax(x) * pb.log_softmax(x))
    + pb.sum(pb.layer_norm(x, w, w) * pb.rms_norm(x, w))
    + losses.cross_entropy(x, target, label_smoothing=0.1)
    + pb.sum(pb.square(pb.scaled_dot_product_attention(q, k, v, causal=True)))
    + pb.sum(pb.square(pb.batch_norm(image, None, None, training=True)) * image + pb.group_norm(image, 2) * image)
    + pb.sum(pb.cumulative_sum(x, axis=1) * x)
)
total.backward()
h = hashlib.sha256(repr(total.item()).encode())
for t in leaves:
    h.update(bytes(memoryview(t.grad)))
print(h.hexdigest())
"""


def test_same_bits_at_every_level_of_the_instruction_set():
    found = set()
    for level, threads in ((None, 1), (None, 2), ("v3", 1), ("v3", 2)):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        if level:
            env["PULLBACK_ISA"] = level
        run = subprocess.run(
            [sys.executable, "-c", BITS.format(threads=threads)], env=env, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


# ---- batch and group norm


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_batch_norm(shape):
    x, w, b = draw(*shape), draw(3, seed=1), draw(3, seed=2)
    axes = (0, *range(2, x.ndim))
    count = x.size // 3
    mean, var = x.mean(axes), x.var(axes)
    running_mean, running_var = pb.asarray(draw(3, seed=3)), pb.asarray(draw(3, seed=4) ** 2)
    m0, v0 = running_mean.numpy().copy(), running_var.numpy().copy()
    t = [pb.asarray(v) for v in (x, w, b)]
    y = pb.batch_norm(t[0], running_mean, running_var, t[1], t[2], training=True, momentum=0.3)
    close(y, np_batch_norm(x, mean, var, w, b))
    close(running_mean, 0.7 * m0 + 0.3 * mean)
    close(running_var, 0.7 * v0 + 0.3 * var * count / (count - 1))
    y = pb.batch_norm(t[0], running_mean, running_var, t[1], t[2], eps=0.1)
    close(y, np_batch_norm(x, running_mean.numpy(), running_var.numpy(), w, b, 0.1))


def test_batch_norm_writes_raise_the_version():
    running_mean, running_var = pb.zeros((3,), dtype=pb.float64), pb.ones((3,), dtype=pb.float64)
    w = pb.tensor(np.ones(3), requires_grad=True)
    kept = w * running_mean
    pb.batch_norm(pb.asarray(draw(4, 3)), running_mean, running_var, training=True)
    with pytest.raises(pb.GraphError, match="modified in place"):
        pb.sum(kept).backward()


def test_running_statistics_stay_outside_the_graph():
    x = pb.tensor(draw(4, 3), requires_grad=True)
    running_mean, running_var = pb.zeros((3,)), pb.ones((3,))
    pb.sum(pb.batch_norm(x, running_mean, running_var, training=True)).backward()
    assert not running_mean.requires_grad and not running_var.requires_grad
    assert running_mean.dtype == pb.float32


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (2, 6, 7, 5), (1, 6, 1), (3, 6, 40, 33)])
def test_group_norm(shape):
    x, w, b = draw(*shape), draw(6, seed=1), draw(6, seed=2)
    for groups in (1, 2, 3, 6):
        close(pb.group_norm(pb.asarray(x), groups, pb.asarray(w), pb.asarray(b)), np_group_norm(x, groups, w, b))


@pytest.mark.parametrize("dtype", [pb.bfloat16, pb.float16])
def test_group_norm_of_half_planes(dtype):
    """Computed in float32, rounded once; the gradients have the operands' types."""
    leaves = [pb.tensor(draw(*s, seed=i), dtype=dtype, requires_grad=True) for i, s in enumerate([(2, 4, 6, 5), (4,)])]
    wide = [pb.tensor(t.detach().astype(pb.float32), requires_grad=True) for t in leaves]
    y, want = (pb.group_norm(x, 2, w) for x, w in (leaves, wide))
    assert y.dtype == dtype and y.tolist() == want.astype(dtype).tolist()
    g = draw(2, 4, 6, 5, seed=5)
    y.backward(pb.asarray(g).astype(dtype))
    want.backward(pb.asarray(g).astype(dtype).astype(pb.float32))
    for t, r in zip(leaves, wide, strict=True):
        assert t.grad.dtype == dtype and t.grad.tolist() == r.grad.astype(dtype).tolist()


# ---- outputs that leave the cache


@pytest.mark.parametrize("rows,n", [(8200, 1029), (1_700_000, 5), (70, 120_001), (2, 4_200_000)])
def test_rows_past_the_cache(rows, n):
    """A streamed output has the bits of one that stays in the cache (Note [Streaming stores])."""
    x, g = pb.random.normal((rows, n)), pb.random.normal((rows, n))
    w, b = pb.random.normal((n,)), pb.random.normal((n,))
    part = slice(rows // 2, rows // 2 + 1 + rows // 5000)
    whole = [pb.tensor(t, requires_grad=True) for t in (x, w)]
    small = [pb.tensor(t, requires_grad=True) for t in (x[part], w)]
    for f in (lambda x, w: pb.softmax(x), lambda x, w: pb.layer_norm(x, w, b), lambda x, w: pb.rms_norm(x, w)):
        for t in whole + small:
            t.grad = None
        y, want = f(*whole), f(*small)
        assert y[part].tobytes() == want.tobytes() and y[-1].tobytes() == f(x[-1:], w)[0].tobytes()
        y.backward(g)
        want.backward(g[part])
        assert whole[0].grad[part].tobytes() == small[0].grad.tobytes()


def test_planes_past_the_cache():
    x, g, w = pb.random.normal((9, 8, 347, 353)), pb.random.normal((9, 8, 347, 353)), pb.random.normal((8,))
    for f in (lambda x: pb.group_norm(x, 4, w), lambda x: pb.group_norm(x, 4, w, w)):
        whole, small = pb.tensor(x, requires_grad=True), pb.tensor(x[7:8], requires_grad=True)
        y, want = f(whole), f(small)
        assert y[7:8].tobytes() == want.tobytes()
        y.backward(g)
        want.backward(g[7:8])
        assert whole.grad[7:8].tobytes() == small.grad.tobytes()


# ---- orders, extremes, running sums


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint64", "bool"])
def test_argmax_argmin(dtype):
    x = np.random.default_rng(3).integers(0, 9 if dtype != "bool" else 2, (4, 5, 6)).astype(dtype)
    t = pb.asarray(x)
    for ours, ref in ((pb.argmax, np.argmax), (pb.argmin, np.argmin)):
        for axis in (None, 0, 1, 2, -1):
            for keepdims in (False, True):
                got = ours(t, axis, keepdims)
                assert got.dtype == pb.int64
                np.testing.assert_array_equal(got.numpy(), ref(x, axis=axis, keepdims=keepdims))


def test_extremes_of_nan_and_ties():
    x = np.array([[1.0, np.nan, 9.0, np.nan], [2.0, 7.0, 7.0, 2.0], [-np.inf, -np.inf, np.inf, np.inf]])
    np.testing.assert_array_equal(pb.argmax(pb.asarray(x), 1).numpy(), np.argmax(x, 1))
    np.testing.assert_array_equal(pb.argmin(pb.asarray(x), 1).numpy(), np.argmin(x, 1))
    assert pb.argmax(pb.tensor(4.0)).item() == 0
    assert pb.argmax(pb.zeros((0, 3)), 1).shape == (0,)


@pytest.mark.parametrize("n", [31, 32, 33, 64, 100, 1000])
def test_extremes_of_long_rows(n):
    x = np.random.default_rng(n).integers(0, n // 2, (200, n)).astype(np.float32)
    x[50:100, n - 1 - n // 7] = np.nan
    x[75:100, n // 3] = np.nan
    x[100:150] = np.inf
    x[125:150, n - 1] = -np.inf
    for v in (x, np.where(np.isnan(x), 1, np.clip(x, -9, 9)).astype(np.int64)):
        np.testing.assert_array_equal(pb.argmax(pb.asarray(v), 1).numpy(), np.argmax(v, 1))
        np.testing.assert_array_equal(pb.argmin(pb.asarray(v), 1).numpy(), np.argmin(v, 1))


def test_cumulative_sum():
    x = draw(3, 4, 5)
    for axis in (0, 1, 2, -1):
        close(pb.cumulative_sum(pb.asarray(x), axis=axis), np.cumsum(x, axis))
        lead = np.insert(np.cumsum(x, axis), 0, 0, axis)
        close(pb.cumulative_sum(pb.asarray(x), axis=axis, include_initial=True), lead)
    assert pb.cumulative_sum(pb.asarray(np.array([1, 2, 3], dtype=np.int8))).tolist() == [1, 3, 6]
    assert pb.cumulative_sum(pb.asarray(np.array([100, 100], dtype=np.int8))).dtype == pb.int64
    assert pb.cumulative_sum(pb.asarray(np.array([200, 100], dtype=np.uint8))).dtype == pb.uint64
    assert pb.cumulative_sum(pb.asarray(np.array([True, True]))).tolist() == [1, 2]
    assert pb.cumulative_sum(pb.asarray(np.array([1, 2])), dtype=pb.float64).dtype == pb.float64
    assert pb.cumulative_sum(pb.zeros((2, 0)), axis=1).shape == (2, 0)
    assert pb.cumulative_sum(pb.zeros((2, 0)), axis=1, include_initial=True).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint64", "bool"])
def test_sort_and_argsort(dtype):
    x = np.random.default_rng(4).integers(0, 5 if dtype != "bool" else 2, (3, 7, 4)).astype(dtype)
    t = pb.asarray(x)
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(pb.sort(t, axis=axis).numpy(), np.sort(x, axis))
        np.testing.assert_array_equal(pb.argsort(t, axis=axis).numpy(), np.argsort(x, axis, kind="stable"))
        down = pb.argsort(t, axis=axis, descending=True).numpy()
        want = np.argsort(-x.astype(np.int64), axis, kind="stable")
        np.testing.assert_array_equal(down, want)
        np.testing.assert_array_equal(pb.sort(t, axis=axis, descending=True).numpy(), np.take_along_axis(x, want, axis))


def test_nan_sorts_as_the_largest():
    x = pb.asarray(np.array([2.0, np.nan, -np.inf, np.inf, 1.0]))
    np.testing.assert_array_equal(pb.sort(x).numpy(), [-np.inf, 1.0, 2.0, np.inf, np.nan])
    np.testing.assert_array_equal(pb.sort(x, descending=True).numpy(), [np.nan, np.inf, 2.0, 1.0, -np.inf])
    values, indices = pb.topk(x, 3)
    np.testing.assert_array_equal(values.numpy(), [np.nan, np.inf, 2.0])
    assert indices.tolist() == [1, 3, 0]


def test_topk():
    x = draw(3, 9, 4)
    for axis in (0, 1, -1):
        for k in (0, 1, 2, x.shape[axis]):
            values, indices = pb.topk(pb.asarray(x), k, axis=axis)
            order = np.take(np.argsort(-x, axis, kind="stable"), range(k), axis)
            np.testing.assert_array_equal(indices.numpy(), order)
            np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, order, axis))
    values, indices = pb.topk(pb.asarray(np.array([5, 7, 7, 5, 7])), 4)
    assert values.tolist() == [7, 7, 7, 5]
    assert indices.tolist() == [1, 2, 4, 0]


def test_sort_of_no_dimensions_and_no_elements():
    assert pb.sort(pb.tensor(2.5)).item() == 2.5
    assert pb.argsort(pb.tensor(2.5)).item() == 0
    assert pb.sort(pb.zeros((0, 3))).shape == (0, 3)
    assert pb.sort(pb.zeros((3, 0))).shape == (3, 0)


# ---- errors

ERRORS = [
    (lambda x: pb.softmax(x, 2), ValueError, "softmax.*axis"),
    (lambda x: pb.softmax(pb.tensor(1.0), 1), ValueError, "softmax.*axis"),
    (lambda x: pb.layer_norm(x, pb.ones((3,))), pb.ShapeError, r"weight must have shape \[4\]"),
    (lambda x: pb.layer_norm(x, None, pb.ones((2, 4))), pb.ShapeError, r"bias must have shape \[4\]"),
    (lambda x: pb.layer_norm(x, axis=0), pb.ShapeError, "not the last ones"),
    (lambda x: pb.layer_norm(x, axis=(-1, -1)), pb.ShapeError, "not the last ones"),
    (lambda x: pb.layer_norm(pb.tensor(1.0)), pb.ShapeError, "0-d tensor has no axis"),
    (lambda x: pb.rms_norm(x, pb.ones((3,))), pb.ShapeError, r"rms_norm: weight must have shape \[4\]"),
    (lambda x: pb.group_norm(x, 3), pb.ShapeError, "4 channels do not split into 3 groups"),
    (lambda x: pb.group_norm(x, 0), pb.ShapeError, "do not split into 0 groups"),
    (lambda x: pb.group_norm(x[0], 1), pb.ShapeError, r"must have the shape \(batch, channels"),
    (lambda x: pb.batch_norm(x[0], None, None, training=True), pb.ShapeError, r"must have the shape \(batch, channels"),
    (lambda x: pb.batch_norm(x, None, None), ValueError, "running statistics are needed"),
    (lambda x: pb.batch_norm(x[:1], None, None, training=True), pb.ShapeError, "more than one value per channel"),
    (lambda x: pb.batch_norm(x, pb.ones((3,)), pb.ones((4,))), pb.ShapeError, "running_mean must have shape"),
    (lambda x: pb.argmax(x, 2), ValueError, "argmax.*axis"),
    (lambda x: pb.argmin(x[:0]), ValueError, "empty slice"),
    (lambda x: pb.argmax(pb.zeros((3, 0)), 1), ValueError, "empty slice"),
    (lambda x: pb.cumulative_sum(x), pb.ShapeError, "axis must be given"),
    (lambda x: pb.cumulative_sum(x, 5), ValueError, "cumulative_sum.*axis"),
    (lambda x: pb.topk(x, 5), pb.ShapeError, r"k = 5 is not in \[0, 4\]"),
    (lambda x: pb.topk(x, -1), pb.ShapeError, r"k = -1 is not in \[0, 4\]"),
    (lambda x: pb.sort(x, axis=2), ValueError, "sort.*axis"),
    (lambda x: pb.argsort(x, axis=-3), ValueError, "argsort.*axis"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors(number):
    f, kind, message = ERRORS[number]
    with pytest.raises(kind, match=message) as e:
        f(pb.ones((2, 4)))
    assert "help:" in str(e.value)


def test_read_only_running_statistics_are_refused():
    frozen = np.zeros(4)
    frozen.flags.writeable = False
    running = pb.asarray(frozen)
    with pytest.raises(ValueError, match="read-only"):
        pb.batch_norm(pb.ones((2, 4), dtype=pb.float64), running, pb.ones((4,)), training=True)


def test_a_kept_input_that_was_written_is_noticed():
    x = pb.tensor(draw(2, 4), requires_grad=True)
    h = x * 2.0
    y = pb.layer_norm(h)
    h[0] = 0.0
    with pytest.raises(pb.GraphError, match="modified in place"):
        pb.sum(y).backward()
