"""Convolutions against NumPy in float64: values, gradients of first and second order, forward mode, bits and errors."""

import hashlib
import os
import subprocess
import sys

import conv_refs
import numpy as np
import pytest

import pullback as pb

# x shape, weight shape, options
CASES = [
    ((2, 3, 7, 9), (4, 3, 3, 3), {}),
    ((2, 3, 7, 9), (4, 3, 3, 3), {"padding": 1}),
    ((2, 3, 8, 7), (5, 3, 3, 2), {"stride": 2, "padding": (1, 0)}),
    ((1, 2, 11, 12), (3, 2, 3, 3), {"dilation": 2}),
    ((1, 2, 13, 14), (3, 2, 3, 4), {"dilation": (2, 3), "stride": (3, 2), "padding": (2, 4)}),
    ((2, 2, 9, 9), (3, 2, 3, 3), {"stride": 2, "dilation": 2, "padding": 2}),
    ((2, 6, 6, 5), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    ((2, 6, 7, 7), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    ((2, 4, 7, 6), (8, 1, 3, 2), {"groups": 4, "stride": 2}),
    ((2, 3, 9, 35), (3, 1, 5, 5), {"groups": 3, "padding": 2}),
    ((2, 4, 6, 19), (10, 2, 3, 3), {"groups": 2}),
    ((3, 5, 6, 4), (7, 5, 1, 1), {}),
    ((3, 5, 6, 4), (7, 5, 1, 1), {"stride": 2}),
    ((3, 5, 6, 4), (7, 5, 1, 1), {"stride": 3, "padding": 1}),
    ((2, 1, 28, 28), (32, 1, 3, 3), {}),
    ((2, 3, 5, 5), (2, 3, 5, 5), {}),
    ((2, 3, 4, 4), (2, 3, 6, 6), {"padding": 1}),
    ((1, 3, 16, 16), (8, 3, 4, 4), {"stride": 4}),
    ((1, 2, 5, 40), (3, 2, 1, 7), {"padding": (0, 3)}),
    ((1, 2, 40, 5), (3, 2, 7, 1), {"padding": (3, 0)}),
    ((2, 40, 6, 6), (17, 40, 3, 3), {"padding": 1}),
    ((19, 2, 4, 3), (3, 2, 2, 2), {}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((1, 2, 3, 3), (2, 2, 1, 1), {"padding": 2, "stride": 2}),
    # small planes, many channels: several images together (Note [Small planes] in conv_tiles.h)
    ((11, 7, 7, 7), (130, 7, 3, 3), {"padding": 1}),
    ((13, 100, 5, 6), (110, 100, 2, 3), {}),
    ((3, 4, 14, 14), (200, 4, 3, 3), {"padding": 1}),
    ((5, 120, 7, 7), (100, 120, 3, 2), {"dilation": 2, "padding": (1, 2)}),
    ((6, 5, 14, 14), (100, 5, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 300, 1, 1), (96, 300, 1, 1), {}),
]
# for the float64 checks by differences
SMALL = [CASES[i] for i in (1, 4, 5, 6, 7, 12)]


def draw(shape, seed, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def operands(case, dtype=np.float64):
    x_shape, w_shape, options = case
    return draw(x_shape, 0, dtype), draw(w_shape, 1, dtype), draw(w_shape[:1], 2, dtype), options


def close(got, want, tol):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    scale = max(1.0, np.max(np.abs(want), initial=0.0))
    assert np.all(np.abs(got - want) <= tol * scale)


def grads_of(f, arrays, g):
    leaves = [pb.tensor(a, requires_grad=True) for a in arrays]
    f(*leaves).backward(pb.asarray(g))
    return [t.grad.numpy() for t in leaves]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype,tol", [(np.float32, 3e-6), (np.float64, 1e-14)])
def test_forward(case, dtype, tol):
    x, w, b, options = operands(case, dtype)
    close(pb.conv2d(pb.asarray(x), pb.asarray(w), **options).numpy(), conv_refs.conv2d(x, w, **options), tol)
    want = conv_refs.conv2d(x, w, b, **options)
    got = pb.conv2d(pb.asarray(x), pb.asarray(w), pb.asarray(b), **options)
    close(got.numpy(), want, tol)
    assert got.numpy().dtype == dtype
    strided = pb.asarray(np.ascontiguousarray(x.transpose(2, 0, 3, 1))).permute_dims((1, 3, 0, 2))
    flipped = pb.asarray(np.ascontiguousarray(w[:, :, ::-1]))
    assert pb.conv2d(strided, pb.flip(flipped, axis=2), pb.asarray(b), **options).tobytes() == got.tobytes()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype,tol", [(np.float32, 3e-6), (np.float64, 1e-14)])
def test_gradients(case, dtype, tol):
    x, w, b, options = operands(case, dtype)
    g = draw(conv_refs.conv2d(x, w, b, **options).shape, 3, dtype)
    want = conv_refs.conv2d_grads(x, w, g, **options)
    for got, expected in zip(grads_of(lambda *a: pb.conv2d(*a, **options), (x, w, b), g), want, strict=True):
        close(got, expected, tol)
    # each operand alone, and without a bias
    for i in range(3):
        args = [pb.tensor(a, requires_grad=i == j) for j, a in enumerate((x, w, b))]
        pb.conv2d(*args, **options).backward(pb.asarray(g))
        close(args[i].grad.numpy(), want[i], tol)
    for got, expected in zip(grads_of(lambda *a: pb.conv2d(*a, **options), (x, w), g), want[:2], strict=True):
        close(got, expected, tol)


@pytest.mark.parametrize("case", CASES)
def test_graph_pullback_equals_the_fused_one(case):
    x, w, b, options = operands(case)
    leaves = [pb.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = pb.conv2d(*leaves, **options)
    g = pb.asarray(draw(y.shape, 3))
    fused = pb.gradients(pb.conv2d(*leaves, **options), leaves, g)
    graph = pb.gradients(y, leaves, g, create_graph=True)
    for a, b_ in zip(fused, graph, strict=True):
        close(b_.detach().numpy(), a.numpy(), 1e-14)


def differences(f, arrays, i, eps=1e-5):
    """Central differences of the scalar f in arrays[i]."""
    out = np.zeros_like(arrays[i])
    for at in np.ndindex(*out.shape):
        moved = [a.copy() for a in arrays]
        moved[i][at] += eps
        high = f(*moved)
        moved[i][at] -= 2 * eps
        out[at] = (high - f(*moved)) / (2 * eps)
    return out


@pytest.mark.parametrize("case", [SMALL[0], SMALL[2], SMALL[4]])
def test_gradients_equal_differences(case):
    x, w, b, options = operands(case)
    g = draw(conv_refs.conv2d(x, w, b, **options).shape, 3)

    def loss(*arrays):
        return float((pb.conv2d(*map(pb.asarray, arrays), **options).numpy() * g).sum())

    for i, got in enumerate(grads_of(lambda *a: pb.conv2d(*a, **options), (x, w, b), g)):
        close(got, differences(loss, (x, w, b), i), 1e-8)


@pytest.mark.parametrize("case", SMALL)
def test_second_order(case):
    x, w, b, options = operands(case)
    vectors = [draw(a.shape, 10 + i) for i, a in enumerate((x, w, b))]

    def loss(*a):
        y = pb.conv2d(*a, **options)
        return (y * y * y).sum()

    def gradient(step):
        moved = [pb.asarray(a + step * v) for a, v in zip((x, w, b), vectors, strict=True)]
        return [t.numpy() for t in pb.grad(loss, argnums=(0, 1, 2))(*moved)]

    eps = 1e-5
    want = [(p - m) / (2 * eps) for p, m in zip(gradient(eps), gradient(-eps), strict=True)]
    primals, tangents = tuple(map(pb.asarray, (x, w, b))), tuple(map(pb.asarray, vectors))
    for got, expected in zip(pb.hvp(loss, primals, tangents), want, strict=True):
        close(got.numpy(), expected, 1e-7)
    # reverse over reverse
    leaves = [pb.tensor(a, requires_grad=True) for a in (x, w, b)]
    first = pb.gradients(loss(*leaves), leaves, create_graph=True)
    inner = sum((d * v).sum() for d, v in zip(first, tangents, strict=True))
    for got, expected in zip(pb.gradients(inner, leaves), want, strict=True):
        close(got.numpy(), expected, 1e-7)


@pytest.mark.parametrize("case", SMALL[:3])
def test_third_order(case):
    x, w, _, options = operands(case)
    px, pw = pb.asarray(x), pb.asarray(w)
    u, v = pb.asarray(draw(x.shape, 5)), pb.asarray(draw(w.shape, 6))

    def first(a, b):  # the derivative of a cubic loss along u in x
        return (pb.grad(lambda t: (pb.conv2d(t, b, **options) ** 3).sum())(a) * u).sum()

    def second(a, b):
        return (pb.grad(first, argnums=1)(a, b) * v).sum()

    third = pb.grad(second)(px, pw).numpy()
    eps = 1e-5
    t = draw(x.shape, 7)
    want = (second(pb.asarray(x + eps * t), pw).item() - second(pb.asarray(x - eps * t), pw).item()) / (2 * eps)
    assert abs((third * t).sum() - want) <= 1e-6 * max(1, abs(want))


@pytest.mark.parametrize("case", CASES)
def test_forward_mode_is_the_transpose_of_reverse_mode(case):
    x, w, b, options = operands(case)
    primals = tuple(map(pb.asarray, (x, w, b)))
    tangents = tuple(pb.asarray(draw(a.shape, 20 + i)) for i, a in enumerate((x, w, b)))
    f = lambda *a: pb.conv2d(*a, **options)  # noqa: E731
    y, push = pb.jvp(f, primals, tangents)
    close(y.numpy(), conv_refs.conv2d(x, w, b, **options), 1e-14)
    g = pb.asarray(draw(y.shape, 30))
    _, pull = pb.vjp(f, *primals)
    left = (push.numpy() * g.numpy()).sum()
    right = sum((d.numpy() * t.numpy()).sum() for d, t in zip(pull(g), tangents, strict=True))
    assert abs(left - right) <= 1e-11 * max(1, abs(left))
    for i in range(3):  # one tangent at a time
        one = pb.jvp(lambda v, i=i: f(*primals[:i], v, *primals[i + 1 :]), (primals[i],), (tangents[i],))[1].numpy()
        moved = [a + (t.numpy() if i == j else 0) for j, (a, t) in enumerate(zip((x, w, b), tangents, strict=True))]
        close(one, conv_refs.conv2d(*moved, **options) - conv_refs.conv2d(x, w, b, **options), 1e-13)


@pytest.mark.parametrize("case", SMALL)
def test_transposed_convolution(case):
    x_shape, w_shape, options = case
    x, w = draw(x_shape, 0), draw(w_shape, 1)
    g = draw(conv_refs.conv2d(x, w, **options).shape, 3)
    stride, padding, dilation = (
        conv_refs.pair(options.get(k, d)) for k, d in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    room = [x_shape[2 + i] + 2 * padding[i] - dilation[i] * (w_shape[2 + i] - 1) - 1 for i in (0, 1)]
    surplus = tuple(room[i] % stride[i] for i in (0, 1))
    channels = x_shape[1]
    bias = draw((channels,), 4)
    want = conv_refs.conv2d_grads(x, w, g, **options)[0] + bias[:, None, None]
    f = lambda *a: pb.conv_transpose2d(*a, output_padding=surplus, **options)  # noqa: E731
    close(f(*map(pb.asarray, (g, w, bias))).numpy(), want, 1e-14)
    # conv2d is its transpose
    h = draw(x_shape, 5)
    dg, dw, db = grads_of(f, (g, w, bias), h)
    close(dg, conv_refs.conv2d(h, w, **options), 1e-14)
    close(dw, conv_refs.conv2d_grads(h, w, g, **options)[1], 1e-13)
    close(db, h.sum((0, 2, 3)), 1e-13)
    tangents = tuple(pb.asarray(draw(a.shape, 40 + i)) for i, a in enumerate((g, w, bias)))
    push = pb.jvp(f, tuple(map(pb.asarray, (g, w, bias))), tangents)[1].numpy()
    right = sum((d * t.numpy()).sum() for d, t in zip((dg, dw, db), tangents, strict=True))
    assert abs((push * h).sum() - right) <= 1e-11 * max(1, abs(right))


def test_conv1d():
    x, w, b = draw((2, 4, 11), 0), draw((6, 2, 3), 1), draw((6,), 2)
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    want = conv_refs.conv2d(x[:, :, None], w[:, :, None], b, (1, 2), (0, 1), (1, 2), 2)[:, :, 0]
    close(pb.conv1d(*map(pb.asarray, (x, w, b)), **options).numpy(), want, 1e-14)
    g = draw(want.shape, 3)
    dx, dw, db = conv_refs.conv2d_grads(x[:, :, None], w[:, :, None], g[:, :, None], (1, 2), (0, 1), (1, 2), 2)
    grads = grads_of(lambda *a: pb.conv1d(*a, **options), (x, w, b), g)
    for got, expected in zip(grads, (dx[:, :, 0], dw[:, :, 0], db), strict=True):
        close(got, expected, 1e-14)


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 0, 5, 5), (2, 3, 0, 5)])
def test_empty_input(shape):
    padding = 1 if shape[2] else (2, 1)
    x = pb.tensor(np.ones(shape, np.float32), requires_grad=True)
    w = pb.tensor(np.ones((4, shape[1], 3, 3), np.float32), requires_grad=True)
    b = pb.tensor(np.arange(4, dtype=np.float32), requires_grad=True)
    y = pb.conv2d(x, w, b, padding=padding)
    assert y.shape == conv_refs.conv2d(np.ones(shape), np.ones(w.shape), padding=padding).shape
    assert np.array_equal(y.detach().numpy(), np.broadcast_to(np.arange(4)[:, None, None], y.shape))
    y.sum().backward()
    assert x.grad.shape == shape
    assert np.array_equal(w.grad.numpy(), np.zeros(w.shape))
    assert np.array_equal(b.grad.numpy(), np.full(4, y.size // 4))


def test_no_output_channels():
    x = pb.tensor(np.ones((2, 3, 5, 5)), requires_grad=True)
    y = pb.conv2d(x, pb.zeros((0, 3, 3, 3), dtype=pb.float64))
    assert y.shape == (2, 0, 3, 3)
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), np.zeros(x.shape))


@pytest.mark.parametrize("dtype,tol", [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_sixteen_bit_floats(dtype, tol):
    x, w, b, options = operands(CASES[1], np.float32)
    kind = getattr(pb, dtype)
    leaves = [pb.asarray(a).astype(kind) for a in (x, w, b)]
    rounded = [t.astype(pb.float32).numpy() for t in leaves]
    for t in leaves:
        t.requires_grad = True
    y = pb.conv2d(*leaves, **options)
    assert y.dtype == kind
    close(y.detach().astype(pb.float32).numpy(), conv_refs.conv2d(*rounded, **options), tol)
    y.backward(pb.ones(y.shape, dtype=kind))
    want = conv_refs.conv2d_grads(rounded[0], rounded[1], np.ones(y.shape), **options)
    for t, expected in zip(leaves, want, strict=True):
        assert t.grad.dtype == kind
        close(t.grad.astype(pb.float32).numpy(), expected, tol)


def test_dtypes_promote():
    x, w, b, options = operands(CASES[0], np.float32)
    y = pb.conv2d(pb.asarray(x), pb.asarray(w.astype(np.float64)), pb.asarray(b), **options)
    assert y.dtype == pb.float64
    close(y.numpy(), conv_refs.conv2d(x, w, b, **options), 1e-14)


def test_inf_and_nan_stay_where_they_are():
    """A value that no window of a tap reads does not reach that tap."""
    x, w, b, _ = operands(CASES[0], np.float32)
    x[0, 0, 0, 0] = np.inf
    x[1, 2, 6, 8] = np.nan
    y = pb.conv2d(pb.asarray(x), pb.asarray(w), pb.asarray(b)).numpy()
    bad = ~np.isfinite(y)
    want = np.zeros(y.shape, bool)
    want[0, :, 0, 0] = want[1, :, 4, 6] = True
    assert np.array_equal(bad, want)
    dw = grads_of(lambda w: pb.conv2d(pb.asarray(x), w), (w,), np.ones(y.shape, np.float32))[0]
    want = np.zeros(dw.shape, bool)
    want[:, 0, 0, 0] = want[:, 2, 2, 2] = True
    assert np.array_equal(~np.isfinite(dw), want)
    g = np.ones(y.shape, np.float32)
    g[0, 1, 0, 6] = np.nan
    dx = grads_of(lambda x: pb.conv2d(x, pb.asarray(w)), (x,), g)[0]
    want = np.zeros(x.shape, bool)
    want[0, :, 0:3, 6:9] = True
    assert np.array_equal(np.isnan(dx), want)


BIT_CASES = [
    ((9, 3, 17, 19), (20, 3, 3, 3), {"padding": 1}),
    ((3, 40, 9, 9), (33, 40, 3, 3), {"stride": 2}),
    ((1, 8, 64, 48), (16, 8, 3, 3), {"padding": 1}),
    ((2, 8, 30, 30), (8, 1, 3, 3), {"groups": 8}),
    ((4, 70, 12, 12), (30, 70, 1, 1), {}),
    ((11, 40, 7, 7), (130, 40, 3, 3), {"padding": 1}),
]


def all_bits(case, dtype):
    x, w, b, options = operands(case, dtype)
    g = draw(conv_refs.conv2d(x, w, b, **options).shape, 3, dtype)
    f = lambda *a: pb.conv2d(*a, **options)  # noqa: E731
    parts = [f(*map(pb.asarray, (x, w, b))).numpy(), *grads_of(f, (x, w, b), g)]
    return b"".join(np.ascontiguousarray(p).tobytes() for p in parts)


@pytest.mark.parametrize("case", BIT_CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_threads(case, dtype):
    pb.set_num_threads(1)
    one = all_bits(case, dtype)
    for threads in (2, 3, 5):
        pb.set_num_threads(threads)
        assert all_bits(case, dtype) == one


def digest():
    pools = [pb.avg_pool2d(pb.asarray(draw((2, 3, 19, 23), 0, np.float32)), 3, stride=2, padding=1).numpy().tobytes()]
    parts = [all_bits(case, dtype) for case in BIT_CASES for dtype in (np.float32, np.float64)]
    return hashlib.sha256(b"".join(parts + pools)).hexdigest()


def test_bits_do_not_depend_on_the_vector_width():
    if pb.isa_level() != "v4":
        pytest.skip("needs a CPU with two levels that have a fused multiply-add")
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_conv; print(test_conv.digest())"
    env = dict(os.environ, PULLBACK_ISA="v3")
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(pb.__file__))]
    run = subprocess.run([sys.executable, "-c", code, *paths], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest()


def shapes(x, w, b=None):
    return [pb.zeros(s, dtype=pb.float32) for s in (x, w, *([] if b is None else [b]))]


@pytest.mark.parametrize(
    "args,options,error,match",
    [
        (((3, 5, 5), (4, 3, 3, 3)), {}, pb.ShapeError, "must have 4 dimensions"),
        (((1, 3, 5, 5), (4, 3, 3)), {}, pb.ShapeError, "the weight must have 4 dimensions"),
        (((1, 3, 5, 5), (4, 2, 3, 3)), {}, pb.ShapeError, "has 3 channels, the weight takes 2 in each of 1 groups"),
        (((1, 4, 5, 5), (4, 3, 3, 3)), {"groups": 2}, pb.ShapeError, "the input has 4 channels, the weight takes 3"),
        (((1, 4, 5, 5), (3, 2, 3, 3)), {"groups": 2}, pb.ShapeError, "groups = 2 does not divide"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"groups": 0}, ValueError, "groups must be at least 1"),
        (((1, 3, 5, 5), (4, 3, 6, 3)), {}, pb.ShapeError, "the kernel 6x3 is larger than the padded input"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"dilation": 3}, pb.ShapeError, "larger than the padded input"),
        (((1, 3, 5, 5), (4, 3, 0, 3)), {}, pb.ShapeError, "the kernel is empty"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"padding": -1}, ValueError, "padding must be at least 0"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"stride": (1, 0)}, ValueError, "stride must be at least 1"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"dilation": 0}, ValueError, "dilation must be at least 1"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"padding": 2**40}, ValueError, "at most 2\\*\\*30"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"stride": (1, 2, 3)}, ValueError, "stride has 3 values"),
        (((1, 3, 5, 5), (4, 3, 3, 3), (3,)), {}, pb.ShapeError, "one value per output channel, 4"),
        (((1, 3, 5, 5), (4, 3, 3, 3), (4, 1)), {}, pb.ShapeError, "one value per output channel"),
        (((1, 3, 5, 5), (4, 3, 3, 3)), {"padding": 2**30}, (pb.ShapeError, MemoryError), "help"),
    ],
)
def test_errors(args, options, error, match):
    with pytest.raises(error, match=match):
        pb.conv2d(*shapes(*args), **options)


