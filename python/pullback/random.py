"""Random tensors from a counter-based generator: the same bits for any number of threads.

Every function takes `dtype` (None: float32, or int64 for integers), `device` and `rng`, a `Generator`; None draws
from the default one, which `pb.manual_seed` starts anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pullback import _core as C
from pullback._core import Generator, default_generator, manual_seed

__all__ = [
    "Generator",
    "bernoulli",
    "categorical",
    "default_generator",
    "exponential",
    "gumbel",
    "manual_seed",
    "normal",
    "permutation",
    "randint",
    "uniform",
]

Shape = int | Sequence[int]


def _floating(op: str, dtype: Any) -> Any:
    if dtype is None:
        return C.float32
    if not isinstance(dtype, C.dtype) or not dtype.is_floating:
        raise C.DTypeError(f"random.{op}: draws are floating, got dtype {dtype!r}\nhelp: cast afterwards with .astype")
    return dtype


def _finite(op: str, **values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"random.{op}: {name} must be finite, got {value}\nhelp: pass a finite number")


def normal(
    shape: Shape = (), *, mean: float = 0.0, std: float = 1.0, dtype: Any = None, device: Any = None, rng: Any = None
) -> C.Tensor:
    """Normal numbers with the given mean and standard deviation (std >= 0).

    Raises:
        ValueError: std is negative or a number is not finite.
        DTypeError: the dtype is not floating.

    Example:
        >>> pb.random.normal((2, 3), rng=pb.random.Generator(1)).shape
        (2, 3)
    """
    _finite("normal", mean=mean, std=std)
    if std < 0:
        raise ValueError(f"random.normal: std must not be negative, got {std}\nhelp: pass std >= 0")
    return C.draw_normal(shape, mean, std, _floating("normal", dtype), rng, device)


def uniform(
    shape: Shape = (), *, low: float = 0.0, high: float = 1.0, dtype: Any = None, device: Any = None, rng: Any = None
) -> C.Tensor:
    """Uniform numbers between low and high; neither 0 nor 1 occurs with the default bounds.

    Raises:
        ValueError: high is below low or a number is not finite.
        DTypeError: the dtype is not floating.

    Example:
        >>> x = pb.random.uniform(100, low=2.0, high=3.0)
        >>> bool(pb.all(x >= 2)), bool(pb.all(x <= 3))
        (True, True)
    """
    _finite("uniform", low=low, high=high)
    if high < low:
        raise ValueError(
            f"random.uniform: high {high} is below low {low}\nhelp: numbers are drawn between low and high"
        )
    return C.draw_uniform(shape, low, high, _floating("uniform", dtype), rng, device)


def exponential(
    shape: Shape = (), *, rate: float = 1.0, dtype: Any = None, device: Any = None, rng: Any = None
) -> C.Tensor:
    """Exponential numbers of the given rate: density rate * exp(-rate * x).

    Raises:
        ValueError: the rate is not positive and finite.
        DTypeError: the dtype is not floating.

    Example:
        >>> bool(pb.all(pb.random.exponential(10) > 0))
        True
    """
    _finite("exponential", rate=rate)
    if rate <= 0:
        raise ValueError(f"random.exponential: rate must be positive, got {rate}\nhelp: the mean is 1 / rate")
    return C.draw_exponential(shape, rate, 0.0, _floating("exponential", dtype), rng, device)


def gumbel(
    shape: Shape = (), *, loc: float = 0.0, scale: float = 1.0, dtype: Any = None, device: Any = None, rng: Any = None
) -> C.Tensor:
    """Gumbel numbers, loc - scale * log(-log(u)).

    Raises:
        ValueError: the scale is negative or a number is not finite.
        DTypeError: the dtype is not floating.

    Example:
        >>> pb.random.gumbel(4).shape
        (4,)
    """
    _finite("gumbel", loc=loc, scale=scale)
    if scale < 0:
        raise ValueError(f"random.gumbel: scale must not be negative, got {scale}\nhelp: pass scale >= 0")
    return C.draw_gumbel(shape, loc, scale, _floating("gumbel", dtype), rng, device)


def randint(
    low: int, high: int, shape: Shape = (), *, dtype: Any = None, device: Any = None, rng: Any = None
) -> C.Tensor:
    """Integers from [low, high), all equally likely up to 2^-64 * (high - low).

    Raises:
        ValueError: high is not above low.
        DTypeError: the dtype is not an integer type.

    Example:
        >>> x = pb.random.randint(0, 6, 100)
        >>> int(pb.min(x)) >= 0, int(pb.max(x)) <= 5
        (True, True)
    """
    return C.draw_randint(low, high, shape, C.int64 if dtype is None else dtype, rng, device)


def permutation(n: int, *, dtype: Any = None, device: Any = None, rng: Any = None) -> C.Tensor:
    """The integers 0 to n - 1 in random order, every order equally likely.

    Raises:
        ShapeError: n is negative.

    Example:
        >>> sorted(pb.random.permutation(4).tolist())
        [0, 1, 2, 3]
    """
    order = C.draw_permutation(n, rng, device)
    return order if dtype is None else order.astype(dtype)


def bernoulli(
    p: Any = 0.5, shape: Shape | None = None, *, dtype: Any = None, device: Any = None, rng: Any = None
) -> C.Tensor:
    """True with probability p.

    Args:
        p: a number or a tensor of probabilities.
        shape: of the result; None takes the shape of p.
        dtype: of the result; None takes bool.

    Raises:
        ValueError: a probability outside [0, 1] or NaN.
        ShapeError: p does not broadcast to the shape.

    Example:
        >>> pb.random.bernoulli(1.0, 3).tolist()
        [True, True, True]
    """
    p = C.asarray(p, device=device).detach()
    if not p.dtype.is_floating:
        p = p.astype(C.float32)
    if not bool(C.all(C.logical_and(p >= 0, p <= 1))):
        raise ValueError("random.bernoulli: a probability is outside [0, 1] or NaN\nhelp: use sigmoid on logits")
    if shape is not None:
        p = C.broadcast_to(p, shape)
    return C._bernoulli(p, rng=rng).astype(C.bool if dtype is None else dtype)


def categorical(
    logits: Any, axis: int = -1, shape: Shape | None = None, *, dtype: Any = None, device: Any = None, rng: Any = None
) -> C.Tensor:
    """Indices along `axis` drawn with probabilities softmax(logits), by the Gumbel trick in float64.

    Args:
        logits: unnormalised log probabilities; -inf is never drawn.
        axis: the axis of the categories [-1].
        shape: of the result; it ends with the shape of logits without `axis`. None takes just that.
        dtype: of the result; None takes int64.

    Raises:
        ValueError: a row holds NaN or +inf, or nothing but -inf.
        ShapeError: there are no categories, or the shape does not end as it must.

    Example:
        >>> pb.random.categorical(pb.tensor([[0.0, -float("inf")], [-float("inf"), 0.0]])).tolist()
        [0, 1]
    """
    logits = C.asarray(logits, device=device).detach().astype(C.float64)
    if not -logits.ndim <= axis < logits.ndim or logits.shape[axis] == 0:
        raise C.ShapeError(
            f"random.categorical: logits of shape {tuple(logits.shape)} have no categories on axis {axis}\n"
            "help: the axis must exist and not be empty"
        )
    logits = C.moveaxis(logits, axis, -1)
    batch = tuple(logits.shape[:-1])
    out = batch if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
    if out[len(out) - len(batch) :] != batch:
        raise C.ShapeError(
            f"random.categorical: shape {out} does not end with {batch}\nhelp: extra axes go in front of the batch axes"
        )
    if not bool(C.all(C.isfinite(C.max(logits, axis=-1)))):
        raise ValueError(
            "random.categorical: a row holds NaN or +inf, or nothing but -inf\n"
            "help: every row needs a finite largest logit"
        )
    noise = C.draw_gumbel((*out, logits.shape[-1]), 0.0, 1.0, C.float64, rng, logits.device)
    index = C.argmax(logits + noise, axis=-1)
    return index if dtype is None else index.astype(dtype)
