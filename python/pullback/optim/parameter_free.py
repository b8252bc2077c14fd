"""Rules that find their step size or need a norm for it: DoG and its family, Prodigy, Adagrad-Norm, LAMB and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Unpack

from .. import _core as C
from .._core import GraphError, Tensor
from .optimizer import RULES, Formats, Group, Optimizer, Params

__all__ = ["LAMB", "ADoG", "AdagradNorm", "DoG", "LDoG", "NormalizedGD", "Prodigy", "ScheduleFreeAdamW", "TDoG", "UDoG"]


class DoG(Optimizer):
    """Distance over gradients: p = p - lr r / sqrt(G) g with r the greatest distance from the start so far.

    r = reps_rel (1 + |p0|) at first, then max(r, |p - p0|); G = eps + sum of |g|^2; norms run over the whole model.
    The state holds p0 and the displacement d, and p = p0 + d: p - p0 would have no correct digits while r is small.
    The step begins from the state, so that values written into p from outside are lost. `averaged_parameters()` is
    the average av = (1 - k) av + k p, k = 9 / (8 + t), which is the point to use. Ivgi, Hinder and Carmon 2023.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: factor of the step, at least 0. Default 1.
        reps_rel: first distance over 1 + |p0|. Default 1e-6; 1e-4 is advised with batch normalisation.
        eps: G before the first step. Default 1e-8.
        average: keep the average. Default True.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([3.0]); p.grad = pb.tensor([2.0])
    >>> opt = pb.optim.DoG([p], reps_rel=0.125, eps=0.0)
    >>> opt.step()
    >>> p.tolist(), opt.averaged_parameters()[0].tolist()
    ([2.5], [2.5])
    """

    _name = "dog"

    def __init__(
        self, params: Params = None, lr: float = 1.0, *, reps_rel: float = 1e-6, eps: float = 1e-8,
        average: bool = True, weight_decay: float = 0.0, decoupled: bool = False, **more: Any,
    ) -> None:  # fmt: skip
        formats: Any = {key: more.pop(key) for key in ("state", "rounding") if key in more}
        unknown = [key for key in more if key not in self._more]
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: no keyword {unknown[0]!r}\n"
                f"help: keywords are lr, reps_rel, eps, average, weight_decay, decoupled, state, rounding"
            )
        super().__init__(
            params, lr=lr, reps_rel=reps_rel, eps=eps, average=average, weight_decay=weight_decay,
            decoupled=decoupled, formats=formats, **{**self._more, **more},
        )  # fmt: skip

    _more: ClassVar[dict[str, float]] = {}

    def _rule(self, group: Group) -> str:
        return self._name + ("_averaged" if group["average"] else "")

    def averaged_parameters(self) -> list[Tensor]:
        """The averages in the order of the parameters; a parameter that made no step stands for itself.

        Raises:
            ValueError: built with average=False.
        """
        out = []
        for group in self.param_groups:
            if not group["average"]:
                raise ValueError("averaged_parameters: no average is kept\nhelp: build the optimizer with average=True")
            for p in group["params"]:
                kept = self._driver.get_state(p)
                at = RULES[self._rule(group)]["slots"].index("average")
                out.append(p.detach() if kept is None or kept[1][at] is None else kept[1][at])
        return out


class LDoG(DoG):
    """DoG by layer: each tensor has its own distance and its own sum of gradients. Keywords as in DoG.

    >>> p, q = pb.tensor([3.0]), pb.tensor([0.0]); p.grad = q.grad = pb.tensor([2.0])
    >>> pb.optim.LDoG([p, q], reps_rel=0.125, eps=0.0).step()
    >>> p.tolist(), q.tolist()
    ([2.5], [-0.125])
    """

    _name = "ldog"


class TDoG(DoG):
    """Tamed DoG, whose iterates provably stay bounded: G is replaced by a larger G'.

    G' = (8^2 log(60 log(6 t) / delta) (1 + log(1 + t L^2 / L_1^2)))^2 (G_{t-1} + 16 L^2) with L the largest gradient
    norm so far and L_1 the first. Steps are some thousand times shorter than those of DoG. Keywords as in DoG, and
    delta, the probability that a bound fails. Default 0.01.

    >>> p = pb.tensor([3.0]); p.grad = pb.tensor([2.0])
    >>> pb.optim.TDoG([p], reps_rel=0.125).step()
    >>> 2.99 < p.item() < 3.0
    True
    """

    _name = "tdog"
    _more: ClassVar[dict[str, float]] = {"delta": 0.01}


class ADoG(DoG):
    """Accelerated DoG with one gradient a step: two coupled sequences with the step size distance over gradients.

    With r the greatest distance of w from the start p0 (reps_rel (1 + |p0|) at first) and a = max(1, sum of r / (2 r)):
    G = G + a^2 |g|^2, eta = lr r / sqrt(G), y = p - eta g, w = w - a eta g; then r and a take in the new w, and
    p = y + (w - y) / a. The gradient is that at p. Norms run over the whole model, w and p start at p0, and the state
    holds the displacements from there. Keywords as in DoG, with its average of p; `decoupled` is refused. Kreisler,
    Ivgi, Hinder and Carmon 2024, in the order of the authors' code.

    >>> p = pb.tensor([3.0]); p.grad = pb.tensor([2.0])
    >>> opt = pb.optim.ADoG([p], reps_rel=0.125, eps=0.0)
    >>> opt.step()
    >>> p.tolist()
    [2.5]
    """

    _name = "adog"

    def _rule(self, group: Group) -> str:
        if group["decoupled"]:
            raise ValueError("ADoG: weight decay cannot be decoupled\nhelp: leave decoupled out")
        return super()._rule(group)


class UDoG(Optimizer):
    """Accelerated distance over gradients: an extragradient pair, whose weighted mean is the point to use.

    With r the greatest distance of an iterate from the start p0 (reps_rel (1 + |p0|) at first), s the sum of r so far
    and a = s / r, iterate t has the weight s. The first gradient m is taken at the weighted mean of past x and the
    present y, x = y - lr a r m / sqrt(M + Q); the second, g, at the mean of all x, y = y - lr a r g / sqrt(M + Q').
    M is the largest a^2 |m|^2, Q the sum of a^2 |g - m|^2, which starts at eps, Q' with the present one. A step calls
    the closure twice; each call may take a fresh minibatch. Kreisler, Ivgi, Hinder and Carmon 2024.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts.
        lr: factor of the step, at least 0. Default 1.
        reps_rel: first distance over 1 + |p0|. Default 1e-6.
        eps: Q before the first step. Default 1e-8.
        average: offer `averaged_parameters()`; the mean is part of the rule and costs nothing. Default True.
        weight_decay: at least 0, default 0; added to the gradient.

    Raises:
        ValueError: a keyword is out of its range, `decoupled`, the list is empty or names a parameter twice.
        GraphError: `step` without a closure.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> opt = pb.optim.UDoG([p], reps_rel=0.1)
    >>> for _ in range(60):
    ...     _ = opt.step(lambda: (p * p).sum())
    >>> abs(opt.averaged_parameters()[0].item()) < 0.05
    True
    """

    needs_closure = True

    def __init__(
        self, params: Params = None, lr: float = 1.0, *, reps_rel: float = 1e-6, eps: float = 1e-8,
        average: bool = True, weight_decay: float = 0.0, decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        self._half = "udog"
        super().__init__(
            params,
            lr=lr,
            reps_rel=reps_rel,
            eps=eps,
            average=average,
            weight_decay=weight_decay,
            decoupled=decoupled,
            formats=formats,
        )

    def _rule(self, group: Group) -> str:
        if group["decoupled"]:
            raise ValueError("UDoG: weight decay cannot be decoupled\nhelp: leave decoupled out")
        return self._half

    def step(self, closure: Callable[[], Tensor] | None = None, *, grads: Any = None, **options: Any) -> Tensor:
        """One iteration of two gradients; keywords as in `Optimizer.step`.

        Returns:
            The loss at the first point.

        Raises:
            GraphError: no closure, one that called backward, or a loss that is not differentiable.
        """
        if closure is None or grads is not None:
            raise GraphError("step: UDoG takes two gradients\nhelp: opt.step(closure), without grads")
        counts = (self._driver.get_state(p) for p in self._parameters())
        halves = ["_udog_first", "udog"][max((kept[0] for kept in counts if kept), default=0) % 2 :]
        first = None
        try:
            for self._half in halves:
                loss = super().step(closure, **options)
                first = loss if first is None else first
                if self.last_skipped:
                    break
        finally:
            self._half = "udog"
        assert first is not None
        return first

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """Half an iteration: call it with gradients at the returned params, twice for one iteration."""
        self._half = ["_udog_first", "udog"][int(state["step"]) % 2]
        try:
            return super().update(params, grads, state, **hyper)
        finally:
            self._half = "udog"

    def averaged_parameters(self) -> list[Tensor]:
        """The weighted means in the order of the parameters, as new tensors.

        Raises:
            ValueError: built with average=False.
        """
        out = []
        for group in self.param_groups:
            if not group["average"]:
                raise ValueError("averaged_parameters: no average is kept\nhelp: build the optimizer with average=True")
            for p in group["params"]:
                kept = self._driver.get_state(p)
                out.append(p.detach().clone() if kept is None or kept[0] == 0 else kept[1][0] + kept[1][2])
        return out


class Prodigy(Optimizer):
    """Adam whose rate is an estimate d of the distance to the solution; lr stays 1.

    With gradients g at p: m = beta1 m + (1 - beta1) d g, v = beta2 v + (1 - beta2) d^2 g^2,
    n = beta3 n + lr (d^2 / d0) <g, p0 - p>, s = beta3 s + lr (d^2 / d0) g, d = max(d, d_coef n / |s|_1) over the whole
    model, then p = p - lr d_old m / (sqrt(v) + d eps). Mishchenko and Defazio 2023; keywords of the authors' code.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: factor of the step, at least 0. Default 1.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        beta3: decay of n and s; None [default] is sqrt(beta2).
        eps: default 1e-8.
        weight_decay: at least 0, default 0; p = p - lr d weight_decay p, or with decoupled=False added to the gradient.
        use_bias_correction: Adam's corrections in the rate. Default False.
        safeguard_warmup: s without the factor lr, for long warm-ups. Default False.
        d0: first estimate. Default 1e-6.
        d_coef: factor of the estimate. Default 1.
        growth_rate: d grows at most by this factor a step. Default infinite.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([3.0]); p.grad = pb.tensor([2.0])
    >>> opt = pb.optim.Prodigy([p])
    >>> opt.step()
    >>> opt.state_dict()["state.0.d"]
    1e-06
    """

    def __init__(
        self, params: Params = None, lr: float = 1.0, *, betas: tuple[float, float] = (0.9, 0.999),
        beta3: float | None = None, eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = True,
        use_bias_correction: bool = False, safeguard_warmup: bool = False, d0: float = 1e-6, d_coef: float = 1.0,
        growth_rate: float = float("inf"), **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, beta3=beta3, eps=eps, weight_decay=weight_decay, decoupled=decoupled,
            use_bias_correction=use_bias_correction, safeguard_warmup=safeguard_warmup, d0=d0, d_coef=d_coef,
            growth_rate=growth_rate, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        if not float(group["d0"]) > 0:
            raise ValueError(f"Prodigy: d0 must be positive, got {group['d0']}\nhelp: the default is 1e-6")
        return "prodigy"

    def _read(self, group: Group, key: str) -> Any:
        if key == "beta3" and group["beta3"] is None:
            beta2 = group["betas"][1]
            return C.sqrt(beta2) if isinstance(beta2, Tensor) else float(beta2) ** 0.5
        if key == "growth_rate" and group[key] == float("inf"):
            return 1e300
        return super()._read(group, key)

    def _check(self, group: Group) -> None:
        if len(group["betas"]) != 2:
            raise ValueError(f"Prodigy: betas must be 2 numbers, got {group['betas']!r}\nhelp: such as 0.9, 0.999")
        row = RULES[self._rule(group)]
        self._proximal(row, group)
        C.optim_check(row["index"], [float(self._read(group, key)) for key, _ in row["hyper"]], group["weight_decay"])


class AdagradNorm(Optimizer):
    """One rate for the whole model: p = p - lr g / sqrt(b0^2 + sum of |g|^2). Ward, Wu and Bottou 2018.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-2.
        b0: default 1e-2.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([3.0, 4.0]); p.grad = pb.tensor([3.0, 4.0])
    >>> pb.optim.AdagradNorm([p], lr=5.0, b0=0.0).step()
    >>> p.tolist()
    [0.0, 0.0]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-2, *, b0: float = 1e-2, weight_decay: float = 0.0,
        decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, b0=b0, weight_decay=weight_decay, decoupled=decoupled, formats=formats)

    def _rule(self, group: Group) -> str:
        return "adagrad_norm"


