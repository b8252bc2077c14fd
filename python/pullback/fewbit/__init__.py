"""Few-bit codes of what backward needs: the best tables for a derivative, and packed codes."""

from __future__ import annotations

from .codes import Code, convert, pack, unpack
from .tables import Table, solve, table

__all__ = ["Code", "Table", "convert", "pack", "solve", "table", "unpack"]
