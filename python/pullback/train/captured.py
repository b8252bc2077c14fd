"""A training step of (x, y) as one captured unit."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import pullback as pb

from .loop import Context

if TYPE_CHECKING:
    from .trainer import Trainer


class CapturedStep:
    """Forward, backward and update of one batch; the numbers are read after the step, not on the way."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.step = pb.capture(self._whole)

    def _whole(self, x: Any, y: Any, scale: float | None) -> dict[str, Any]:
        t = self.trainer
        name = t.optimizer_name(None)
        with t.keeping.around(t.model, lambda: t.compute((x, y), Context(t, training=False))[0]):
            with t.autocast or contextlib.nullcontext():
                assert t.loss is not None
                prediction = t.model(x)
                loss = t.loss(prediction, y)
                with pb.no_grad():
                    numbers = {key: f(prediction, y) for key, f in t.metrics.items()}
            t.add_gradient(loss, 1.0, name)
        t.optimizers[name].step(clip_norm=t.clip_norm, scale=scale)
        t.optimizers[name].zero_grad()
        return {"loss": loss} | numbers

    def __call__(self, batch: Any) -> dict[str, float]:
        """The loss and the metrics of a batch with which a step was made."""
        t = self.trainer
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"fit: a batch must be (x, y), got {type(batch).__name__}\nhelp: leave capture=False for other batches"
            )
        result = self.step(*batch, None if t.loss_scale is None else t.loss_scale.value)
        numbers = {name: float(value) for name, value in result.items()}
        optimizer = t.optimizers[t.optimizer_name(None)]
        if t.loss_scale is not None:
            t.skipped = optimizer.last_skipped
        elif not math.isfinite(numbers["loss"]):
            raise FloatingPointError(
                f"fit: the loss is {numbers['loss']} at step {t.step + 1} (epoch {t.epoch + 1}), and with "
                "capture=True the step was made\nhelp: go on from a checkpoint with capture=False, to see the module"
            )
        else:
            t.check_skipped(optimizer)
        return numbers
