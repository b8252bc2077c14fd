"""Convolutions and pooling against PyTorch: values and gradients, also where PyTorch decides what is right."""

import numpy as np
import pytest
from test_conv import CASES, draw, operands
from test_pool import ADAPTIVE
from test_pool import CASES as POOLS

import pullback as pb

torch = pytest.importorskip("torch")
F = torch.nn.functional


def both(ours, theirs, arrays, tol):
    a = [pb.tensor(v, requires_grad=True) for v in arrays]
    b = [torch.tensor(v, requires_grad=True) for v in arrays]
    y, z = ours(*a), theirs(*b)
    close(y.detach().numpy(), z.detach().numpy(), tol)
    g = draw(y.shape, 9, arrays[0].dtype)
    y.backward(pb.asarray(g))
    z.backward(torch.tensor(g))
    for p, q in zip(a, b, strict=True):
        close(p.grad.numpy(), q.grad.numpy(), tol)


def close(got, want, tol):
    assert got.shape == want.shape and got.dtype == want.dtype
    ok = np.isfinite(want)
    assert np.array_equal(got[~ok], want[~ok], equal_nan=True)
    scale = max(1.0, np.max(np.abs(want[ok]), initial=0.0))
    assert np.all(np.abs(got[ok] - want[ok]) <= tol * scale)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype,tol", [(np.float32, 5e-6), (np.float64, 1e-13)])
def test_conv2d(case, dtype, tol):
    x, w, b, options = operands(case, dtype)
    both(lambda *a: pb.conv2d(*a, **options), lambda *a: F.conv2d(*a, **options), (x, w, b), tol)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": (2, 3), "output_padding": (0, 2), "groups": 2},
        {"dilation": 2, "padding": (0, 2)},
        {"stride": 3, "dilation": 2, "groups": 4},
        {"stride": 5, "padding": 2},
    ],
)
def test_conv_transpose2d(options):
    groups = options.get("groups", 1)
    arrays = draw((2, 4, 5, 6), 0), draw((4, 3, 3, 4), 1), draw((3 * groups,), 2)
    both(lambda *a: pb.conv_transpose2d(*a, **options), lambda *a: F.conv_transpose2d(*a, **options), arrays, 1e-13)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 2}, {"dilation": 3, "groups": 2}])
def test_conv1d(options):
    arrays = draw((2, 4, 15), 0), draw((6, 4 // options.get("groups", 1), 3), 1), draw((6,), 2)
    both(lambda *a: pb.conv1d(*a, **options), lambda *a: F.conv1d(*a, **options), arrays, 1e-13)


@pytest.mark.parametrize("shape,size,options", POOLS)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pools(shape, size, options, name):
    ours, theirs = getattr(pb, name), getattr(F, name)
    for x in (draw(shape, 0), np.round(draw(shape, 1))):  # without and with ties
        both(lambda t: ours(t, size, **options), lambda t: theirs(t, size, **options), (x,), 1e-14)


@pytest.mark.parametrize("at", [(0, 0), (1, 1), (2, 3)])
def test_max_pool_with_nan(at):
    x = draw((2, 2, 6, 6), 0)
    x[(0, 1, *at)] = np.nan
    x[1] = -np.inf
    options = {"stride": 2, "padding": 1}
    both(lambda t: pb.max_pool2d(t, 3, **options), lambda t: F.max_pool2d(t, 3, **options), (x,), 1e-14)


@pytest.mark.parametrize("shape,size", ADAPTIVE)
def test_adaptive(shape, size):
    both(lambda t: pb.adaptive_avg_pool2d(t, size), lambda t: F.adaptive_avg_pool2d(t, size), (draw(shape, 0),), 1e-13)


def test_double_backward():
    """The gradient of a gradient penalty."""
    x, w, b, options = operands(CASES[2], np.float64)

    def penalty(lib, conv, *leaves):
        y = conv(*leaves, **options)
        loss = (y * y * y).sum()
        if lib is pb:
            first = pb.gradients(loss, leaves, create_graph=True)
        else:
            first = torch.autograd.grad(loss, leaves, create_graph=True)
        return sum((d * d).sum() for d in first)

    ours = [pb.tensor(v, requires_grad=True) for v in (x, w, b)]
    theirs = [torch.tensor(v, requires_grad=True) for v in (x, w, b)]
    penalty(pb, pb.conv2d, *ours).backward()
    penalty(torch, F.conv2d, *theirs).backward()
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad.numpy(), q.grad.numpy(), 1e-12)
