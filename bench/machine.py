"""What a result was measured on and with."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from .ceilings import cpu_flags

ROOT = Path(__file__).resolve().parent.parent
_INTERESTING = ("sse4_2", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def cpu() -> dict[str, Any]:
    """Model, family and the instruction sets that matter; the model's number tells cores of one brand name apart."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    have = cpu_flags()
    return {
        "model": fields.get("model name", platform.processor() or platform.machine()),
        "family": ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model", "stepping") if key in fields),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _INTERESTING if flag in have],
    }


def memory_mib() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)


def versions(package: Path) -> dict[str, str]:
    """Versions of everything that took part; the libraries add theirs when their workers start."""
    found = {"python": platform.python_version(), "numpy": metadata.version("numpy")}
    compiler = _output("gcc", "-dumpfullversion") if shutil.which("gcc") else ""
    if compiler:
        found["gcc"] = compiler
    found["package"] = "source tree" if package.is_relative_to(ROOT) else "installed"
    return found


def commit() -> dict[str, Any]:
    """The commit measured, and whether the sources differ from it."""
    changed = _output("git", "status", "--porcelain", "--", "csrc", "python", "cmake", "CMakeLists.txt", "bench/cases")
    return {"commit": _output("git", "rev-parse", "HEAD"), "dirty": bool(changed)}


def peer_version(python: str) -> str:
    """torch's version and the matrix library in it, or an empty string."""
    code = "import torch, json; print(json.dumps([torch.__version__, torch.__config__.show()]))"
    text = _output(python, "-c", code)
    if not text:
        return ""
    version, config = json.loads(text.splitlines()[-1])
    parts = [line.strip(" -") for line in config.splitlines() if "oneAPI Math Kernel" in line or "Deep Neural" in line]
    return "; ".join([version, *parts])
