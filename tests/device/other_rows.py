"""Every row of the registry outside Map and Reduce on a device: values and gradients of the CPU, or DeviceError."""

from __future__ import annotations

import common
import numpy as np
import pytest
import refs_rows as refs

import pullback as pb

ROWS = {r["name"]: r for r in pb.ops() if r["family"] not in ("Map", "Reduce")}
LACKING = common.no_kernel()
#: Rows without values to compare.
SHAPES_ONLY = {"empty", "empty_like"}


def op_of(name):
    home, _, last = name.rpartition(".")
    return getattr(getattr(pb, home) if home else pb, last)


def run(name, i, device, dtype):
    """Results and gradients of a sample."""
    sample = refs.OTHER[name][i]
    floats = [a.dtype == np.float64 for a in sample.arrays]
    ts = [
        (pb.asarray(a).astype(dtype) if f else pb.asarray(a)).to(device)
        for a, f in zip(sample.arrays, floats, strict=True)
    ]
    derivative = ROWS[name]["derivative"] == "pull"
    for t, f in zip(ts, floats, strict=True):
        t.requires_grad = f and derivative
    pb.manual_seed(3)
    ys = sample.call(op_of(name), *ts)
    ys = list(ys) if isinstance(ys, (tuple, list)) else [ys]
    total = None
    for y in ys:
        if y.requires_grad:
            w = pb.asarray(np.cos(1.3 * np.arange(y.size) + 0.4).reshape(y.shape)).astype(y.dtype).to(device)
            total = (y * w).sum() if total is None else total + (y * w).sum()
    if total is not None:
        total.backward()
    return [y.detach() for y in ys], [t.grad for t in ts]


def compare(name, i, dtype, tol):
    want, want_grads = run(name, i, "cpu", dtype)
    got, got_grads = run(name, i, common.DEVICE, dtype)
    for a, b in zip(got, want, strict=True):
        if name not in SHAPES_ONLY:
            common.close(a, b, tol)
    for a, b in zip(got_grads, want_grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            common.close(a, b, tol)


@pytest.mark.parametrize("name", ROWS)
def test_row(name):
    """A row that no_kernel.txt lists raises DeviceError naming itself and what helps; no row touches device memory."""
    for i, sample in enumerate(refs.OTHER[name]):
        types = [(pb.float32, 2e-5)] if sample.single else []
        types += [(pb.bfloat16, 2**-6)] if sample.half and sample.single else []
        for dtype, tol in types:
            text = common.isolated(lambda i=i, dtype=dtype, tol=tol: compare(name, i, dtype, tol))
            if name in LACKING and text.startswith("DeviceError"):
                assert "help:" in text, text
                return
            assert not text, f"sample {i}, {dtype}: {text}"
    assert name not in LACKING, f"{name} has kernels: take it from no_kernel.txt"
