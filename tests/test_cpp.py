"""Builds the C++ tests with the compiler of this machine and runs them; nothing here needs the package."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "cpp"
SOURCES = {"alloc": ["csrc/tensor/alloc.cpp"], "shape": ["csrc/tensor/shape.cpp"]}
KERNEL_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
NAMES = ["dual", "bits", "expr", "alloc", "shape"]


def compiler() -> str:
    """The C++ compiler: $CXX, else g++, c++ or clang++."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return name
    raise RuntimeError("no C++ compiler found; set CXX")


def levels() -> list[str]:
    """The x86-64 levels that this CPU runs; empty on another architecture."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return []
    found = [level for level, need in (("v2", "sse4_2"), ("v3", "fma"), ("v4", "avx512dq")) if need in flags]
    return found if "v2" in found else []


def build(out: Path, name: str, flags: list[str]) -> Path:
    program = out / (name + "_test" + "".join(f for f in flags if "march" in f))
    sources = [str(TESTS / f"{name}_test.cpp")] + [str(ROOT / s) for s in SOURCES.get(name, [])]
    command = [*compiler().split(), "-std=c++20", f"-I{ROOT / 'csrc'}", "-Wall", "-Wextra", "-Werror", "-pthread", *flags]
    done = subprocess.run([*command, *sources, "-o", str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def value_flags(level: str) -> list[str]:
    wide = ["-mprefer-vector-width=512"] if level == "v4" else []
    return [*KERNEL_FLAGS, f"-march=x86-64-{level}", *wide]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every test program, built two at a time."""
    out = tmp_path_factory.mktemp("cpp")
    jobs = {name: (name, ["-O1"]) for name in NAMES}
    jobs |= {f"value-{level}": ("value", value_flags(level)) for level in levels()} or {"value": ("value", KERNEL_FLAGS)}
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(jobs, pool.map(lambda job: build(out, *job), jobs.values()), strict=True))


def run(program: Path, *arguments: str) -> str:
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_program(programs: dict[str, Path], name: str) -> None:
    run(programs[name])


@pytest.mark.parametrize("name", [f"value-{level}" for level in levels()] or ["value"])
def test_value(programs: dict[str, Path], name: str) -> None:
    run(programs[name], "100")


def test_same_bits_at_v3_and_v4(programs: dict[str, Path]) -> None:
    """The primitives give the same bits in 256- and 512-bit vectors (and at v3 compared with itself without AVX-512)."""
    built = [programs[f"value-{level}"] for level in ("v3", "v4") if f"value-{level}" in programs] or [*programs.values()][-1:]
    sums = [run(program, "sums").split("\n") for program in built]
    assert len(sums[0]) > 25
    assert sums[0] == sums[-1]