def test_integers_are_refused():
    with pytest.raises(pb.DTypeError, match="conv2d: the operands must be floats"):
        pb.conv2d(pb.ones((1, 1, 3, 3), dtype=pb.int32), pb.ones((1, 1, 2, 2), dtype=pb.int32))


def test_conv1d_errors():
    with pytest.raises(pb.ShapeError, match="conv1d: the input and the weight must have 3 dimensions"):
        pb.conv1d(*shapes((1, 3, 5, 5), (4, 3, 3)))
    with pytest.raises(ValueError, match="conv1d: stride has 2 values"):
        pb.conv1d(*shapes((1, 3, 5), (4, 3, 3)), stride=(1, 2))


@pytest.mark.parametrize(
    "args,options,error,match",
    [
        (((1, 3, 5, 5), (4, 3, 3, 3)), {}, pb.ShapeError, "the input has 3 channels, the weight takes 4"),
        (((1, 4, 5, 5), (4, 3, 3, 3)), {"output_padding": 1}, ValueError, "smaller than the stride, got 1"),
        (((1, 4, 5, 5), (4, 3, 3, 3)), {"padding": 4}, pb.ShapeError, "removes the whole result"),
        (((1, 4, 0, 5), (4, 3, 3, 3)), {}, pb.ShapeError, "empty or too large"),
        (((1, 4, 5, 5), (4, 3, 3, 3), (4,)), {}, pb.ShapeError, "one value per output channel, 3"),
        (((1, 4, 5, 5), (4, 3, 3, 3)), {"groups": 3}, pb.ShapeError, "groups = 3 does not divide"),
    ],
)
def test_transposed_errors(args, options, error, match):
    with pytest.raises(error, match=match):
        pb.conv_transpose2d(*shapes(*args), **options)


def test_a_stale_input_is_noticed():
    x, w, _, _ = operands(CASES[0])
    leaf = pb.tensor(w, requires_grad=True)
    held = pb.asarray(x.copy())
    y = pb.conv2d(held, leaf)
    held[0, 0, 0, 0] = 5.0
    with pytest.raises(pb.GraphError, match="modified in place"):
        y.sum().backward()
