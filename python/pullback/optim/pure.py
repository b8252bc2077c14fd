"""Steps as functions of nested containers: the update rules with V = Tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import _core as C
from .._core import Tensor
from .._tree import flatten


def align(tree: Any, other: Any, what: str) -> Iterator[Any]:
    """The leaves of `other` in the order of the leaves of `tree`, matched by key and position."""
    if isinstance(tree, dict):
        if not isinstance(other, dict) or set(tree) != set(other):
            raise ValueError(f"update: {what} must have the keys of params\nhelp: keys are {sorted(map(str, tree))}")
        for key in tree:
            yield from align(tree[key], other[key], what)
    elif isinstance(tree, (list, tuple)):
        if not isinstance(other, (list, tuple)) or len(tree) != len(other):
            raise ValueError(
                f"update: {what} must have the structure of params\nhelp: {len(tree)} items are expected here"
            )
        for a, b in zip(tree, other, strict=True):
            yield from align(a, b, what)
    elif tree is not None:
        yield other


def init(row: dict[str, Any], params: Any) -> dict[str, Any]:
    """The first state of a rule for a tree of parameters."""
    leaves, build = flatten(params)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"init: a leaf is {type(leaf).__name__}, not a tensor\nhelp: params holds tensors only")
    state: dict[str, Any] = {"step": C.optim_count(0)}
    for slot in row["slots"]:
        state[slot] = build([C.optim_zeros_like(leaf) for leaf in leaves])
    return state


def update(
    row: dict[str, Any], params: Any, grads: Any, state: dict[str, Any], hyper: list[Any], decay: Any, decoupled: bool
) -> tuple[Any, dict[str, Any]]:
    """One step of a rule: (new parameters, new state); nothing is written to."""
    missing = [slot for slot in ("step", *row["slots"]) if slot not in state]
    if missing:
        raise ValueError(
            f"update: the state has no {missing[0]!r}\n"
            f"help: init with the same keywords; this rule ({row['name']}) keeps {', '.join(row['slots']) or 'nothing'}"
        )
    leaves, build = flatten(params)
    t = int(state["step"]) + 1
    old = [list(align(params, state[slot], slot)) for slot in row["slots"]]
    new_params: list[Any] = []
    new_slots: list[list[Any]] = [[] for _ in row["slots"]]
    for i, (p, g) in enumerate(zip(leaves, align(params, grads, "grads"), strict=True)):
        slots = [column[i] for column in old]
        if g is not None:
            p, slots = C.optim_pure(row["index"], p, g, slots, hyper, decay, decoupled, t)
        new_params.append(p)
        for column, slot in zip(new_slots, slots, strict=True):
            column.append(slot)
    new_state: dict[str, Any] = {**state, "step": C.optim_count(t)}
    for slot, column in zip(row["slots"], new_slots, strict=True):
        new_state[slot] = build(column)
    return build(new_params), new_state
