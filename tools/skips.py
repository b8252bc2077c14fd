"""Fails when a pytest log (made with -rs) shows a skip whose reason is not in tests/allowed_skips.txt."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ALLOWED = Path(__file__).resolve().parent.parent / "tests" / "allowed_skips.txt"


def main() -> int:
    allowed = [line.strip() for line in ALLOWED.read_text().splitlines() if line.strip() and not line.startswith("#")]
    skips = re.findall(r"^SKIPPED \[\d+\] (.*)$", Path(sys.argv[1]).read_text(), re.M)
    bad = [s for s in skips if not any(a in s for a in allowed)]
    print("\n".join(f"unexpected skip: {s}" for s in bad) if bad else f"{len(skips)} skips, all allowed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