class NormalizedGD(Optimizer):
    """p = p - lr g / |g|^beta with |g| the 2-norm over the whole model; no move where it is 0. Chen et al. 2023.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        beta: at least 0. Default 1: each step has the length lr; 0 is gradient descent.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([3.0, 4.0]); p.grad = pb.tensor([3.0, 4.0])
    >>> pb.optim.NormalizedGD([p], lr=5.0, beta=1.0).step()
    >>> p.tolist()
    [0.0, 0.0]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, beta: float = 1.0, weight_decay: float = 0.0,
        decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, beta=beta, weight_decay=weight_decay, decoupled=decoupled, formats=formats)

    def _rule(self, group: Group) -> str:
        return "normalized_gd"


class LAMB(Optimizer):
    """Adam's direction u, scaled by tensor to the norm of the weights: p = p - lr |p| / |u| u. You et al. 2019.

    u = m / c1 / (sqrt(v / c2) + eps) + weight_decay p; the ratio is 1 where a norm is 0.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-6.
        weight_decay: at least 0, default 0; inside u, or with decoupled=False added to the gradient.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([3.0, 4.0]); p.grad = pb.tensor([1.0, 0.0])
    >>> pb.optim.LAMB([p], lr=0.5, betas=(0.0, 0.0)).step()
    >>> [round(x, 3) for x in p.tolist()]
    [0.5, 4.0]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6, weight_decay: float = 0.0, decoupled: bool = True, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled=decoupled, formats=formats
        )

    def _rule(self, group: Group) -> str:
        return "lamb"


