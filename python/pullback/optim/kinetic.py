"""Rules with random numbers or a bounded force: exponential random scaling, Langevin dynamics, Gravity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from .. import _core as C
from .._core import Tensor
from .._tree import flatten
from .optimizer import RULES, Formats, Group, Optimizer, Params
from .over import Follower

__all__ = ["SGLD", "ExpScaled", "ExpScaledSGD", "Gravity"]


class ExpScaledSGD(Optimizer):
    """Momentum whose step is multiplied by one random number: m = momentum m + g, p = p - s lr m with s ~ Exp(1).

    One s for the whole model and step; its mean is 1, so lr needs no new tuning. Zhang and Cutkosky 2024.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        momentum: at least 0. Default 0.9.
        scales: the sequence of s, one per step, repeated when it ends; None [default] draws from the default generator.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([1.0])
    >>> pb.optim.ExpScaledSGD([p], lr=0.5, scales=[3.0]).step()
    >>> p.tolist()
    [-0.5]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, momentum: float = 0.9, scales: Sequence[float] | None = None,
        weight_decay: float = 0.0, decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        self._scale = 1.0
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            scales=scales,
            weight_decay=weight_decay,
            decoupled=decoupled,
            formats=formats,
        )

    def _rule(self, group: Group) -> str:
        return "exp_scaled"

    def _read(self, group: Group, key: str) -> Any:
        if key == "scale":
            return self._scale
        return super()._read(group, key)

    def _check(self, group: Group) -> None:
        if group["scales"] is not None:
            if not len(group["scales"]):
                raise ValueError("ExpScaledSGD: scales is empty\nhelp: give one number per step, or None to draw")
            for self._scale in group["scales"]:
                super()._check(group)
        super()._check(group)

    def _choose(self, t: int) -> None:
        scales = (self.param_groups[0] if self.param_groups else self.defaults)["scales"]
        self._scale = (
            C.draw_exponential((), 1.0, 0.0, C.float64, None).item() if scales is None else scales[t % len(scales)]
        )

    def step(self, closure: Callable[[], Tensor] | None = None, **options: Any) -> Tensor | None:
        """As `Optimizer.step`, with one factor for all parameters."""
        kept = (self._driver.get_state(p) for p in self._parameters())
        self._choose(max((state[0] for state in kept if state is not None), default=0))
        return super().step(closure, **options)

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """As `Optimizer.update`, with one factor for all parameters."""
        self._choose(int(state["step"]))
        return super().update(params, grads, state, **hyper)


