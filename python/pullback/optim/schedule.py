"""What all schedules share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .optimizer import Optimizer


def need(ok: bool, who: object, rule: str, help: str = "see the docstring") -> None:
    """Raises ValueError unless `ok`."""
    if not ok:
        raise ValueError(f"{type(who).__name__}: {rule}\nhelp: {help}")


class LRScheduler:
    """Base of the schedules. `step()` moves on by one and writes "lr" into every group of the optimizer.

    Attributes:
        last_epoch: the number of calls of `step` so far.
        base_lrs: the rates at the start, one per group; kept in the group as "initial_lr", so that several schedules
            of one optimizer start from the same rates.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        need(bool(optimizer.param_groups), self, "the optimizer has no parameter groups")
        self.optimizer = optimizer
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self._write()

    def rate(self, base: float, t: float, group: int) -> float:
        """The rate of a group after t steps, when it was `base` at the start."""
        raise NotImplementedError

    def step(self) -> None:
        """Moves on by one."""
        self.last_epoch += 1
        self._write()

    def get_last_lr(self) -> list[float]:
        """The rates written last, one per group."""
        return list(self._last_lr)

    def _lrs(self, bases: Sequence[float], t: float) -> list[float]:
        return [self.rate(base, t, i) for i, base in enumerate(bases)]

    def _write(self) -> None:
        self._apply(self._lrs(self.base_lrs, self.last_epoch))
        self._write_momentum(self.last_epoch)

    def _apply(self, lrs: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=False):
            group["lr"] = lr
        self._last_lr = lrs

    def _write_momentum(self, t: float) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs), "last_lr": list(self._last_lr)}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned and writes the rates of that moment into the optimizer.

        Raises:
            ValueError: another number of groups.
        """
        need(len(d["base_lrs"]) == len(self.base_lrs), self, "the state has another number of groups")
        self.last_epoch, self.base_lrs = int(d["last_epoch"]), list(d["base_lrs"])
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=False):
            group["initial_lr"] = base
        self._write()


def per_group(value: Any, optimizer: Optimizer, who: object, name: str) -> list[float]:
    """One value for each group, from a number or a list."""
    n = len(optimizer.param_groups)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * n
    need(len(values) == n, who, f"got {len(values)} values of {name} for {n} groups")
    return values


def cosine(start: float, end: float, part: float) -> float:
    """Half a cosine wave from start (part 0) to end (part 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
