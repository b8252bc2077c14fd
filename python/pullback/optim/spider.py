"""SPIDER: a gradient estimate that is carried along by differences on small batches, and normalised steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from .. import _core as C
from .._core import GraphError, Tensor
from .closures import replay
from .optimizer import Formats, Group, Params
from .over import ClosureOnly

__all__ = ["SPIDER"]


class SPIDER(ClosureOnly):
    """Variance-reduced normalised descent: p = p - lr v / |v|^beta with an estimate v of the full gradient.

    Every `period` steps v is the gradient of the closure, which should then take a large batch or all data; in between
    v = v + g(p) - g(p_before), both gradients of the closure on the batch of this step, which may be small. `refreshes`
    tells before a step which of the two it will be. |v| runs over the whole model. Fang, Li, Lin and Zhang 2018, with
    the exponent of Chen et al. 2023.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts.
        lr: step size, at least 0. Default 1e-3.
        period: steps from one refresh to the next, at least 1. Default 10.
        beta: at least 0. Default 1: each step has the length lr.
        weight_decay: at least 0, default 0; added to v, or with `decoupled` p = p - lr weight_decay p.

    Attributes:
        refreshes: the next step takes v anew.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.
        GraphError: `step` without a closure.

    >>> p = pb.tensor([3.0, 4.0]); p.requires_grad = True
    >>> opt = pb.optim.SPIDER([p], lr=2.5, period=5)
    >>> opt.refreshes
    True
    >>> opt.step(lambda: 0.5 * (p * p).sum()).item(), p.tolist(), opt.refreshes
    (12.5, [1.5, 2.0], False)
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, period: int = 10, beta: float = 1.0,
        weight_decay: float = 0.0, decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        if int(period) < 1:
            raise ValueError(f"SPIDER: period must be at least 1, got {period}\nhelp: the default is 10")
        self.period = int(period)
        self._count = 0
        self._estimate: list[Tensor] = []
        self._before: list[Tensor] = []
        super().__init__(params, lr=lr, beta=beta, weight_decay=weight_decay, decoupled=decoupled, formats=formats)

    def _rule(self, group: Group) -> str:
        return "normalized_gd"

    @property
    def refreshes(self) -> bool:
        """Whether the next step takes v anew."""
        return self._count % self.period == 0 or len(self._estimate) != len(self._parameters())

    def step(
        self, closure: Callable[[], Tensor] | None = None, *, grads: Any = None, clip_norm: float | None = None,
        clip_value: float | None = None, scale: float | None = None,
    ) -> Tensor:  # fmt: skip
        """One step; the closure is evaluated once or twice. Clipping concerns the step, not the estimate.

        Returns:
            The loss at the parameters, before the step.

        Raises:
            GraphError: no closure, one that called backward, or a loss that is not differentiable.
        """
        if closure is None or grads is not None:
            raise GraphError("step: SPIDER takes gradients at two points\nhelp: opt.step(closure), without grads")
        params, generator = self._parameters(), C.default_generator().get_state()
        loss = self._differentiate(closure)
        present = self._slopes(scale)
        values = [p.detach().clone() for p in params]
        if not self.refreshes:
            C.optim_copy(params, self._before)
            try:
                with replay(generator):
                    self._differentiate(closure)
            finally:
                C.optim_copy(params, values)
            present = [v + a - b for v, a, b in zip(self._estimate, present, self._slopes(scale), strict=True)]
        trained = [v if p.requires_grad else None for p, v in zip(params, present, strict=True)]
        super().step(grads=trained, clip_norm=clip_norm, clip_value=clip_value, scale=None if scale is None else 1.0)
        if not self.last_skipped:
            self._estimate, self._before, self._count = present, values, self._count + 1
        return loss

    def _slopes(self, scale: float | None) -> list[Tensor]:
        """The gradients of the last evaluation; zeros where there is none."""
        mode = C._set_grad_enabled(False)
        try:
            return [C.optim_zeros_like(p) if p.grad is None else p.grad / (scale or 1.0) for p in self._parameters()]
        finally:
            C._set_grad_enabled(mode)

    @property
    def estimate(self) -> list[Tensor]:
        """v in the order of the parameters; empty before the first step."""
        return list(self._estimate)

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """As `Optimizer.state_dict`, with the estimate, the previous point and the place in the period."""
        d = super().state_dict(copy=copy)
        d["spider.count"] = self._count
        for name, kept in (("estimate", self._estimate), ("before", self._before)):
            d.update({f"spider.{name}.{i}": t.clone() if copy else t for i, t in enumerate(kept)})
        return d

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`."""
        own = {k: v for k, v in d.items() if k.startswith("spider.")}
        count = len(self._parameters()) if len(own) > 1 else 0
        wanted = [f"spider.{name}.{i}" for name in ("estimate", "before") for i in range(count)]
        missing = [k for k in ("spider.count", *wanted) if k not in own]
        if missing:
            raise ValueError(f"load_state_dict: the state has no {missing[0]}\nhelp: the file is damaged")
        super().load_state_dict({k: v for k, v in d.items() if k not in own})
        self._count = int(own["spider.count"])
        self._estimate = [own[k].clone() for k in wanted[:count]]
        self._before = [own[k].clone() for k in wanted[count:]]
