"""Few-bit codes of what backward needs: the best tables for a derivative, and packed codes."""

from __future__ import annotations

from .tables import Table, solve, table

__all__ = ["Table", "solve", "table"]
