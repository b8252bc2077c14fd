"""Device memory, the Python layer and captured steps on the emulated device, and what a machine without one says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_emulated import emulated, suite

import pullback as pb
from pullback import _core as C

__all__ = ["emulated"]  # a fixture


def test_memory(emulated):
    suite(emulated, "memory", PULLBACK_EMULATE_DEVICES="2")


def test_python_layer(emulated):
    suite(emulated, "python_layer")


def test_capture(emulated):
    suite(emulated, "capture")


@pytest.mark.parametrize("order", ["down", "shuffled"])
def test_orders(emulated, order):
    """Captured steps and streams in the other schedules, with work that waits in its stream."""
    suite(emulated, "capture", "-k", "replays or trainer", order=order, PULLBACK_EMULATE_LAZY="1")
    suite(emulated, "memory", "-k", "streams or pinned", order=order, PULLBACK_EMULATE_LAZY="1")


needs_none = pytest.mark.skipif(pb.cuda.is_available(), reason="there is a device")


@needs_none
def test_without_a_device_everything_says_what_is_missing():
    assert pb.cuda.device_count() == 0 and not pb.cuda.is_available()
    for call in (
        lambda: pb.ones(2).to("cuda"),
        lambda: pb.zeros(2, device="cuda"),
        lambda: pb.cuda.synchronize(),
        lambda: pb.cuda.memory_stats(),
        lambda: pb.cuda.Stream(),
        lambda: pb.cuda.Event(),
        lambda: C._pin(pb.ones(2)),
    ):
        with pytest.raises(pb.DeviceError, match="is not available: .*libcuda") as info:
            call()
        assert "help: devices here: cpu" in str(info.value)


def test_a_library_that_cannot_be_opened_is_named(tmp_path):
    code = "import pullback as pb\ntry: pb.zeros(1, device='cuda')\nexcept pb.DeviceError as e: print(e)"
    paths = {"PULLBACK_EMULATE": str(tmp_path / "none.so"), "PYTHONPATH": str(Path(pb.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=paths)
    assert "cannot be opened" in done.stdout and "none.so" in done.stdout


def test_capture_on_the_cpu_runs_the_step():
    seen = []

    @pb.capture
    def step(x, k=1):
        """Doubles."""
        seen.append(k)
        return x * 2

    assert step(pb.ones(2), k=3).tolist() == [2.0, 2.0] and seen == [3] and step.graphs == 0
    assert step.__doc__ == "Doubles." and step.__name__ == "step"
