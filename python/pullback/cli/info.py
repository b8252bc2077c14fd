"""`python -m pullback info` and `ops`."""

from __future__ import annotations

import platform
from pathlib import Path

import pullback as pb
from pullback import _core as C


def info() -> int:
    """Prints what this build is and what it finds on this machine."""
    stats = pb.memory.stats()
    rows = {
        "pullback": pb.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, kernels {pb.isa_level()}",
        "threads": pb.get_num_threads(),
        "cuda": _cuda(),
        "memory": ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in stats.items()),
        "headers": pb.get_include(),
    }
    for name, value in rows.items():
        print(f"{name:<9} {value}")
    return 0


def _cuda() -> str:
    count = pb.cuda.device_count()
    if count:
        found = [C._cuda_properties(i) for i in range(count)]
        return ", ".join(f"cuda:{i} {name} ({major}.{minor})" for i, (name, major, minor) in enumerate(found))
    built = "built" if any(Path(pb.__file__).parent.glob("_cuda*.so")) else "not built"
    return f"{built}; {C._cuda_missing()}"


def ops() -> int:
    """Prints the registry, one op on a line."""
    table = pb.ops()
    columns = [key for key in table[0] if key != "doc"] if table else []
    text = [[str(row.get(key, "")) for key in columns] for row in table]
    widths = [max(len(line[i]) for line in [columns, *text]) for i in range(len(columns))]
    for line, doc in zip([columns, *text], ["doc", *(row.get("doc", "").split("\n")[0] for row in table)], strict=True):
        print("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)), doc, sep="  ")
    return 0
