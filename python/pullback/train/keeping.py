"""What the trainer's forward passes keep for backward: `Trainer(saved=, memory_budget=)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pullback as pb
from pullback.memory import plans


class Keeping:
    """Puts pb.saving around the forward passes of training, or a memory plan that the first batch was measured for.

    Args:
        saved: as in `pb.saving`, or None.
        budget: bytes kept for backward by one batch, or None.

    Raises:
        ValueError: both were given, or one is out of range.
    """

    def __init__(self, saved: Any, budget: int | None):
        if saved is not None and budget is not None:
            raise ValueError("Trainer: saved and memory_budget exclude each other\nhelp: a plan chooses what is saved")
        if budget is not None and (type(budget) is not int or budget < 1):
            raise ValueError(
                f"Trainer: memory_budget must be a number of bytes, got {budget!r}\nhelp: for example 512 * 2**20"
            )
        self.saved, self.budget = saved, budget
        self.plan: plans.Plan | None = None
        self.choices: dict[str, Any] | None = None  # of the plan, as a checkpoint holds them
        self._units: tuple[tuple[plans.Unit, Any], ...] | None = None
        if saved is not None:
            pb.saving(saved)  # refuses what it does not know

    @property
    def idle(self) -> bool:
        """Whether there is nothing to put around a forward pass."""
        return self.saved is None and self.budget is None

    def restore(self, choices: dict[str, Any] | None) -> None:
        """Goes on with the choices of a checkpoint; None measures anew."""
        self.choices, self.plan, self._units = choices, None, None

    @contextmanager
    def around(self, model: Any, forward: Callable[[], pb.Tensor]) -> Iterator[None]:
        """The block of one forward pass; `forward` computes the loss of the first batch for the plan."""
        if self.saved is not None:
            with pb.saving(self.saved):
                yield
        elif self.budget is not None:
            if self.choices is None:
                self.plan = plans.plan_of(model, forward, self.budget)
                self.choices, self._units = {row.name: row.saved for row in self.plan.rows}, self.plan.units
            if self._units is None:  # the choices came from a checkpoint
                self._units = plans.named(model, self.choices)
            with plans.under(self._units):
                yield
        else:
            yield