class ExpScaled(Follower):
    """Any optimizer whose whole step is multiplied by one random number s ~ Exp(1), of mean 1, a step.

    The learning rates of the base are multiplied by s for one step, decoupled decay with them; states are not touched.
    Zhang and Cutkosky 2024, who run it over momentum (`ExpScaledSGD`, in one kernel) and Adam.

    Args:
        base: an optimizer with the keyword lr, whose groups, states and schedules are shared.
        scales: the sequence of s, one per step, repeated when it ends; None [default] draws from the default generator.

    Raises:
        TypeError: base has no lr. ValueError: scales is empty or has a number that is negative or not finite.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([4.0])
    >>> pb.optim.ExpScaled(pb.optim.Adam([p], lr=0.25), scales=[2.0]).step()
    >>> p.tolist()
    [0.5]
    """

    def __init__(self, base: Optimizer, scales: Sequence[float] | None = None) -> None:
        if not isinstance(base, Optimizer) or "lr" not in base.defaults or isinstance(base, ExpScaled):
            raise TypeError(
                f"ExpScaled: base must be an optimizer with a learning rate, got {type(base).__name__}\n"
                "help: ExpScaled(pb.optim.Adam(model.parameters()))"
            )
        if scales is not None and not (len(scales) and all(0 <= s < float("inf") for s in scales)):
            raise ValueError("ExpScaled: scales must be numbers from 0 on, at least one\nhelp: None draws them")
        super().__init__(base)
        self.scales = scales
        self._count = 0

    def step(self, closure: Callable[[], Tensor] | None = None, **options: Any) -> Tensor | None:
        """The step of the base, with one factor for all parameters."""
        s = self._next(self._count)
        rates = [group["lr"] for group in self.param_groups]
        try:
            for group, lr in zip(self.param_groups, rates, strict=True):
                group["lr"] = s * lr
            loss = self.base.step(closure, **options)
        finally:
            for group, lr in zip(self.param_groups, rates, strict=True):
                group["lr"] = lr
        self._count += not self.last_skipped
        return loss

    def _next(self, t: int) -> float:
        if self.scales is None:
            return float(C.draw_exponential((), 1.0, 0.0, C.float64, None).item())
        return float(self.scales[t % len(self.scales)])

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """That of the base with the prefix "base.", and the number of steps."""
        base = {f"base.{k}": v for k, v in self.base.state_dict(copy=copy).items()}
        return {"rule": "ExpScaled", "count": self._count, **base}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned.

        Raises:
            ValueError: another optimizer, or what the base refuses.
        """
        if d.get("rule") != "ExpScaled":
            raise ValueError(
                f"load_state_dict: this is a state of {d.get('rule')}, not of ExpScaled\n"
                "help: build the optimizer that was saved"
            )
        self.base.load_state_dict({k.removeprefix("base."): v for k, v in d.items() if k.startswith("base.")})
        self._count = int(d["count"])

    def bytes_per_step(self) -> int:
        """Those of the base."""
        return self.base.bytes_per_step()

    def init(self, params: Any) -> dict[str, Any]:
        """That of the base."""
        return self.base.init(params)

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """That of the base with lr times the factor of this step."""
        s = self._next(int(state["step"]))
        return self.base.update(params, grads, state, **{**hyper, "lr": s * hyper.get("lr", self.defaults["lr"])})

    def __repr__(self) -> str:
        return f"ExpScaled(scales={self.scales!r}) around {self.base!r}"


class SGLD(Optimizer):
    """Stochastic gradient Langevin dynamics: p = p - lr/2 g + sqrt(lr temperature) xi with xi ~ N(0, 1).

    With g the gradient of the negative log posterior, p samples from the posterior at temperature 1. The numbers xi
    depend on a seed by parameter (drawn from the default generator, kept in the state), the step and the element's
    place: any number of threads and any grouping gives the same. Welling and Teh 2011.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0.
        temperature: at least 0. Default 1.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([1.0])
    >>> pb.optim.SGLD([p], lr=0.5, temperature=0.0).step()
    >>> p.tolist()
    [0.75]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, temperature: float = 1.0, weight_decay: float = 0.0,
        decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, temperature=temperature, weight_decay=weight_decay, decoupled=decoupled, formats=formats
        )

    def _rule(self, group: Group) -> str:
        return "sgld"

    @staticmethod
    def _seed() -> float:
        return float(int(C.draw_uniform((), 0.0, 2.0**52, C.float64, None).item()))

    def add_param_group(self, group: Group) -> None:
        """As `Optimizer.add_param_group`; draws a seed for each parameter."""
        super().add_param_group(group)
        for p in self.param_groups[-1]["params"]:
            self._driver.set_state(p, 0, [], [self._seed()])

    def init(self, params: Any) -> dict[str, Any]:
        """As `Optimizer.init`; draws a seed for each parameter."""
        state = super().init(params)
        leaves, build = flatten(params)
        state["seed"] = build([C.optim_scalar(self._seed()) for _ in leaves])
        return state


class Gravity(Optimizer):
    """A velocity driven by damped gradients: z = g / (1 + (g max|g|)^2), v = b v + (1 - b) z, p = p - lr v.

    max|g| is taken by tensor, so that |z| is at most 1 / (2 max|g|). b = (beta k + 1) / (k + 2) with k = t0, t0 + 1,
    ...; v starts as N(0, (alpha / lr)^2) drawn from the default generator. Bahrami and Pourkamali 2021.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 0.1.
        alpha: lr times the deviation of v at the start, at least 0. Default 0.01.
        beta: in [0, 1). Default 0.9.
        t0: the first k, at least 0. Default 0; the authors' PyTorch file has 1.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` p = p - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([1.0])
    >>> pb.optim.Gravity([p], lr=0.5, alpha=0.0).step()
    >>> p.tolist()
    [0.875]
    """

    def __init__(
        self, params: Params = None, lr: float = 0.1, *, alpha: float = 0.01, beta: float = 0.9, t0: float = 0,
        weight_decay: float = 0.0, decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            beta=beta,
            t0=t0,
            weight_decay=weight_decay,
            decoupled=decoupled,
            formats=formats,
        )

    def _rule(self, group: Group) -> str:
        return "gravity"

    def _check(self, group: Group) -> None:
        super()._check(group)
        if not 0 <= float(group["alpha"]) < float("inf"):
            raise ValueError(
                f"Gravity: alpha must be finite and not negative, got {group['alpha']}\nhelp: the default is 0.01"
            )

    def _velocity(self, p: Tensor, group: Group) -> Tensor:
        lr, alpha = float(group["lr"]), float(group["alpha"])
        if lr == 0 or alpha == 0:
            return C.optim_zeros_like(p)
        return C.draw_normal(p.shape, 0.0, alpha / lr, C.optim_zeros_like(p).dtype, None)

    def add_param_group(self, group: Group) -> None:
        """As `Optimizer.add_param_group`; draws the velocities of its parameters."""
        super().add_param_group(group)
        for p in self.param_groups[-1]["params"]:
            self._driver.set_state(p, 0, [self._velocity(p, self.param_groups[-1])], [])

    def init(self, params: Any) -> dict[str, Any]:
        """As `Optimizer.init`; draws the velocities."""
        leaves, build = flatten(params)
        state = super().init(params)
        state[RULES["gravity"]["slots"][0]] = build([self._velocity(p, self.defaults) for p in leaves])
        return state
