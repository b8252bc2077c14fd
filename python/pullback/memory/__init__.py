"""What a graph keeps for backward, and the allocator's figures."""

from __future__ import annotations

from dataclasses import dataclass

from .. import _core as C
from .._core import Tensor

__all__ = ["Report", "Row", "report", "saved_bytes", "stats"]


@dataclass(frozen=True)
class Row:
    """One storage that a graph keeps: its bytes, the op that keeps it, in which form and with which error."""

    bytes: int
    holder: str
    shape: tuple[int, ...]
    dtype: str
    scheme: str = "input"
    error: str = "exact"


@dataclass(frozen=True)
class Report:
    """The rows of a graph, largest first; `total` is their sum."""

    rows: tuple[Row, ...]

    @property
    def total(self) -> int:
        """Bytes of all rows."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{'bytes':>12}  {'holder':<20} {'kept':<24} {'scheme':<8} error"]
        for row in self.rows:
            kept = f"{row.dtype}[{', '.join(map(str, row.shape))}]"
            lines.append(f"{row.bytes:>12}  {row.holder:<20} {kept:<24} {row.scheme:<8} {row.error}")
        return "\n".join([*lines, f"{self.total:>12}  in all"])


def report(loss: Tensor) -> Report:
    """Every distinct storage that the graph of `loss` holds, whole and once, without parameters and `loss` itself.

    >>> x = pb.ones((4,)); x.requires_grad = True
    >>> pb.memory.report((pb.exp(x) * 2).sum()).total
    16
    """
    rows: dict[int, Row] = {}
    for slot in C._saved(loss):
        if slot["storage"] not in rows:
            rows[slot["storage"]] = Row(slot["bytes"], slot["op"], tuple(slot["shape"]), slot["dtype"])
    return Report(tuple(sorted(rows.values(), key=lambda row: -row.bytes)))


def saved_bytes(loss: Tensor) -> int:
    """Bytes that the graph of `loss` keeps for backward; the sum of report(loss)."""
    return report(loss).total


def stats(device: str = "cpu") -> dict[str, int]:
    """The allocator's figures: bytes (current, peak, reserved), calls (allocations, system_calls), live tensors, nodes.

    >>> sorted(pb.memory.stats())
    ['allocations', 'current', 'nodes', 'peak', 'reserved', 'system_calls', 'tensors']
    """
    if device != "cpu":
        raise C.DeviceError(f"memory.stats: device {device!r} is not available\nhelp: devices here: cpu")
    return C.memory_stats()
