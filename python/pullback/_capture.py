"""A training step as one replayable unit: on a CUDA device a graph of all its kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from . import _core as C

__all__ = ["capture"]

_GRAPHS = 16  # the most that one captured step keeps


def capture(step: Callable[..., Any]) -> Captured:
    """A function with the meaning of `step`, which on a CUDA device replays its kernels as one graph.

    Where an argument lies on a device, the first call with arguments of certain shapes, dtypes and values runs as it
    is, the second is captured, and each further one copies the tensors among its arguments into the graph's own,
    repeats what the host has to do (the generator's counter, learning rates and step counts of the optimizers) and
    launches the graph. Other shapes or other values of plain arguments are captured anew. Without an argument on a
    device the step just runs.

    `step` may run forward, backward, optimizer steps and writes to tensors. It may not read a value (`item`, `bool`,
    printing), nor copy data of the CPU to the device, and what else Python does in it happens at the capture only. It
    returns a tensor, None, or tuples, lists and dicts of tensors and plain values; each call gives new tensors, without
    a graph.

    Args:
        step: the function.

    Raises:
        GraphError: at the capture, for an op that a graph cannot hold; the message names it.

    Example:
        >>> w = pb.ones(2, dtype=pb.float32).requires_grad_()
        >>> opt = pb.optim.SGD([w], lr=0.5)
        >>> @pb.capture
        ... def step(x):
        ...     loss = (w * x).sum()
        ...     loss.backward()
        ...     opt.step()
        ...     opt.zero_grad()
        ...     return loss
        >>> [step(pb.ones(2)).item() for _ in range(2)]
        [2.0, 1.0]
    """
    return Captured(step)


class Captured:
    """What `pb.capture` returns; `graphs` tells how many graphs it holds."""

    def __init__(self, step: Callable[..., Any]) -> None:
        functools.update_wrapper(self, step)
        self._step = step
        self._seen: set[Any] = set()
        self._held: dict[Any, _Held] = {}

    @property
    def graphs(self) -> int:
        """The number of graphs that were captured and are kept."""
        return len(self._held)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors: list[C.Tensor] = []
        shape = _split((args, kwargs), tensors)
        devices = {t.device for t in tensors if t.device != "cpu"}
        if not devices or C._capturing():
            return self._step(*args, **kwargs)
        key = (shape, tuple(_signature(t) for t in tensors), C.default_generator().seed)
        held = self._held.get(key)
        if held is not None:
            if held.replay(tensors):
                return held.result()
            del self._held[key]  # an option that is part of the graph changed
        elif key not in self._seen:
            self._seen.add(key)
            return self._step(*args, **kwargs)
        if len(self._held) >= _GRAPHS:
            del self._held[next(iter(self._held))]
        self._held[key] = held = _Held(self._step, args, kwargs, min(devices))
        held.launch()
        return held.result()


#: The capture that runs, for optimizers to join.
_running: _Held | None = None


def joined(optimizer: Any) -> None:
    """Called by an optimizer whose step is part of a capture."""
    if _running is not None:
        _running.optimizers.append(optimizer)


class _Held:
    """One graph with the tensors it reads and writes."""

    def __init__(self, step: Callable[..., Any], args: Any, kwargs: Any, device: str) -> None:
        global _running
        self.inputs: list[C.Tensor] = []
        self.optimizers: list[Any] = []
        own_args, own_kwargs = _rebuilt((args, kwargs), self.inputs)
        self.graph = C._Graph(device)
        _running = self
        try:
            self.output = step(*own_args, **own_kwargs)
            self.graph.end()
        except BaseException:
            self.graph.abort()
            for i, optimizer in enumerate(self.optimizers[: self.graph.steps]):
                self.graph.undo_step(optimizer._driver, i)
            raise
        finally:
            _running = None

    def launch(self) -> None:
        self.graph.launch()
        for i, optimizer in enumerate(self.optimizers):
            optimizer.last_norm, optimizer.last_skipped = optimizer._driver.replay_result(self.graph, i)

    def replay(self, tensors: list[C.Tensor]) -> bool:
        for i, optimizer in enumerate(self.optimizers):
            rows = [optimizer._pack(group) for group in optimizer.param_groups]
            if not optimizer._driver.replay(rows, self.graph, i):
                for j in range(i):
                    self.graph.undo_step(self.optimizers[j]._driver, j)
                return False
        C.optim_copy(self.inputs, [t.detach() for t in tensors])
        self.graph.prepare()
        self.launch()
        return True

    def result(self) -> Any:
        """The output of the last launch, in tensors of its own."""
        return _copied(self.output)


def _signature(t: C.Tensor) -> tuple[Any, ...]:
    return tuple(t.shape), t.dtype.name, t.device, t.requires_grad


def _split(tree: Any, tensors: list[C.Tensor]) -> Any:
    """Collects the tensors of nested containers; what is left can be hashed."""
    if isinstance(tree, C.Tensor):
        tensors.append(tree)
        return "tensor"
    if isinstance(tree, Mapping):
        return tuple((key, _split(value, tensors)) for key, value in tree.items())
    if isinstance(tree, (tuple, list)):
        return (type(tree).__name__, *(_split(value, tensors) for value in tree))
    try:
        hash(tree)
    except TypeError:
        return id(tree)
    return type(tree), tree


def _rebuilt(tree: Any, inputs: list[C.Tensor]) -> Any:
    """The containers anew, with copies of the tensors."""
    if isinstance(tree, C.Tensor):
        own = tree.detach().clone()
        own.requires_grad = tree.requires_grad
        inputs.append(own)
        return own
    return _mapped(tree, lambda part: _rebuilt(part, inputs))


def _copied(tree: Any) -> Any:
    return tree.detach().clone() if isinstance(tree, C.Tensor) else _mapped(tree, _copied)


def _mapped(tree: Any, f: Callable[[Any], Any]) -> Any:
    if isinstance(tree, Mapping):
        return {key: f(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(f(value) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(f(value) for value in tree)
    return tree
