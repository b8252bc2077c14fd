"""Memory shared with PyTorch through DLPack, and writes in place compared with PyTorch's."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pullback as pb  # noqa: E402

NAMES = ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("name", NAMES)
def test_both_ways(name):
    t = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, name))
    for view in (t, t[:, 1:, ::2], t.permute(2, 0, 1), t[0, 0, 0], t[:0]):
        for make in (pb.asarray, pb.from_dlpack):
            x = make(view)
            assert x.dtype == getattr(pb, name) and x.shape == tuple(view.shape)
            assert x.tolist() == view.tolist()
            back = torch.from_dlpack(x)
            assert back.dtype == view.dtype and back.tolist() == view.tolist()
            if view.numel():
                assert x._address == view.data_ptr() == back.data_ptr()


def test_writes_are_shared():
    t = torch.zeros(3, dtype=torch.bfloat16)
    x = pb.from_dlpack(t)
    x[1] = 2.5
    assert t[1].item() == 2.5
    t[0] = -1.0
    assert x[0].item() == -1.0


def test_grad_requiring_tensors_are_refused_by_torch():
    with pytest.raises((BufferError, RuntimeError)):
        pb.asarray(torch.ones(2, requires_grad=True))


def program(lib, x, w):
    """Views, writes and reads in an order that exercises versions and view graphs; the same calls in both libraries."""
    y = x * 2.0
    v = y[1:]
    v *= w[0]
    y[0] = v[1, :3] * 3.0
    u = y.T if lib is pb else y.t()
    u[1] += w[1]
    v[:, ::2] = 0.5
    z = y[[0, 2, 2]]
    y += z.sum()
    idx = [1, 0, 1]
    y[idx, [0, 1, 2]] = w * 1.5
    mask = y > 3.0
    y[mask] = y[mask] * w[2]
    return y


def test_in_place_program_as_in_torch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 3)), rng.normal(size=3)
    grads = []
    for lib in (pb, torch):
        x = lib.tensor(a, requires_grad=True, dtype=lib.float64)
        w = lib.tensor(b, requires_grad=True, dtype=lib.float64)
        y = program(lib, x, w)
        (y * y * y).sum().backward()
        grads.append([np.array(k.tolist()) for k in (y.detach(), x.grad, w.grad)])
    for ours, theirs in zip(*grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
