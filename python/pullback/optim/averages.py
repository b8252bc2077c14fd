"""Averages of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import _core as C
from .._core import Tensor
from .optimizer import RULES, Group, Optimizer, _named
from .over import Follower

__all__ = ["EMA", "Lookahead", "PolynomialAverage"]


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


class PolynomialAverage(EMA):
    """Average of weights that forgets its beginning at a polynomial rate, so that no decay has to be chosen.

    At update t = 1, 2, ...: average = (1 - k) average + k weight, k = (gamma + 1) / (gamma + t); gamma 0 is the plain
    mean, and the weight of update i is of the order of i^gamma. Shamir and Zhang 2013; the average of DoG.

    Args:
        model_or_params: as in `EMA`.
        gamma: at least 0. Default 8.

    Attributes:
        averages: the averaged tensors in the order of the parameters.

    >>> p = pb.tensor([1.0]); mean = pb.optim.PolynomialAverage([p], gamma=0.0)
    >>> for x in (3.0, 5.0):
    ...     p[...] = x
    ...     mean.update()
    >>> mean.averages[0].tolist()
    [4.0]
    """

    def __init__(self, model_or_params: Any, gamma: float = 8.0) -> None:
        if not 0 <= gamma < float("inf"):
            raise ValueError(
                f"PolynomialAverage: gamma must be finite and not negative, got {gamma}\nhelp: the default is 8"
            )
        super().__init__(model_or_params, 0.0)
        self.gamma = float(gamma)
        self._count = 0

    def update(self) -> None:
        """Moves the averages towards the present weights, in one fused pass."""
        self._count += 1
        self.decay = 1.0 - (self.gamma + 1.0) / (self.gamma + self._count)
        super().update()

    def state_dict(self) -> dict[str, Any]:
        """As `EMA.state_dict`, with "gamma" and "count"."""
        return {**super().state_dict(), "gamma": self.gamma, "count": self._count}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """As `EMA.load_state_dict`."""
        missing = [key for key in ("gamma", "count") if key not in d]
        if missing:
            raise ValueError(
                f"PolynomialAverage: the entry {missing[0]!r} is missing\nhelp: load the state of this model"
            )
        super().load_state_dict({k: v for k, v in d.items() if k not in ("gamma", "count")})
        self.gamma, self._count = float(d["gamma"]), int(d["count"])


class Lookahead(Follower):
    """Slow weights that follow those of a base optimizer: every k steps slow = slow + alpha (p - slow), p = slow.

    Zhang, Lucas, Hinton and Ba 2019. The states of the base go on as they are.

    Args:
        base: an optimizer, whose groups, states and schedules are shared.
        k: steps of the base from one synchronisation to the next, at least 1. Default 5.
        alpha: in (0, 1]. Default 0.5.

    Raises:
        TypeError: base is no optimizer. ValueError: k or alpha is out of its range.

    >>> p = pb.tensor([1.0])
    >>> opt = pb.optim.Lookahead(pb.optim.SGD([p], lr=1.0), k=2, alpha=0.5)
    >>> for _ in range(2):
    ...     opt.step(grads=[pb.tensor([1.0])])
    >>> p.tolist()
    [0.0]
    """

    def __init__(self, base: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        if not isinstance(base, Optimizer):
            raise TypeError(
                f"Lookahead: base must be an optimizer, got {type(base).__name__}\n"
                "help: Lookahead(pb.optim.SGD(model.parameters(), lr=0.1))"
            )
        if int(k) < 1:
            raise ValueError(f"Lookahead: k must be at least 1, got {k}\nhelp: the default is 5")
        if not 0 < alpha <= 1:
            raise ValueError(f"Lookahead: alpha must be in (0, 1], got {alpha}\nhelp: the default is 0.5")
        super().__init__(base)
        self.k, self.alpha = int(k), float(alpha)
        self._mover = C.OptimDriver()
        self._count = 0
        self._slow: list[Tensor] = [p.detach().clone() for p in base._parameters()]

    @property
    def slow(self) -> list[Tensor]:
        """The slow weights in the order of the parameters."""
        return list(self._slow)

    def add_param_group(self, group: Group) -> None:
        """Adds the group to the base; its slow weights start at its parameters."""
        super().add_param_group(group)
        self._slow += [p.detach().clone() for p in self.param_groups[-1]["params"]]

    def step(self, closure: Callable[[], Tensor] | None = None, **options: Any) -> Tensor | None:
        """A step of the base, and after every k-th the slow weights move and the parameters become equal to them."""
        loss = self.base.step(closure, **options)
        if self.last_skipped:
            return loss
        self._count += 1
        if self._count % self.k == 0:
            params = self._parameters()
            row = (RULES["_average"]["index"], self._slow, [1.0 - self.alpha], 0.0, False)
            self._mover.step([row], [p.detach() for p in params], None, None, None)
            C.optim_copy(params, self._slow)
        return loss

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """That of the base with the prefix "base.", the slow weights and the number of steps."""
        base = {f"base.{k}": v for k, v in self.base.state_dict(copy=copy).items()}
        slow = {f"slow.{i}": t.clone() if copy else t for i, t in enumerate(self._slow)}
        return {"rule": "Lookahead", "k": self.k, "alpha": self.alpha, "count": self._count, **base, **slow}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned.

        Raises:
            ValueError: another optimizer, a missing entry, or what the base refuses. ShapeError: another shape.
        """
        if d.get("rule") != "Lookahead":
            raise ValueError(
                f"load_state_dict: this is a state of {d.get('rule')}, not of Lookahead\n"
                "help: build the optimizer that was saved"
            )
        wanted = ["k", "alpha", "count", *(f"slow.{i}" for i in range(len(self._slow)))]
        missing = [key for key in wanted if key not in d]
        if missing:
            raise ValueError(f"load_state_dict: the state has no {missing[0]}\nhelp: the file is damaged")
        self.base.load_state_dict({k.removeprefix("base."): v for k, v in d.items() if k.startswith("base.")})
        C.optim_copy(self._slow, [d[f"slow.{i}"] for i in range(len(self._slow))])
        self.k, self.alpha, self._count = int(d["k"]), float(d["alpha"]), int(d["count"])

    def bytes_per_step(self) -> int:
        """Those of the base, and a k-th of those of a synchronisation."""
        size = sum(p.size * p.dtype.itemsize for p in self._parameters())
        return self.base.bytes_per_step() + 5 * size // self.k

    def init(self, params: Any) -> dict[str, Any]:
        """{"step": 0, "base": the state of the base, "slow": a copy of params}."""
        from .._tree import flatten

        leaves, build = flatten(params)
        return {"step": C.optim_count(0), "base": self.base.init(params), "slow": build([p * 1.0 for p in leaves])}

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """As `Optimizer.update`; keywords are those of the base."""
        from .._tree import flatten
        from .pure import align

        new, inner = self.base.update(params, grads, state["base"], **hyper)
        t, slow = int(state["step"]) + 1, state["slow"]
        if t % self.k == 0:
            leaves, build = flatten(new)
            slow = build([s + self.alpha * (p - s) for p, s in zip(leaves, align(new, slow, "slow"), strict=True)])
            new = slow
        return new, {"step": C.optim_count(t), "base": inner, "slow": slow}

    def __repr__(self) -> str:
        return f"Lookahead(k={self.k}, alpha={self.alpha}) around {self.base!r}"
