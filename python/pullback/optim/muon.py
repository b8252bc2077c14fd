"""Muon: momentum whose matrices are made orthogonal, composed of the driver and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from .. import _core as C
from .._core import Tensor
from .._tree import flatten
from . import pure
from .optimizer import RULES, Formats, Group, Optimizer, Params

__all__ = ["Muon"]


class Muon(Optimizer):
    """Momentum orthogonalised by a Newton-Schulz iteration, for weight matrices. Jordan et al. 2024.

    B = momentum B + (1 - momentum) g and U = (1 - momentum) g + momentum B, or B without `nesterov`. With X = U / |U|,
    `ns_steps` times X = a X + (b A + c A A) X with A = X X^T; then p = p - lr weight_decay p and
    p = p - lr sqrt(max(1, rows / columns)) X. Keywords and defaults are those of `torch.optim.Muon`; products are
    taken in the parameter's compute type, not in bfloat16. A tensor of more axes counts as (first, rest). Biases,
    norms and embeddings belong to another optimizer.

    Args:
        params: tensors of at least two axes, (name, tensor) pairs, a dict of them, or a list of group dicts.
        lr: step size, at least 0. Default 1e-3.
        weight_decay: at least 0, default 0.1; p = p - lr weight_decay p, or with decoupled=False added to the gradient.
        momentum: in [0, 1). Default 0.95.
        nesterov: default True.
        ns_coefficients: (a, b, c). Default (3.4445, -4.775, 2.0315).
        eps: smallest |U|. Default 1e-7.
        ns_steps: iterations. Default 5.
        adjust_lr: "original" [default] as above, or "match_rms_adamw": 0.2 sqrt(max(rows, columns)) instead.

    Raises:
        ValueError: a keyword is out of its range, a parameter of fewer than two axes, an empty list or one twice.

    >>> p = pb.tensor([[1.0, 0.0], [0.0, 1.0]]); p.grad = pb.tensor([[3.0, 0.0], [0.0, 3.0]])
    >>> pb.optim.Muon([p], lr=0.5, weight_decay=0.0).step()
    >>> 0.3 < p[0, 0].item() < 0.7
    True
    """

    def __init__(
        self, params: Params = None, lr: float = 1e-3, *, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7, ns_steps: int = 5, adjust_lr: str = "original", decoupled: bool = True,
        **formats: Unpack[Formats],
    ) -> None:  # fmt: skip
        self._moving = C.OptimDriver()  # of the buffers; that of the base class steps the parameters and keeps them
        super().__init__(
            params, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
            ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps, adjust_lr=adjust_lr, decoupled=decoupled,
            formats=formats,
        )  # fmt: skip

    _takes_prox = False
    _states = ("float32", "bfloat16")

    def _rule(self, group: Group) -> str:
        return "momentum"  # its state is Muon's, too

    def _read(self, group: Group, key: str) -> Any:
        return 0.0 if key == "dampening" else super()._read(group, key)

    def _check(self, group: Group) -> None:
        super()._check(group)
        C.optim_check(RULES["_average"]["index"], [float(group["momentum"])], 0.0)
        if len(group["ns_coefficients"]) != 3:
            raise ValueError("Muon: ns_coefficients must be 3 numbers\nhelp: the default is (3.4445, -4.775, 2.0315)")
        if group["adjust_lr"] not in ("original", "match_rms_adamw"):
            raise ValueError(
                f"Muon: adjust_lr must be 'original' or 'match_rms_adamw', got {group['adjust_lr']!r}\n"
                "help: the default is original"
            )
        for p in group.get("params", ()):
            if p.ndim < 2:
                raise ValueError(
                    f"Muon: a parameter has {p.ndim} axes\nhelp: give vectors and numbers to another optimizer"
                )

    def step(
        self, closure: Callable[[], Tensor] | None = None, *, grads: Any = None, clip_norm: float | None = None,
        clip_value: float | None = None, scale: float | None = None,
    ) -> Tensor | None:  # fmt: skip
        """As `Optimizer.step`."""
        if grads is not None and closure is not None:
            raise ValueError("step: got a closure and grads\nhelp: give one of them")
        loss = None if closure is None else self._differentiate(closure)
        params = self._parameters()
        ordered = [p.grad for p in params] if grads is None else self._order(grads)
        slopes = dict(zip(map(id, params), ordered, strict=True))
        rows, slope, before = [], [], C._set_grad_enabled(False)
        try:
            for group in self.param_groups:
                for p in group["params"]:
                    g = slopes[id(p)]
                    if g is not None and group["weight_decay"] and not group["decoupled"]:
                        slopes[id(p)] = g + group["weight_decay"] * p
                narrow = group["state"] == "bfloat16"
                buffers = [self._buffer(p, narrow) for p in group["params"]]
                row = (RULES["_average"]["index"], buffers, [group["momentum"]], 0.0, False, 0, 0.0, 0.0, 0, 1)
                rows.append(row)
                slope += [slopes[id(p)] for p in group["params"]]
            self.last_norm, self.last_skipped = self._moving.step(rows, slope, clip_norm, clip_value, scale)
            if not self.last_skipped:
                self._move(slopes, self._factor(clip_norm, scale), clip_value)
        finally:
            C._set_grad_enabled(before)
        return loss

    def _factor(self, clip_norm: float | None, scale: float | None) -> float:
        factor = 1.0 / (scale or 1.0)
        if clip_norm is not None and self.last_norm is not None:
            factor *= min(1.0, clip_norm / (self.last_norm + 1e-6))
        return factor

    def _buffer(self, p: Tensor, narrow: bool) -> Tensor:
        kept = self._driver.stored_state(p)
        dtype = C.bfloat16 if narrow and p.dtype != C.float64 else C.float64 if p.dtype == C.float64 else C.float32
        if kept is None or kept[1][0].dtype != dtype:  # the first step, or a state of another format was loaded
            old = C.optim_zeros_like(p) if kept is None else kept[1][0]
            self._driver.set_state(p, 0 if kept is None else kept[0], [old.astype(dtype)], [], kept and kept[3])
            kept = self._driver.stored_state(p)
        buffer: Tensor = kept[1][0]
        if kept[0] > 0 and self._moving.get_state(buffer) is None:
            self._moving.set_state(buffer, kept[0], [], [])  # the random bits of a loaded state go on
        return buffer

    def _move(self, slopes: dict[int, Any], factor: float, clip_value: float | None) -> None:
        rows, slope = [], []
        for group in self.param_groups:
            for p in group["params"]:
                g = slopes[id(p)]
                if g is None or p.size == 0:
                    continue
                u = self._buffer(p, group["state"] == "bfloat16")
                u = u.astype(C.float64 if p.dtype == C.float64 else C.float32)
                if group["nesterov"]:
                    g = g.astype(u.dtype) * factor
                    if clip_value is not None:
                        g = C.clip(g, -clip_value, clip_value)
                    u = (1 - group["momentum"]) * g + group["momentum"] * u
                matrix = u.reshape((p.shape[0], -1))
                ratio = _ratio(matrix, group)
                lr = group["lr"] * ratio
                decay = group["weight_decay"] / ratio if group["decoupled"] else 0.0
                rounding = self._formats(group)[1]
                rows.append((RULES["sgd"]["index"], [p], [lr], decay, True, 0, 0.0, 0.0, 0, rounding))
                slope.append(_orthogonal(matrix, group).reshape(p.shape))
        if rows:
            self._driver.step(rows, slope, None, None, None)

    def init(self, params: Any) -> dict[str, Any]:
        """As `Optimizer.init`.

        Raises:
            ValueError: a parameter of fewer than two axes.
        """
        for leaf in flatten(params)[0]:
            if isinstance(leaf, Tensor) and leaf.ndim < 2:
                raise ValueError(
                    f"Muon: a parameter has {leaf.ndim} axes\nhelp: give vectors and numbers to another optimizer"
                )
        return super().init(params)

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """As `Optimizer.update`: a composition of recorded ops, differentiable in lr, momentum, decay and tensors."""
        unknown = set(hyper) - set(self.defaults)
        if unknown:
            raise TypeError(
                f"update: Muon has no keyword {sorted(unknown)[0]!r}\nhelp: keywords are {', '.join(self.defaults)}"
            )
        for name in ("step", "momentum_buffer"):
            if name not in state:
                raise ValueError(f"update: the state has no {name!r}\nhelp: take it from init")
        group = {**self.defaults, **hyper}
        self._refuse_formats("update", group)
        leaves, build = flatten(params)
        buffers = list(pure.align(params, state["momentum_buffer"], "momentum_buffer"))
        for i, g in enumerate(pure.align(params, grads, "grads")):
            if g is not None:
                leaves[i], buffers[i] = _pure_step(leaves[i], g, buffers[i], group)
        new = {**state, "step": C.optim_count(int(state["step"]) + 1), "momentum_buffer": build(buffers)}
        return build(leaves), new


def _pure_step(p: Tensor, g: Tensor, buffer: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    wide, momentum, decay = p.astype(buffer.dtype), group["momentum"], group["weight_decay"]
    g = g.astype(buffer.dtype)
    if not group["decoupled"]:
        g = g + decay * wide
    buffer = momentum * buffer + (1 - momentum) * g
    u = (1 - momentum) * g + momentum * buffer if group["nesterov"] else buffer
    matrix = u.reshape((p.shape[0], -1))
    x = _iterate(matrix / C.sqrt(C.maximum((matrix * matrix).sum(), group["eps"] ** 2)), group)
    if group["decoupled"]:
        wide = wide - group["lr"] * decay * wide
    return (wide - group["lr"] * _ratio(matrix, group) * x.reshape(p.shape)).astype(p.dtype), buffer


def _ratio(matrix: Tensor, group: Group) -> float:
    tall, wide = matrix.shape
    return max(1.0, tall / wide) ** 0.5 if group["adjust_lr"] == "original" else 0.2 * max(tall, wide) ** 0.5


def _orthogonal(x: Tensor, group: Group) -> Tensor:
    """Newton-Schulz: singular values of x move to about 1."""
    return _iterate(x / max(C.optim_norm([x])[0], group["eps"]), group)


def _iterate(x: Tensor, group: Group) -> Tensor:
    a, b, c = group["ns_coefficients"]
    flip = x.shape[0] > x.shape[1]
    if flip:
        x = x.T
    for _ in range(group["ns_steps"]):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if flip else x
