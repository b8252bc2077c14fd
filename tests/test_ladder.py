"""tools/ladder builds with the compiler of this machine, and every step's result is right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import test_cpp

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++20", "-O2", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"]
STEPS = {"matmul": 4, "attention": 4, "conv": 4}


@pytest.mark.skipif("v3" not in test_cpp.levels(), reason="the vectors of the ladder are those of x86-64-v3 or v4")
@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_right(name, tmp_path):
    level = test_cpp.levels()[-1]
    program, source = tmp_path / name, ROOT / "tools" / "ladder" / f"{name}.cpp"
    flags = [*FLAGS, f"-march=x86-64-{level}", f"-I{ROOT / 'csrc'}"]
    command = [*test_cpp.compiler().split(), *flags, str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program), "check", "64", "80"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("of the peak") >= 2 * STEPS[name]
