"""Pooling against NumPy in float64: values, gradients of first and second order, forward mode, ties, NaN and errors."""

import conv_refs
import numpy as np
import pytest

import pullback as pb

# x shape, size, options
CASES = [
    ((2, 3, 8, 8), 2, {}),
    ((2, 3, 7, 9), 2, {}),
    ((2, 3, 7, 9), 3, {"stride": 2, "padding": 1}),
    ((2, 3, 9, 10), (2, 3), {"stride": (3, 1), "padding": (1, 0)}),
    ((3, 6, 7), 3, {"stride": 1}),
    ((1, 2, 20, 21), (17, 18), {"stride": 2, "padding": (8, 9)}),
    ((2, 2, 5, 5), 5, {}),
    ((1, 2, 40, 40), 4, {"stride": 5}),
    ((2, 2, 6, 6), 1, {"stride": 2}),
]
ADAPTIVE = [((2, 3, 8, 8), 1), ((2, 3, 8, 9), (2, 3)), ((2, 3, 7, 5), 3), ((3, 4, 5), (4, 5)), ((1, 2, 3, 40), (5, 33))]


def draw(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(got, want, tol):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.all(np.abs(got - want) <= tol * np.maximum(1, np.abs(want)))


def gradient(f, x, g):
    leaf = pb.tensor(x, requires_grad=True)
    f(leaf).backward(pb.asarray(g))
    return leaf.grad.numpy()


@pytest.mark.parametrize("shape,size,options", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max(shape, size, options, dtype):
    x = draw(shape, dtype=dtype)
    want = conv_refs.max_pool2d(x, size, **options).astype(dtype)
    f = lambda t: pb.max_pool2d(t, size, **options)  # noqa: E731
    assert np.array_equal(f(pb.asarray(x)).numpy(), want)
    assert np.array_equal(f(pb.tensor(x, requires_grad=True)).detach().numpy(), want)
    assert np.array_equal(f(pb.asarray(np.asfortranarray(x))).numpy(), want)
    g = draw(want.shape, 1, dtype)
    close(gradient(f, x, g), conv_refs.max_pool2d_grad(x, g, size, **options), 1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("shape,size,options", CASES)
@pytest.mark.parametrize("dtype,tol", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_average(shape, size, options, dtype, tol):
    x = draw(shape, dtype=dtype)
    want = conv_refs.avg_pool2d(x, size, **options)
    f = lambda t: pb.avg_pool2d(t, size, **options)  # noqa: E731
    close(f(pb.asarray(x)).numpy(), want, tol)
    close(f(pb.asarray(np.asfortranarray(x))).numpy(), want, tol)
    check_transpose(f, x, want, tol)


@pytest.mark.parametrize("shape,size", ADAPTIVE)
@pytest.mark.parametrize("dtype,tol", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_adaptive_average(shape, size, dtype, tol):
    x = draw(shape, dtype=dtype)
    want = conv_refs.adaptive_avg_pool2d(x, size)
    f = lambda t: pb.adaptive_avg_pool2d(t, size)  # noqa: E731
    close(f(pb.asarray(x)).numpy(), want, tol)
    check_transpose(f, x, want, tol)


def check_transpose(f, x, y, tol):
    """For a linear map: sum(g * f(x)) == sum(f'(g) * x), the pullback of the pullback is f, jvp is f itself."""
    g = draw(y.shape, 1, x.dtype)
    dx = gradient(f, x, g)
    assert dx.shape == x.shape and dx.dtype == x.dtype
    assert abs((dx.astype(np.float64) * x).sum() - (y * g).sum()) <= 100 * tol * max(1, np.abs(y * g).sum())
    leaf = pb.tensor(x, requires_grad=True)
    cotangent = pb.tensor(g, requires_grad=True)
    inner = pb.gradients(f(leaf), [leaf], cotangent, create_graph=True)[0]
    t = pb.asarray(draw(x.shape, 2, x.dtype))
    twice = pb.gradients(inner, [cotangent], t)[0]
    assert np.array_equal(twice.numpy(), f(t).numpy())
    assert np.array_equal(pb.jvp(f, (leaf.detach(),), (t,))[1].numpy(), f(t).numpy())


@pytest.mark.parametrize("shape,size,options", [CASES[i] for i in (0, 2, 3, 4)])
def test_second_order_and_forward_mode_of_max(shape, size, options):
    x = draw(shape)
    f = lambda t: pb.max_pool2d(t, size, **options)  # noqa: E731
    loss = lambda t: (f(t) ** 3).sum()  # noqa: E731
    t = draw(shape, 1)
    eps = 1e-7  # smaller than the gaps between cells, so that no maximum moves
    y, push = pb.jvp(f, (pb.asarray(x),), (pb.asarray(t),))
    close(
        push.numpy(),
        (conv_refs.max_pool2d(x + eps * t, size, **options) - conv_refs.max_pool2d(x - eps * t, size, **options))
        / (2 * eps),
        1e-7,
    )
    g = draw(y.shape, 2)
    dx = gradient(f, x, g)
    assert abs((push.numpy() * g).sum() - (dx * t).sum()) <= 1e-12 * max(1, np.abs(dx * t).sum())
    df = lambda a: pb.grad(loss)(pb.asarray(a)).numpy()  # noqa: E731
    want = (df(x + eps * t) - df(x - eps * t)) / (2 * eps)
    close(pb.hvp(loss, (pb.asarray(x),), (pb.asarray(t),))[0].numpy(), want, 1e-6)
    leaf = pb.tensor(x, requires_grad=True)
    first = pb.gradients(loss(leaf), [leaf], create_graph=True)[0]
    close(pb.gradients((first * pb.asarray(t)).sum(), [leaf])[0].numpy(), want, 1e-6)


def test_first_of_equal_cells_takes_the_gradient():
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = 1.0
    dx = gradient(lambda t: pb.max_pool2d(t, 2), x, np.ones((1, 1, 2, 2)))
    want = np.zeros((4, 4))
    want[0, 1] = want[0, 2] = want[2, 0] = want[2, 2] = 1
    assert np.array_equal(dx[0, 0], want)


def test_windows_of_minus_infinity():
    x = np.full((1, 1, 4, 4), -np.inf)
    f = lambda t: pb.max_pool2d(t, 3, stride=2, padding=1)  # noqa: E731
    assert np.array_equal(f(pb.asarray(x)).numpy(), np.full((1, 1, 2, 2), -np.inf))
    want = np.zeros((4, 4))
    want[0, 0] = want[0, 1] = want[1, 0] = want[1, 1] = 1  # the first cell inside the plane
    assert np.array_equal(gradient(f, x, np.ones((1, 1, 2, 2)))[0, 0], want)


@pytest.mark.parametrize("at", [(0, 0), (1, 2), (3, 3)])
def test_nan_propagates(at):
    x = draw((1, 1, 4, 4))
    x[(0, 0, *at)] = np.nan
    for f, ref in ((pb.max_pool2d, conv_refs.max_pool2d), (pb.avg_pool2d, conv_refs.avg_pool2d)):
        y = f(pb.asarray(x), 2).numpy()
        assert np.isnan(y[0, 0, at[0] // 2, at[1] // 2])
        want = ref(x, 2)
        assert np.array_equal(np.isnan(y), np.isnan(want))
        close(y[~np.isnan(y)], want[~np.isnan(want)], 1e-14)
    dx = gradient(lambda t: pb.max_pool2d(t, 2), x, np.ones((1, 1, 2, 2)))
    assert dx[(0, 0, *at)] == 1 and dx.sum() == 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_floats(dtype):
    kind = getattr(pb, dtype)
    x = pb.asarray(draw((2, 3, 6, 6), dtype=np.float32)).astype(kind)
    exact = x.astype(pb.float32).numpy()
    x.requires_grad = True
    y = pb.max_pool2d(x, 2)
    assert y.dtype == kind
    assert np.array_equal(y.detach().astype(pb.float32).numpy(), conv_refs.max_pool2d(exact, 2))
    (y.sum() + pb.avg_pool2d(x, 2).sum()).backward()
    want = conv_refs.max_pool2d_grad(exact, np.ones(y.shape), 2) + 0.25
    assert x.grad.dtype == kind and np.array_equal(x.grad.astype(pb.float32).numpy(), want)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"])
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (0, 4, 4)])
def test_empty_batch(name, shape):
    x = pb.tensor(np.ones(shape), requires_grad=True)
    y = getattr(pb, name)(x, 2)
    assert y.shape == (*shape[:-2], 2, 2)
    y.sum().backward()
    assert x.grad.shape == shape


def test_bits_do_not_depend_on_threads():
    x = draw((8, 16, 33, 35), dtype=np.float32)
    fs = [
        lambda t: pb.max_pool2d(t, 3, stride=2, padding=1),
        lambda t: pb.avg_pool2d(t, 3, stride=1),
        lambda t: pb.adaptive_avg_pool2d(t, 7),
    ]
    bits = []
    for threads in (1, 2, 3):
        pb.set_num_threads(threads)
        ys = [f(pb.asarray(x)).numpy() for f in fs]
        bits.append([a.tobytes() for f, y in zip(fs, ys, strict=True) for a in (y, gradient(f, x, y))])
    assert bits[0] == bits[1] == bits[2]


def test_max_keeps_one_byte_per_output():
    x = pb.tensor(draw((2, 3, 8, 8), dtype=np.float32), requires_grad=True)
    leaf_bytes = 4 * x.size
    assert pb.memory.saved_bytes(pb.max_pool2d(x, 2).sum()) <= leaf_bytes + 2 * 3 * 4 * 4


@pytest.mark.parametrize(
    "call,error,match",
    [
        (lambda x: pb.max_pool2d(x[0, 0], 2), pb.ShapeError, "max_pool2d: the input must have 3 or 4 dimensions"),
        (
            lambda x: pb.avg_pool2d(x, (6, 5)),
            pb.ShapeError,
            "avg_pool2d: the window 6x5 is larger than the padded input",
        ),
        (lambda x: pb.max_pool2d(x, 0), ValueError, "size and stride must be at least 1"),
        (lambda x: pb.max_pool2d(x, 2, stride=-1), ValueError, "size and stride must be at least 1"),
        (lambda x: pb.max_pool2d(x, 2, padding=-1), ValueError, "padding must be at least 0"),
        (lambda x: pb.avg_pool2d(x, 2, padding=2), ValueError, "at most half of the window, got 2"),
        (lambda x: pb.max_pool2d(x, (2, 2, 2)), ValueError, "size has 3 values"),
        (lambda x: pb.max_pool2d(x.astype(pb.int32), 2), pb.DTypeError, "the input must be a float"),
        (lambda x: pb.max_pool2d(x[:, :, :0], 2, padding=1), pb.ShapeError, "planes of the input are empty"),
        (lambda x: pb.adaptive_avg_pool2d(x, 0), ValueError, "size must be at least 1"),
        (lambda x: pb.adaptive_avg_pool2d(x[:, :, :0], 2), pb.ShapeError, "planes of the input are empty"),
        (lambda x: pb.adaptive_avg_pool2d(x[0, 0], 2), pb.ShapeError, "3 or 4 dimensions"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call(pb.zeros((2, 3, 5, 5), dtype=pb.float32))
