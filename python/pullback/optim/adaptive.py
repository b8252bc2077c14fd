"""Relatives of Adagrad and Adam that PyTorch has too: keywords and defaults are its own."""

from __future__ import annotations

from typing import Unpack

from .optimizer import Formats, Group, Optimizer, Params

__all__ = ["Adadelta", "Adagrad", "NAdam", "RAdam", "RMSprop"]


class RMSprop(Optimizer):
    """The gradient over the root of its mean square: v = alpha v + (1 - alpha) g^2, p = p - lr g / (sqrt(v) + eps).

    `centered` divides by sqrt(max(v - mean(g)^2, 0)) + eps; `momentum` accumulates the quotients in
    b = momentum b + g / (...) and steps by lr b. Tieleman and Hinton 2012.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-2.
        alpha: decay rate in [0, 1). Default 0.99.
        eps: default 1e-8, outside the root.
        momentum: at least 0. Default 0.
        centered: default False.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0, 2.0]); p.grad = pb.tensor([4.0, -4.0])
    >>> pb.optim.RMSprop([p], lr=0.5, alpha=0.75).step()
    >>> p.tolist()
    [0.0, 3.0]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-2, *, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, decoupled: bool = False,
        **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
            decoupled=decoupled, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        momentum = group["momentum"]
        moving = hasattr(momentum, "shape") or momentum != 0
        if group["centered"]:
            return "rmsprop_both" if moving else "rmsprop_centered"
        return "rmsprop_momentum" if moving else "rmsprop"


class Adagrad(Optimizer):
    """The gradient over the root of the sum of its squares: v = v + g^2, p = p - lr_t g / (sqrt(v) + eps).

    lr_t = lr / (1 + (t - 1) lr_decay). Duchi, Hazan and Singer 2011.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-2.
        lr_decay: at least 0. Default 0.
        initial_accumulator_value: v before the first step. Default 0.
        eps: default 1e-10, outside the root.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0, 2.0]); p.grad = pb.tensor([4.0, -4.0])
    >>> pb.optim.Adagrad([p], lr=0.5).step()
    >>> p.tolist()
    [0.5, 2.5]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-2, *, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps, decoupled=decoupled, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        return "adagrad"


class Adadelta(Optimizer):
    """Steps whose size follows the mean square of past steps: no unit of the gradient is left.

    v = rho v + (1 - rho) g^2, u = g sqrt(d + eps) / sqrt(v + eps), d = rho d + (1 - rho) u^2, p = p - lr u.
    Zeiler 2012.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: factor of the step, at least 0. Default 1.
        rho: decay rate in [0, 1). Default 0.9.
        eps: default 1e-6, inside both roots.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([3.0])
    >>> pb.optim.Adadelta([p], rho=0.0, eps=16.0).step()
    >>> round(p.item(), 6)
    -1.4
    """

    def __init__(
        self, params: Params = None, lr: float = 1.0, *, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0.0, decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, decoupled=decoupled, formats=formats
        )

    def _rule(self, group: Group) -> str:
        return "adadelta"


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, which rises as mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2).

    p = p - lr ((1 - mu_t) / (1 - P_t) g + mu_{t+1} / (1 - P_t mu_{t+1}) m) / (sqrt(v / c2) + eps), P_t the product
    of mu_1 .. mu_t. Dozat 2016.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 2e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-8, outside the root and after the correction.
        momentum_decay: at least 0. Default 4e-3.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([4.0])
    >>> opt = pb.optim.NAdam([p], lr=0.5)
    >>> opt.step()
    >>> opt.state_dict()["state.0.mu_product"] < 0.9
    True
    """

    def __init__(
        self, params: Params = None, lr: float = 2e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, momentum_decay: float = 4e-3, decoupled: bool = False,
        **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay,
            decoupled=decoupled, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        return "nadam"


class RAdam(Optimizer):
    """Adam whose rate is rectified for the variance of 1/sqrt(v); momentum alone while that variance is unbounded.

    With rho_inf = 2 / (1 - beta2) - 1 and rho = rho_inf - 2 t beta2^t / c2: for rho > 5 Adam's step times
    sqrt((rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho)), else p = p - lr m / c1. Liu et al. 2019.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-8.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.
        eps_mode: "after" the correction [default], or "before" as in PyTorch.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([1.0])
    >>> pb.optim.RAdam([p], lr=0.5).step()
    >>> round(p.item(), 6)
    0.5
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False, eps_mode: str = "after",
        **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled=decoupled,
            eps_mode=eps_mode,
            formats=formats,
        )

    def _rule(self, group: Group) -> str:
        return "radam"
