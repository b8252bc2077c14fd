"""Fails when a kernel object of one ISA level exports more than its table.

A weak or global function compiled with AVX-512 could be chosen by the linker for every CPU
(Note [No weak symbol in an ISA object] in csrc/cpu/isa_std.h). Usage: symbols.py BUILD_FOLDER
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def offenders(path: Path, level: str) -> list[str]:
    text = subprocess.run(["nm", "--defined-only", "-C", str(path)], capture_output=True, text=True, check=True).stdout
    table = re.compile(rf"pb_{level}_\w+$")
    bad = []
    for line in text.splitlines():
        kind, name = line[17:18], line[19:]
        external = (kind.isupper() and kind not in "N") or kind in "uvw"
        if external and not table.fullmatch(name) and not name.startswith("DW.ref."):
            bad.append(f"{path.name} ({level}): {kind} {name}")
    return bad


def main() -> int:
    build = Path(sys.argv[1])
    objects = sorted(build.rglob("kernels_v*.dir/**/*.o"))
    if not objects:
        print(f"no kernel objects under {build}")
        return 1
    bad = []
    for path in objects:
        level = re.search(r"kernels_(v\d)\.dir", str(path))
        assert level is not None
        bad += offenders(path, level.group(1))
    print("\n".join(bad) if bad else f"{len(objects)} kernel objects export their tables and nothing else")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