class ScheduleFreeAdamW(Optimizer):
    """AdamW without a schedule: gradients at y, steps of z, and an average x of z that is the model to use.

    The parameters are y = (1 - beta1) z + beta1 x. With u = g / (sqrt(v / c2) + eps) + weight_decay y: z = z - lr u and
    x = (1 - c) x + c z, c the share of this step in the sum of t^r lr_max^weight_lr_power. Evaluate inside
    `with opt.averaged():` or with `averaged_parameters()`. Defazio et al. 2024.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 2.5e-3.
        betas: (interpolation between z and x, decay of v), each in [0, 1). Default (0.9, 0.999).
        eps: default 1e-8, outside the root and after the correction.
        weight_decay: at least 0, default 0; at y, or with decoupled=False added to the gradient.
        warmup_steps: lr grows linearly over these steps. Default 0.
        r: power of t in the weights of the average. Default 0.
        weight_lr_power: power of the largest lr so far in them. Default 2.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([2.0])
    >>> opt = pb.optim.ScheduleFreeAdamW([p], lr=0.5, eps=0.0)
    >>> opt.step()
    >>> round(p.item(), 6), round(opt.averaged_parameters()[0].item(), 6)
    (0.5, 0.5)
    """

    def __init__(
        self, params: Params = None, lr: float = 2.5e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, warmup_steps: int = 0, r: float = 0.0,
        weight_lr_power: float = 2.0, decoupled: bool = True, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, warmup_steps=warmup_steps, r=r,
            weight_lr_power=weight_lr_power, decoupled=decoupled, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        if float(group["betas"][0]) == 0:
            raise ValueError("ScheduleFreeAdamW: betas[0] must be positive\nhelp: the default is 0.9")
        return "schedule_free"

    def averaged_parameters(self) -> list[Tensor]:
        """The averages x in the order of the parameters, as new tensors."""
        out = []
        for group in self.param_groups:
            beta1 = float(group["betas"][0])
            for p in group["params"]:
                y, kept = p.detach(), self._driver.get_state(p)
                out.append(y.clone() if kept is None or kept[0] == 0 else (y - (1 - beta1) * kept[1][0]) / beta1)
        return out

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters hold the averages x; afterwards y again."""
        params = self._parameters()
        kept = [p.detach().clone() for p in params]
        C.optim_copy(params, self.averaged_parameters())
        try:
            yield
        finally:
            C.optim_copy(params, kept)
