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
MODULES = {"pullback": "pullback", "torch": "torch"}
STEPS = ("MLP step", "CNN step", "char-GPT step")
NAMES = ("import", "RSS after import", *(name.replace("step", "peak memory") for name in STEPS), "wheel")


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
