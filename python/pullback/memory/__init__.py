"""What a graph keeps for backward, and the allocator's figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import _core as C
from .._core import Tensor
from .plans import Plan, plan, policy
from .scope import saving

__all__ = ["Plan", "Report", "Row", "plan", "policy", "report", "saved_bytes", "saving", "stats"]


@dataclass(frozen=True)
class Row:
    """One storage that a graph keeps: its bytes, the ops that keep it, in which form and with which error.

    scheme: "input", "output", "side" (bits beside an output), "mask", "index", "recompute" (0 bytes: made anew from
    what the producer keeps), or the name of a code. error, of the gradient against keeping the input: "exact", "near"
    (rounding of an inverted output), "bounded", "unbiased".
    """

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
        lines = [f"{'bytes':>12}  {'holder':<28} {'kept':<24} {'scheme':<10} error"]
        for row in self.rows:
            kept = f"{row.dtype}[{', '.join(map(str, row.shape))}]" if row.bytes else "-"
            lines.append(f"{row.bytes:>12}  {row.holder:<28} {kept:<24} {row.scheme:<10} {row.error}")
        return "\n".join([*lines, f"{self.total:>12}  in all"])


def report(loss: Tensor) -> Report:
    """Every distinct storage that the graph of `loss` holds, whole and once, without parameters and `loss` itself.

    A slot that is made anew from what its producer keeps is a row of 0 bytes.

    >>> x = pb.ones((4,)); x.requires_grad = True
    >>> pb.memory.report(pb.exp(x).sum()).total
    16
    """
    rows: dict[int, Row] = {}
    holders: dict[int, list[str]] = {}
    for at, slot in enumerate(C._saved(loss)):
        key = slot["storage"] if slot["bytes"] else -1 - at
        names = holders.setdefault(key, [])
        if slot["op"] not in names:
            names.append(slot["op"])
        if key not in rows or rows[key].error == "exact":
            rows[key] = Row(slot["bytes"], "", tuple(slot["shape"]), slot["dtype"], slot["scheme"], slot["error"])
    named = [replace(row, holder=", ".join(holders[key])) for key, row in rows.items()]
    return Report(tuple(sorted(named, key=lambda row: -row.bytes)))


def saved_bytes(loss: Tensor) -> int:
    """Bytes that the graph of `loss` keeps for backward; the sum of report(loss)."""
    return report(loss).total


def stats(device: str = "cpu") -> dict[str, int]:
    """The allocator's figures: bytes (current, peak, reserved), calls (allocations, system_calls), live tensors, nodes.

    Of a CUDA device those of `pb.cuda.memory_stats`.

    >>> sorted(pb.memory.stats())
    ['allocations', 'current', 'nodes', 'peak', 'reserved', 'system_calls', 'tensors']
    """
    if device == "cpu":
        return C.memory_stats()
    from ..cuda import memory_stats

    return memory_stats(device)
