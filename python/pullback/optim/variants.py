"""Sign rules and variants of Adam: Lion and its family, Grams, the cautious one, diffGrad, AdEMAMix."""

from __future__ import annotations

from typing import Unpack

from .optimizer import Formats, Group, Optimizer, Params

__all__ = ["AdEMAMix", "CautiousAdamW", "DiffGrad", "Grams", "Lion"]

_KAPPAS = ("l1", "huber", "hinge", "l2", "lp", "quad")


class Lion(Optimizer):
    """The sign of a mean of gradients, and its family: p = p - lr grad kappa(c) with c = beta1 m + (1 - beta1) g.

    c is formed from the old m; then m = beta2 m + (1 - beta2) g. grad kappa(c), with sign(0) = 0 and 0/0 = 0:
    "l1" sign(c); "huber" clip(c / e, -1, 1); "hinge" sign(c) where |c| > e, else 0; "l2" c / |c| by tensor; "lp"
    sign(c) |c|^(e-1) / |c|_e^(e-1) by tensor; "quad" c. Chen et al. 2023; the family: Chen, Liu, Liang and Liu 2023.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-4.
        betas: the two rates, each in [0, 1). Default (0.9, 0.99).
        kappa: default "l1".
        kappa_param: e of "huber", "hinge" (at least 0) and "lp" (at least 1), which need it. Default None.
        weight_decay: at least 0, default 0; p = p - lr weight_decay p, or with decoupled=False added to the gradient.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0, 2.0]); p.grad = pb.tensor([0.1, -7.0])
    >>> pb.optim.Lion([p], lr=0.5).step()
    >>> p.tolist()
    [0.5, 2.5]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-4, *, betas: tuple[float, float] = (0.9, 0.99),
        kappa: str = "l1", kappa_param: float | None = None, weight_decay: float = 0.0, decoupled: bool = True,
        **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, kappa=kappa, kappa_param=kappa_param, weight_decay=weight_decay,
            decoupled=decoupled, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        kappa, value = group["kappa"], group["kappa_param"]
        if kappa not in _KAPPAS:
            raise ValueError(f"Lion: kappa must be one of {', '.join(_KAPPAS)}, got {kappa!r}\nhelp: the default is l1")
        if kappa in ("huber", "hinge", "lp"):
            if value is None:
                raise ValueError(f"Lion: kappa={kappa!r} needs kappa_param\nhelp: its threshold, or the p of lp")
            if kappa == "lp" and not float(value) >= 1:
                raise ValueError(f"Lion: kappa_param of lp must be at least 1, got {value}\nhelp: 1 is the sign")
        return "lion" if kappa == "l1" else f"lion_{kappa}"


class _Moments(Optimizer):
    _name = ""

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = True, eps_mode: str = "after",
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

    def _read(self, group: Group, key: str) -> object:
        return 0.0 if key == "adamnc" else super()._read(group, key)

    def _rule(self, group: Group) -> str:
        return self._name


class Grams(_Moments):
    """Adam's step length in the direction of the gradient's sign: p = p - lr sign(g) |m / c1 / (sqrt(v / c2) + eps)|.

    Nothing moves where the gradient is exactly 0. Cao, Chen, Chen and Liang 2024.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-6.
        weight_decay: at least 0, default 0; p = p - lr weight_decay p, or with decoupled=False added to the gradient.
        eps_mode: eps "after" the correction [default], or "before" as in the authors' file.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([4.0])
    >>> pb.optim.Grams([p], lr=0.5, eps=0.0).step()
    >>> p.tolist()
    [0.5]
    """

    _name = "grams"

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6, weight_decay: float = 0.0, decoupled: bool = True, eps_mode: str = "after",
        **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled=decoupled,
            eps_mode=eps_mode,
            **formats,
        )


class CautiousAdamW(_Moments):
    """AdamW that moves only where its direction u agrees with the gradient: p = p - lr mask u / max(mean(mask), 1e-3).

    mask is 1 where u g > 0, and its mean is taken by tensor. Liang, Chen, Liu and Liu 2024.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-8, outside the root and after the correction.
        weight_decay: at least 0, default 0; p = p - lr weight_decay p, or with decoupled=False added to the gradient.
        eps_mode: "after" [default] or "before".

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0, 1.0]); p.grad = pb.tensor([4.0, 0.0])
    >>> pb.optim.CautiousAdamW([p], lr=0.25).step()
    >>> p.tolist()
    [0.5, 1.0]
    """

    _name = "cautious"


class DiffGrad(_Moments):
    """Adam times the sigmoid of how much the gradient changed: p = p - lr sigmoid(|g_prev - g|) u, g_prev 0 at first.

    Dubey et al. 2019, their second version, with eps after the correction.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-8.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.
        eps_mode: "after" [default] or "before".

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([100.0])
    >>> pb.optim.DiffGrad([p], lr=0.5).step()
    >>> p.tolist()
    [0.5]
    """

    _name = "diffgrad"

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False, eps_mode: str = "after",
        **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled=decoupled,
            eps_mode=eps_mode,
            **formats,
        )


class AdEMAMix(Optimizer):
    """Adam with a second, slow mean n of the gradients: p = p - lr (m / c1 + alpha n) / (sqrt(v / c2) + eps).

    n decays by beta3 and is not corrected. alpha grows linearly from 0 over `alpha_steps`; over `beta3_steps` the
    half-life of n grows linearly from that of m to that of beta3. Pagliardini, Ablin and Grangier 2024.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of m, v and n, each in [0, 1). Default (0.9, 0.999, 0.9999).
        alpha: weight of n, at least 0. Default 5.
        alpha_steps, beta3_steps: lengths of the two schedules in steps; None [default] is at once.
        eps: default 1e-8, outside the root and after the correction.
        weight_decay: at least 0, default 0; p = p - lr weight_decay p, or with decoupled=False added to the gradient.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([4.0])
    >>> pb.optim.AdEMAMix([p], lr=0.5, alpha=0.0).step()
    >>> p.tolist()
    [0.5]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0, alpha_steps: int | None = None, beta3_steps: int | None = None, eps: float = 1e-8,
        weight_decay: float = 0.0, decoupled: bool = True, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, alpha=alpha, alpha_steps=alpha_steps, beta3_steps=beta3_steps, eps=eps,
            weight_decay=weight_decay, decoupled=decoupled, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        return "ademamix"
