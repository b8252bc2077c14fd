"""Solves the tables that pullback ships and writes python/pullback/fewbit/tables.json.

    python tools/fewbit_tables.py

One line per table, numbers as repr gives them: a difference in review shows what moved, and only `fewbit.table` reads
them, when a table is first asked for; compiled data would grow every process.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from pullback.fewbit import Table
from pullback.fewbit import tables as T

PATH = Path(__file__).parent.parent / "python/pullback/fewbit/tables.json"


def jobs():
    """(name, bits, weight, scheme) of every shipped table."""
    for name in T.SMOOTH:
        for bits in (1, 2, 3, 4):
            yield name, bits, "normal", "minimax"
            for weight in ("normal", "uniform"):
                for scheme in ("interval", "value", "unbiased", "jet", *(["folded"] if name in T.EVEN else [])):
                    yield name, bits, weight, scheme


def row(t: Table) -> list:
    return [t.boundaries, t.codes, t.levels, t.error, t.max_error, *([t.second, t.second_error] if t.second else [])]


def main() -> None:
    start, lines = time.process_time(), []
    for name, bits, weight, scheme in jobs():
        t = T._solve_activation(name, bits, weight, scheme, tuple(T._constants(name).values()))
        key = json.dumps(T.key_of(name, bits, weight, scheme))
        lines.append(f"{key}: {json.dumps(row(t), separators=(',', ':'))}")
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(lines)} tables, {PATH.stat().st_size} bytes, {time.process_time() - start:.1f} s")


if __name__ == "__main__":
    main()
