"""Functions that are several ops in one: fewer passes over memory, fewer tensors kept for backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _core as C
from ._core import Tensor

__all__ = ["add_rms_norm", "bias_act_dropout", "gelu_mul", "linear_act", "linear_cross_entropy", "silu_mul"]


def _name(act: str | Callable[..., Any], op: str) -> str:
    name = act if isinstance(act, str) else getattr(act, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f'{op}: act must be a name or a function, got {type(act).__name__}\nhelp: for example "gelu"')
    return name


def bias_act_dropout(
    x: Any, bias: Any, act: str | Callable[..., Any], p: float = 0.0, *, training: bool = True, rng: Any = None,
    saved: Any = None,
) -> Tensor:  # fmt: skip
    """dropout(act(x + bias), p) in one pass over memory.

    Args:
        x: Floats of any shape.
        bias: Broadcasts to the shape of x, usually (width,); None adds nothing.
        act: An activation of the registry, by name or as the function, with its default parameters.
        p: The probability that an element becomes 0; the others are divided by 1 - p. In [0, 1).
        training: False turns the dropout off.
        rng: The generator of the mask, which backward draws again; None takes the default one.
        saved: What backward keeps: None, "input", or 1 to 8 bits or a `fewbit.Code` for a code of the derivative.

    Raises:
        ShapeError: bias does not broadcast to x.
        ValueError: p is outside [0, 1), or act is not an activation.

    Example:
        >>> pb.bias_act_dropout(pb.ones((2, 3)), pb.zeros(3), "relu").tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    return C._bias_act_dropout(x, bias, _name(act, "bias_act_dropout"), float(p) if training else 0.0, rng, saved)


def linear_act(x: Any, weight: Any, bias: Any, act: str | Callable[..., Any], *, saved: Any = None) -> Tensor:
    """act(linear(x, weight, bias)): x (..., in), weight (out, in), bias (out,) or None -> (..., out).

    Args:
        act: An activation of the registry, by name or as the function, with its default parameters.
        saved: What backward keeps of the activation, as for the activation itself.

    Raises:
        ShapeError: the sizes do not fit.
        ValueError: act is not an activation.

    Example:
        >>> pb.linear_act(pb.ones((5, 3)), pb.ones((2, 3)), None, pb.silu).shape
        (5, 2)
    """
    return C._linear_act(x, weight, bias, _name(act, "linear_act"), saved)


def _block_bits(op: str, saved: Any) -> int:
    if saved is None:
        return 0
    if isinstance(saved, str) and saved == "input":
        return -1
    if isinstance(saved, int) and not isinstance(saved, bool) and 1 <= saved <= 8:
        return 4 if saved <= 4 else 8
    raise ValueError(f"{op}: saved= takes None, 'input' or 1 to 8 bits, got {saved!r}\nhelp: 4 and 8 are what is kept")


def silu_mul(a: Any, b: Any, *, saved: Any = None) -> Tensor:
    """silu(a) * b, in one pass; backward keeps a and b and makes the rest anew.

    Args:
        a, b: Floats; they broadcast.
        saved: An int up to 4 keeps both in 4.5 bits a number, up to 8 in 8.25, rounded without bias (both gradients
            need both factors, so there is no code of a derivative here); None and "input" keep them exactly.

    Raises:
        ValueError: saved is none of these.

    Example:
        >>> pb.silu_mul(pb.zeros(2), pb.ones(2)).tolist()
        [0.0, 0.0]
    """
    return C._gated("silu_mul", a, b, _block_bits("silu_mul", saved))


def gelu_mul(a: Any, b: Any, *, saved: Any = None) -> Tensor:
    """gelu(a) * b, in one pass; arguments as for `silu_mul`.

    Example:
        >>> pb.gelu_mul(pb.zeros(2), pb.ones(2)).tolist()
        [0.0, 0.0]
    """
    return C._gated("gelu_mul", a, b, _block_bits("gelu_mul", saved))


def linear_cross_entropy(
    x: Any, weight: Any, target: Any, bias: Any = None, *, ignore_index: int | None = None,
    label_smoothing: float = 0.0, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """losses.cross_entropy(linear(x, weight, bias), target) without the matrix of logits.

    The logits exist for a block of rows at a time. With reduction "mean" or "sum" the gradients are written in the
    forward pass and kept (the sizes of x, weight and bias); with "none" backward computes the logits once more.

    Args:
        x: (..., in).
        weight: (classes, in).
        target: Integer classes of shape (...).
        bias: (classes,) or None.
        ignore_index: Rows of this class do not count [None].
        label_smoothing: The part of the probability that is spread over all classes [0.0].
        reduction: "mean" over the rows that count, "sum" or "none".

    Raises:
        ShapeError: the sizes do not fit.
        IndexError: a class is outside [0, classes).
        DTypeError: the target is not of integers.
        ValueError: label_smoothing or reduction is unknown.

    Example:
        >>> round(pb.linear_cross_entropy(pb.ones((2, 3)), pb.zeros((4, 3)), pb.asarray([0, 1])).item(), 4)
        1.3863
    """
    return C._linear_cross_entropy(x, weight, target, bias, ignore_index, float(label_smoothing), reduction)


def add_rms_norm(x: Any, residual: Any, weight: Any = None, *, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """(rms_norm(s, weight), s) with s = x + residual, the new residual.

    Args:
        x, residual: (..., width).
        weight: (width,) or None.
        eps: Added to the mean square [1e-6].

    Example:
        >>> y, s = pb.add_rms_norm(pb.ones((1, 2)), pb.ones((1, 2)))
        >>> [round(v, 4) for v in y.tolist()[0]], s.tolist()
        ([1.0, 1.0], [[2.0, 2.0]])
    """
    s = C.add(x, residual)
    return C.rms_norm(s, weight, eps=eps), s
