"""Few-bit codes of what backward needs."""

from __future__ import annotations

from .codes import pack, unpack

__all__ = ["pack", "unpack"]
