"""The arguments of a trainer: what is refused, and what stands for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pullback as pb

_PRECISIONS = ("float32", "bfloat16", "float16")
_UPDATES = ("after", "in_backward")


def check(options: Mapping[str, Any]) -> None:
    """Raises ValueError for what a trainer cannot be built from, by keyword."""
    for name, known in (("precision", _PRECISIONS), ("update", _UPDATES)):
        if options[name] not in known:
            raise ValueError(
                f"Trainer: {name} must be {' or '.join(map(repr, known))}, got {options[name]!r}\n"
                f"help: the default is {known[0]!r}"
            )
    if (options["loss"] is None) == (options["step"] is None):
        raise ValueError(
            "Trainer: it needs either loss or step\nhelp: pass loss=pb.losses.cross_entropy for (x, y) batches, "
            "or step=f with f(model, batch, ctx)"
        )
    for name in ("accumulate", "keep", "checkpoint_every"):
        value = options[name]
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"Trainer: {name} must be an integer of at least 1, got {value!r}\nhelp: {name}=1")
    clip_norm = options["clip_norm"]
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"Trainer: clip_norm must be above 0, got {clip_norm!r}\nhelp: None turns clipping off")
    if options["checkpoint_every"] is not None and options["checkpoint_dir"] is None:
        raise ValueError("Trainer: checkpoint_every needs a folder\nhelp: pass checkpoint_dir=")


def check_scaled(optimizers: Mapping[str, Any]) -> None:
    """Raises where the loss of a float16 run cannot be scaled."""
    if any(getattr(o, "needs_closure", False) for o in optimizers.values()):
        raise ValueError(
            'Trainer: precision="float16" scales the loss, and an optimizer here evaluates the loss itself\n'
            'help: use precision="bfloat16"'
        )


def check_capture(options: Mapping[str, Any], optimizers: Mapping[str, Any]) -> None:
    """Raises where a step cannot be one graph."""
    reason = ""
    if options["step"] is not None:
        reason = "step= may do what a graph cannot hold; use pb.capture inside it"
    elif len(optimizers) > 1:
        reason = "there are several optimizers"
    elif options["accumulate"] != 1:
        reason = "a step of several batches is no fixed unit"
    elif options["update"] == "in_backward":
        reason = 'update="in_backward" steps parameters one by one'
    elif options["detect_anomaly"]:
        reason = "detect_anomaly reads values on the way"
    elif not all(type(o).step is pb.optim.Optimizer.step for o in optimizers.values()):
        reason = "the optimizer does more in a step than its rule"
    if reason:
        raise ValueError(f"Trainer: capture=True is impossible here: {reason}\nhelp: leave capture=False")


def check_in_backward(options: Mapping[str, Any], optimizers: Mapping[str, Any]) -> None:
    """Raises where parameters cannot be stepped one by one inside backward."""
    reason = ""
    if len(optimizers) > 1:
        reason = "there are several optimizers, each with its own backward"
    elif options["clip_norm"] is not None:
        reason = "clip_norm looks at all gradients before the first step"
    elif options["precision"] == "float16":
        reason = "a float16 step is left out when any gradient is not finite, which is known only at the end"
    elif any(getattr(o, "needs_closure", False) for o in optimizers.values()):
        reason = "the optimizer evaluates the loss itself"
    if reason:
        raise ValueError(f'Trainer: update="in_backward" is impossible here: {reason}\nhelp: use update="after"')
    for optimizer in optimizers.values():
        if not isinstance(optimizer, pb.optim.Optimizer):
            raise TypeError(
                f'Trainer: update="in_backward" needs an optimizer of pb.optim, got {type(optimizer).__name__}\n'
                'help: use update="after"'
            )
        optimizer.check_in_backward()


def accuracy(prediction: Any, target: Any) -> Any:
    """Share of rows whose largest entry stands at the target."""
    return pb.mean((pb.argmax(prediction, axis=-1) == target).astype(pb.float32))


def metrics_of(metrics: Any) -> dict[str, Callable[..., Any]]:
    """{name: function} from a dict, names, or one name."""
    if metrics is None:
        return {}
    if isinstance(metrics, str):
        metrics = [metrics]
    table = dict(metrics) if isinstance(metrics, Mapping) else {name: name for name in metrics}
    for name, f in table.items():
        if f == "accuracy":
            table[name] = accuracy
        elif not callable(f):
            raise ValueError(
                f"Trainer: no metric {f!r}\nhelp: pass {{name: function(prediction, target)}} or 'accuracy'"
            )
    return table
