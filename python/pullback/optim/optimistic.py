"""Optimistic AMSGrad and the extrapolation of gradient sequences that it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Unpack

from .. import _core as C
from .._core import Tensor
from .optimizer import RULES, Formats, Group, Optimizer, Params

__all__ = ["OptAMSGrad", "extrapolate"]


def extrapolate(gradients: Sequence[Tensor | Sequence[Tensor]], reg: float = 1e-5) -> Tensor | list[Tensor]:
    """The limit that a sequence g_0 .. g_{r-1} seems to tend to, by regularised minimal polynomial extrapolation.

    With U the differences g_{i+1} - g_i, (U'U / |U'U| + reg I) z = 1 and c = z / sum(z), |.| the largest eigenvalue:
    the limit is the sum of c_i g_{i+1}. For a linear recurrence g' = A g + b whose minimal polynomial has at most the
    degree r - 2 it is (I - A)^-1 b up to the effect of `reg`; with reg = 0 z is the vector that minimises |U z| at
    sum(z) = 1. Scieur, d'Aspremont and Bach 2016, as in Wang, Li and Li 2019.

    Args:
        gradients: the oldest first, at least 1; each a tensor or the tensors of a model, whose products are added up.
        reg: at least 0. Default 1e-5.

    Returns:
        A tensor, or a list of them as in `gradients`; the newest gradient where there are fewer than 3.

    Raises:
        ValueError: no gradients, or reg is negative or not finite.

    >>> g = [1 + 0.5**i for i in range(4)]
    >>> round(pb.optim.extrapolate([pb.tensor([x], dtype=pb.float64) for x in g], reg=0.0).item(), 9)
    1.0
    """
    if not gradients:
        raise ValueError("extrapolate: got no gradients\nhelp: give the last few, the oldest first")
    if not 0 <= reg < float("inf"):
        raise ValueError(f"extrapolate: reg must be finite and not negative, got {reg}\nhelp: the default is 1e-5")
    single = isinstance(gradients[0], Tensor)
    rows: list[Any] = [[g] for g in gradients] if single else [list(g) for g in gradients]
    before = C._set_grad_enabled(False)
    try:
        weights = _weights(_gram(rows), reg) if len(rows) > 2 else [0.0] * (len(rows) - 2) + [1.0]
        latest = rows[-len(weights) :]
        out: list[Any] = [
            sum((w * g for w, g in zip(weights, column, strict=True)), 0.0) for column in zip(*latest, strict=True)
        ]
    finally:
        C._set_grad_enabled(before)
    limit: Tensor | list[Tensor] = out[0] if single else out
    return limit


def _gram(rows: list[list[Tensor]]) -> list[list[float]]:
    """Products of the differences of neighbouring rows, summed over the tensors of a row in float64."""
    n = len(rows) - 1
    gram = [[0.0] * n for _ in range(n)]
    for column in zip(*rows, strict=True):
        flat = [t.reshape((-1,)).astype(C.float64) for t in column]
        u = C.stack([b - a for a, b in pairwise(flat)])
        part = (u @ u.T).tolist()
        gram = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(gram, part, strict=True)]
    return gram


def _weights(gram: list[list[float]], reg: float) -> list[float]:
    """c of `extrapolate`."""
    n = len(gram)
    values, vectors = _eigen(gram)
    top = max(values)
    newest = [0.0] * (n - 1) + [1.0]
    if not 0 < top < float("inf"):
        return newest
    # A value of 0 up to rounding counts as 0, and without reg its vector outweighs all others.
    inverse = [1.0 / ((v / top if v > 1e-15 * top else 0.0) + (reg or 1e-300)) for v in values]
    sums = [sum(v) for v in vectors]
    z = [sum(inverse[k] * sums[k] * vectors[k][i] for k in range(n)) for i in range(n)]
    total = sum(z)
    return [x / total for x in z] if total else newest


def _eigen(matrix: list[list[float]]) -> tuple[list[float], list[list[float]]]:
    """Eigenvalues and eigenvectors of a small symmetric matrix by Jacobi rotations."""
    n = len(matrix)
    a = [list(row) for row in matrix]
    v = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(30):
        off = sum(a[i][j] ** 2 for i in range(n) for j in range(i))
        if not off > 1e-40 * sum(a[i][i] ** 2 for i in range(n)):
            break
        for p in range(n):
            for q in range(p + 1, n):
                if a[p][q] == 0:
                    continue
                ratio = (a[q][q] - a[p][p]) / (2 * a[p][q])
                t = (1 if ratio >= 0 else -1) / (abs(ratio) + (ratio * ratio + 1) ** 0.5)
                c = 1 / (t * t + 1) ** 0.5
                s = t * c
                for row in a:
                    row[p], row[q] = c * row[p] - s * row[q], s * row[p] + c * row[q]
                a[p], a[q] = (
                    [c * x - s * y for x, y in zip(a[p], a[q], strict=True)],
                    [s * x + c * y for x, y in zip(a[p], a[q], strict=True)],
                )
                v[p], v[q] = (
                    [c * x - s * y for x, y in zip(v[p], v[q], strict=True)],
                    [s * x + c * y for x, y in zip(v[p], v[q], strict=True)],
                )
    return [a[i][i] for i in range(n)], v


class OptAMSGrad(Optimizer):
    """Optimistic AMSGrad: w steps by AMSGrad, and p goes one step further along a guess of the next gradient.

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) (g - guess)^2, V = max(V, v), w = w - lr m / sqrt(V),
    p = w - lr (beta1 m_old + (1 - beta1) guess) / sqrt(V), where v takes the guess that was made for g and p the one
    for the gradient after it. Nothing is corrected. Wang, Li and Li 2019.

    Args:
        params: tensors, (name, tensor) pairs, a dict of them, or a list of group dicts; None for the pure form only.
        lr: step size, at least 0. Default 1e-3.
        betas: decay rates of the two averages, each in [0, 1). Default (0.9, 0.999).
        guess: "last" [default], the present gradient; or "extrapolate", the limit of the last `history` gradients by
            `extrapolate`, which keeps them all and takes their products over the whole model.
        history: gradients to extrapolate from, at least 3. Default 5.
        reg: of `extrapolate`. Default 1e-5.
        v0: V before the first step. Default 1e-8.
        weight_decay: at least 0, default 0; added to the gradient, or with `decoupled` w = w - lr weight_decay p.

    Raises:
        ValueError: a keyword is out of its range, the list is empty or names a parameter twice.

    >>> p = pb.tensor([1.0]); p.grad = pb.tensor([2.0])
    >>> pb.optim.OptAMSGrad([p], lr=0.5, betas=(0.0, 0.0)).step()
    >>> p.tolist()
    [0.0]
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        guess: str = "last", history: int = 5, reg: float = 1e-5, v0: float = 1e-8, weight_decay: float = 0.0,
        decoupled: bool = False, **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        self._history: list[list[Tensor]] = []
        super().__init__(
            params, lr=lr, betas=betas, guess=guess, history=history, reg=reg, v0=v0, weight_decay=weight_decay,
            decoupled=decoupled, formats=formats,
        )  # fmt: skip

    def _rule(self, group: Group) -> str:
        if group["guess"] not in ("last", "extrapolate"):
            raise ValueError(
                f"OptAMSGrad: guess must be 'last' or 'extrapolate', got {group['guess']!r}\nhelp: the default is last"
            )
        return "opt_amsgrad" if group["guess"] == "last" else "opt_amsgrad_given"

    def _check(self, group: Group) -> None:
        super()._check(group)
        if int(group["history"]) < 3:
            raise ValueError(f"OptAMSGrad: history must be at least 3, got {group['history']}\nhelp: the default is 5")
        if not 0 <= float(group["reg"]) < float("inf"):
            raise ValueError(
                f"OptAMSGrad: reg must be finite and not negative, got {group['reg']}\nhelp: the default is 1e-5"
            )
        if group["guess"] == "extrapolate" and group["state"] != "float32":
            raise ValueError("OptAMSGrad: extrapolated guesses need float32 states\nhelp: use guess='last'")
        if self.param_groups and group["guess"] != self.param_groups[0]["guess"]:
            raise ValueError("OptAMSGrad: all groups make the same kind of guess\nhelp: use two optimizers")

    def step(
        self, closure: Callable[[], Tensor] | None = None, *, grads: Any = None, clip_norm: float | None = None,
        clip_value: float | None = None, scale: float | None = None,
    ) -> Tensor | None:  # fmt: skip
        """As `Optimizer.step`."""
        if not self.param_groups or self.param_groups[0]["guess"] == "last":
            return super().step(closure, grads=grads, clip_norm=clip_norm, clip_value=clip_value, scale=scale)
        if grads is not None and closure is not None:
            raise ValueError("step: got a closure and grads\nhelp: give one of them")
        loss = None if closure is None else self._differentiate(closure)
        params = self._parameters()
        ordered: list[Tensor | None] = [p.grad for p in params] if grads is None else self._order(grads)
        before, old = C._set_grad_enabled(False), self._history
        try:
            ordered = self._limited(ordered, clip_norm, clip_value, scale)
            new = [self._wide(p, g) for p, g in zip(params, ordered, strict=True)]
            self._history = [*old, new][-int(self.param_groups[0]["history"]) :]
            guesses = extrapolate(self._history, float(self.param_groups[0]["reg"]))
            for p, g, guess in zip(params, ordered, guesses, strict=True):
                if g is not None:
                    C.optim_copy([self._slot(p)], [guess])
            super().step(grads=ordered, scale=None if clip_norm is None and scale is None else 1.0)
        except BaseException:
            self._history = old
            raise
        finally:
            C._set_grad_enabled(before)
        if clip_norm is not None or scale is not None:
            self.last_norm = self._norm
        if self.last_skipped:
            self._history = old
        return loss

    _norm = 0.0

    def _limited(
        self, grads: list[Tensor | None], clip_norm: float | None, clip_value: float | None, scale: float | None
    ) -> list[Tensor | None]:
        """Gradients as the driver would use them: the guess has to be made of the same numbers."""
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value), ("scale", scale)):
            if value is not None and not value > 0:
                raise ValueError(f"step: {name} must be positive, got {value}\nhelp: None is off")
        factor = 1.0 / (scale or 1.0)
        if clip_norm is not None or scale is not None:
            self._norm = C.optim_norm([g for g in grads if g is not None])[0] * factor
        if clip_norm is not None:
            factor *= min(1.0, clip_norm / (self._norm + 1e-6))
        if factor != 1.0:
            grads = [g if g is None else g * factor for g in grads]
        if clip_value is not None:
            grads = [g if g is None else C.clip(g, -clip_value, clip_value) for g in grads]
        return grads

    @staticmethod
    def _wide(p: Tensor, g: Tensor | None) -> Tensor:
        """A copy of a gradient in the type of the states; zeros where there is none."""
        state = C.optim_zeros_like(p)
        if g is not None:
            C.optim_copy([state], [g])
        return state

    def _slot(self, p: Tensor) -> Tensor:
        if self._driver.get_state(p) is None:
            slots = RULES["opt_amsgrad_given"]["slots"]
            self._driver.set_state(p, 0, [C.optim_zeros_like(p) for _ in slots], [])
        slot: Tensor = self._driver.get_state(p)[1][5]
        return slot

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """As `Optimizer.state_dict`, with the last gradients where they are extrapolated."""
        d = super().state_dict(copy=copy)
        for j, row in enumerate(self._history):
            d.update({f"optimistic.{j}.{i}": t.clone() if copy else t for i, t in enumerate(row)})
        return d

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`."""
        own = {k: v for k, v in d.items() if k.startswith("optimistic.")}
        count = len(self._parameters())
        rows = len(own) // count
        wanted = [[f"optimistic.{j}.{i}" for i in range(count)] for j in range(rows)]
        if set(own) != {k for row in wanted for k in row}:
            raise ValueError("load_state_dict: a kept gradient is missing\nhelp: the file is damaged")
        super().load_state_dict({k: v for k, v in d.items() if k not in own})
        self._history = [[own[k].clone() for k in row] for row in wanted]

    def init(self, params: Any) -> dict[str, Any]:
        """As `Optimizer.init`.

        Raises:
            NotImplementedError: guess="extrapolate".
        """
        self._refuse()
        return super().init(params)

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """As `Optimizer.update`.

        Raises:
            NotImplementedError: guess="extrapolate".
        """
        self._refuse()
        return super().update(params, grads, state, **hyper)

    def _refuse(self) -> None:
        if self.defaults["guess"] != "last":
            raise NotImplementedError("OptAMSGrad has no pure form with guess='extrapolate'\nhelp: use guess='last'")
