"""Extensions built outside the source tree against the installed package: a new op, and tensors through DLPack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pullback as pb

SOURCES = Path(__file__).resolve().parent / "extension"
CONFIG = Path(pb.get_include()).parent / "cmake" / "pullbackConfig.cmake"

pytestmark = pytest.mark.skipif(
    not CONFIG.exists(), reason="pullback is used from its source tree, without installed headers"
)


def run(*command: str, cwd: Path | None = None, path: Path | None = None) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path or ""), os.environ.get("PYTHONPATH", "")]).strip(":")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both extension modules."""
    import nanobind
    import ninja
    import pybind11

    out = tmp_path_factory.mktemp("extension")
    run(
        *(sys.executable, "-m", "cmake", "-S", str(SOURCES), "-B", str(out), "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={ninja.BIN_DIR}/ninja",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dnanobind_DIR={nanobind.cmake_dir()}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-Dpullback_DIR={CONFIG.parent}",
    )
    run(sys.executable, "-m", "cmake", "--build", str(out), "-j", "2")
    return out


@pytest.mark.parametrize("script", ["use_ops", "use_views"])
def test_script(built: Path, script: str) -> None:
    """In a process of its own: a registered op stays in the registry that other tests walk."""
    assert run(sys.executable, str(SOURCES / f"{script}.py"), path=built, cwd=built).endswith("ok\n")
