"""Kernels at sizes where a row, a tile or a warp is not full, and the ways of a kernel that small samples never take:
wide rows and rows in vectors, parts of a sum, large tiles, sums and orders in several launches. The reference is the
CPU. `-k sample` is what runs in every schedule and under compute-sanitizer."""

from __future__ import annotations

import common
import numpy as np
import pytest

import pullback as pb

FLOATS = [pb.float32, pb.bfloat16, pb.float16]
TOLERANCE = {pb.float32: 1e-5, pb.bfloat16: 2**-6, pb.float16: 2**-9}
name_of = str


def array(shape, phase=0.0):
    return np.float32(np.sin(1.7 * np.arange(np.prod(shape, dtype=int)) + phase).reshape(shape))


def compare(f, inputs, dtype=pb.float32, tol=None):
    """Results and gradients of f on the device against those of the CPU."""

    def run(device):
        ts = [pb.asarray(x).astype(dtype).to(device) for x in inputs]
        for t in ts:
            t.requires_grad = True
        y = f(*ts)
        if y.requires_grad:
            y.backward(pb.asarray(np.cos(1.3 * np.arange(y.size)).reshape(y.shape)).astype(y.dtype).to(device))
        return [y.detach(), *[t.grad for t in ts]]

    for got, want in zip(run(common.DEVICE), run("cpu"), strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            common.close(got, want, TOLERANCE[dtype] if tol is None else tol)


def compare_values(f, *inputs):
    """The same bits of what has no gradient."""
    got, want = (f(*[pb.asarray(x).to(d) for x in inputs]) for d in (common.DEVICE, "cpu"))
    for a, b in zip(*[v if isinstance(v, (tuple, list)) else (v,) for v in (got, want)], strict=True):
        common.same(a, b)


ROWS = {
    "softmax": lambda x: pb.softmax(x, axis=-1),
    "log_softmax": lambda x: pb.log_softmax(x, axis=-1),
    "layer_norm": lambda x: pb.layer_norm(x, *parameters(x)),
    "rms_norm": lambda x: pb.rms_norm(x, parameters(x)[0]),
}


def parameters(x):
    w = 1 + 0.1 * np.sin(np.arange(x.shape[-1]))
    return [pb.asarray(w * k).astype(pb.float32).to(x.device) for k in (1, 0.3)]


#: Rows in vectors and not, of one lane, of a warp, of several warps, and wider than a block's registers.
WIDTHS = [(5, 1), (3, 7), (9, 40), (3, 251), (5, 520), (3, 1029), (2, 8201), (2, 16392)]


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("name", ROWS)
def test_rows(name, dtype):
    for shape in WIDTHS:
        compare(ROWS[name], [array(shape)], dtype)


@pytest.mark.parametrize("name", ROWS)
def test_sample_of_rows(name):
    for shape in ((3, 7), (5, 72), (3, 515), (2, 1032)):
        compare(ROWS[name], [array(shape)])


def test_gradients_of_parameters_of_rows():
    for rows, n in ((67, 24), (301, 13), (37, 520), (5, 1032), (517, 4097), (3, 8201), (2, 16392)):
        compare(pb.layer_norm, [array((rows, n)), array((n,), 1), array((n,), 2)], tol=4e-5)
        compare(pb.rms_norm, [array((rows, n)), array((n,), 1)], tol=4e-5)


def test_sample_of_norms_of_gradients():
    """Clipping by the norm of all gradients, which a device keeps for itself."""

    def run(device):
        ps = [pb.tensor(array((n,), n), device=device, requires_grad=True) for n in (1, 7, 1000, 3001)]
        opt = pb.optim.SGD(ps, lr=0.1)
        for i, p in enumerate(ps):
            p.grad = pb.tensor(3 * array((p.size,), i), device=device)
        opt.step(clip_norm=0.5)
        return ps

    for got, want in zip(run(common.DEVICE), run("cpu"), strict=True):
        common.close(got.detach(), want.detach(), 1e-6)


def test_sample_of_channels():
    for shape, groups in (((2, 6, 5, 7), 3), ((3, 4, 33), 2), ((1, 8, 3, 171), 4), ((2, 4, 70, 31), 2)):
        c = shape[1]
        compare(
            lambda x, w, b, g=groups: pb.group_norm(x, g, w, b),
            [array(shape), array((c,), 1), array((c,), 2)],
            tol=4e-5,
        )

    def batch(x, w, b):
        c = x.shape[1]
        mean, var = pb.zeros(c, device=x.device), pb.ones(c, device=x.device)
        y = pb.batch_norm(x, mean, var, w, b, training=True)
        return y[0] if isinstance(y, tuple) else y

    for shape in ((5, 3, 4, 7), (70, 33), (2, 5, 613)):
        compare(batch, [array(shape), array((shape[1],), 1), array((shape[1],), 2)], tol=4e-5)


def matrices(m, k, n, batch=()):
    return [array((*batch, m, k)), array((*batch, k, n), 1)]


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_sample_of_products(dtype):
    """Every way: dot, row, both tiles, parts of a sum; strides on both sides."""
    for m, k, n in ((1, 9, 5), (1, 33, 70), (5, 1, 3), (17, 19, 23), (65, 33, 66), (3, 700, 5), (1, 700, 5)):
        compare(pb.matmul, matrices(m, k, n), dtype)
    compare(lambda a, b: pb.matmul(a, b.mT), [array((7, 20)), array((9, 20), 1)], dtype)
    compare(lambda a, b: pb.matmul(a.mT, b), [array((24, 8)), array((24, 16), 1)], dtype)
    compare(lambda a, b: pb.matmul(a[:, 1:], b[::2]), [array((7, 11)), array((20, 9), 1)], dtype)
    compare(lambda a, b: pb.matmul(a, b.mT), [array((1, 23)), array((9, 23), 1)], dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_large_tiles(dtype):
    compare(pb.matmul, matrices(66, 19, 69, (96,)), dtype)
    compare(pb.matmul, matrices(72, 24, 80, (96,)), dtype)


def test_long_dot_products():
    for n in (1, 3, 9):
        compare(lambda a, b: pb.matmul(a, b.mT), [array((1, 4103)), array((n, 4103), 1)], tol=4e-5)
        compare(lambda a, b: pb.matmul(a, b.mT), [array((1, 4104)), array((n, 4104), 1)], tol=4e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_sample_of_convolutions(dtype):
    def conv(**more):
        return lambda x, w: pb.conv2d(x, w, **more)

    for x, w, more in (
        ((2, 3, 7, 9), (5, 3, 3, 3), {"padding": 1}),
        ((1, 4, 11, 6), (6, 2, 3, 2), {"groups": 2, "stride": 2}),
        ((2, 2, 9, 9), (3, 2, 3, 3), {"dilation": 2, "padding": 2}),
        ((3, 1, 5, 5), (70, 1, 1, 1), {}),
        ((1, 3, 8, 13), (4, 3, 2, 5), {"stride": (2, 3), "padding": (0, 2)}),
    ):
        compare(conv(**more), [array(x), array(w, 1)], dtype)


def test_convolutions_with_long_sums():
    compare(lambda x, w: pb.conv2d(x, w, padding=1), [array((3, 2, 21, 19)), array((3, 2, 3, 3), 1)], tol=4e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_sample_of_pools(dtype):
    ties = np.float32(np.arange(2 * 9 * 7) // 5 % 3).reshape(1, 2, 9, 7)
    compare(lambda x: pb.max_pool2d(x, 3, stride=2), [ties], dtype)
    for shape, size, more in (
        ((2, 3, 7, 9), 2, {}),
        ((1, 2, 8, 8), 3, {"stride": 2, "padding": 1}),
        ((2, 1, 9, 5), (3, 2), {"stride": (1, 2), "padding": (1, 0)}),
    ):
        compare(lambda x, s=size, m=more: pb.max_pool2d(x, s, **m), [array(shape)], dtype)
        compare(lambda x, s=size, m=more: pb.avg_pool2d(x, s, **m), [array(shape)], dtype)
    x, t = array((1, 2, 8, 8)), array((1, 2, 8, 8), 2)
    got, want = (
        pb.jvp(lambda v: pb.max_pool2d(v, 3, stride=2, padding=1), (pb.asarray(x).to(d),), (pb.asarray(t).to(d),))[1]
        for d in (common.DEVICE, "cpu")
    )
    common.same(got, want)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("causal", [False, True])
def test_sample_of_attention(causal, dtype):
    """One tile, several, tiles that are not full; narrow and wide heads; heads that no vector load may touch."""
    for queries, keys, width in ((5, 5, 8), (67, 67, 33), (3, 70, 64), (66, 66, 72), (35, 35, 100)):
        if causal and queries != keys:
            continue
        q, k, v = array((1, 2, queries, width)), array((1, 2, keys, width), 1), array((1, 2, keys, width), 2)
        compare(lambda q, k, v: pb.scaled_dot_product_attention(q, k, v, causal=causal), [q, k, v], dtype)


def test_sample_of_gathers():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.uint8, np.int64, np.int16):
        for n, inner in ((9, 1), (5, 7), (6, 16), (3, 33)):
            x = rng.integers(0, 100, (4, n, inner)).astype(dtype)
            index = rng.integers(-n, n, 13)
            compare_values(lambda x, i: pb.take(x, i, axis=1), x, index)
            along = rng.integers(0, n, (4, 11, inner))
            compare_values(lambda x, i: pb.take_along_axis(x, i, axis=1), x, along)
    for n in (1, 31, 33, 5000, 70_001):
        mask = rng.integers(0, 2, n).astype(bool)
        compare_values(lambda x, m: x[m], array((n,)), mask)
    i, j = rng.integers(0, 7, 19), rng.integers(0, 9, 19)
    compare_values(lambda x, i, j: x[i, j], array((7, 9, 3)), i, j)


def test_sample_of_gathers_outside():
    x = pb.ones(4, device=common.DEVICE)
    for index in (4, -5):
        with pytest.raises(IndexError):
            pb.take(x, pb.asarray(np.array([0, index])).to(common.DEVICE)).tolist()


def test_sample_of_writes():
    """Into places, some of them twice: sums, and the last of several writes."""
    rng = np.random.default_rng(7)
    for dtype in (np.float32, np.float64, np.uint8, np.int16, np.int64):
        for rows, m, inner in ((5, 40, 3), (3, 1300, 1), (9, 33, 16)):
            x = rng.integers(0, 9, (rows, inner)).astype(dtype)
            y = rng.integers(0, 9, (m, inner)).astype(dtype)
            index = rng.integers(0, rows, m)
            compare_values(written, x, index, y)
            along = rng.integers(0, rows, (m, inner))
            compare_values(added, x, along, y)
            compare_values(added, x, along[:11], y[:11])


def written(x, i, y):
    z = pb.asarray(x, copy=True)
    z[i] = y
    return z


def added(x, i, y):
    return pb.scatter_add(x, i, y, axis=0)


def test_sums_into_places():
    rng = np.random.default_rng(1)
    for dtype in FLOATS:
        for rows, m, inner in ((5, 40, 3), (3, 1300, 1), (70, 33, 16)):
            index = rng.integers(0, rows, m)
            compare(lambda x, i=index: pb.take(x, pb.asarray(i).to(x.device), axis=0), [array((rows, inner))], dtype)
        along = rng.integers(0, 6, (5, 41, 3))
        compare(lambda x, i=along: pb.take_along_axis(x, pb.asarray(i).to(x.device), axis=1), [array((5, 6, 3))], dtype)


def test_sample_of_orders():
    rng = np.random.default_rng(2)
    for n in (1, 2, 33, 1000, 1025, 2600):
        for dtype in (np.float32, np.float64, np.int64, np.uint64, np.int8):
            x = rng.integers(0, 50, (2, n)).astype(dtype)
            compare_values(lambda x: pb.argsort(x, axis=-1), x)
            compare_values(lambda x: pb.sort(x, axis=-1, descending=True), x)


def test_sample_of_running_sums_and_extremes():
    rng = np.random.default_rng(3)
    for shape, axis in (((3, 70), 1), ((70, 3), 0), ((2, 5000), 1), ((1, 9001), 1), ((2, 40001), 1), ((2, 33, 5), 1)):
        for dtype in (np.int64, np.float32, np.float64, np.uint64, np.uint8):
            x = rng.integers(0, 9, shape).astype(dtype)  # sums without rounding
            compare_values(lambda x, a=axis: pb.argmax(x, axis=a), x)
            compare_values(lambda x, a=axis: pb.argmin(x, axis=a), x)
            compare_values(lambda x, a=axis: pb.cumulative_sum(x, axis=a), x)
            compare_values(lambda x, a=axis: pb.cumulative_sum(x, axis=a, include_initial=True), x)


def test_sample_of_reductions_in_parts():
    rng = np.random.default_rng(4)
    for shape, axis in (((2, 20000), 1), ((20000, 2), 0), ((1, 700, 33), 1)):
        for dtype in (np.int64, np.uint64, np.float64):
            x = rng.integers(0, 3, shape).astype(dtype)
            for f in (pb.sum, pb.max, pb.min, pb.any, pb.all):
                compare_values(lambda x, f=f, a=axis: f(x, axis=a), x)
            compare_values(lambda x, a=axis: pb.prod(x, axis=a), np.where(x == 0, 1, 1).astype(x.dtype))


def test_sample_of_copies():
    rng = np.random.default_rng(5)
    for dtype in (np.uint8, np.bool_, np.int16, np.int64, np.float32, np.float64):
        x = rng.integers(0, 2, (7, 9, 5)).astype(dtype)
        compare_values(lambda x: pb.asarray(pb.permute_dims(x, (2, 0, 1)), copy=True), x)
        compare_values(lambda x: pb.asarray(x[::-1, ::2], copy=True), x)
        compare_values(lambda x: pb.full_like(x, 1), x)
        compare_values(lambda x: pb.concat([x, x[:, :4]], axis=1), x)


def test_losses_of_many_classes():
    rng = np.random.default_rng(6)
    for rows, n in ((5, 3), (9, 33), (3, 1000), (2, 9001)):
        target = rng.integers(0, n, rows)
        for more in ({}, {"label_smoothing": 0.1}):
            f = lambda x, t=target, m=more: pb.losses.cross_entropy(x, pb.asarray(t).to(x.device), **m)  # noqa: E731
            for dtype in FLOATS:
                compare(f, [3 * array((rows, n))], dtype)
