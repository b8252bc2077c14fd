"""Device tensors in Python: creation, values, views, gradients, files, other libraries, modules, training."""

from __future__ import annotations

import copy
import pickle

import common
import numpy as np
import pytest

import pullback as pb


def test_creation():
    made = {
        "tensor": pb.tensor([1.0, 2.0], device="cuda"),
        "asarray": pb.asarray([1, 2], device="cuda"),
        "zeros": pb.zeros((2, 3), device="cuda"),
        "ones": pb.ones((2, 3), dtype=pb.int32, device="cuda"),
        "full": pb.full((2,), 7, device="cuda:0"),
        "arange": pb.arange(1, 7, 2, device="cuda"),
        "linspace": pb.linspace(0, 1, 3, device="cuda"),
        "eye": pb.eye(2, 3, k=1, device="cuda"),
    }
    here = {
        "tensor": [1.0, 2.0],
        "asarray": [1, 2],
        "zeros": [[0.0] * 3] * 2,
        "ones": [[1] * 3] * 2,
        "full": [7, 7],
        "arange": [1, 3, 5],
        "linspace": [0.0, 0.5, 1.0],
        "eye": [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    }
    for name, t in made.items():
        assert t.device == "cuda:0" and t.tolist() == here[name], name
    x = made["tensor"]
    for t in (pb.zeros_like(x), pb.ones_like(x), pb.full_like(x, 3), pb.empty_like(x), pb.tril(pb.ones((2, 2)).to("cuda"))):
        assert t.device == "cuda:0"
    assert pb.zeros_like(x, device="cpu").device == "cpu"


@pytest.mark.parametrize("draw", ["normal", "uniform", "exponential", "gumbel"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_draws_are_those_of_the_cpu(draw, dtype):
    f, dtype = getattr(pb.random, draw), getattr(pb, dtype)
    for n in (1, 5, 1023):
        a, b = (f(n, dtype=dtype, device=d, rng=pb.random.Generator(n)) for d in ("cpu", "cuda"))
        assert b.device == "cuda:0"
        common.close(b, a, 3e-7 if dtype != pb.bfloat16 else 1e-2)
    rng = pb.random.Generator(4)
    first = f(7, device="cuda", rng=rng)
    assert f(7, device="cuda", rng=rng).tolist() != first.tolist()


def test_integer_draws():
    for f in (lambda **k: pb.random.randint(-5, 90, 33, **k), lambda **k: pb.random.permutation(17, **k)):
        a, b = f(rng=pb.random.Generator(1)), f(rng=pb.random.Generator(1), device="cuda")
        assert b.device == "cuda:0" and a.tolist() == b.tolist()
    p = pb.random.bernoulli(0.5, 100, rng=pb.random.Generator(1), device="cuda")
    assert p.device == "cuda:0" and p.tolist() == pb.random.bernoulli(0.5, 100, rng=pb.random.Generator(1)).tolist()


def test_values():
    x = pb.tensor([[1.5, -2.0]], device="cuda")
    assert x[0, 0].item() == 1.5 == float(x[0, 0]) and bool(x[0, 0]) and int(x[0, 1]) == -2
    assert x.tolist() == [[1.5, -2.0]] and x.numpy().tolist() == [[1.5, -2.0]]
    assert np.asarray(x).tolist() == [[1.5, -2.0]] and np.asarray(x.T, dtype=np.float64).tolist() == [[1.5], [-2.0]]
    assert repr(x) == "tensor([[ 1.5, -2. ]], device='cuda:0')"
    assert "device='cuda:0'" in repr(pb.zeros((50, 50), device="cuda")) and f"{x[0, 0]:.2f}" == "1.50"
    assert x.tobytes() == np.float32([1.5, -2]).tobytes() and x.T.tobytes() == x.tobytes()
    with pytest.raises(BufferError, match="lies on a CUDA device"):
        memoryview(x)
    with pytest.raises(ValueError, match="copy=False, but the tensor lies on a CUDA device"):
        x.__array__(copy=False)
    assert pb.array_equal(x, x) if hasattr(pb, "array_equal") else True


def test_moving():
    x = pb.asarray(np.arange(6.0).reshape(2, 3))
    y = x.to("cuda")
    assert y.to("cuda") is y and y.to("cpu").device == "cpu" and x.T.to("cuda").tolist() == x.T.tolist()
    assert y.to(pb.int32).device == "cuda:0" and y.T.to("cpu").tolist() == x.T.tolist()
    with pytest.raises(pb.DeviceError, match="the tensors lie on cuda:0 and cpu") as info:
        y + x
    assert 'help: move one: x.to("cuda:0")' in str(info.value)
    with pytest.raises(pb.DeviceError, match="lie on"):
        y[0] = x[0]
    with pytest.raises(pb.DeviceError, match="lie on"):
        y += x
    assert (y + 1).tolist() == (x + 1).tolist() and (2 * y).device == "cuda:0"
    w = pb.ones(3).requires_grad_()
    (w.to("cuda") * 3).sum().backward()
    assert w.grad.device == "cpu" and w.grad.tolist() == [3.0] * 3
    _, t = pb.jvp(lambda a: a.to("cuda") * 2, (pb.ones(2),), (pb.ones(2),))
    assert t.device == "cuda:0" and t.tolist() == [2.0, 2.0]


def test_windows_and_writes():
    a = np.arange(60.0, dtype=np.float32).reshape(3, 4, 5)
    x = pb.asarray(a).to("cuda")
    for key in (1, (slice(None), 2), (..., slice(None, None, -2)), (slice(1), None, 3)):
        assert x[key].tolist() == a[key].tolist()
    assert pb.permute_dims(x, (2, 0, 1)).contiguous().tolist() == a.transpose(2, 0, 1).tolist()
    assert pb.flip(x, axis=1).tolist() == a[:, ::-1].tolist()
    b = a.copy()
    x[1, ::2] = 5
    b[1, ::2] = 5
    x[:, 1] = x[:, 2] * 2
    b[:, 1] = b[:, 2] * 2
    x += 1
    b += 1
    x[0].T[...] = pb.zeros((5, 4), device="cuda")
    b[0] = 0
    assert x.tolist() == b.tolist()
    w = pb.zeros((2, 3), device="cuda").requires_grad_()
    y = w * 1
    y[0] = 2
    (y * y + y).sum().backward()
    assert w.grad.tolist() == [[0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("source", ["bool", "int8", "uint16", "int32", "int64", "uint64", "float16", "bfloat16", "float32", "float64"])
def test_casts(source):
    x = pb.asarray(np.array([[0, 1, 2], [3, 100, 5]])).astype(getattr(pb, source))
    for target in ("bool", "int8", "uint8", "int16", "int32", "int64", "uint32", "float16", "bfloat16", "float32", "float64"):
        t = getattr(pb, target)
        for view in (x, x.T, pb.broadcast_to(x, (2, 2, 3))):
            assert view.to("cuda").astype(t).tolist() == view.astype(t).tolist(), (source, target)


def test_gradients_of_many_kinds():
    def f(x, w, lib):
        y = pb.where(x > 0, pb.tanh(x) * w, pb.softplus(x)) + pb.maximum(x, w)
        return pb.mean(pb.square(y - pb.mean(y, axis=0, keepdims=True))) + pb.max(y) + pb.logsumexp(y, axis=1).sum()

    x, w = pb.random.normal((7, 5), rng=pb.random.Generator(1)), pb.random.normal(5, rng=pb.random.Generator(2))
    want = pb.value_and_grad(f, argnums=(0, 1))(x, w, None)
    got = pb.value_and_grad(f, argnums=(0, 1))(x.to("cuda"), w.to("cuda"), None)
    assert got[0].device == "cuda:0"
    assert got[0].item() == pytest.approx(want[0].item(), rel=1e-6)
    for a, b in zip(got[1], want[1], strict=True):
        assert a.device == "cuda:0"
        common.close(a, b, 1e-6)
    hv = [pb.hvp(lambda a: f(a, v, None), (u,), (pb.ones_like(u),)) for u, v in ((x, w), (x.to("cuda"), w.to("cuda")))]
    first, second = (h[0] if isinstance(h, tuple) else h for h in hv)
    common.close(second, first, 2e-6)


def test_anomaly_detection():
    with pb.detect_anomaly():
        x = pb.tensor([0.0], device="cuda").requires_grad_()
        with pytest.raises(pb.GraphError, match="non-finite gradient"):
            (pb.log(x) * 0).sum().backward()


def test_files_and_copies(tmp_path):
    x = pb.tensor([1.0, 2.0], device="cuda").requires_grad_()
    again = pickle.loads(pickle.dumps(x))
    assert again.device == "cuda:0" and again.tolist() == x.tolist() and again.requires_grad
    assert copy.deepcopy(x).device == "cuda:0" and copy.deepcopy(x).tolist() == [1.0, 2.0]
    pb.save(tmp_path / "x.safetensors", {"x": x.detach()})
    loaded = pb.load(tmp_path / "x.safetensors")["x"]
    assert loaded.device == "cpu" and loaded.tolist() == [1.0, 2.0]
    a, b = pb.nn.LayerNorm(3), pb.nn.LayerNorm(3).to("cuda")
    a.weight.detach()[...] = 4
    b.load_state_dict(a.state_dict())
    assert b.weight.device == "cuda:0" and b.weight.tolist() == [4.0] * 3


def test_dlpack():
    x = pb.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    assert x.__dlpack_device__() == (2, 0)
    y = pb.from_dlpack(x.T.__dlpack__(max_version=(1, 0)))
    assert y.device == "cuda:0" and y._address == x._address and y.tolist() == [[1.0, 3.0], [2.0, 4.0]]

    class Producer:
        def __init__(self):
            self.stream = None

        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, *, stream=None, max_version=None):
            self.stream = stream
            return x.__dlpack__(stream=stream, max_version=max_version)

    p = Producer()
    assert pb.from_dlpack(p).device == "cuda:0" and p.stream == 1
    side = pb.cuda.Stream()
    with side:
        assert pb.asarray(p).tolist() == x.tolist() and p.stream > 2
    assert pb.from_dlpack(x, device="cpu").tolist() == x.tolist()
    assert pb.from_dlpack(pb.ones(2), device="cuda").device == "cuda:0"
    with pytest.raises(ValueError, match="stream 0 is ambiguous"):
        x.__dlpack__(stream=0)
    with pytest.raises(BufferError, match="the data lies on a CUDA device"):
        x.__dlpack__(dl_device=(1, 0))
    with pytest.raises(ValueError, match="copy=False, but another device needs a copy"):
        pb.from_dlpack(x, device="cpu", copy=False)


def test_modules_keep_their_optimizer():
    model = pb.nn.LayerNorm(3)
    opt = pb.optim.SGD(model.parameters(), lr=0.5)
    weight = model.weight
    assert model.to("cuda") is model and model.weight is weight and weight.device == "cuda:0"
    weight.grad = pb.ones(3, device="cuda")
    opt.step()
    assert weight.tolist() == [0.5] * 3
    state = copy.deepcopy(opt.state_dict())
    opt.load_state_dict(state)


def test_gradient_norms():
    ps = [pb.ones((3,), device="cuda").requires_grad_(), pb.ones((2, 2), device="cuda").requires_grad_()]
    for p in ps:
        p.grad = pb.full_like(p, 2.0)
    norm = pb.optim.clip_grad_norm_(ps, 1.0)
    assert float(norm) == pytest.approx(28**0.5)
    assert ps[0].grad.tolist() == pytest.approx([2 / 28**0.5] * 3, rel=1e-5)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda p: pb.optim.AdamW(p, state="bfloat16"), "narrow state formats do not exist"),
        (lambda p: pb.optim.AdamW(p, state="int8"), "narrow state formats do not exist"),
    ],
)
def test_what_optimizers_do_not_have(make, text):
    p = pb.ones((8192,), device="cuda").requires_grad_()
    try:
        opt = make([p])
    except (TypeError, ValueError):
        pytest.skip("another spelling of state formats")
    p.grad = pb.ones_like(p)
    with pytest.raises(pb.DeviceError, match=text):
        opt.step()


def test_optimizers_refuse_what_they_cannot_step():
    p = pb.ones((4,), dtype=pb.float64, device="cuda").requires_grad_()
    p.grad = pb.ones_like(p)
    with pytest.raises(pb.DeviceError, match="float64 parameters cannot be trained on a CUDA device"):
        pb.optim.SGD([p], lr=0.1).step()
    q = pb.ones((4, 3), device="cuda").T.requires_grad_()
    q.grad = pb.ones((3, 4), device="cuda")
    with pytest.raises(pb.DeviceError, match="parameters that are not contiguous"):
        pb.optim.SGD([q], lr=0.1).step()
    r = pb.ones(2, device="cuda").requires_grad_()
    with pytest.raises(pb.DeviceError, match="the tensors lie on cuda:0 and cpu"):
        pb.optim.SGD([r], lr=0.1).step(grads=[pb.ones(2)])


def test_a_step_that_is_not_finite_changes_nothing():
    p = pb.ones((5,), device="cuda").requires_grad_()
    opt = pb.optim.AdamW([p], lr=0.1)
    for g, skipped in (([1.0] * 5, False), ([1.0, float("nan")] + [1.0] * 3, True), ([float("inf")] * 5, True)):
        before = p.tolist()
        p.grad = pb.tensor(g, device="cuda")
        opt.step(clip_norm=1.0)
        assert opt.last_skipped is skipped and (p.tolist() == before) is skipped


def test_info(capsys):
    from pullback.cli.info import info

    info()
    assert "cuda:0" in capsys.readouterr().out
