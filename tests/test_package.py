"""What the installed package says about itself and carries. Metadata is read, nothing is built."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pullback as pb

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(pb.__file__).resolve().parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

installed = pytest.mark.skipif(
    not (PACKAGE / "include").exists(), reason="pullback is used from its source tree, without installed headers"
)


def test_version() -> None:
    assert pb.__version__ == PROJECT["version"]
    assert f"## {pb.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@installed
def test_metadata() -> None:
    meta = importlib.metadata.metadata("pullback")
    assert meta["Version"] == pb.__version__
    assert meta["License-Expression"] == "BSD-3-Clause"
    assert meta["Requires-Python"] == ">=3.11"
    assert set(PROJECT["classifiers"]) == set(meta.get_all("Classifier") or [])
    needs = [r for r in importlib.metadata.requires("pullback") or [] if "extra ==" not in r]
    assert [re.split(r"[^a-z]", r)[0] for r in needs] == ["numpy"]
    files = {str(f) for f in importlib.metadata.files("pullback") or []}
    assert any(re.fullmatch(r"pullback-.*\.dist-info/licenses/LICENSE", f) for f in files)


@installed
def test_files() -> None:
    for name in (
        *("libpullback_engine.so", "py.typed", "_core.pyi", "include/tensor/tensor.h", "include/extend/op.h"),
        *("include/ops/activations.h", "include/value/value.h", "include/optim/rules.h", "cmake/pullbackConfig.cmake"),
        *("cmake/pullbackConfigVersion.cmake", "cmake/pullbackTargets.cmake"),
    ):
        assert (PACKAGE / name).is_file(), name
    assert not (PACKAGE / "include" / "bind").exists()
    sizes = {f.name: f.stat().st_size for f in PACKAGE.rglob("*") if f.is_file() and "_cuda" not in f.name}
    assert sum(size for name, size in sizes.items() if not name.endswith(".pyc")) <= 32 << 20


@installed
def test_shared_objects_are_stripped() -> None:
    for path in [*PACKAGE.glob("_core*.so"), PACKAGE / "libpullback_engine.so"]:
        text = subprocess.run(["readelf", "-SW", str(path)], capture_output=True, text=True, check=True).stdout
        assert ".symtab" not in text and ".debug_info" not in text, path.name


def test_engine_is_found_beside_the_extension() -> None:
    """Moved as a whole, the package still finds its own engine: by $ORIGIN, not by a path of the build machine."""
    path = next(iter(PACKAGE.glob("_core*.so")))
    text = subprocess.run(["readelf", "-dW", str(path)], capture_output=True, text=True, check=True).stdout
    assert "libpullback_engine.so" in text
    if (PACKAGE / "include").exists():
        assert re.search(r"\(R(UN)?PATH\).*\[\$ORIGIN\]", text)


def test_py_typed_is_part_of_the_sources() -> None:
    assert (ROOT / "python" / "pullback" / "py.typed").exists()
    assert "def silu" in (ROOT / "python" / "pullback" / "_core.pyi").read_text()


def test_get_include() -> None:
    assert pb.get_include() == str(PACKAGE / "include")


def test_info_names_the_version_and_the_level() -> None:
    done = subprocess.run([sys.executable, "-m", "pullback", "info"], capture_output=True, text=True, check=True)
    assert pb.__version__ in done.stdout and pb.isa_level() in done.stdout and pb.get_include() in done.stdout
