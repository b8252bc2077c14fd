"""Schedules made of schedules, and the one that watches a metric."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .schedule import LRScheduler, need, per_group

if TYPE_CHECKING:
    from .optimizer import Optimizer


class ReduceLROnPlateau:
    """Multiplies the rate by `factor` when the metric has not improved for more than `patience` calls of `step`.

    Args:
        mode: "min" or "max": the direction of improvement.
        threshold, threshold_mode: the least improvement, relative ("rel") or absolute ("abs").
        cooldown: calls after a reduction that do not count.
        min_lr: least rate, one or one per group.
        eps: a smaller change of the rate is not made.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        need(mode in ("min", "max"), self, f"unknown mode {mode!r}", "use min or max")
        need(threshold_mode in ("rel", "abs"), self, f"unknown threshold_mode {threshold_mode!r}", "use rel or abs")
        need(factor < 1, self, f"factor must be below 1, got {factor}")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self.min_lrs = per_group(min_lr, optimizer, self, "min_lr")
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def _better(self, value: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if self.threshold_mode == "rel":
            return sign * value < sign * self.best * (1 - sign * self.threshold) if math.isfinite(self.best) else True
        return sign * value < sign * self.best - self.threshold

    def step(self, metrics: Any) -> None:
        """Takes the newest value of the metric; NaN counts as no improvement."""
        value = float(metrics)
        self.last_epoch += 1
        if not math.isnan(value) and self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=False):
                lr = max(group["lr"] * self.factor, least)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def get_last_lr(self) -> list[float]:
        """The present rates, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Plain values only."""
        keys = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {**{key: getattr(self, key) for key in keys}, "last_lr": self.get_last_lr()}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned and writes the rates of that moment into the optimizer."""
        need(len(d["last_lr"]) == len(self.min_lrs), self, "the state has another number of groups")
        for key in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(self, key, d[key])
        for group, lr in zip(self.optimizer.param_groups, d["last_lr"], strict=False):
            group["lr"] = lr


class _Composite(LRScheduler):
    schedulers: list[LRScheduler]

    def _check_parts(self, schedulers: Sequence[LRScheduler]) -> None:
        self.schedulers = list(schedulers)
        need(bool(self.schedulers), self, "got no schedules")
        for s in self.schedulers:
            need(isinstance(s, LRScheduler), self, f"{type(s).__name__} is no closed form", "step it by itself")
            need(s.optimizer is self.schedulers[0].optimizer, self, "the schedules belong to different optimizers")

    def state_dict(self) -> dict[str, Any]:
        """Plain values only; "parts" holds the states of the schedules inside."""
        return {**super().state_dict(), "parts": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned and writes the rates of that moment into the optimizer.

        Raises:
            ValueError: another number of groups or of schedules inside.
        """
        need(len(d["parts"]) == len(self.schedulers), self, "the state has another number of schedules")
        for s, part in zip(self.schedulers, d["parts"], strict=True):
            s.load_state_dict(part)
        super().load_state_dict(d)


class ChainedScheduler(_Composite):
    """Several schedules at once: each takes the rate of the one before as its base. For factors, their product."""

    def __init__(self, schedulers: Sequence[LRScheduler], last_epoch: int = -1) -> None:
        self._check_parts(schedulers)
        super().__init__(self.schedulers[0].optimizer, last_epoch)

    def _lrs(self, bases: Sequence[float], t: float) -> list[float]:
        lrs = list(bases)
        for s in self.schedulers:
            lrs = s._lrs(lrs, t)
        return lrs

    def _write_momentum(self, t: float) -> None:
        for s in self.schedulers:
            s._write_momentum(t)


class SequentialLR(_Composite):
    """One schedule after the other: the i-th starts at milestone i - 1, counting its steps from 0 there."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._check_parts(schedulers)
        need(self.schedulers[0].optimizer is optimizer, self, "the schedules belong to another optimizer")
        need(
            len(milestones) == len(self.schedulers) - 1,
            self,
            f"{len(self.schedulers)} schedules need {len(self.schedulers) - 1} milestones, got {len(milestones)}",
        )
        need(list(milestones) == sorted(milestones), self, "milestones must ascend")
        self.milestones = list(milestones)
        super().__init__(optimizer, last_epoch)

    def _active(self, t: float) -> tuple[LRScheduler, float]:
        i = bisect_right(self.milestones, t)
        return self.schedulers[i], t - (self.milestones[i - 1] if i else 0)

    def _lrs(self, bases: Sequence[float], t: float) -> list[float]:
        s, own = self._active(t)
        return s._lrs(s.base_lrs, own)

    def _write_momentum(self, t: float) -> None:
        s, own = self._active(t)
        s._write_momentum(own)
