"""OASIS: a diagonal of the Hessian by random signs, and a step size from the change of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from .. import _core as C
from .._core import GraphError, Tensor
from .closures import replay
from .optimizer import Formats, Group, Params
from .over import ClosureOnly

__all__ = ["OASIS"]


class OASIS(ClosureOnly):
    """Steps p = p - eta g / D with D an average of the Hessian's diagonal and eta found anew each step.

    D = beta2 D + (1 - beta2) z (H z) with z of random signs, used as max(|D|, alpha). eta is the smaller of
    sqrt(1 + eta / eta_before) eta and |dp|_D / (2 |dg|_{1/D}), where dp is the last move and dg the change of the
    gradient along it, both gradients of the present minibatch; the first eta is lr0, and the second is free of the
    first bound. D starts as the mean of `warmup` draws. A step evaluates the closure twice and takes one derivative of
    its gradient. Norms run over the whole model. Jahani et al. 2021.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or one group dict in a list.
        lr0: first step size, at least 0. Default 1e-3.
        beta2: in [0, 1). Default 0.99.
        alpha: floor of |D|, positive. Default 1e-3.
        warmup: draws for the first D, at least 1. Default 8.
        weight_decay: at least 0, default 0; added to the gradient.

    Raises:
        ValueError: a keyword is out of its range, `decoupled`, the list is empty or names a parameter twice.
        GraphError: `step` without a closure.

    >>> p = pb.tensor([1.0, 1.0]); p.requires_grad = True
    >>> opt = pb.optim.OASIS([p], lr0=0.5)
    >>> opt.step(lambda: (pb.tensor([1.0, 100.0]) * p * p).sum()).item()
    101.0
    >>> p.tolist()
    [0.5, 0.5]
    """

    def __init__(
        self, params: Params = None, lr0: float = 1e-3, *, beta2: float = 0.99, alpha: float = 1e-3, warmup: int = 8,
        weight_decay: float = 0.0, decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        self._eta: float | None = None
        self._ratio = float("inf")
        self._diagonal: list[Tensor] = []
        self._before: list[Tensor] = []
        super().__init__(
            params,
            lr0=lr0,
            beta2=beta2,
            alpha=alpha,
            warmup=warmup,
            weight_decay=weight_decay,
            decoupled=decoupled,
            formats=formats,
        )

    _takes_prox = False

    _states, _roundings = ("float32",), ("nearest",)

    def _rule(self, group: Group) -> str:
        return "sgd"

    def _read(self, group: Group, key: str) -> Any:
        return group["lr0"] if key == "lr" else super()._read(group, key)

    def _check(self, group: Group) -> None:
        super()._check(group)
        if not 0 <= float(group["beta2"]) < 1:
            raise ValueError(f"OASIS: beta2 must be in [0, 1), got {group['beta2']}\nhelp: the default is 0.99")
        if not 0 < float(group["alpha"]) < float("inf"):
            raise ValueError(f"OASIS: alpha must be positive, got {group['alpha']}\nhelp: the default is 1e-3")
        if int(group["warmup"]) < 1:
            raise ValueError(f"OASIS: warmup must be at least 1, got {group['warmup']}\nhelp: the default is 8")
        if group["decoupled"]:
            raise ValueError("OASIS: weight decay cannot be decoupled\nhelp: leave decoupled out")

    def step(
        self, closure: Callable[[], Tensor] | None = None, *, grads: Any = None, clip_norm: float | None = None,
        clip_value: float | None = None, scale: float | None = None,
    ) -> Tensor:  # fmt: skip
        """One step. The closure computes and returns the scalar loss and does not call backward.

        Returns:
            The loss at the parameters, before the step.

        Raises:
            GraphError: no closure. ValueError: clipping or a loss scale, which this rule does not take.
        """
        if closure is None or grads is not None:
            raise GraphError("step: OASIS differentiates the loss itself\nhelp: opt.step(closure), without grads")
        if clip_norm is not None or clip_value is not None or scale is not None:
            raise ValueError("step: OASIS takes no clipping and no scale\nhelp: its step follows the gradient")
        group = self.param_groups[0]
        params, decay = self._parameters(), group["weight_decay"]
        generator = C.default_generator().get_state()
        loss, slopes, curvature = self._curvature(closure, params, 1 if self._diagonal else int(group["warmup"]))
        old = self._old_slopes(closure, params, generator) if self._before else []
        mode = C._set_grad_enabled(False)
        try:
            values = [p.detach() for p in params]
            slopes = [g + decay * p for g, p in zip(slopes, values, strict=True)] if decay else slopes
            beta2 = group["beta2"] if self._diagonal else 0.0
            kept = self._diagonal or curvature
            self._diagonal = [beta2 * d + (1 - beta2) * (c + decay) for d, c in zip(kept, curvature, strict=True)]
            floors = [C.maximum(C.abs(d), group["alpha"]) for d in self._diagonal]
            eta = float(group["lr0"]) if self._eta is None else self._eta
            if old:
                moves = [p - b for p, b in zip(values, self._before, strict=True)]
                turns = [g - o - decay * b for g, o, b in zip(slopes, old, self._before, strict=True)]
                eta = self._choose(eta, moves, turns, floors)
            self._eta, self._before = eta, [p.clone() for p in values]
            C.optim_copy(params, [p - eta * g / d for p, g, d in zip(values, slopes, floors, strict=True)])
        finally:
            C._set_grad_enabled(mode)
        return loss

    def _choose(self, eta: float, moves: list[Tensor], turns: list[Tensor], floors: list[Tensor]) -> float:
        way = sum((d * m * m).sum().item() for d, m in zip(floors, moves, strict=True))
        turn = sum((t * t / d).sum().item() for d, t in zip(floors, turns, strict=True))
        bound = (1 + self._ratio) ** 0.5 * eta
        new = min(bound, 0.5 * (way / turn) ** 0.5 if turn > 0 else float("inf"))
        new = new if new < float("inf") else eta
        self._ratio = new / eta if eta > 0 else float("inf")
        return new

    def _curvature(
        self, closure: Callable[[], Tensor], params: list[Tensor], draws: int
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The loss, its gradient and the mean of z (H z) over the draws."""
        from ..transforms import gradients

        mode = C._set_grad_enabled(True)
        try:
            loss = closure()
            slopes = gradients(loss, params, create_graph=True)
            total: list[Tensor] = []
            for _ in range(draws):
                signs = [C.sign(C.draw_uniform(p.shape, -1.0, 1.0, p.dtype, None, p.device)) for p in params]
                dot: Any = sum((g * z).sum() for g, z in zip(slopes, signs, strict=True))
                products = gradients(dot, params) if dot.requires_grad else [z * 0 for z in signs]
                part = [(z * h).detach() / draws for z, h in zip(signs, products, strict=True)]
                total = [a + b for a, b in zip(total, part, strict=True)] if total else part
        finally:
            C._set_grad_enabled(mode)
        return loss, [g.detach() for g in slopes], total

    def _old_slopes(self, closure: Callable[[], Tensor], params: list[Tensor], generator: Any) -> list[Tensor]:
        """The gradient of the same minibatch at the previous point."""
        from ..transforms import gradients

        kept = [p.detach().clone() for p in params]
        C.optim_copy(params, self._before)
        mode = C._set_grad_enabled(True)
        try:
            with replay(generator):
                return [g.detach() for g in gradients(closure(), params)]
        finally:
            C._set_grad_enabled(mode)
            C.optim_copy(params, kept)

    def add_param_group(self, group: Group) -> None:
        """Only one group, before the first step.

        Raises:
            ValueError: a second group.
        """
        if self.param_groups:
            raise ValueError("OASIS: only one group\nhelp: its step size belongs to the whole model")
        super().add_param_group(group)

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """As `Optimizer.state_dict`, with the diagonal, the previous point and the last step sizes."""
        d = super().state_dict(copy=copy)
        if self._eta is not None:
            d.update({"oasis.eta": self._eta, "oasis.ratio": self._ratio})
            for name, kept in (("diagonal", self._diagonal), ("before", self._before)):
                d.update({f"oasis.{name}.{i}": t.clone() if copy else t for i, t in enumerate(kept)})
        return d

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`."""
        own = {k: v for k, v in d.items() if k.startswith("oasis.")}
        count = len(self._parameters()) if own else 0
        wanted = [f"oasis.{name}.{i}" for name in ("diagonal", "before") for i in range(count)]
        missing = [k for k in (*wanted, "oasis.eta", "oasis.ratio") if own and k not in own]
        if missing:
            raise ValueError(f"load_state_dict: the state has no {missing[0]}\nhelp: the file is damaged")
        super().load_state_dict({k: v for k, v in d.items() if not k.startswith("oasis.")})
        self._eta, self._ratio = own.get("oasis.eta"), own.get("oasis.ratio", float("inf"))
        self._diagonal = [own[k].clone() for k in wanted[:count]]
        self._before = [own[k].clone() for k in wanted[count:]]
