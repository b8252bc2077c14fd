"""The training loop: steps, validation, callbacks, and a resume that continues bit for bit."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pullback as pb
from pullback._precision import LossScale
from pullback.cuda import to_device

from . import checkpoint
from .callbacks import Callback, ProgressBar
from .history import History
from .keeping import Keeping
from .loop import Context, Means, blame, count_items, is_number, windows
from .options import check, check_capture, check_in_backward, check_scaled, metrics_of
from .schedule import schedules_of


class Trainer:
    """Trains a model: steps, validation, logs, checkpoints, exact resume.

    A batch `(x, y)` means `loss(model(x), y)`. For anything else pass `step(model, batch, ctx)`: it returns a scalar
    loss, or a dict of numbers with the scalar under "loss"; or it calls `ctx.backward(loss, name)` and
    `ctx.update(name)` itself, as with several optimizers, and returns a dict of numbers to log. One optimizer step is
    made for each `accumulate` batches, with the gradient of the mean over all their items, also for a shorter last
    window. Batches are moved to the device where the model lies. Numbers of steps and epochs count from the start of training, resumed parts included.

    Args:
        model: a `pb.nn.Module`.
        optimizer: an optimizer of the model's parameters, or a dict of them.
        loss: `loss(prediction, target) -> scalar`, a mean over items.
        step: replaces model, loss and metrics for batches that are no (x, y).
        metrics: {name: f(prediction, target) -> number}; the name "accuracy" may stand for its function. Means over
            items are kept.
        schedule: an object of `pb.optim.lr_scheduler`, stepped after each optimizer step (one that takes a metric:
            after each epoch); or a function of the number of steps made that returns the learning rate; or a list of
            them, or a dict of them by optimizer.
        callbacks: `Callback` objects.
        clip_norm: largest norm of an optimizer's gradient.
        accumulate: batches for one optimizer step.
        ema: decay of an average of the parameters (0.999, say) or a `pb.optim.EMA`; validation uses the average.
        precision: "float32", or the type that forward passes run in under `pb.autocast`: "bfloat16", or "float16" on a
            CUDA device, with a dynamic scale of the loss. Parameters stay as they are; for parameters that are stored
            in 16 bits see `rounding` of the optimizers.
        saved: what training's forward passes keep for backward, as `pb.saving` takes it.
        memory_budget: the most bytes that one batch may keep for backward; `pb.memory.plan` chooses what, for the first
            batch, and `trainer.keeping.plan` shows it.
        capture: make each training step one CUDA graph (`pb.capture`), where the model lies on a device; elsewhere
            without effect. Loss, metrics and model may not read values of tensors. A loss that is not finite is found
            after its step.
        update: "after" backward, or "in_backward": each parameter is stepped as soon as its gradient is complete,
            which is then dropped. The same bits with less memory, for rules that look at one tensor at a time and
            without clip_norm; with `accumulate` in the backward of the last batch.
        detect_anomaly: name the forward line of a gradient that is not finite (slow).
        checkpoint_dir: folder of checkpoints; fit resumes from the newest one that is whole.
        checkpoint_every: steps between checkpoints; None writes one after each epoch. The end of fit writes one too.
        keep: how many checkpoints stay.
        seed: of the default generator when a new run begins.
        progress: show a bar or line.
        count: `f(batch) -> number of items that its mean loss divides by`, for losses that leave items out; None
            takes the number of targets (with `ignore_index=` and `weight=` of a functools.partial respected), or the
            length of the first tensor.

    Raises:
        ValueError: an argument is out of range or names something that is not built.

    Example:
        >>> model = pb.nn.Linear(2, 1)
        >>> data = pb.data.DataLoader(pb.data.TensorDataset(pb.ones((4, 2)), pb.ones((4, 1))), 2)
        >>> trainer = Trainer(model, pb.optim.SGD(model.parameters(), lr=0.1), pb.losses.mse, progress=False)
        >>> len(trainer.fit(data, epochs=3).steps)
        6
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Callable[..., Any] | None = None,
        *,
        step: Callable[..., Any] | None = None,
        metrics: Mapping[str, Callable[..., Any]] | Sequence[str] | None = None,
        schedule: Any = None,
        callbacks: Iterable[Callback] = (),
        clip_norm: float | None = None,
        accumulate: int = 1,
        ema: Any = None,
        precision: str = "float32",
        saved: Any = None,
        memory_budget: int | None = None,
        capture: bool = False,
        update: str = "after",
        detect_anomaly: bool = False,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        keep: int = 3,
        seed: int = 0,
        progress: bool = True,
        count: Callable[[Any], float] | None = None,
    ):
        options = locals()
        check(options)
        self.model = model
        self.optimizers: dict[str, Any] = dict(optimizer) if isinstance(optimizer, Mapping) else {"": optimizer}
        if not self.optimizers:
            raise ValueError("Trainer: the dict of optimizers is empty\nhelp: pass at least one optimizer")
        if update == "in_backward":
            check_in_backward(options, self.optimizers)
        if precision == "float16":
            check_scaled(self.optimizers)
        if capture:
            check_capture(options, self.optimizers)
        self._captured = pb.capture(self._whole_step) if capture else None
        self.precision, self._in_backward = precision, update == "in_backward"
        self._autocast = None if precision == "float32" else pb.autocast(precision)
        self.loss_scale = LossScale() if precision == "float16" else None
        self.loss, self._step = loss, step
        self.metrics = metrics_of(metrics)
        self._schedules = schedules_of(schedule, self.optimizers)
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self.ema = pb.optim.EMA(model, ema) if isinstance(ema, float) else ema
        self.detect_anomaly = detect_anomaly
        self.keeping = Keeping(saved, memory_budget)
        self.checkpoints = checkpoint.Folder(checkpoint_dir, keep) if checkpoint_dir is not None else None
        self.checkpoint_every, self.seed = checkpoint_every, seed
        self.callbacks = sorted([*callbacks, *([ProgressBar()] if progress else [])], key=lambda c: c.priority)
        self._count = count
        self._sums_items = getattr(loss, "keywords", {}).get("reduction") == "sum"

        self.step = 0  # optimizer steps made
        self.epoch = 0  # epochs completed
        self.batch = 0  # batches of the current epoch that were used
        self.stop = False
        self.history = History()
        self.last_lr: dict[str, float] = {}
        self.total_steps: int | None = None
        self._means = Means()
        self._interrupted = False
        self._skipped = False  # a step of this window, by the loss scale
        self._unsaved = True
        self._loaders: dict[str, Any] = {}
        self._loader_states: dict[str, Any] = {}

    # ---- fit

    def fit(
        self,
        train: Iterable[Any],
        valid: Iterable[Any] | None = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        resume: bool | str | os.PathLike[str] = "auto",
    ) -> History:
        """Trains until `epochs` epochs or `steps` optimizer steps are made in all, whichever comes first.

        Ctrl-C lets the current step end, writes a checkpoint (where there is a folder) and returns; a second one
        raises KeyboardInterrupt at once.

        Args:
            train: a `pb.data.DataLoader`, or anything that gives the batches of an epoch each time it is iterated.
            valid: the same for validation after each epoch and at the end.
            epochs: total epochs.
            steps: total optimizer steps.
            resume: "auto" goes on from the newest whole checkpoint where there is one, True needs one, False starts
                anew (older checkpoints are removed once a new one is written), a path names the file.

        Returns:
            The `History` of the whole run.

        Raises:
            ValueError: neither epochs nor steps is given.
            CheckpointError: a checkpoint is of another model, optimizer or loader, or none is whole.
            FloatingPointError: the loss is not finite; no step is made with it.
        """
        if epochs is None and steps is None:
            raise ValueError("fit: it needs a length\nhelp: pass epochs= or steps=")
        start = time.monotonic()
        before, self._loaders = self._loaders.get("train"), {"train": train, "valid": valid}
        self._begin(resume, before)
        self.total_steps, first = self._total(train, epochs, steps), self.step
        self.stop, self._interrupted, self.history.stopped = False, False, None

        def done() -> bool:
            ended = (epochs is not None and self.epoch >= epochs) or (steps is not None and self.step >= steps)
            return ended or self.stop or self._interrupted

        self.model.train()
        try:
            self._call("on_fit_start")
            with self._signals(), pb.detect_anomaly() if self.detect_anomaly else contextlib.nullcontext():
                while not done():
                    self._run_epoch(train, valid, steps)
            if self._unsaved:
                self._checkpoint()
        finally:
            self._call("on_fit_end")
        self.history.seconds, self.history.made = time.monotonic() - start, self.step - first
        if self._interrupted:
            self.history.stopped = "interrupted"
        elif self.stop:
            self.history.stopped = "callback"
        return self.history

    def _begin(self, resume: bool | str | os.PathLike[str], before: Any) -> None:
        if isinstance(resume, os.PathLike) or (isinstance(resume, str) and resume != "auto"):
            self.load(resume)
        elif self.step == 0 or resume is False:
            found = self.checkpoints.newest() if self.checkpoints is not None and resume is not False else None
            if found is not None:
                checkpoint.restore(self, *found)
            elif resume is True:
                raise pb.CheckpointError(
                    "fit: resume=True, but there is no checkpoint\n"
                    'help: pass checkpoint_dir= of the run to go on with, or resume="auto"'
                )
            elif self.step == 0:
                pb.manual_seed(self.seed)
        if self.checkpoints is not None:
            if resume is False:
                self.checkpoints.superseded = self.checkpoints.files()
            else:
                self.checkpoints.tidy()
        train = self._loaders["train"]
        if self.batch and not self._loader_states:  # this fit goes on inside the epoch that the last one left
            if train is not before:
                self.batch = 0
            elif hasattr(train, "load_state_dict"):
                train.load_state_dict(train.state_dict())
        for name, state in self._loader_states.items():
            if state is not None and hasattr(self._loaders.get(name), "load_state_dict"):
                self._loaders[name].load_state_dict(state)
        self._loader_states = {}

    def _total(self, train: Any, epochs: int | None, steps: int | None) -> int | None:
        by_epochs = (
            epochs * -(-len(train) // self.accumulate) if epochs is not None and hasattr(train, "__len__") else None
        )
        return min((n for n in (by_epochs, steps) if n is not None), default=None)

    def _run_epoch(self, train: Any, valid: Any, steps: int | None) -> None:
        epochs = self.history.epochs
        if epochs and epochs[-1]["epoch"] > self.epoch:  # a run that ended inside this epoch goes on
            epochs.pop()
        if self.batch == 0:
            self._means = Means()
            self._call("on_epoch_start")
        batches = iter(train)
        if not hasattr(train, "load_state_dict"):
            batches = islice(batches, self.batch, None)
        before, complete = self.batch, True
        with contextlib.closing(windows(batches, self.accumulate)) as parts:
            for window in parts:
                record = self._train_window(window)
                self.step += 1
                self.batch += len(window)
                self._unsaved = True
                self.history.steps.append(record)
                self._call("on_step_end", record)
                if self.checkpoint_every is not None and self.step % self.checkpoint_every == 0:
                    self._checkpoint()
                if self.stop or self._interrupted or (steps is not None and self.step >= steps):
                    complete = hasattr(train, "__len__") and self.batch >= len(train)
                    break
        if complete and self.batch == before == 0:
            raise ValueError(
                "fit: the training data gave no batch\n"
                "help: the dataset is empty, drop_last left nothing, or an iterator was used up: pass a DataLoader"
            )
        if not self._interrupted:
            self._end_epoch(valid, complete)

    def _end_epoch(self, valid: Any, complete: bool) -> None:
        record: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step} | self._means.values()
        if valid is not None:
            record |= {f"valid_{name}": value for name, value in self.evaluate(valid).items()}
        self.history.epochs.append(record)
        self._unsaved = True
        for schedule in self._schedules:
            schedule.after_epoch(record)
        if complete:
            self.epoch += 1
            self.batch = 0
            self._restart(self._loaders["train"])
        self._call("on_epoch_end", record)
        if complete and self.checkpoint_every is None:
            self._checkpoint()

    def _restart(self, train: Any) -> None:
        """Moves a loader that was left just after its last batch to the next epoch."""
        if isinstance(train, pb.data.DataLoader) and train.position >= len(train):
            train.epoch, train.position = train.epoch + 1, 0

    # ---- one optimizer step

    def _train_window(self, window: list[Any]) -> dict[str, Any]:
        counts = [self._items(batch) for batch in window]
        window = [self._moved(batch) for batch in window]
        total = sum(counts)
        weights = [1.0 if self._sums_items else n / total if total else 0.0 for n in counts]
        for schedule in self._schedules:
            schedule.before_step(self.step)
        self.last_lr = self._rates()
        means = Means()
        if self._captured is not None and self._device() != "cpu":
            self._captured_step(window[0], counts[0], means)
        elif any(getattr(o, "needs_closure", False) for o in self.optimizers.values()):
            self._closure_step(window, weights, counts, means)
        else:
            manual = False
            for i, (batch, weight) in enumerate(zip(window, weights, strict=True)):
                ctx = Context(self, training=True)
                ctx.weight, ctx.last = weight, i == len(window) - 1
                loss, numbers = self._watched(batch, ctx)
                manual = manual or ctx.manual
                if not ctx.manual:
                    if self._in_backward and ctx.last:
                        self.optimizers[self.optimizer_name(None)].step_in_backward(
                            loss if weight == 1.0 else loss * weight
                        )
                    else:
                        self.add_gradient(loss, weight, self.optimizer_name(None))
                means.add(numbers, counts[i])
            if not (manual or self._in_backward):
                self.update(self.optimizer_name(None))
        if self.loss_scale is not None:
            self.loss_scale.update(self._skipped)
            self._skipped = False
        for schedule in self._schedules:
            schedule.after_step()
        if self.ema is not None:
            self.ema.update()
        record = means.values()
        self._means.add(record, total)
        return {"step": self.step + 1, "epoch": self.epoch + 1} | record

    def _watched(self, batch: Any, ctx: Context) -> tuple[Any, dict[str, float]]:
        """`_compute`, with a search for the culprit where the loss is not finite."""
        generator = pb.random.default_generator()
        before = generator.get_state()
        try:
            with self.keeping.around(self.model, lambda: self._compute(batch, Context(self, training=False))[0]):
                loss, numbers = self._compute(batch, ctx)
            if not ctx.manual:
                if loss is None:
                    raise ValueError(
                        "fit: step returned no loss and did not call ctx.backward\n"
                        'help: return the loss, a dict with it under "loss", or call ctx.backward and ctx.update'
                    )
                self.check_loss(loss)
            return loss, numbers
        except _NotFinite as error:
            generator.set_state(before)
            silent = Context(self, training=False)
            reason = blame(self.model, batch, lambda: self._compute(batch, silent))
            raise FloatingPointError(
                f"fit: the loss is {error.value} at step {self.step + 1} (epoch {self.epoch + 1}): {reason}\n"
                "help: look at the data, lower the learning rate, or pass clip_norm=1.0"
            ) from None

    def _compute(self, batch: Any, ctx: Context) -> tuple[Any, dict[str, float]]:
        """(loss or None, the numbers to log) of one batch, in the precision of this trainer."""
        if self._autocast is None:
            return self._evaluate(batch, ctx)
        with self._autocast:
            return self._evaluate(batch, ctx)

    def _evaluate(self, batch: Any, ctx: Context) -> tuple[Any, dict[str, float]]:
        if self._step is not None:
            result = self._step(self.model, batch, ctx)
            if isinstance(result, pb.Tensor):
                return result, {"loss": result.item()} if result.size == 1 else {}
            if not isinstance(result, Mapping) or not all(map(is_number, result.values())):
                raise TypeError(
                    f"fit: step must return a scalar loss or a dict of numbers, got {type(result).__name__}\n"
                    "help: return loss, or {'loss': loss, 'accuracy': a}"
                )
            return result.get("loss"), {name: float(value) for name, value in result.items()}
        assert self.loss is not None
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"fit: a batch must be (x, y), got {type(batch).__name__}\n"
                "help: pass step=f with f(model, batch, ctx) for other batches"
            )
        x, y = batch
        prediction = self.model(x)
        loss = self.loss(prediction, y)
        numbers = {"loss": loss.item()} if loss.size == 1 else {}
        if self.metrics:
            with pb.no_grad():
                numbers |= {name: float(f(prediction, y)) for name, f in self.metrics.items()}
        return loss, numbers

    def check_loss(self, loss: Any) -> None:
        """Raises where a loss is no finite scalar with a gradient."""
        if not isinstance(loss, pb.Tensor) or loss.size != 1:
            shape = loss.shape if isinstance(loss, pb.Tensor) else type(loss).__name__
            raise pb.ShapeError(f"fit: the loss must be one number, got {shape}\nhelp: reduce it with pb.mean")
        value = loss.item()
        if not math.isfinite(value):
            raise _NotFinite(value)
        if not loss.requires_grad:
            raise pb.GraphError(
                "fit: the loss does not depend on a parameter that requires grad\n"
                "help: check requires_grad, no_grad and detach in the model"
            )

    def add_gradient(self, loss: Any, weight: float, name: str) -> None:
        """Adds weight times the gradient of `loss` to the parameters of one optimizer."""
        if self.loss_scale is not None:
            weight *= self.loss_scale.value
        if weight != 1.0:
            loss = loss * weight
        if len(self.optimizers) == 1:
            loss.backward()
            return
        parameters = [p for group in self.optimizers[name].param_groups for p in group["params"] if p.requires_grad]
        for p, g in zip(parameters, pb.gradients(loss, parameters), strict=True):
            p.grad = g if p.grad is None else p.grad + g

    def update(self, name: str) -> None:
        """Makes the step of one optimizer and drops its gradients."""
        optimizer = self.optimizers[name]
        if self.loss_scale is None:
            optimizer.step(clip_norm=self.clip_norm)
            self._check_skipped(optimizer)
        else:
            optimizer.step(clip_norm=self.clip_norm, scale=self.loss_scale.value)
            self._skipped = self._skipped or optimizer.last_skipped
        optimizer.zero_grad()

    def _check_skipped(self, optimizer: Any) -> None:
        if getattr(optimizer, "last_skipped", False):
            raise FloatingPointError(
                f"fit: a gradient is not finite at step {self.step + 1} (epoch {self.epoch + 1}), though the loss is\n"
                "help: pass detect_anomaly=True to find the op that made it"
            )

    def _whole_step(self, x: Any, y: Any, scale: float | None) -> dict[str, Any]:
        """Forward, backward and update of one batch without reading a value: what is captured."""
        name = self.optimizer_name(None)
        with self.keeping.around(self.model, lambda: self._compute((x, y), Context(self, training=False))[0]):
            with self._autocast or contextlib.nullcontext():
                assert self.loss is not None
                prediction = self.model(x)
                loss = self.loss(prediction, y)
                with pb.no_grad():
                    numbers = {key: f(prediction, y) for key, f in self.metrics.items()}
            self.add_gradient(loss, 1.0, name)
        optimizer = self.optimizers[name]
        optimizer.step(clip_norm=self.clip_norm, scale=scale)
        optimizer.zero_grad()
        return {"loss": loss} | numbers

    def _captured_step(self, batch: Any, count: float, means: Means) -> None:
        assert self._captured is not None
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"fit: a batch must be (x, y), got {type(batch).__name__}\nhelp: leave capture=False for other batches"
            )
        result = self._captured(*batch, None if self.loss_scale is None else self.loss_scale.value)
        numbers = {name: float(value) for name, value in result.items()}
        optimizer = self.optimizers[self.optimizer_name(None)]
        if self.loss_scale is not None:
            self._skipped = optimizer.last_skipped
        else:
            if not math.isfinite(numbers["loss"]):
                raise FloatingPointError(
                    f"fit: the loss is {numbers['loss']} at step {self.step + 1} (epoch {self.epoch + 1}), and with "
                    "capture=True the step was made\nhelp: go on from a checkpoint with capture=False, which names "
                    "the module"
                )
            self._check_skipped(optimizer)
        means.add(numbers, count)

    def _closure_step(self, window: list[Any], weights: list[float], counts: list[float], means: Means) -> None:
        """The step of an optimizer that computes the loss itself, as often as its rule needs."""
        calls = 0

        def closure() -> Any:
            nonlocal calls
            calls += 1
            total = None
            for batch, weight, count in zip(window, weights, counts, strict=True):
                loss, numbers = self._watched(batch, Context(self, training=True))
                if calls == 1:
                    means.add(numbers, count)
                part = loss if weight == 1.0 else loss * weight
                total = part if total is None else total + part
            return total

        optimizer = self.optimizers[self.optimizer_name(None)]
        optimizer.step(closure, clip_norm=self.clip_norm)
        self._check_skipped(optimizer)
        optimizer.zero_grad()

    def optimizer_name(self, name: str | None) -> str:
        """Checks the name of an optimizer; None stands for the only one."""
        if name is None and len(self.optimizers) == 1:
            return next(iter(self.optimizers))
        if name is None or name not in self.optimizers:
            known = ", ".join(map(repr, self.optimizers))
            raise ValueError(
                f"fit: no optimizer {name!r}; there are {known}\n"
                "help: with several optimizers call ctx.backward(loss, name) and ctx.update(name) in step"
            )
        return name

    def _device(self) -> str:
        return next((p.device for p in self.model.parameters()), "cpu")

    def _moved(self, batch: Any) -> Any:
        """The batch where the model lies; copies to a device do not wait."""
        device = self._device()
        return batch if device == "cpu" else to_device(batch, device)

    def _items(self, batch: Any) -> float:
        return float(self._count(batch)) if self._count is not None else count_items(batch, self.loss)

    def _rates(self) -> dict[str, float]:
        rates = {}
        for name, optimizer in self.optimizers.items():
            for i, group in enumerate(optimizer.param_groups):
                key = "lr" + (f"_{name}" if name else "") + (f"_{i}" if i else "")
                if is_number(group.get("lr")):
                    rates[key] = float(group["lr"])
        return rates

    # ---- validation

    def evaluate(self, data: Iterable[Any]) -> dict[str, float]:
        """Means of loss and metrics over all items of `data`, in evaluation mode, with the EMA where there is one.

        Example:
            >>> model = pb.nn.Linear(2, 1)
            >>> t = Trainer(model, pb.optim.SGD(model.parameters()), pb.losses.mse, progress=False)
            >>> list(t.evaluate([(pb.ones((4, 2)), pb.ones((4, 1)))]))
            ['loss']
        """
        means = Means()
        was_training = self.model.training
        self.model.eval()
        try:
            with self.averaged(), pb.no_grad():
                for batch in data:
                    _, numbers = self._compute(self._moved(batch), Context(self, training=False))
                    means.add(numbers, self._items(batch))
        finally:
            if was_training:
                self.model.train()
        if not means.sums:
            raise ValueError("evaluate: the data gave no batch\nhelp: the dataset is empty or an iterator was used up")
        return means.values()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """A region in which the model has the EMA's parameters, where there is an EMA."""
        if self.ema is None:
            yield
        else:
            with self.ema.applied():
                yield

    # ---- files

    def model_state(self) -> dict[str, Any]:
        """The model's parameters and buffers by name."""
        return dict(self.model.state_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the whole state (model, optimizers, EMA, generator, loader, history, ...) to one safetensors file.

        Equal runs write equal bytes. The model's tensors are named model/<name>.
        """
        checkpoint.write(path, checkpoint.capture(self))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Takes the state of a file that `save` or `checkpoint_dir` wrote; the next `fit` goes on from there.

        Raises:
            CheckpointError: the file is damaged, or of another model, optimizer or trainer. The trainer is unchanged.
        """
        checkpoint.restore(self, path, checkpoint.read(path))

    def _checkpoint(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.write(self.step, checkpoint.capture(self))
        self._unsaved = False

    # ---- around the loop

    def _call(self, event: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *args)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C sets a flag; the second one is as usual."""
        usual = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
            yield
            return

        def note(_number: int, _frame: Any) -> None:
            self._interrupted = True
            signal.signal(signal.SIGINT, usual)
            print("interrupted: ending this step; once more to stop at once", file=sys.stderr, flush=True)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)


class _NotFinite(Exception):
    def __init__(self, value: float):
        super().__init__(value)
        self.value = value
