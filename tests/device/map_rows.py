"""Every element-wise row and reduction on a device, against the same call on the CPU."""

from __future__ import annotations

import common
import numpy as np
import pytest
import refs

import pullback as pb
from pullback import _core as C

ROWS = {r["name"]: r for r in pb.ops() if r["family"] == "Map" and not r["random"]}
FLOAT_ROWS = [n for n, r in ROWS.items() if r["floats"]]
PULL_ROWS = [n for n, r in ROWS.items() if r["derivative"] == "pull"]
REDUCE = [r["name"] for r in pb.ops() if r["family"] == "Reduce"]
FLOATS = ["float32", "bfloat16", "float16", "float64"]


def sample(name, shape, seed=0):
    row, rng = ROWS[name], np.random.default_rng(seed)
    out = [np.float32(rng.uniform(*row["domain"], shape)) for _ in range(row["inputs"])]
    if name == "where":
        out[0] = np.float32(out[0] > 0)
    return out


def pair(array, dtype):
    """The same tensor on the CPU and on the device."""
    t = pb.asarray(array).astype(getattr(pb, dtype))
    return t, t.to(common.DEVICE)


def parameters(name):
    return [{}, refs.OTHER_PARAMETERS[name]] if name in refs.OTHER_PARAMETERS else [{}]


@pytest.mark.parametrize("name", FLOAT_ROWS)
def test_forward(name):
    """Sizes below, at and above what a thread and a block take; a view that no vector load may touch; 0-d and empty."""
    f = getattr(C, name)
    for dtype in FLOATS:
        for kw in parameters(name):
            for n in (0, 1, 7, 8, 2061):
                cpu, device = zip(*[pair(x, dtype) for x in sample(name, (n + 1,), n)], strict=True)
                common.same(f(*device, **kw), f(*cpu, **kw))
                common.same(f(*[x[1:] for x in device], **kw), f(*[x[1:] for x in cpu], **kw))
            common.same(f(*[x[3] for x in device], **kw), f(*[x[3] for x in cpu], **kw))


@pytest.mark.parametrize("name", FLOAT_ROWS)
def test_layouts(name):
    f = getattr(C, name)
    for dtype in ("float32", "bfloat16"):
        cpu, device = zip(*[pair(x, dtype) for x in sample(name, (5, 6, 9))], strict=True)
        for view in (
            lambda x, j: x[::2, ::-1],
            lambda x, j: x.mT,
            lambda x, j: x[:, 1:2, :] if j == 0 else x[0],
            lambda x, j: x[0, 0] if j else x,
            lambda x, j: x[1:, :0],
        ):
            common.same(*(f(*[view(x, j) for j, x in enumerate(side)]) for side in (device, cpu)))


@pytest.mark.parametrize("name", FLOAT_ROWS)
def test_special_values(name):
    special = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38, -3e38, 0.75, -1.0])
    a, b = np.meshgrid(special, special)
    values = [a.ravel(), b.ravel(), np.full(100, 0.75, np.float32)][: ROWS[name]["inputs"]]
    cpu, device = zip(*[pair(x, "float32") for x in values], strict=True)
    common.same(getattr(C, name)(*device), getattr(C, name)(*cpu))


@pytest.mark.parametrize("name", PULL_ROWS)
def test_gradients(name):
    """Of the fused kernels, contiguous and not, and of the graph."""
    f = getattr(C, name)

    def gradients(device, dtype, kw, view, graph):
        xs = [pb.asarray(x).astype(getattr(pb, dtype)).to(device) for x in sample(name, (7, 43), 5)]
        for x in xs:
            x.requires_grad = True
        y = f(*[view(x) for x in xs], **kw)
        w = pb.asarray(np.cos(1.3 * np.arange(y.size)).reshape(y.shape)).astype(y.dtype).to(device)
        y.backward(w, create_graph=graph)
        return [x.grad for x in xs]

    for dtype in FLOATS:
        for kw in parameters(name):
            for view, graph in ((lambda x: x, False), (lambda x: x.mT[1:, ::2], False), (lambda x: x, True)):
                got, want = (gradients(d, dtype, kw, view, graph) for d in (common.DEVICE, "cpu"))
                for a, b in zip(got, want, strict=True):
                    assert (a is None) == (b is None)
                    if a is not None:
                        assert a.device == pb.zeros((), device=common.DEVICE).device
                        common.same(a, b)


@pytest.mark.parametrize("name", [n for n in PULL_ROWS if ROWS[n]["inputs"] > 1])
def test_gradients_of_broadcast_operands(name):
    def gradients(device):
        x = sample(name, (5, 70), 9)
        small = [x[0], *[v[:1] for v in x[1:]]]
        ts = [pb.tensor(v, device=device, requires_grad=True) for v in small]
        getattr(C, name)(*ts).sum().backward()
        return [t.grad for t in ts]

    for a, b in zip(gradients(common.DEVICE), gradients("cpu"), strict=True):
        if a is not None or b is not None:
            common.close(a, b, 2e-6)


