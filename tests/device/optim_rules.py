"""Every optimizer on a device against the same steps on the CPU."""

from __future__ import annotations

import common
import numpy as np
import pytest

import pullback as pb
from pullback import optim

#: Optimizers that are no rule of one step over .grad: they call a closure, wrap another optimizer, or take options.
OTHERS = {"Optimizer", "NormTest", "OASIS", "OptAMSGrad", "SPIDER", "GradientRegularization", "XGrad", "ExpScaledSGD"}
OTHERS |= {"ExpScaled", "Muon", "UDoG", "SAM", "ASAM", "USAM", "DNSAM", "GAM", "EMA", "Lookahead", "PolynomialAverage"}
NAMES = [n for n in optim.__all__ if n[0].isupper() and n not in OTHERS]
#: Rules that raise DeviceError, as they say.
NO_KERNEL: set[str] = set()
SHAPES = [(), (0,), (1,), (7,), (33, 5), (1025,), (20000,)]


def steps(name, device, dtype=pb.float32, count=3, view=None, **hyper):
    rng = np.random.default_rng(4)
    pb.manual_seed(5)
    base = [pb.tensor(np.float32(rng.normal(size=s)), dtype=dtype, device=device) for s in SHAPES]
    params = [view(b) if view and b.ndim == 1 else b for b in base]
    for p in params:
        p.requires_grad = True
    opt = getattr(optim, name)(params, **hyper)
    for _ in range(count):
        for p in params:
            p.grad = pb.tensor(np.float32(rng.normal(size=p.shape)), dtype=dtype, device=device)
        opt.step()
    return params


def compare(name, tol, **options):
    got, want = (steps(name, d, **options) for d in (common.DEVICE, "cpu"))
    for a, b in zip(got, want, strict=True):
        assert str(a.device).startswith(common.DEVICE)
        common.same(a, b) if tol == 0 else common.close(a, b, tol)


def whole(name):
    """Whether the rule has sums over tensors, which a device adds in another order."""
    row = {r["name"].replace("_", ""): r for r in pb._core.optim_rules()}.get(name.lower())
    return row is None or row["sums"] > 0 or row["noise"]


@pytest.mark.parametrize("name", NAMES)
def test_rule(name):
    cases = [{}, {"weight_decay": 0.1}, {"view": lambda b: b[1:]}, {"dtype": pb.bfloat16}]
    for options in cases:
        tol = 3e-5 if whole(name) else 0
        if "dtype" in options and tol:
            tol = 2**-7
        text = common.isolated(lambda options=options, tol=tol: compare(name, tol, **options))
        if "unexpected keyword" in text:
            continue
        if name in NO_KERNEL and text.startswith("DeviceError"):
            assert "help:" in text
            return
        assert not text, f"{options}: {text}"
    assert name not in NO_KERNEL, f"{name} has kernels"
