"""Lines per source file, largest first; fails when a file is above the limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIMIT = 600
SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".inc", ".in", ".py", ".cmake"}
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [ROOT / n for n in names if Path(n).suffix in SUFFIXES]
    sizes = sorted(((f.read_bytes().count(b"\n"), f.relative_to(ROOT)) for f in files if f.exists()), reverse=True)
    folders: dict[str, int] = {}
    for lines, name in sizes:
        folders[name.parts[0]] = folders.get(name.parts[0], 0) + lines
    for lines, name in sizes[:10]:
        print(f"{lines:6}  {name}")
    print(
        ", ".join(f"{folder} {lines}" for folder, lines in sorted(folders.items())), f"in all {sum(folders.values())}"
    )
    above = [f"{name} has {lines} lines" for lines, name in sizes if lines > LIMIT]
    print("\n".join(above) if above else f"no file above {LIMIT} lines")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
