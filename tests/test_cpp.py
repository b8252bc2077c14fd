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
KERNEL_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
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


def variants() -> dict[str, list[str]]:
    """Flags under which the primitives are tested: each level as the kernels are built, and one without vectors."""
    found = {level: [*KERNEL_FLAGS, f"-march=x86-64-{level}"] for level in levels()} or {"native": KERNEL_FLAGS}
    if "v4" in found:
        found["v4"].append("-mprefer-vector-width=512")
    found["scalar"] = [*(found.get("v3") or [*found.values()][-1]), "-fno-tree-vectorize"]
    return found


VARIANTS = variants()


def build(out: Path, name: str, variant: str) -> Path:
    program = out / f"{name}-{variant}"
    sources = [str(TESTS / f"{name}_test.cpp"), *(str(ROOT / source) for source in SOURCES.get(name, []))]
    flags = ["-std=c++20", f"-I{ROOT / 'csrc'}", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += VARIANTS.get(variant, ["-O1"])
    command = [*compiler().split(), *flags, *sources, "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every test program, built two at a time."""
    out = tmp_path_factory.mktemp("cpp")
    jobs = [(name, "plain") for name in NAMES] + [("value", variant) for variant in VARIANTS]
    with ThreadPoolExecutor(2) as pool:
        return {program.name: program for program in pool.map(lambda job: build(out, *job), jobs)}


def run(program: Path, *arguments: str) -> str:
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_program(programs: dict[str, Path], name: str) -> None:
    run(programs[f"{name}-plain"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_value(programs: dict[str, Path], variant: str) -> None:
    run(programs[f"value-{variant}"], "100")


def test_same_bits_in_scalars_and_vectors(programs: dict[str, Path]) -> None:
    """v3, v4 and code without vectors agree bit for bit; v2 has no fused product and may differ."""
    sums = {name: run(programs[f"value-{name}"], "sums").split("\n") for name in VARIANTS if name != "v2"}
    assert len(sums) >= 2
    for found in sums.values():
        assert len(found) > 25
        assert found == sums["scalar"]
