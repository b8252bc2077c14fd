"""What happens around the steps of a run."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pullback as pb

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """Base class: override what you need. Set `trainer.stop = True` to end the run after the current step.

    `record` is the dict that goes into the history; a callback may add numbers to it. A callback with state that a
    resumed run needs gives it in `state_dict` and takes it in `load_state_dict`, which runs before `on_fit_start`.
    Callbacks run in the order of `priority`, then of the list.

    Example:
        >>> class Note(pb.train.Callback):
        ...     def on_step_end(self, trainer, record):
        ...         record["twice"] = 2 * record["loss"]
    """

    priority = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step, after a resume."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch; not where a resume goes on inside one."""

    def on_step_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """After each optimizer step."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """After the validation of an epoch."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """At the end of fit, also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the state of a checkpoint."""


class _Best(Callback):
    """Follows the best value of one number of the epoch records."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        if mode not in ("min", "max"):
            raise ValueError(f'{type(self).__name__}: unknown mode {mode!r}\nhelp: use "min" or "max"')
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.best: float | None = None

    def improved(self, record: Mapping[str, Any]) -> bool:
        if self.monitor not in record:
            raise KeyError(
                f"{type(self).__name__}: the epoch has no {self.monitor!r}\n"
                f"help: pass monitor= one of {', '.join(sorted(record))}, or validation data to fit"
            )
        value = float(record[self.monitor])
        sign = 1.0 if self.mode == "min" else -1.0
        if math.isnan(value) or (self.best is not None and sign * (self.best - value) <= self.min_delta):
            return False
        self.best = value
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = state["best"]


class EarlyStopping(_Best):
    """Ends the run when a number has not improved for `patience` epochs.

    Args:
        monitor: name in the epoch record.
        patience: epochs without improvement.
        min_delta: a change must be larger than this to count.
        mode: "min" or "max".
        restore_best: at the end put the parameters and buffers of the best epoch back into the model.
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 5,
        *,
        min_delta: float = 0.0,
        mode: str = "min",
        restore_best: bool = False,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience, self.restore_best = patience, restore_best
        self.wait = 0
        self._model: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        if self.wait >= self.patience:  # a finished run that is started again
            trainer.stop = True

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if self.improved(record):
            self.wait = 0
            if self.restore_best:
                self._model = {name: t.clone() for name, t in trainer.model_state().items()}
        else:
            self.wait += 1
            trainer.stop = trainer.stop or self.wait >= self.patience

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._model is not None and trainer.stop:
            trainer.model.load_state_dict(self._model)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"wait": self.wait, "model": self._model}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.wait, self._model = state["wait"], state["model"]


class ModelCheckpoint(_Best):
    """Writes the model's state (the EMA's, where there is one) each time a number is the best so far.

    Args:
        path: of the safetensors file, for `model.load_state_dict(pb.load(path))`.
        monitor: name in the epoch record.
        mode: "min" or "max".
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str = "valid_loss", *, mode: str = "min"):
        super().__init__(monitor, mode)
        self.path = path

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if self.improved(record):
            with trainer.averaged():
                pb.save(self.path, trainer.model_state())


class LRMonitor(Callback):
    """Adds the learning rate to each record: `lr`, or `lr_<optimizer>`, with `_<i>` for further parameter groups."""

    priority = -10

    def on_step_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        record.update(trainer.last_lr)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        record.update(trainer.last_lr)


class ProgressBar(Callback):
    """A bar by tqdm, moved on ten times a second; without tqdm a line on stderr at each epoch and at most every
    `seconds` seconds."""

    priority = 10

    def __init__(self, seconds: float = 5.0):
        self.seconds = seconds
        self._bar: Any = None
        self._start = self._printed = 0.0
        self._first = self._waiting = 0
        self._valid = ""

    def on_fit_start(self, trainer: Trainer) -> None:
        self._start = self._printed = time.monotonic()
        self._first = trainer.step
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar = None
        else:
            self._bar = tqdm(total=trainer.total_steps, initial=trainer.step, unit="step", dynamic_ncols=True)

    def on_step_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        now = time.monotonic()
        if self._bar is None:
            if now - self._printed > self.seconds:
                self._line(trainer, record)
            return
        self._waiting += 1
        if now - self._printed > 0.1:
            self._printed = now
            self._move(record)

    def _move(self, record: Mapping[str, Any]) -> None:
        """Moves the bar on by the steps since the last time."""
        if "loss" in record:
            self._bar.set_postfix_str(f"loss {record['loss']:.4f}{self._valid}", refresh=False)
        self._bar.update(self._waiting)
        self._waiting = 0

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        valid = ", ".join(f"{k} {v:.4f}" for k, v in record.items() if k.startswith("valid_"))
        self._valid = f", {valid}" if valid else ""
        if self._bar is None:
            self._line(trainer, record)

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.update(self._waiting)
            self._waiting = 0
            if trainer.history.epochs:
                loss = trainer.history.epochs[-1].get("loss", math.nan)
                self._bar.set_postfix_str(f"loss {loss:.4f}{self._valid}")
            self._bar.close()
            self._bar = None

    def _line(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        self._printed = time.monotonic()
        rate = (trainer.step - self._first) / max(self._printed - self._start, 1e-9)
        total = f"/{trainer.total_steps}" if trainer.total_steps else ""
        numbers = " ".join(f"{k} {v:.4f}" for k, v in record.items() if isinstance(v, float))
        print(f"step {trainer.step}{total}  {numbers}  {rate:.1f} steps/s", file=sys.stderr, flush=True)
