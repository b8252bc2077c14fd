"""Schedules that move the momentum against the rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .schedule import LRScheduler, cosine, need, per_group

if TYPE_CHECKING:
    from .optimizer import Optimizer


class _Momentum(LRScheduler):
    """A schedule that may move the momentum (or beta1) against the rate."""

    cycle_momentum: bool

    def momentum(self, t: float, group: int) -> float:
        """The momentum of a group at step t."""
        raise NotImplementedError

    def _check_momentum(self, optimizer: Optimizer) -> None:
        keys = optimizer.defaults
        need(
            not self.cycle_momentum or "momentum" in keys or "betas" in keys,
            self,
            "the optimizer has neither momentum nor betas",
            "pass cycle_momentum=False",
        )

    def _write_momentum(self, t: float) -> None:
        if not self.cycle_momentum:
            return
        for i, group in enumerate(self.optimizer.param_groups):
            value = self.momentum(t, i)
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value


class OneCycleLR(_Momentum):
    """One cycle: from max_lr / div_factor up to max_lr, then down to (max_lr / div_factor) / final_div_factor.

    The length is `total_steps`, or `epochs` times `steps_per_epoch`. The momentum goes the other way.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            need(
                epochs is not None and steps_per_epoch is not None,
                self,
                "give total_steps, or epochs and steps_per_epoch",
            )
            total_steps = int(epochs or 0) * int(steps_per_epoch or 0)
        need(total_steps >= 1, self, f"the number of steps must be at least 1, got {total_steps}")
        need(0 <= pct_start <= 1, self, f"pct_start must be in [0, 1], got {pct_start}")
        need(
            anneal_strategy in ("cos", "linear"),
            self,
            f"unknown anneal_strategy {anneal_strategy!r}",
            "use cos or linear",
        )
        self.total_steps, self.anneal_strategy, self.cycle_momentum = total_steps, anneal_strategy, cycle_momentum
        self._check_momentum(optimizer)
        top = per_group(max_lr, optimizer, self, "max_lr")
        low = per_group(base_momentum, optimizer, self, "base_momentum")
        high = per_group(max_momentum, optimizer, self, "max_momentum")
        up = pct_start * total_steps - 1
        if three_phase:
            self._ends = [up, 2 * up, total_steps - 1]
        else:
            self._ends = [up, total_steps - 1]
        self._lr_at, self._momentum_at = [], []
        for m, lo, hi in zip(top, low, high, strict=True):
            start = m / div_factor
            end = start / final_div_factor
            self._lr_at.append([start, m, start, end] if three_phase else [start, m, end])
            self._momentum_at.append([hi, lo, hi, hi] if three_phase else [hi, lo, hi])
        if last_epoch == -1:
            for group, points in zip(optimizer.param_groups, self._lr_at, strict=True):
                group["initial_lr"] = points[0]
        super().__init__(optimizer, last_epoch)

    def _at(self, points: list[float], t: float) -> float:
        need(t <= self.total_steps, self, f"step {int(t) + 1} of a cycle of {self.total_steps} steps", "make it longer")
        begin = 0.0
        for i, end in enumerate(self._ends):
            if t <= end or i == len(self._ends) - 1:
                part = (t - begin) / (end - begin) if end != begin else 1.0
                if self.anneal_strategy == "cos":
                    return cosine(points[i], points[i + 1], part)
                return points[i] + (points[i + 1] - points[i]) * part
            begin = end
        raise AssertionError

    def rate(self, base: float, t: float, group: int) -> float:
        return self._at(self._lr_at[group], t)

    def momentum(self, t: float, group: int) -> float:
        """The momentum of a group at step t."""
        return self._at(self._momentum_at[group], t)


class CyclicLR(_Momentum):
    """Triangles between `base_lr` and `max_lr`.

    Args:
        mode: "triangular", "triangular2" (half the height each cycle) or "exp_range" (height gamma^t).
        scale_fn: a height function of one's own, of the cycle (scale_mode "cycle") or the step ("iterations").
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        need(
            mode in ("triangular", "triangular2", "exp_range") or scale_fn is not None,
            self,
            f"unknown mode {mode!r}",
            "use triangular, triangular2 or exp_range",
        )
        self.up = float(step_size_up)
        self.total = self.up + (self.up if step_size_down is None else float(step_size_down))
        need(self.up > 0 and self.total > self.up, self, "step sizes must be positive")
        self.mode, self.gamma, self.scale_fn, self.scale_mode = mode, gamma, scale_fn, scale_mode
        self.cycle_momentum = cycle_momentum
        self._check_momentum(optimizer)
        self._low = per_group(base_lr, optimizer, self, "base_lr")
        self._high = per_group(max_lr, optimizer, self, "max_lr")
        self._low_momentum = per_group(base_momentum, optimizer, self, "base_momentum")
        self._high_momentum = per_group(max_momentum, optimizer, self, "max_momentum")
        if last_epoch == -1:
            for group, low in zip(optimizer.param_groups, self._low, strict=True):
                group["initial_lr"] = low
        super().__init__(optimizer, last_epoch)

    def _height(self, t: float) -> float:
        cycle = math.floor(1 + t / self.total)
        x = 1 + t / self.total - cycle
        ratio = self.up / self.total
        height = x / ratio if x <= ratio else (x - 1) / (ratio - 1)
        if self.scale_fn is not None:
            return height * self.scale_fn(cycle if self.scale_mode == "cycle" else t)
        if self.mode == "triangular2":
            return height / 2.0 ** (cycle - 1)
        return height * self.gamma**t if self.mode == "exp_range" else height

    def rate(self, base: float, t: float, group: int) -> float:
        return base + (self._high[group] - base) * self._height(t)

    def momentum(self, t: float, group: int) -> float:
        """The momentum of a group at step t."""
        high = self._high_momentum[group]
        return high - (high - self._low_momentum[group]) * self._height(t)
