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
    """The start of the pure form: step 0, zeros for each slot and number."""
    leaves, build = flatten(params)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"init: a leaf is {type(leaf).__name__}, not a tensor\nhelp: params holds tensors only")
    state: dict[str, Any] = {"step": C.optim_count(0)}
    for slot in row["slots"]:
        state[slot] = build([C.optim_zeros_like(leaf) for leaf in leaves])
    for name in row["scalars"]:
        state[name] = build([C.optim_scalar(0.0) for _ in leaves])
    return state


class Compiled:
    """A rule's step for one tensor; the sums first, where it has any."""

    def __init__(self, row: dict[str, Any], hyper: list[Any], decay: Any, decoupled: bool) -> None:
        self.row, self.rest = row, (hyper, decay, decoupled)

    def sums(self, p: Tensor, g: Tensor, slots: list[Any], numbers: list[Any], t: int) -> list[Any]:
        """What the tensor adds to the sums: 0-d float64."""
        return C.optim_pure_sums(self.row["index"], p, g, slots, numbers, *self.rest, t)

    def step(
        self, p: Tensor, g: Tensor, slots: list[Any], numbers: list[Any], t: int, sums: list[Any]
    ) -> tuple[Any, list[Any], list[Any]]:
        """(new p, new slots, new numbers)."""
        return C.optim_pure(self.row["index"], p, g, slots, numbers, *self.rest, t, sums)


def update(
    row: dict[str, Any], params: Any, grads: Any, state: dict[str, Any], rule: Any
) -> tuple[Any, dict[str, Any]]:
    """One step on nested containers, (new params, new state); `rule` is a Compiled or has its two methods."""
    names = (*row["slots"], *row["scalars"])
    missing = [name for name in ("step", *names) if name not in state]
    if missing:
        raise ValueError(
            f"update: the state has no {missing[0]!r}\n"
            f"help: init with the same keywords; this rule ({row['name']}) keeps {', '.join(names) or 'nothing'}"
        )
    leaves, build = flatten(params)
    slope = list(align(params, grads, "grads"))
    t = int(state["step"]) + 1
    columns = [list(align(params, state[name], name)) for name in names]
    cut = len(row["slots"])

    def arguments(i: int) -> tuple[Any, ...]:
        old = [column[i] for column in columns]
        return leaves[i], slope[i], old[:cut], old[cut:], t

    moved = [i for i, g in enumerate(slope) if g is not None]
    sums: dict[int, list[Any]] = {i: rule.sums(*arguments(i)) if row["sums"] else [] for i in moved}
    if row["shared"] and moved:
        total = sums[moved[0]]
        for i in moved[1:]:
            total = [a + b for a, b in zip(total, sums[i], strict=True)]
        sums = dict.fromkeys(moved, total)
    for i in moved:
        leaf, slots, scalars = rule.step(*arguments(i), sums[i])
        leaves[i] = leaf
        for column, value in zip(columns, (*slots, *scalars), strict=True):
            column[i] = value
    new_state: dict[str, Any] = {**state, "step": C.optim_count(t)}
    for name, column in zip(names, columns, strict=True):
        new_state[name] = build(column)
    return build(leaves), new_state
