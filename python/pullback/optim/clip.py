"""Clipping of `.grad` outside a step. Inside one, `step(clip_norm=)` costs no second pass."""

from __future__ import annotations

from collections.abc import Iterable

from .. import _core as C
from .._core import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def _grads(params: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [params] if isinstance(params, Tensor) else list(params)
    return [p.grad for p in tensors if p.grad is not None]


def clip_grad_norm_(params: Tensor | Iterable[Tensor], max_norm: float, *, error_if_nonfinite: bool = False) -> float:
    """Scales all gradients in place so that their common 2-norm is at most `max_norm`.

    The factor is min(1, max_norm / (norm + 1e-6)). The norm is added in float64.

    Returns:
        The norm before clipping; 0.0 without gradients.

    Raises:
        ValueError: max_norm is not positive.
        GraphError: the norm is not finite and `error_if_nonfinite` is True; nothing is changed.

    >>> p = pb.tensor([3.0, 4.0]); p.grad = pb.tensor([3.0, 4.0])
    >>> pb.optim.clip_grad_norm_([p], 10.0)
    5.0
    """
    if not max_norm > 0:
        raise ValueError(
            f"clip_grad_norm_: max_norm must be positive, got {max_norm}\nhelp: leave the call out instead"
        )
    grads = _grads(params)
    norm: float
    norm, finite = C.optim_norm(grads)
    if error_if_nonfinite and not finite:
        raise C.GraphError("clip_grad_norm_: a gradient is not finite\nhelp: skip the step, or lower the loss scale")
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:
        C.optim_scale(grads, factor)
    return norm


def clip_grad_value_(params: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limits every element of every gradient to [-clip_value, clip_value], in place; NaN stays.

    Raises:
        ValueError: clip_value is not positive.
    """
    if not clip_value > 0:
        raise ValueError(f"clip_grad_value_: clip_value must be positive, got {clip_value}\nhelp: leave the call out")
    C.optim_limit(_grads(params), clip_value)
