"""Parameter groups of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["groups"]


def groups(model: Any, no_decay: Sequence[str] = ("bias", "norm")) -> list[dict[str, Any]]:
    """Two parameter groups of a model: those with weight decay, and those without (`weight_decay=0`).

    A parameter gets no decay when a part of its name, or the class of the module it belongs to, contains one of the
    words of `no_decay`, upper and lower case alike: biases, and everything of a LayerNorm. Frozen parameters are
    included, so they may be unfrozen later. An empty group is left out.

    >>> pb.optim.AdamW(pb.optim.groups(model), lr=1e-3, weight_decay=0.1)  # doctest: +SKIP
    """
    words = [word.lower() for word in no_decay]
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    decayed: list[tuple[str, Any]] = []
    plain: list[tuple[str, Any]] = []
    for name, p in model.named_parameters():
        owner = kinds.get(name.rpartition(".")[0], "")
        parts = [*name.lower().split("."), owner.lower()]
        (plain if any(word in part for part in parts for word in words) else decayed).append((name, p))
    result: list[dict[str, Any]] = []
    if decayed:
        result.append({"params": decayed})
    if plain:
        result.append({"params": plain, "weight_decay": 0.0})
    return result
