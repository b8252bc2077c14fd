"""Writes python/pullback/_core.pyi from the built extension; with --check fails when the file differs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "python" / "pullback" / "_core.pyi"


def render() -> str:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "_core.pyi"
        command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "pullback._core", "-o", str(out)]
        subprocess.run(command, check=True)
        return out.read_text() + OPS


#: The element-wise ops are objects of one C type, which the generator does not see as functions.
OPS = ""


def main() -> int:
    text = render()
    if "--check" in sys.argv:
        same = TARGET.exists() and TARGET.read_text() == text
        print("_core.pyi is up to date" if same else "_core.pyi differs from the extension: run python tools/stubs.py")
        return 0 if same else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
