"""Learning rates over time: objects of `pb.optim.lr_scheduler` and plain functions, behind one face."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any


def schedules_of(schedule: Any, optimizers: Mapping[str, Any]) -> list[Schedule]:
    """The schedules of a trainer from one, a list, or a dict by optimizer."""
    if schedule is None:
        return []
    if isinstance(schedule, Mapping):
        for name in schedule:
            if name not in optimizers:
                raise ValueError(
                    f"Trainer: the schedule names {name!r}, which is no optimizer\nhelp: use {list(optimizers)}"
                )
        return [Schedule(s, [optimizers[name]]) for name, s in schedule.items()]
    parts = schedule if isinstance(schedule, (list, tuple)) else [schedule]
    return [Schedule(s, list(optimizers.values())) for s in parts]


class Schedule:
    """One schedule object, or a function of the number of steps made."""

    def __init__(self, schedule: Any, optimizers: list[Any]):
        self.schedule, self.optimizers = schedule, optimizers
        self.is_object = hasattr(schedule, "step")
        if not self.is_object and not callable(schedule):
            raise ValueError(
                f"Trainer: a {type(schedule).__name__} is no schedule\n"
                "help: pass an object of pb.optim.lr_scheduler or a function step -> learning rate"
            )
        self.needs_metric = self.is_object and "metrics" in inspect.signature(schedule.step).parameters

    def before_step(self, step: int) -> None:
        """Sets the rate of a plain function."""
        if not self.is_object:
            rate = float(self.schedule(step))
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate

    def after_step(self) -> None:
        """Moves an object on by one step."""
        if self.is_object and not self.needs_metric:
            self.schedule.step()

    def after_epoch(self, record: Mapping[str, Any]) -> None:
        """Moves a schedule that watches a metric on by one epoch."""
        if self.needs_metric:
            self.schedule.step(record.get("valid_loss", record.get("loss")))

    def state_dict(self) -> Any:
        """The state of an object; None for a function."""
        return self.schedule.state_dict() if self.is_object else None

    def load_state_dict(self, state: Any) -> None:
        """Takes back what state_dict gave."""
        if self.is_object:
            self.schedule.load_state_dict(state)
