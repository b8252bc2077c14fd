"""Averages of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import _core as C
from .._core import Tensor
from .optimizer import RULES, _named

__all__ = ["EMA"]


class EMA:
    """Exponential moving average of weights: average = decay average + (1 - decay) weight at each `update`.

    Args:
        model_or_params: a module, or what an optimizer takes (tensors, pairs or a dict). Buffers are not averaged.
        decay: in [0, 1). Default 0.999.

    Attributes:
        averages: the averaged tensors in the order of the parameters.

    >>> p = pb.tensor([1.0]); ema = pb.optim.EMA([p], decay=0.75)
    >>> p[...] = 5.0
    >>> ema.update()
    >>> ema.averages[0].tolist()
    [2.0]
    """

    def __init__(self, model_or_params: Any, decay: float = 0.999) -> None:
        source = model_or_params
        if hasattr(source, "named_parameters"):
            source = list(source.named_parameters())
        self.names, self.params = _named(source, "EMA")
        if not self.params:
            raise ValueError("EMA: got an empty parameter list\nhelp: pass a model or model.parameters()")
        self._row = RULES["_average"]
        C.optim_check(self._row["index"], [float(decay)], 0.0)
        self.decay = decay
        self.averages: list[Tensor] = [p.detach().clone() for p in self.params]
        self._driver = C.OptimDriver()

    def update(self) -> None:
        """Moves the averages towards the present weights, in one fused pass."""
        row = (self._row["index"], self.averages, [self.decay], 0.0, False)
        self._driver.step([row], self.params, None, None, None)

    def copy_to(self, params: Iterable[Tensor] | None = None) -> None:
        """Writes the averages into `params`, by default into the tensors that are averaged."""
        targets = self.params if params is None else list(params)
        if len(targets) != len(self.averages):
            raise ValueError(
                f"EMA: got {len(targets)} tensors for {len(self.averages)} averages\nhelp: give one for each"
            )
        C.optim_copy(targets, self.averages)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold the averages; afterwards their own values again."""
        kept = [p.detach().clone() for p in self.params]
        C.optim_copy(self.params, self.averages)
        try:
            yield
        finally:
            C.optim_copy(self.params, kept)

    def state_dict(self) -> dict[str, Any]:
        """{"decay": number, "average.<i>": tensor}; tensors are copies."""
        d: dict[str, Any] = {"decay": float(self.decay)}
        d.update({f"average.{i}": t.clone() for i, t in enumerate(self.averages)})
        return d

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned.

        Raises:
            ValueError: missing or unknown entries. ShapeError: a tensor of another shape.
        """
        expected = {"decay", *(f"average.{i}" for i in range(len(self.averages)))}
        if set(d) != expected:
            wrong = sorted(expected ^ set(d))[0]
            raise ValueError(f"EMA: the entry {wrong!r} is missing or unknown\nhelp: load the state of this model")
        new = [d[f"average.{i}"] for i in range(len(self.averages))]
        C.optim_copy(self.averages, new)
        self.decay = d["decay"]
