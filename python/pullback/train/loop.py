"""The parts of one training step: windows of batches, their weights, and the search for a non-finite number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pullback as pb

if TYPE_CHECKING:
    from .trainer import Trainer


class Context:
    """What a `step(model, batch, ctx)` function gets besides model and batch.

    Attributes:
        step: number of the optimizer step that is being made, from 1.
        epoch: number of the epoch, from 1.
        training: False while `evaluate` runs; then `backward` and `update` do nothing.
    """

    def __init__(self, trainer: Trainer, training: bool):
        self._trainer = trainer
        self.training = training
        self.step = trainer.step + 1
        self.epoch = trainer.epoch + 1
        self.weight = 1.0  # of this batch in its window
        self.last = True  # of its window
        self.manual = False

    def backward(self, loss: Any, optimizer: str | None = None) -> None:
        """Adds the gradient of `loss` to the parameters of one optimizer, and to no other's.

        Args:
            loss: a scalar; where gradients are accumulated it is weighted by the items of the batch.
            optimizer: the optimizer's name where there are several.
        """
        if not self.training:
            return
        if self._trainer._in_backward:
            raise ValueError(
                'fit: ctx.backward cannot be used with update="in_backward", which steps inside backward\n'
                "help: return the loss from step"
            )
        self.manual = True
        self._trainer.check_loss(loss)
        self._trainer.add_gradient(loss, self.weight, self._trainer.optimizer_name(optimizer))

    def update(self, optimizer: str | None = None) -> None:
        """Makes the step of one optimizer; where gradients are accumulated, only in the last batch of a window."""
        if not self.training:
            return
        self.manual = True
        name = self._trainer.optimizer_name(optimizer)
        if self.last:
            self._trainer.update(name)


def windows(batches: Iterable[Any], size: int) -> Generator[list[Any], None, None]:
    """Lists of `size` batches; the last one may be shorter."""
    batches = iter(batches)
    while window := list(itertools.islice(batches, size)):
        yield window


def tensors_in(tree: Any) -> Iterator[Any]:
    """Every tensor of nested dicts, lists and tuples."""
    if isinstance(tree, pb.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_in(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from tensors_in(value)


def count_items(batch: Any, loss: Callable[..., Any] | None) -> float:
    """The number of items that the mean loss of a batch divides by, up to a common factor.

    For (x, y) it is the number of targets, less those equal to `ignore_index` and times their class weights where
    `loss` is a functools.partial with these keywords; for any other batch the length of its first tensor.
    """
    if loss is None or not _is_pair(batch):
        return next((float(t.shape[0]) if t.ndim else 1.0 for t in tensors_in(batch)), 1.0)
    y = batch[1]
    if not isinstance(y, pb.Tensor):
        return next((float(t.shape[0]) if t.ndim else 1.0 for t in tensors_in(y)), 1.0)
    options = getattr(loss, "keywords", {})
    weight, ignored = options.get("weight"), options.get("ignore_index")
    if y.dtype.is_floating or (weight is None and ignored is None):
        return float(y.size)
    counted = pb.ones(y.shape, dtype=pb.bool) if ignored is None else y != ignored
    if weight is None:
        return float(pb.sum(counted).item())
    weights = pb.take(weight, pb.where(counted, y, 0), axis=0)
    return float(pb.sum(pb.where(counted, weights, 0.0)).item())


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) == 2


def finite(t: Any) -> bool:
    """Whether a tensor has no NaN and no infinity."""
    return not t.dtype.is_floating or bool(pb.all(pb.isfinite(t)).item())


def is_number(value: Any) -> bool:
    """Whether a value is a number or a tensor of one element."""
    return isinstance(value, (int, float)) or (isinstance(value, pb.Tensor) and value.size == 1)


class Means:
    """Weighted means of named numbers, with a state for the checkpoint."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, numbers: Mapping[str, float], weight: float) -> None:
        """Adds numbers with one weight."""
        for name, value in numbers.items():
            total = self.sums.setdefault(name, [0.0, 0.0])
            total[0] += value * weight
            total[1] += weight

    def values(self) -> dict[str, float]:
        """The weighted means."""
        return {name: total / weight if weight else math.nan for name, (total, weight) in self.sums.items()}


def blame(model: Any, batch: Any, forward: Callable[[], Any]) -> str:
    """Where a non-finite loss comes from: the batch, a parameter, or the first module whose output is not finite."""
    if not all(map(finite, tensors_in(batch))):
        return "the batch itself has numbers that are not finite"
    found: list[str] = []

    def watch(name: str, module: Any) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if not found and not all(map(finite, tensors_in(output))):
                found.append(
                    f"the first output that is not finite is that of module {name!r} ({type(module).__name__})"
                )

        return hook

    hooks = [m.register_forward_hook(watch(name or "the model itself", m)) for name, m in model.named_modules()]
    try:
        with pb.no_grad():
            forward()
    finally:
        for handle in hooks:
            handle.remove()
    text = found[0] if found else "the outputs of all modules are finite: the loss itself is not"
    bad = [name for name, p in model.named_parameters() if not finite(p)]
    return f"{text}; parameter {bad[0]!r} is not finite" if bad else text
