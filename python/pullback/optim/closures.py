"""Rules that need several gradients a step. They wrap a base optimizer and call the closure as often as they need.

The perturbed point is written into the parameters and the point itself kept beside them; the base rule then steps from
the kept one, so that nothing is restored. Later calls of the closure see the random numbers of the first, and
batch-norm statistics move in the first only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import _core as C
from .._core import GraphError, Tensor
from .optimizer import RULES, Group, Optimizer
from .over import ClosureOnly, Over

__all__ = ["ASAM", "DNSAM", "GAM", "SAM", "USAM", "GradientRegularization", "XGrad"]

Closure = Callable[[], Tensor]
Grads = list[Tensor | None]


@contextmanager
def replay(generator: Any) -> Iterator[None]:
    """Inside, the default generator starts at the given state, and batch-norm statistics stay as they are."""
    from ..nn import norm

    source = C.default_generator()
    now = source.get_state()
    source.set_state(generator)
    norm.statistics_frozen = True
    try:
        yield
    finally:
        norm.statistics_frozen = False
        source.set_state(now)


class _NotFinite(Exception):
    pass


class _Several(Over, ClosureOnly):
    """A rule that forms the gradient which the base steps with."""

    _loss: Tensor

    def __init__(self, base: Optimizer, **words: Any) -> None:
        kind = type(self).__name__
        if not isinstance(base, Optimizer) or isinstance(base, _Several):
            raise TypeError(
                f"{kind}: base must be an optimizer of one gradient, got {type(base).__name__}\n"
                f"help: {kind}(pb.optim.SGD(model.parameters(), lr=0.1))"
            )
        for key, value in words.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) < float("inf"):
                raise ValueError(f"{kind}: {key} must be finite, got {value}\nhelp: see the defaults of {kind}")
        super().__init__(base)
        self.words = words
        self.last_norm = None
        self.last_skipped = False
        self._climbers = [C.OptimDriver(), C.OptimDriver()]
        self._kept: list[Tensor | None] = []
        self._generator: Any = None

    def step(
        self, closure: Closure | None = None, *, grads: Any = None, clip_norm: float | None = None,
        clip_value: float | None = None, scale: float | None = None,
    ) -> Tensor:  # fmt: skip
        """One step of the base rule with this rule's gradient; clipping concerns that gradient.

        Args:
            closure: computes and returns the scalar loss and does not call backward.
            clip_norm, clip_value, scale: as in `Optimizer.step`.

        Returns:
            The loss at the parameters, before the step.

        Raises:
            GraphError: no closure, one that called backward, or a loss that is not differentiable.
        """
        kind = type(self).__name__
        if closure is None or grads is not None:
            raise GraphError(f"step: {kind} takes gradients at several points\nhelp: opt.step(closure), without grads")
        self._kept = [None] * len(self._parameters())
        self._generator = C.default_generator().get_state()
        self.last_skipped = True
        try:
            loss, slope = self._gradient(closure, scale)
            self.base._origins = self._kept
            self.base.step(grads=slope, clip_norm=clip_norm, clip_value=clip_value, scale=scale)
        except _NotFinite:
            self._restore()
            return self._loss
        except BaseException:
            self._restore()
            raise
        finally:
            self.base._origins = None
        self.last_norm, self.last_skipped = self.base.last_norm, self.base.last_skipped
        if self.last_skipped:
            self._restore()
        return loss

    def _gradient(self, closure: Closure, scale: float | None) -> tuple[Tensor, Grads]:
        """The loss and the gradient that the base rule takes, both still multiplied by `scale`."""
        raise NotImplementedError

    def _first(self, closure: Closure) -> tuple[Tensor, Grads]:
        loss = self._loss = self._differentiate(closure)
        return loss, [p.grad for p in self._parameters()]

    def _again(self, closure: Closure) -> Grads:
        with replay(self._generator):
            return self._first(closure)[1]

    def _climb(
        self, rule: str, rho: float, grads: Grads, scale: float | None = None, *, restart: bool = True, level: int = 0
    ) -> None:
        """Moves the parameters by the named rule, from the kept point (`restart`) or from where they are."""
        rows = [(RULES[rule]["index"], group["params"], [rho], 0.0, False) for group in self.param_groups]
        origins = self._kept if restart and any(k is not None for k in self._kept) else None
        if self._climbers[level].step(rows, grads, None, None, scale, origins)[1]:
            raise _NotFinite
        if origins is None and level == 0:
            states = [self._climbers[0].get_state(p) for p in self._parameters()]
            self._kept = [
                state[1][0] if state is not None and g is not None else None
                for state, g in zip(states, grads, strict=True)
            ]

    def _restore(self) -> None:
        pairs = [(p, k) for p, k in zip(self._parameters(), self._kept, strict=True) if k is not None]
        C.optim_copy([p for p, _ in pairs], [k for _, k in pairs])

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """That of the base with the prefix "base.", and this rule's keywords."""
        own = {f"words.{key}": list(v) if isinstance(v, tuple) else v for key, v in self.words.items()}
        return {
            "rule": type(self).__name__,
            **own,
            **{f"base.{k}": v for k, v in self.base.state_dict(copy=copy).items()},
        }

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned.

        Raises:
            ValueError: another optimizer, or what the base refuses.
        """
        if d.get("rule") != type(self).__name__:
            raise ValueError(
                f"load_state_dict: this is a state of {d.get('rule')}, not of {type(self).__name__}\n"
                "help: build the optimizer that was saved"
            )
        self.base.load_state_dict({k.removeprefix("base."): v for k, v in d.items() if k.startswith("base.")})
        for key in self.words:
            value = d.get(f"words.{key}", self.words[key])
            self.words[key] = tuple(value) if isinstance(value, list) else value

    def bytes_per_step(self) -> int:
        """Bytes of the base and of one perturbation: parameters and gradients read, the point and its copy written."""
        return self.base.bytes_per_step() + sum(4 * p.size * p.dtype.itemsize for p in self._parameters())

    def __repr__(self) -> str:
        words = ", ".join(f"{k}={v!r}" for k, v in self.words.items())
        return f"{type(self).__name__}({words}) around {self.base!r}"


def _combine(f: Callable[..., Tensor], *lists: Grads) -> Grads:
    """f of the gradients of each parameter that has all of them."""
    before = C._set_grad_enabled(False)
    try:
        return [None if any(g is None for g in row) else f(*row) for row in zip(*lists, strict=True)]
    finally:
        C._set_grad_enabled(before)


def _norm(grads: Grads) -> float:
    return float(C.optim_norm([g for g in grads if g is not None])[0])


class SAM(_Several):
    """Sharpness-aware minimisation: the base steps from p with the gradient at p + rho g / |g|. Foret et al. 2020.

    Args:
        base: an optimizer of one gradient.
        rho: length of the perturbation over the whole model. Default 0.05.

    Raises:
        TypeError: base is no such optimizer. ValueError: rho is not finite. GraphError: a step without closure.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> opt = pb.optim.SAM(pb.optim.SGD([p], lr=0.5), rho=0.5)
    >>> opt.step(lambda: (p * p).sum()).item()
    4.0
    >>> p.tolist()
    [-0.5]
    """

    _rule_name = "_climb_sam"

    def __init__(self, base: Optimizer, rho: float = 0.05) -> None:
        super().__init__(base, rho=rho)

    def _gradient(self, closure: Closure, scale: float | None) -> tuple[Tensor, Grads]:
        loss, g = self._first(closure)
        self._climb(self._rule_name, self.words["rho"], g, scale)
        return loss, self._again(closure)


class ASAM(SAM):
    """Adaptive SAM: the gradient at p + rho p^2 g / |p g|, which does not change when weights are rescaled.

    Keywords as in SAM. Kwon et al. 2021.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> pb.optim.ASAM(pb.optim.SGD([p], lr=0.5), rho=0.25).step(lambda: (p * p).sum()).item()
    4.0
    >>> p.tolist()
    [-0.5]
    """

    _rule_name = "_climb_asam"


class USAM(SAM):
    """SAM without normalisation: the gradient at p + rho g. Keywords as in SAM. Andriushchenko and Flammarion 2022.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> pb.optim.USAM(pb.optim.SGD([p], lr=0.5), rho=0.25).step(lambda: (p * p).sum()).item()
    4.0
    >>> p.tolist()
    [-1.0]
    """

    _rule_name = "_climb"


class DNSAM(_Several):
    """SAM normalised by the norm of the full gradient: the gradient at p + rho g / |full g|. Compagnoni et al. 2023.

    Args:
        base: an optimizer of one gradient.
        rho: default 0.05.
        norm: the norm of the full gradient: a number, a function without arguments, or None [default] for the running
            mean of the norms of the minibatch gradients, n = 0.9 n + 0.1 |g|, which starts at the first.

    Raises:
        TypeError: base is no such optimizer. ValueError: rho is not finite. GraphError: a step without closure.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> pb.optim.DNSAM(pb.optim.SGD([p], lr=0.5), rho=0.5, norm=4.0).step(lambda: (p * p).sum()).item()
    4.0
    >>> p.tolist()
    [-0.5]
    """

    def __init__(self, base: Optimizer, rho: float = 0.05, norm: float | Callable[[], float] | None = None) -> None:
        super().__init__(base, rho=rho, estimate=None)
        self.norm = norm

    def _gradient(self, closure: Closure, scale: float | None) -> tuple[Tensor, Grads]:
        loss, g = self._first(closure)
        if self.norm is None:
            size, old = _norm(g) / (scale or 1.0), self.words["estimate"]
            full = self.words["estimate"] = size if old is None else 0.9 * old + 0.1 * size
        else:
            full = float(self.norm() if callable(self.norm) else self.norm)
        self._climb("_climb", self.words["rho"] / (full + 1e-12), g, scale)
        return loss, self._again(closure)


class GAM(_Several):
    """Gradient norm aware minimisation: descends to flat minima in the first order. Zhang et al. 2023.

    With betas (b1, b2, b3): g0 at p, g1 at p + rho g0/|g0|, q = p + rho_norm (g1 - g0)/|g1 - g0|, g2 at q, g3 at
    q + rho g2/|g2|. The base takes s - gamma (the part of g0 + |b2| g2 orthogonal to s), s = b1 g1 + b3 g3. Four
    gradients a step.

    With `exact`, the algorithm as published: f = H g/|g| is the gradient of |g|, and the base takes
    b1 g + b3 rho_norm f(q), q = p + rho_norm f/|f|, so that b3 is the weight of the flatness rho_norm max |g|. Two
    gradients and two products with the Hessian a step; rho, b2 and gamma are not used.

    Args:
        base: an optimizer of one gradient.
        rho: length of the differences. Default 0.02.
        rho_norm: radius of the ball. Default 0.2.
        betas: default (1, -1, 1).
        gamma: default 0.03.
        exact: Hessian products instead of differences. Default False.

    Raises:
        TypeError: base is no such optimizer. ValueError: a number is not finite. GraphError: a step without closure.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> opt = pb.optim.GAM(pb.optim.SGD([p], lr=0.125), rho=0.0, rho_norm=0.0, gamma=0.0)
    >>> opt.step(lambda: (p * p).sum()).item(), p.tolist()
    (4.0, [1.0])
    """

    def __init__(
        self, base: Optimizer, rho: float = 0.02, rho_norm: float = 0.2,
        betas: tuple[float, float, float] = (1.0, -1.0, 1.0), gamma: float = 0.03, exact: bool = False,
    ) -> None:  # fmt: skip
        if len(betas) != 3:
            raise ValueError(f"GAM: betas must be 3 numbers, got {betas!r}\nhelp: the default is (1, -1, 1)")
        super().__init__(base, rho=rho, rho_norm=rho_norm, betas=tuple(betas), gamma=gamma, exact=bool(exact))

    def _exact(self, closure: Closure, scale: float | None) -> tuple[Tensor, Grads]:
        w = self.words
        b1, _, b3 = w["betas"]
        loss, g, f = self._slope_of_norm(closure)
        self._climb("_climb_sam", w["rho_norm"], f, scale)
        with replay(self._generator):
            _, _, far = self._slope_of_norm(closure)
        return loss, _combine(lambda a, b: b1 * a + b3 * w["rho_norm"] * b, g, far)

    def _slope_of_norm(self, closure: Closure) -> tuple[Tensor, Grads, Grads]:
        """The loss, its gradient g and H g / |g|, the gradient of |g|; 0 where g is 0."""
        from ..transforms import gradients

        params = [p for p in self._parameters() if p.requires_grad]
        self.zero_grad()
        before = C._set_grad_enabled(True)
        try:
            loss = self._loss = closure()
            slopes = gradients(loss, params, create_graph=True)
            norm = _norm([g.detach() for g in slopes])
            dot: Any = sum((g * (g.detach() / (norm + 1e-12))).sum() for g in slopes)
            products = gradients(dot, params) if dot.requires_grad else [C.optim_zeros_like(p) for p in params]
        finally:
            C._set_grad_enabled(before)
        flat, curved = iter(slopes), iter(products)
        trained = [p.requires_grad for p in self._parameters()]
        return (
            loss,
            [next(flat).detach() if t else None for t in trained],
            [next(curved) if t else None for t in trained],
        )

    def _gradient(self, closure: Closure, scale: float | None) -> tuple[Tensor, Grads]:
        w = self.words
        if w["exact"]:
            return self._exact(closure, scale)
        b1, b2, b3 = w["betas"]
        loss, g0 = self._first(closure)
        self._climb("_climb_sam", w["rho"], g0, scale)
        g1 = self._again(closure)
        self._climb("_climb_sam", w["rho_norm"], _combine(lambda a, b: a - b, g1, g0), scale)
        g2 = self._again(closure)
        self._climb("_climb_sam", w["rho"], g2, scale, restart=False, level=1)
        g3 = self._again(closure)
        total = _combine(lambda a, b: b1 * a + b3 * b, g1, g3)
        other = _combine(lambda a, b: a + abs(b2) * b, g0, g2)
        square = _norm(total) ** 2
        dots = _combine(lambda a, b: (a * b).sum(), total, other)
        share = sum(d.item() for d in dots if d is not None) / square if square > 0 else 0.0
        return loss, _combine(lambda s, v: s - w["gamma"] * (v - share * s), total, other)


class GradientRegularization(_Several):
    """The gradient of L + gamma/2 |grad L|^2, by differences of gradients or exactly. Karakida et al. 2022.

    "ascent": g + gamma/eps (g(p + eps g) - g), USAM itself if gamma = eps; "descent": g + gamma/eps (g - g(p - eps g));
    "central": g + gamma/(2 eps) (g(p + eps g) - g(p - eps g)); "exact": a derivative of the gradient.

    Args:
        base: an optimizer of one gradient.
        gamma: weight of the penalty. Default 0.01.
        eps: length of the difference in units of g. Default 0.01.
        mode: default "ascent".
        flood: the level b of flooding: the gradient is multiplied by sign(L - b). Default None.

    Raises:
        TypeError: base is no such optimizer. ValueError: unknown mode, eps 0. GraphError: a step without closure.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> opt = pb.optim.GradientRegularization(pb.optim.SGD([p], lr=0.125), gamma=0.5, eps=0.5)
    >>> opt.step(lambda: (p * p).sum()).item(), p.tolist()
    (4.0, [1.0])
    """

    def __init__(
        self, base: Optimizer, gamma: float = 0.01, eps: float = 0.01, mode: str = "ascent", flood: float | None = None
    ) -> None:
        if mode not in ("ascent", "descent", "central", "exact"):
            raise ValueError(
                f"GradientRegularization: mode must be ascent, descent, central or exact, got {mode!r}\n"
                "help: the default is ascent"
            )
        if not eps > 0:
            raise ValueError(f"GradientRegularization: eps must be positive, got {eps}\nhelp: the default is 0.01")
        super().__init__(base, gamma=gamma, eps=eps, mode=mode, flood=flood)

    def _gradient(self, closure: Closure, scale: float | None) -> tuple[Tensor, Grads]:
        w = self.words
        gamma, eps, mode = w["gamma"], w["eps"], w["mode"]
        if mode == "exact":
            loss, total = self._exact(closure, gamma / (scale or 1.0))
        else:
            loss, g = self._first(closure)
            total = g
            ends = {"ascent": (1,), "descent": (-1,), "central": (1, -1)}[mode]
            for sign in ends:
                self._climb("_climb", sign * eps, g, scale)
                factor = sign * gamma / (eps * len(ends))
                total = _combine(lambda s, a, b, k=factor: s + k * (a - b), total, self._again(closure), g)
        if w["flood"] is not None:
            side = float(loss.item()) / (scale or 1.0) - w["flood"]
            factor = float(side > 0) - float(side < 0)
            total = _combine(lambda s: factor * s, total)
        return loss, total

    def _exact(self, closure: Closure, gamma: float) -> tuple[Tensor, Grads]:
        from ..transforms import gradients

        params = [p for p in self._parameters() if p.requires_grad]
        self.zero_grad()
        before = C._set_grad_enabled(True)
        try:
            loss = closure()
            penalty = loss
            for g in gradients(loss, params, create_graph=True):
                penalty = penalty + 0.5 * gamma * (g * g).sum()
            slopes = iter(gradients(penalty, params))
        finally:
            C._set_grad_enabled(before)
        return loss, [next(slopes) if p.requires_grad else None for p in self._parameters()]


class XGrad(_Several):
    """Takes the gradient where the base is about to be: at p - steps lr u, u the direction of the base's present state.

    u is the momentum buffer of SGD, or m / c1 / (sqrt(v / c2) + eps) of Adam and AdamW, without weight decay. The base
    then steps from p. Before the first step, and for SGD without momentum, nothing is predicted. Guan 2023.

    Args:
        base: SGD, Adam or AdamW.
        steps: how many steps ahead. Default 1.

    Raises:
        TypeError: another base. ValueError: steps is not finite. GraphError: a step without closure.

    >>> p = pb.tensor([2.0]); p.requires_grad = True
    >>> opt = pb.optim.XGrad(pb.optim.SGD([p], lr=0.25, momentum=0.5))
    >>> for _ in range(2):
    ...     _ = opt.step(lambda: (p * p).sum())
    >>> p.tolist()
    [0.5]
    """

    def __init__(self, base: Optimizer, steps: float = 1) -> None:
        from .rules import SGD, Adam

        if not isinstance(base, (SGD, Adam)):
            raise TypeError(
                f"XGrad: base must be SGD, Adam or AdamW, got {type(base).__name__}\nhelp: wrap one of them"
            )
        super().__init__(base, steps=steps)

    def _gradient(self, closure: Closure, scale: float | None) -> tuple[Tensor, Grads]:
        ahead = self._ahead()
        if any(u is not None for u in ahead):
            self._climb("_climb", -float(self.words["steps"]), ahead)
        return self._first(closure)

    def _ahead(self) -> Grads:
        """lr u of each parameter, None where there is no state yet."""
        out: Grads = []
        before = C._set_grad_enabled(False)
        try:
            for group in self.param_groups:
                rule, lr = self.base._rule(group), float(group["lr"])
                for p in group["params"]:
                    kept = self._driver.get_state(p)
                    out.append(None if kept is None or kept[0] == 0 else self._direction(rule, group, kept, lr))
        finally:
            C._set_grad_enabled(before)
        return out

    @staticmethod
    def _direction(rule: str, group: Group, kept: tuple[Any, ...], lr: float) -> Tensor | None:
        t, slots = kept[0], kept[1]
        if rule == "sgd":
            return None
        if rule in ("momentum", "nesterov"):
            return lr * slots[0]
        if rule == "amsgrad_paper":
            return lr / t**0.5 * slots[0] / slots[2].sqrt()
        beta1, beta2 = (float(b) for b in group["betas"])
        correct = 1.0 if group["adamnc"] else (1 - beta2**t) ** -0.5
        eps = float(group["eps"]) * (correct if group["eps_mode"] == "before" else 1.0)
        second = slots[2] if rule == "amsgrad" else slots[1]
        return lr / (1 - beta1**t) * slots[0] / (second.sqrt() * correct + eps)