@pytest.mark.parametrize("name", [n for n in ROWS if ROWS[n]["integers"]])
def test_integers(name):
    rng = np.random.default_rng(10)
    for dtype in ("int8", "int32", "int64", "uint8", "uint64", "bool"):
        if dtype == "bool" and name not in ("logical_and", "logical_or", "logical_xor", "logical_not"):
            continue
        lo = 0 if dtype[0] in "ub" else -9
        x = [rng.integers(lo, 2 if dtype == "bool" else 9, 70).astype(dtype) for _ in range(ROWS[name]["inputs"])]
        if name in ("floor_divide", "remainder"):
            x[1] = np.where(x[1] == 0, 1, x[1]).astype(dtype)
        f = getattr(C, name)
        common.same(f(*[pb.tensor(v, device=common.DEVICE) for v in x]), f(*[pb.tensor(v) for v in x]))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(0,), (1,), (1000,), (33, 65)])
def test_dropout_draws_the_numbers_of_the_cpu(p, shape):
    def run(device):
        pb.manual_seed(7)
        x = pb.ones(shape, device=device)
        x.requires_grad = True
        y = [pb.dropout(x, p), pb.dropout(x, p)]
        (y[0] + y[1]).sum().backward()
        return [*y, x.grad]

    for a, b in zip(run(common.DEVICE), run("cpu"), strict=True):
        common.same(a, b)


# ---- reductions


def reduce(name):
    return getattr(pb, name.lstrip("_"))


@pytest.mark.parametrize("name", REDUCE)
@pytest.mark.parametrize("shape,axis", [
    ((4, 5, 6), None), ((4, 5, 6), 0), ((4, 5, 6), 1), ((4, 5, 6), -1), ((4, 5, 6), (0, 2)), ((4, 5, 6), (0, 1, 2)),
    ((3, 40000), 1), ((40000, 3), 0), ((2, 300, 33), 1), ((1, 1), 0), ((), None), ((16385,), 0), ((7, 0), 0),
])  # fmt: skip
def test_reductions(name, shape, axis):
    x = np.float32(np.random.default_rng(0).normal(size=shape))
    if name == "_prod":
        x = np.where(np.abs(x) > 2.3, x / 2, np.sign(x))
    for dtype in ("float32", "bfloat16", "float16", "float64"):
        cpu, device = pair(x, dtype)
        tol = {"float32": 3e-6, "bfloat16": 2**-8, "float16": 2**-10, "float64": 1e-13}[dtype]
        if name in ("max", "min", "any", "all"):
            common.same(reduce(name)(device, axis=axis), reduce(name)(cpu, axis=axis))
        else:
            common.close(reduce(name)(device, axis=axis), reduce(name)(cpu, axis=axis), tol)
    cpu, device = pair(x, "float32")
    if len(shape) > 1 and x.size and x.size < 30000:
        common.close(reduce(name)(device.mT, axis=axis), reduce(name)(cpu.mT, axis=axis), 3e-6)
    if x.ndim and x.shape[-1] > 1:
        common.close(reduce(name)(device[..., 1:], axis=axis), reduce(name)(cpu[..., 1:], axis=axis), 3e-6)


@pytest.mark.parametrize("name", REDUCE)
def test_reductions_of_integers_and_nan(name):
    rng = np.random.default_rng(1)
    for dtype in ("int8", "int64", "uint8", "uint64", "bool"):
        x = rng.integers(0 if dtype[0] in "ub" else -3, 2 if dtype == "bool" else 4, (3, 700)).astype(dtype)
        for axis in (0, 1, None):
            got, want = (reduce(name)(pb.tensor(x, device=d), axis=axis) for d in (common.DEVICE, "cpu"))
            common.close(got, want, 1e-6) if name == "mean" else common.same(got, want)
    x = np.float32(rng.normal(size=(3, 700)))
    x[1, 650] = np.nan
    for axis in (0, 1):
        common.close(*(reduce(name)(pb.tensor(x, device=d), axis=axis) for d in (common.DEVICE, "cpu")), 3e-6)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_gradients_of_reductions(name):
    def gradient(device, axis):
        x = pb.tensor(np.float32(np.random.default_rng(3).integers(-4, 5, (6, 50))), device=device, requires_grad=True)
        y = reduce(name)(x, axis=axis)
        (y * y).sum().backward()
        return x.grad

    for axis in (None, 0, 1):
        common.close(gradient(common.DEVICE, axis), gradient("cpu", axis), 3e-6)


def test_bits_of_a_reduction_are_those_of_the_next_time():
    x = pb.random.normal((3, 50_000)).to(common.DEVICE)
    one = common.bits(x.sum(axis=1)).tobytes()
    assert all(common.bits(x.sum(axis=1)).tobytes() == one for _ in range(3))
