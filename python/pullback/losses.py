"""Loss functions. Each takes ``reduction="mean" | "sum" | "none"`` and is differentiable to any order."""

from __future__ import annotations

from . import _core
from ._core import ShapeError, Tensor

__all__ = [
    "bce_with_logits",
    "cosine_embedding",
    "cross_entropy",
    "hinge",
    "huber",
    "kl_div",
    "l1",
    "mse",
    "nll",
    "smooth_l1",
]


def _same_shape(op: str, x: Tensor, target: Tensor) -> None:
    """Silent broadcasting of (n, 1) against (n,) is a usual mistake, so only a 0-d operand may differ."""
    if getattr(x, "ndim", 0) and getattr(target, "ndim", 0) and x.shape != target.shape:
        raise ShapeError(
            f"{op}: input and target differ in shape (got {tuple(x.shape)} and {tuple(target.shape)})\n"
            "help: reshape or broadcast one of them first"
        )


def _reduce(op: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return _core.mean(loss)
    if reduction == "sum":
        return _core.sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(
        f"{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}\nhelp: 'none' returns one loss per element"
    )


def mse(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Mean squared error, ``(input - target) ** 2`` over tensors of one shape.

    >>> import pullback as pb
    >>> float(pb.losses.mse(pb.tensor([1.0, 2.0]), pb.tensor([0.0, 0.0])))
    2.5
    """
    _same_shape("mse", input, target)
    return _reduce("mse", _core._squared_error(input, target), reduction)


def l1(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Mean absolute error, ``|input - target|``; its derivative is 0 where they are equal.

    >>> import pullback as pb
    >>> float(pb.losses.l1(pb.tensor([1.0, -2.0]), pb.tensor([0.0, 0.0])))
    1.5
    """
    _same_shape("l1", input, target)
    return _reduce("l1", _core._absolute_error(input, target), reduction)


def huber(input: Tensor, target: Tensor, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Huber's loss of d = input - target: ``d*d/2`` for ``|d| <= delta``, else ``delta * (|d| - delta/2)``.

    ``delta`` must be positive (ValueError otherwise).

    >>> import pullback as pb
    >>> float(pb.losses.huber(pb.tensor([3.0]), pb.tensor([0.0])))
    2.5
    """
    if not delta > 0:
        raise ValueError(f"huber: delta must be positive, got {delta}\nhelp: it is where the loss becomes linear")
    _same_shape("huber", input, target)
    return _reduce("huber", _core._huber(input, target, delta=delta), reduction)


def smooth_l1(input: Tensor, target: Tensor, *, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """``d*d / (2*beta)`` for ``|d| < beta``, else ``|d| - beta/2``, of d = input - target; beta = 0 is ``l1``.

    ``beta`` must not be negative (ValueError otherwise).

    >>> import pullback as pb
    >>> float(pb.losses.smooth_l1(pb.tensor([0.5]), pb.tensor([0.0])))
    0.125
    """
    if not beta >= 0:
        raise ValueError(f"smooth_l1: beta must not be negative, got {beta}\nhelp: 0 gives the absolute error")
    if beta == 0:
        return l1(input, target, reduction=reduction)
    _same_shape("smooth_l1", input, target)
    return _reduce("smooth_l1", _core._smooth_l1(input, target, beta=beta), reduction)


def nll(
    log_probs: Tensor,
    target: Tensor,
    *,
    axis: int = -1,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of integer classes: ``-weight[t] * log_probs[..., t]``.

    ``target`` has the shape of ``log_probs`` without ``axis``; ``weight`` has shape (classes,). The mean divides by the
    total weight of the counted rows, and is 0 when all rows are ignored. A class out of range is an IndexError.

    >>> import pullback as pb
    >>> float(pb.losses.nll(pb.tensor([[-0.5, -1.0]]), pb.tensor([0])))
    0.5
    """
    return _core._nll(log_probs, target, axis, weight, ignore_index, 0.0, reduction)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    axis: int = -1,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross entropy of ``softmax(logits)`` along ``axis`` and a target.

    ``target`` holds integer classes (the shape of ``logits`` without ``axis``) or probabilities (the shape of
    ``logits``). For images (N, C, H, W) pass ``axis=1``. ``weight`` (classes,) scales each class; rows whose target is
    ``ignore_index`` count nothing; ``label_smoothing`` in [0, 1] mixes the target with the uniform distribution. The
    mean divides by the total weight of the counted rows (by the number of rows for probabilities); all rows ignored
    gives 0. A class out of range is an IndexError that names its position.

    >>> import pullback as pb
    >>> round(float(pb.losses.cross_entropy(pb.tensor([[2.0, 0.0]]), pb.tensor([0]))), 4)
    0.1269
    """
    return _core._cross_entropy(logits, target, axis, weight, ignore_index, label_smoothing, reduction)


def bce_with_logits(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross entropy of ``sigmoid(logits)`` and targets in [0, 1], finite for every finite logit.

    ``weight`` scales each element's loss, ``pos_weight`` the part of the positive class; both broadcast.

    >>> import pullback as pb
    >>> round(float(pb.losses.bce_with_logits(pb.tensor([0.0]), pb.tensor([1.0]))), 4)
    0.6931
    """
    _same_shape("bce_with_logits", logits, target)
    logits, target, weight, pos_weight = _core._autocast("losses.bce_with_logits", logits, target, weight, pos_weight)
    if pos_weight is None:
        loss = _core._bce_with_logits(logits, target)
    else:
        loss = (1 - target) * logits + (1 + (pos_weight - 1) * target) * _core.softplus(-logits, threshold=40.0)
    return _reduce("bce_with_logits", loss if weight is None else loss * weight, reduction)


def kl_div(input: Tensor, target: Tensor, *, log_target: bool = False, reduction: str = "mean") -> Tensor:
    """Kullback-Leibler divergence, element by element: ``target * (log(target) - input)``.

    ``input`` holds log-probabilities, ``target`` probabilities, or log-probabilities with ``log_target=True``.
    ``reduction="batchmean"`` divides the sum by the length of the first axis, the divergence per row; "mean" divides
    by the number of elements, as PyTorch does.

    >>> import pullback as pb
    >>> round(float(pb.losses.kl_div(pb.tensor([-1.0]), pb.tensor([1.0]), reduction="sum")), 4)
    1.0
    """
    _same_shape("kl_div", input, target)
    input, target = _core._autocast("losses.kl_div", input, target)
    loss = _core.exp(target) * (target - input) if log_target else _core._kl_div(input, target)
    if reduction == "batchmean":
        return _core.sum(loss) / (loss.shape[0] if loss.ndim else 1)
    return _reduce("kl_div", loss, reduction)


def hinge(scores: Tensor, target: Tensor, *, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """Hinge loss ``max(0, margin - target * scores)`` with targets -1 and 1.

    >>> import pullback as pb
    >>> float(pb.losses.hinge(pb.tensor([0.5, 2.0]), pb.tensor([1.0, 1.0])))
    0.25
    """
    _same_shape("hinge", scores, target)
    scores, target = _core._autocast("losses.hinge", scores, target)
    return _reduce("hinge", _core.relu(margin - target * scores), reduction)


def cosine_embedding(x1: Tensor, x2: Tensor, target: Tensor, *, margin: float = 0.0, reduction: str = "mean") -> Tensor:
    """``1 - cos(x1, x2)`` where target is 1, ``max(0, cos(x1, x2) - margin)`` where it is -1.

    ``x1`` and ``x2`` have shape (..., width), ``target`` the shape without the last axis.

    >>> import pullback as pb
    >>> a, b = pb.tensor([[1.0, 0.0]]), pb.tensor([[0.0, 1.0]])
    >>> round(float(pb.losses.cosine_embedding(a, b, pb.tensor([1]))), 4)
    1.0
    """
    _same_shape("cosine_embedding", x1, x2)
    x1, x2, target = _core._autocast("losses.cosine_embedding", x1, x2, target)
    tiny = 1e-12  # keeps the derivative of the root finite at the zero vector
    dot = _core.sum(x1 * x2, -1)
    square = (_core.sum(x1 * x1, -1) + tiny) * (_core.sum(x2 * x2, -1) + tiny)
    cos = dot / _core.sqrt(square)
    _same_shape("cosine_embedding", cos, target)
    apart = _core.relu(cos - margin)
    zero = cos * 0
    loss = _core.where(target == 1, 1 - cos, _core.where(target == -1, apart, zero))
    return _reduce("cosine_embedding", loss, reduction)
