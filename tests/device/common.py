"""What the tests on a device share. They run in a process of their own: with PULLBACK_EMULATE in the emulator
(tests/test_emulated.py starts them), without it on a GPU."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pullback as pb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

DEVICE = "cuda"
EMULATED = os.environ.get("PULLBACK_EMULATE", "0") not in ("", "0")
MISSING = Path(__file__).with_name("no_kernel.txt")


def bits(t: pb.Tensor) -> np.ndarray:
    """The bytes of a tensor's values, with one NaN for all of them."""
    t = t.detach().to("cpu")
    if t.dtype in (pb.bfloat16, pb.float16):
        t = t.astype(pb.float32)
    a = np.ascontiguousarray(t.numpy())
    if a.dtype.kind == "f":
        a = np.where(np.isnan(a), np.float64("nan").astype(a.dtype), a)
    return a


def same(got: pb.Tensor, want: pb.Tensor) -> None:
    """The same dtype, shape and bits."""
    assert got.dtype == want.dtype and got.shape == want.shape
    a, b = bits(got), bits(want)
    assert a.tobytes() == b.tobytes(), f"{np.count_nonzero(a != b)} of {a.size} differ"


def close(got: pb.Tensor, want: pb.Tensor, tol: float) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    a, b = bits(got).astype(np.float64), bits(want).astype(np.float64)
    scale = max(1.0, float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b))))
    with np.errstate(invalid="ignore"):
        good = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= tol * scale)
    assert good.all(), f"{np.count_nonzero(~good)} of {a.size} differ, by up to {np.max(np.abs(a - b)[~good])}"


def isolated(f: Callable[[], Any]) -> str:
    """Runs f in a forked child, so that a fault of the host ends one test only: "", "DeviceError: ..." or what failed."""
    if not EMULATED:
        return attempt(f)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.write(write, attempt(f).encode()[:60000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return text


def attempt(f: Callable[[], Any]) -> str:
    try:
        f()
    except pb.DeviceError as error:
        return f"DeviceError: {error}"
    except AssertionError as error:
        return f"AssertionError: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def no_kernel() -> set[str]:
    """Rows that raise DeviceError on a device, one a line."""
    return {line.strip() for line in MISSING.read_text().splitlines() if line.strip() and not line.startswith("#")}
