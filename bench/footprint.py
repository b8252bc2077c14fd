"""Import time, memory after import, peak memory of a training step, and the size of the wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from .machine import ROOT

_IMPORT = """
import time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
rss = next(line for line in open("/proc/self/status") if line.startswith("VmRSS:"))
print(seconds, int(rss.split()[1]) / 1024)
"""
_TRAINER = """
import io, sys, tempfile, time
import pullback as pb
pb.set_num_threads(1)
steps = 400
x, y = pb.random.normal((steps * 8, 4)), pb.random.randint(0, 3, (steps * 8,))
data = pb.data.TensorDataset(x, y)

def accuracy(z, t):
    return (pb.argmax(z, axis=1) == t).astype(pb.float32).mean()

def parts():
    pb.manual_seed(0)
    model = pb.nn.Linear(4, 3)
    return model, pb.optim.SGD(model.parameters(), lr=1e-3)

def bare():
    model, opt = parts()
    start = time.perf_counter()
    for a, b in pb.data.DataLoader(data, 8):
        z = model(a)
        loss = pb.losses.cross_entropy(z, b)
        loss.backward()
        opt.step()
        opt.zero_grad()
        with pb.no_grad():
            float(accuracy(z, b)), float(loss)
    return time.perf_counter() - start

def trained(folder):
    model, opt = parts()
    log = pb.train.CSVLogger(folder + "/log.csv")
    t = pb.train.Trainer(model, opt, pb.losses.cross_entropy, metrics={"accuracy": accuracy}, callbacks=[log])
    start = time.perf_counter()
    t.fit(pb.data.DataLoader(data, 8), epochs=1)
    return time.perf_counter() - start

out, sys.stderr = sys.stderr, io.StringIO()
best = [float("inf")] * 2
for _ in range(9):
    with tempfile.TemporaryDirectory() as folder:
        best = [min(best[0], bare()), min(best[1], trained(folder))]
print((best[1] - best[0]) / steps)
"""
MODULES = {"pullback": "pullback", "torch": "torch"}
STEPS = ("MLP step", "CNN step", "char-GPT step")
TRAINER = "Trainer over the bare loop"
NAMES = (TRAINER, "import", "RSS after import", *(name.replace("step", "peak memory") for name in STEPS), "wheel")


def row(name: str, unit: str, sides: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A result row that has no operations and nothing to compare."""
    return {
        "name": name,
        "group": "footprint",
        "unit": unit,
        "flop": 0.0,
        "bytes": 0.0,
        "checks": [],
        "refused": [],
        "sides": sides,
    }


def block(number: int, sample: float) -> dict[str, Any]:
    return {"round": number, "block": 0, "samples": [round(sample, 5)], "load": round(os.getloadavg()[0], 2)}


def imports(sides: list[str], repeats: int, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Seconds of the import statement in a new interpreter, and resident memory behind it, alternating."""
    seconds: dict[str, list[dict[str, Any]]] = {}
    memory: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(repeats + 1):
        for side in sides:
            if side not in MODULES:
                continue
            code = _IMPORT.format(module=MODULES[side])
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            )
            took, rss = map(float, done.stdout.split())
            if repeat:  # the first one reads the files from disk
                seconds.setdefault(side, []).append(block(repeat - 1, took))
                memory.setdefault(side, []).append(block(repeat - 1, rss))
    return [row("import", "s", seconds), row("RSS after import", "MiB", memory)]


def trainer(repeats: int, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Seconds a step that the Trainer adds to the same loop by hand: bar, CSV log and a metric on, one thread."""
    blocks = []
    for repeat in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", _TRAINER], env=environment, capture_output=True, text=True, check=True
        )
        blocks.append({**block(repeat, 0.0), "samples": [float(f"{float(done.stdout):.4g}")]})
    return [row(TRAINER, "s", {"pullback": blocks})]


def wheel() -> list[dict[str, Any]]:
    """The newest wheel under dist/, in MB; nothing where none was built."""
    found = sorted((ROOT / "dist").glob("pullback-*.whl"), key=lambda p: p.stat().st_mtime)
    return [row("wheel", "MB", {"pullback": [block(0, found[-1].stat().st_size / 1e6)]})] if found else []


def build() -> list[dict[str, Any]]:
    """Builds a wheel into dist/ from nothing, without a compiler cache, then rebuilds after a change to one op."""
    environment = {**os.environ, "CCACHE_DISABLE": "1", "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
    folder = ROOT / "build" / "bench-build"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(folder),
        "-G",
        "Ninja",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DPB_CUDA=OFF",
    ]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", "-DSKBUILD_PROJECT_VERSION=0"]
    compile_all = ["cmake", "--build", str(folder), "-j2"]
    op = ROOT / "csrc" / "ops" / "activations.h"
    rows = []
    for name, commands in (("full build", [configure, compile_all]), ("rebuild after one op", [compile_all])):
        start = time.perf_counter()
        for command in commands:
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        rows.append(row(name, "s", {"pullback": [block(0, time.perf_counter() - start)]}))
        os.utime(op)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(ROOT / "dist"), str(ROOT)]
    subprocess.run(command, check=True)
    return rows


def main() -> None:
    print(json.dumps(build(), indent=1))


if __name__ == "__main__":
    main()
