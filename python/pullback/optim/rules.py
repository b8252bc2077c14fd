"""The optimizers: keywords, defaults and the choice of the compiled rule; the formulas stand in csrc/optim."""

from __future__ import annotations

from typing import Any, Unpack

from .optimizer import Formats, Group, Optimizer, Params

__all__ = ["SGD", "Adam", "AdamW"]


class SGD(Optimizer):
    """Gradient descent, optionally with momentum.

    m = momentum m + (1 - dampening) g, where the first m is g itself, and p = p - lr m; with `nesterov`
    p = p - lr (g + momentum m). Without momentum no state is kept.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        momentum: at least 0. Default 0.
        dampening: default 0; must be 0 with `nesterov`.
        nesterov: default False; needs momentum.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0, 2.0]); p.grad = pb.tensor([1.0, 1.0])
    >>> pb.optim.SGD([p], lr=0.5).step()
    >>> p.tolist()
    [0.5, 1.5]
    """

    def __init__(
        self,
        params: Params = None,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **formats: Unpack[Formats],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled=decoupled,
            formats=formats,
        )

    def _rule(self, group: Group) -> str:
        momentum: Any = group["momentum"]
        plain = not hasattr(momentum, "shape") and momentum == 0
        if group["nesterov"]:
            if plain or float(group["dampening"]) != 0:
                raise ValueError(
                    "SGD: nesterov needs momentum and no dampening\nhelp: give momentum=0.9, or leave nesterov out"
                )
            return "nesterov"
        return "sgd" if plain else "momentum"


class Adam(Optimizer):
    """Adam: the mean of the gradients over the root of the mean of their squares, both corrected for their start at 0.

    p = p - lr (m / c1) / (sqrt(v / c2) + eps) with m, v exponential averages of g and g^2, c = 1 - beta^t. Each
    parameter counts its own steps t. Kingma and Ba 2014; AMSGrad and AdamNC: Reddi, Kale and Kumar 2018.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-8, outside the root and after the correction.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.
        amsgrad: divide by the largest v so far, corrected as v is. "paper": p = p - lr / sqrt(t) m / sqrt(largest v),
            where nothing is corrected and the largest v starts at eps. Default False.
        adamnc: beta2 = 1 - 1/t, so that v is the mean of all g^2. Default False.
        eps_mode: "after" [default] or "before": eps is added to sqrt(v) before the correction.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0, 2.0]); p.grad = pb.tensor([4.0, -4.0])
    >>> pb.optim.Adam([p], lr=0.5).step()
    >>> p.tolist()
    [0.5, 2.5]
    """

    def __init__(
        self,
        params: Params = None,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool | str = False,
        adamnc: bool = False,
        decoupled: bool = False,
        eps_mode: str = "after",
        **formats: Unpack[Formats],
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            adamnc=adamnc,
            decoupled=decoupled,
            eps_mode=eps_mode,
            formats=formats,
        )

    def _rule(self, group: Group) -> str:
        if group["amsgrad"] not in (False, True, "paper"):
            raise ValueError(
                f"Adam: amsgrad must be False or True or 'paper', got {group['amsgrad']!r}\nhelp: the default is False"
            )
        if group["amsgrad"] == "paper":
            return "amsgrad_paper"
        return "amsgrad" if group["amsgrad"] else "adam"


class AdamW(Adam):
    """Adam with decoupled weight decay: p = p - lr weight_decay p before the step. Loshchilov and Hutter 2017.

    Keywords as in Adam, with `weight_decay` 1e-2 and `decoupled` True by default.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([4.0])
    >>> pb.optim.AdamW([p], lr=0.5, weight_decay=0.5).step()
    >>> p.tolist()
    [0.25]
    """

    def __init__(
        self,
        params: Params = None,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool | str = False,
        adamnc: bool = False,
        decoupled: bool = True,
        eps_mode: str = "after",
        **formats: Unpack[Formats],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            adamnc=adamnc,
            decoupled=decoupled,
            eps_mode=eps_mode,
            **formats,
        )
