"""What is measured. A case builds the same work for any library; a worker checks, then times it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Work:
    """One unit of work, ready to run: timed is `statement` with `names` as its globals.

    outputs: runs the work once from its first state and gives what both sides must agree on.
    """

    statement: str
    names: dict[str, Any]
    outputs: Callable[[], dict[str, np.ndarray]]


@dataclass
class Case:
    """A row of the table.

    name: unique; the first word of the key of `--only`.
    group: the module it is from.
    build: library -> Work.
    flop, bytes: of one run: floating-point operations, and the ideal memory traffic, where they are known.
    tolerance: largest difference allowed between two sides, as a share of the largest element.
    apart: the same for pullback-float32 beside a bfloat16 case, where rounding moves units across a kink; it only
        guards against another computation.
    sides: contestants beside pullback and the peers, such as pullback-v3.
    """

    name: str
    group: str
    build: Callable[[Any], Work]
    flop: float = 0.0
    bytes: float = 0.0
    tolerance: float = 2e-5
    apart: float = 0.0
    sides: tuple[str, ...] = field(default=())


def normal(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> np.ndarray:
    """Seeded float32 normal numbers: the same on every side."""
    out = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return out if scale == 1.0 else out * np.float32(scale)


def all_cases() -> list[Case]:
    """Every case, in the order of the table."""
    from . import matmul, ops, optimizer, overhead, rows, small, training

    return [case for module in (overhead, small, ops, rows, matmul, optimizer, training) for case in module.CASES]
