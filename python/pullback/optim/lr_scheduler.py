"""Learning-rate schedules under PyTorch's names.

Every schedule but ReduceLROnPlateau is a closed form: the rate after t calls of `step` is a function of t and of the
rate at the start. So nothing drifts, and a state dict restores it exactly.

>>> opt = pb.optim.SGD([pb.ones(1)], lr=1.0)
>>> schedule = pb.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
>>> [(schedule.step(), opt.param_groups[0]["lr"])[1] for _ in range(4)]
[1.0, 0.5, 0.5, 0.25]
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .schedule import LRScheduler, cosine, need
from .schedule_composites import ChainedScheduler, ReduceLROnPlateau, SequentialLR
from .schedule_cycles import CyclicLR, OneCycleLR

if TYPE_CHECKING:
    from .optimizer import Optimizer

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupCosine",
    "WarmupStableDecay",
]


class LambdaLR(LRScheduler):
    """lr = base f(t); `lr_lambda` is one function or one per group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        n = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * n if callable(lr_lambda) else list(lr_lambda)
        need(len(self.lr_lambdas) == n, self, f"got {len(self.lr_lambdas)} functions for {n} groups")
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        return base * self.lr_lambdas[group](int(t))


class StepLR(LRScheduler):
    """lr = base gamma^(t // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        need(step_size >= 1, self, f"step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        return base * self.gamma ** (t // self.step_size)


class MultiStepLR(LRScheduler):
    """lr = base gamma^(number of milestones reached)."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, t)


class ConstantLR(LRScheduler):
    """lr = base factor until `total_iters`, then base."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        need(0 <= factor <= 1, self, f"factor must be in [0, 1], got {factor}")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        return base * self.factor if t < self.total_iters else base


class LinearLR(LRScheduler):
    """lr = base times a factor that goes from `start_factor` to `end_factor` on a line, in `total_iters` steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        need(0 < start_factor <= 1, self, f"start_factor must be in (0, 1], got {start_factor}")
        need(0 <= end_factor <= 1, self, f"end_factor must be in [0, 1], got {end_factor}")
        need(total_iters >= 1, self, f"total_iters must be at least 1, got {total_iters}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        part = min(t, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * part)


class ExponentialLR(LRScheduler):
    """lr = base gamma^t."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        return base * self.gamma**t


class PolynomialLR(LRScheduler):
    """lr = base (1 - t / total_iters)^power, 0 from total_iters on."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        need(total_iters >= 1, self, f"total_iters must be at least 1, got {total_iters}")
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        return base * (1 - min(t, self.total_iters) / self.total_iters) ** self.power


class CosineAnnealingLR(LRScheduler):
    """Half a cosine wave from base down to `eta_min` in `T_max` steps, then up again."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        need(T_max >= 1, self, f"T_max must be at least 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        return cosine(base, self.eta_min, t / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine cycles from base to `eta_min`: the first of `T_0` steps, each further one `T_mult` times longer.

    `step(epoch)` may be given a fractional epoch.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        need(T_0 >= 1 and T_mult >= 1, self, f"T_0 and T_mult must be at least 1, got {T_0} and {T_mult}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """Moves on by one, or to `epoch`, which may be a fraction of an epoch."""
        if epoch is None:
            return super().step()
        need(epoch >= 0, self, f"epoch must not be negative, got {epoch}")
        self._apply(self._lrs(self.base_lrs, epoch))
        self.last_epoch = math.floor(epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        length: float = self.T_0
        if self.T_mult == 1:
            t %= length
        else:
            while t >= length:
                t -= length
                length *= self.T_mult
        return cosine(base, self.eta_min, t / length)


class WarmupCosine(LRScheduler):
    """A line from 0 to base in `warmup` steps, then half a cosine wave down to base `final` at step `total`.

    The first step is taken with base / warmup: no step is lost with a rate of 0.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, total: int, final: float = 0.0, last_epoch: int = -1) -> None:
        need(0 <= warmup < total, self, f"needs 0 <= warmup < total, got {warmup} and {total}")
        need(0 <= final <= 1, self, f"final must be in [0, 1], got {final}")
        self.warmup, self.total, self.final = warmup, total, final
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        if t < self.warmup:
            return base * (t + 1) / self.warmup
        part = min(t, self.total) - self.warmup
        return base * cosine(1.0, self.final, part / (self.total - self.warmup))


class WarmupStableDecay(LRScheduler):
    """A line up in `warmup` steps, base for `stable` steps, then down to base `final` in `decay` steps.

    Args:
        shape: "linear", "cosine" or "sqrt" (1 - sqrt of the part done): the way down. Default "linear".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: int,
        stable: int,
        decay: int,
        final: float = 0.0,
        shape: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        need(warmup >= 0 and stable >= 0 and decay >= 1, self, "needs warmup >= 0, stable >= 0, decay >= 1")
        need(0 <= final <= 1, self, f"final must be in [0, 1], got {final}")
        need(shape in ("linear", "cosine", "sqrt"), self, f"unknown shape {shape!r}", "use linear, cosine or sqrt")
        self.warmup, self.stable, self.decay, self.final, self.shape = warmup, stable, decay, final, shape
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: float, group: int) -> float:
        if t < self.warmup:
            return base * (t + 1) / self.warmup
        part = min(max(t - self.warmup - self.stable, 0) / self.decay, 1.0)
        if self.shape == "cosine":
            return base * cosine(1.0, self.final, part)
        done = math.sqrt(part) if self.shape == "sqrt" else part
        return base * (self.final + (1 - self.final) * (1 - done))
