"""Odd arguments for every public function: a typed error comes back, or a result; never a crash of the process.

The calls run in a child, so that a crash names the call instead of ending the test run.
"""

import os
import subprocess
import sys
from pathlib import Path

import pullback as pb

CHILD = r"""
import contextlib, inspect, io, random, sys, threading
import numpy as np
import pullback as pb
from pullback import _core as C

seed, rounds = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
SKIP = {
    "set_num_threads",
    "detect_anomaly",
    "empty_cache",
    "save",
    "load",
    "enable_grad",
    "no_grad",
    "get_include",
}
BIG = 2**40


def values():
    f = pb.tensor
    return [
        lambda: None,
        lambda: 0,
        lambda: 1,
        lambda: -1,
        lambda: -7,
        lambda: 3,
        lambda: BIG,
        lambda: 2**63,
        lambda: -(2**63),
        lambda: 0.5,
        lambda: -0.5,
        lambda: float("nan"),
        lambda: float("inf"),
        lambda: True,
        lambda: "x",
        lambda: "sum",
        lambda: (),
        lambda: [],
        lambda: (0,),
        lambda: (1, 0),
        lambda: (-1,),
        lambda: (2, 3),
        lambda: (BIG, BIG),
        lambda: (0, BIG, BIG),
        lambda: {},
        lambda: object(),
        lambda: slice(None),
        lambda: pb.float32,
        lambda: pb.int8,
        lambda: f(1.5),
        lambda: f([]),
        lambda: f([1.0, 2.0]),
        lambda: f([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        lambda: f([[1.0, 2.0], [3.0, 4.0]]).requires_grad_(),
        lambda: f([1, 0]),
        lambda: f([True, False]),
        lambda: f([-5, 9]),
        lambda: pb.zeros((0, 3)),
        lambda: pb.zeros((2, 0)),
        lambda: pb.ones((1, 2, 3, 3)),
        lambda: pb.ones((2, 2, 2, 2)),
        lambda: pb.ones((2, 3), dtype=pb.bfloat16),
        lambda: pb.ones((2, 3), dtype=pb.uint8),
        lambda: pb.ones((2, 3), dtype=pb.float64).mT,
        lambda: f([float("nan"), 1.0]),
        lambda: [f(1.0), f(2.0)],
        lambda: [f([1.0]), None],
        lambda: np.arange(3),
        lambda: np.array("a"),
        lambda: np.zeros((2, 0)),
        lambda: b"ab",
        lambda: 1j,
        lambda: lambda *a: a[0] if a else 1,
        lambda: pb.sin,
    ]


VALUES = values()
ALLOWED = (
    ValueError,
    TypeError,
    IndexError,
    MemoryError,
    pb.DeviceError,
    pb.GraphError,
    pb.CheckpointError,
    BufferError, OverflowError,
)


def targets():
    for home in (pb, pb.losses, pb.random, C):
        for name in sorted(vars(home)):
            f = getattr(home, name)
            if home is C and not name.startswith("_") or name in SKIP or name.startswith("__"):
                continue
            if home is C and name not in ("_cross_entropy", "_nll", "_clip", "_dropout", "_huber", "_prod"):
                continue
            if home is not C and name.startswith("_") or not callable(f) or isinstance(f, type):
                continue
            if name.startswith(("draw_", "optim_")) or getattr(f, "__module__", "pullback") in ("typing",):
                continue
            yield f"{home.__name__}.{name}", f
    for name in sorted(dir(pb.Tensor)):
        if (
            not name.startswith("_")
            and callable(getattr(pb.Tensor, name))
            or name in ("__getitem__", "__setitem__", "__iadd__")
        ):
            yield f"Tensor.{name}", getattr(pb.Tensor, name)


def describe(v):
    return repr(v)[:60] + (str(tuple(v.shape)) if isinstance(v, pb.Tensor) else "")


def differentiate(y):
    ys = y if isinstance(y, (tuple, list)) else [y]
    for t in ys:
        if isinstance(t, pb.Tensor) and t.requires_grad and t.size < 10000 and t.dtype.is_floating:
            t.sum().backward()
            return


bad = []
for label, f in targets():
    for _ in range(rounds):
        picks = [rng.choice(VALUES)() for _ in range(rng.choice((0, 1, 1, 2, 2, 2, 3, 3, 4)))]
        if label.startswith("Tensor."):
            picks = [rng.choice([v for v in (g() for g in VALUES[29:45])])] + picks[:2]
        elif rng.random() < 0.5 and picks:
            picks[0] = rng.choice(VALUES[29:45])()
        if label in (
            "pullback.tile",
            "pullback.repeat",
            "pullback.pad",
            "Tensor.tile",
            "Tensor.repeat",
            "pullback.eye",
            "pullback.random.permutation",
            "pullback.arange",
            "pullback.linspace",
            "pullback.tri",
        ):
            picks = [p if not (isinstance(p, int) and p == BIG) else 2**60 for p in picks]
        print(label, [describe(p) for p in picks], file=sys.stderr, flush=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                differentiate(f(*picks))
        except ALLOWED as e:
            if type(e).__name__ in (
                "DeviceError",
                "GraphError",
                "ShapeError",
                "DTypeError",
            ) and "help: " not in str(e):
                bad.append((label, [describe(p) for p in picks], repr(e)))
        except Exception as e:
            bad.append((label, [describe(p) for p in picks], repr(e)))
pb.set_num_threads(1)
assert (pb.ones((3, 3)) @ pb.ones((3, 3))).tolist() == [[3.0] * 3] * 3
for b in bad:
    print(*b)
print("calls done")
"""


def test_odd_arguments():
    env = {**os.environ, "PYTHONPATH": str(Path(pb.__file__).parent.parent), "PYTHONWARNINGS": "ignore"}
    seed, rounds = os.environ.get("PULLBACK_FUZZ", "1 12").split()
    run = subprocess.run(
        [sys.executable, "-c", CHILD, seed, rounds], env=env, capture_output=True, text=True, timeout=300
    )
    last = run.stderr.strip().splitlines()[-3:]
    assert run.returncode == 0, f"exit status {run.returncode}, the last call was {last}"
    assert run.stdout.strip() == "calls done", run.stdout
