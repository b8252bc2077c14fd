"""The tests of tests/device in the emulator, in processes of their own, and training on the emulated device."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import emulator_library as emulator
import pytest

import pullback as pb

TESTS = Path(__file__).resolve().parent
ORDERS = {"up": "0", "down": "1", "shuffled": "5"}


@pytest.fixture(scope="session")
def emulated() -> Path:
    return emulator.build()


def run(library: Path, *command: str, order: str = "up", status: int = 0, **more: str) -> str:
    """A command with the emulated device; its output. Fails with what it printed."""
    env = {**os.environ, "PULLBACK_EMULATE": str(library), "PULLBACK_EMULATE_ORDER": ORDERS[order]}
    env |= {"PULLBACK_CUDA_EXACT": "1", **more}  # tensors end where a kernel that goes on is seen
    env["PYTHONPATH"] = os.pathsep.join([str(TESTS / "device"), str(Path(pb.__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=env, cwd=TESTS.parent, timeout=280
    )
    assert done.returncode == status, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def suite(library: Path, name: str, *options: str, **settings: str) -> None:
    output = run(library, "-m", "pytest", f"tests/device/{name}.py", *options, **settings)
    assert re.search(r"[1-9]\d* passed", output) or re.search(r"\.\s+\[100%\]", output), output


def test_map_and_reduce_rows(emulated):
    suite(emulated, "map_rows")


def test_limits(emulated):
    suite(emulated, "limits")


def test_other_rows(emulated):
    suite(emulated, "other_rows")


@pytest.mark.parametrize("order", list(ORDERS))
def test_codes(emulated, order):
    suite(emulated, "codes", order=order)


@pytest.mark.parametrize("order", list(ORDERS))
def test_sizes(emulated, order):
    """Kernels of all families at odd sizes; a sample of them in the other schedules, with work that waits."""
    lazy = {} if order == "up" else {"PULLBACK_EMULATE_LAZY": "1"}
    suite(emulated, "kernel_sizes", *(() if order == "up" else ("-k", "sample")), order=order, **lazy)


@pytest.mark.parametrize("kind", ["ops", "steps"])
def test_benchmarks_of_a_gpu_run(emulated, kind):
    """Every case of tools/gpu_bench.py, with tiny sizes."""
    lines = [json.loads(line) for line in run(emulated, "tools/gpu_bench.py", kind, "--small").splitlines()]
    assert lines[0]["name"] == "copy" and len(lines) == {"ops": 23, "steps": 6}[kind]
    assert all(line["pullback"] > 0 for line in lines[1:])


def test_stages_of_a_gpu_run(tmp_path):
    """Without a GPU tools/gpu_check.sh says so, and with one an unknown stage is named."""
    script = str(TESTS.parent / "tools" / "gpu_check.sh")

    def check(*command: str) -> str:
        env = {**os.environ, "PYTHON": sys.executable, "PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(["bash", script, *command], capture_output=True, text=True, env=env, check=False)
        assert done.returncode != 0
        return done.stdout + done.stderr

    assert "no stage is called tests2: build tests sanitizer ops steps" in check("tests2")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    assert "nvidia-smi shows no GPU" in check("tests")


def test_optimizers(emulated):
    suite(emulated, "optim_rules")


@pytest.mark.parametrize("order", ["down", "shuffled"])
def test_orders(emulated, order):
    """Kernels whose threads wait for one another, in the other schedules, with work that waits in the streams."""
    suite(emulated, "map_rows", "-k", "reductions or dropout", order=order, PULLBACK_EMULATE_LAZY="1")


def test_demo(emulated, tmp_path):
    """Three steps of the demo's models with codes: the losses of the CPU to 1e-5, through the whole library."""
    losses: dict[str, dict[str, pb.Tensor]] = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        command = ("-m", "pullback", "demo", "--steps", "3", "--saved", "3", "--no-progress", "--out", str(out))
        printed = run(emulated, *command, "--device", device, status=1)  # not the accuracy that it asks for
        assert "3 steps" in printed
        files = {p.parent.name: pb.load(p) for p in out.rglob("step-00000003.safetensors")}
        losses[device] = {name: held["history/steps/value.loss"] for name, held in files.items()}
    assert sorted(losses["cpu"]) == sorted(losses["cuda"]) == ["MLP", "conv-net"]
    for name, want in losses["cpu"].items():
        assert want.size == 3
        error = float(abs(losses["cuda"][name] - want).max())
        assert error <= 1e-5, (name, error)
