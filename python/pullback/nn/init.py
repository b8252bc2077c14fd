"""Initialisers: each fills a tensor in place, outside the graph, and returns it.

`rng` is a `pb.random.Generator`; None draws from the default one.
"""

from __future__ import annotations

import math
from typing import Any

import pullback as pb
from pullback import _core as C

__all__ = [
    "calculate_gain",
    "constant",
    "eye",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "ones",
    "orthogonal",
    "trunc_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]


def _fill(tensor: C.Tensor, value: Any) -> C.Tensor:
    with pb.no_grad():
        tensor.detach()[...] = value.to(tensor.device) if isinstance(value, C.Tensor) else value
    return tensor


def uniform(tensor: C.Tensor, a: float = 0.0, b: float = 1.0, rng: Any = None) -> C.Tensor:
    """Uniform in (a, b).

    Example:
        >>> w = pb.nn.init.uniform(pb.empty((2, 3)), -1.0, 1.0)
        >>> bool(pb.all(pb.abs(w) <= 1))
        True
    """
    return _fill(tensor, pb.random.uniform(tensor.shape, low=a, high=b, dtype=tensor.dtype, rng=rng))


def normal(tensor: C.Tensor, mean: float = 0.0, std: float = 1.0, rng: Any = None) -> C.Tensor:
    """Normal with the given mean and standard deviation."""
    return _fill(tensor, pb.random.normal(tensor.shape, mean=mean, std=std, dtype=tensor.dtype, rng=rng))


def constant(tensor: C.Tensor, val: float) -> C.Tensor:
    """`val` everywhere."""
    return _fill(tensor, val)


def zeros(tensor: C.Tensor) -> C.Tensor:
    """0 everywhere."""
    return _fill(tensor, 0)


def ones(tensor: C.Tensor) -> C.Tensor:
    """1 everywhere."""
    return _fill(tensor, 1)


def eye(tensor: C.Tensor) -> C.Tensor:
    """1 on the diagonal of a matrix, else 0.

    Raises:
        ShapeError: the tensor is no matrix.

    Example:
        >>> pb.nn.init.eye(pb.empty((2, 3))).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if tensor.ndim != 2:
        raise pb.ShapeError(f"init.eye: needs a matrix, got shape {tuple(tensor.shape)}\nhelp: reshape it to two axes")
    rows, columns = tensor.shape
    return _fill(tensor, pb.expand_dims(pb.arange(rows), 1) == pb.expand_dims(pb.arange(columns), 0))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor on the standard deviation that keeps the variance through a nonlinearity.

    1 for linear, convolutions and sigmoid, 5/3 for tanh, sqrt(2) for relu, sqrt(2 / (1 + slope^2)) for leaky_relu with
    slope `param` [0.01], 3/4 for selu.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> round(pb.nn.init.calculate_gain("relu"), 4)
        1.4142
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv_transpose2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3,
             "relu": math.sqrt(2), "selu": 0.75}  # fmt: skip
    if nonlinearity not in gains:
        raise ValueError(f"init: no gain known for {nonlinearity!r}\nhelp: {', '.join([*gains, 'leaky_relu'])}")
    return gains[nonlinearity]


def _fans(tensor: C.Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit: axis 1 and axis 0 times the size of the kernel."""
    if tensor.ndim < 2:
        raise pb.ShapeError(
            f"init: fan in and fan out need two axes, got shape {tuple(tensor.shape)}\nhelp: use normal or uniform"
        )
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def _kaiming(tensor: C.Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan_in, fan_out = _fans(tensor)
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"init: unknown mode {mode!r}\nhelp: 'fan_in' or 'fan_out'")
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def xavier_uniform(tensor: C.Tensor, gain: float = 1.0, rng: Any = None) -> C.Tensor:
    """Uniform within gain * sqrt(6 / (fan in + fan out)). Source: Glorot and Bengio 2010."""
    bound = gain * math.sqrt(6 / max(sum(_fans(tensor)), 1))
    return uniform(tensor, -bound, bound, rng)


def xavier_normal(tensor: C.Tensor, gain: float = 1.0, rng: Any = None) -> C.Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan in + fan out)). Source: Glorot and Bengio 2010."""
    return normal(tensor, 0.0, gain * math.sqrt(2 / max(sum(_fans(tensor)), 1)), rng)


def kaiming_uniform(
    tensor: C.Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", rng: Any = None
) -> C.Tensor:
    """Uniform within gain * sqrt(3 / fan). Source: He et al., arXiv:1502.01852.

    Args:
        a: slope of leaky_relu below 0 [0.0].
        mode: "fan_in" keeps the variance forward, "fan_out" backward.
        nonlinearity: see `calculate_gain`.
    """
    bound = math.sqrt(3) * _kaiming(tensor, a, mode, nonlinearity)
    return uniform(tensor, -bound, bound, rng)


def kaiming_normal(
    tensor: C.Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", rng: Any = None
) -> C.Tensor:
    """Normal with standard deviation gain / sqrt(fan). Arguments are those of `kaiming_uniform`."""
    return normal(tensor, 0.0, _kaiming(tensor, a, mode, nonlinearity), rng)


def _orthonormal(rows: C.Tensor) -> C.Tensor:
    """Gram-Schmidt on the rows, halves first: all but the smallest blocks are matrix products."""
    n = rows.shape[0]
    if n == 1:
        return rows / pb.norm(rows)
    top = _orthonormal(rows[: n // 2])
    rest = rows[n // 2 :]
    return pb.concat([top, _orthonormal(rest - pb.matmul(pb.matmul(rest, top.mT), top))])


def orthogonal(tensor: C.Tensor, gain: float = 1.0, rng: Any = None) -> C.Tensor:
    """A random matrix with orthonormal rows or columns, whichever are fewer, times gain.

    Axes after the first are joined.

    Source: Saxe et al., arXiv:1312.6120. The distribution is uniform over such matrices.

    Raises:
        ShapeError: fewer than two axes.

    Example:
        >>> w = pb.nn.init.orthogonal(pb.empty((3, 5)))
        >>> bool(pb.all(pb.abs(w @ w.mT - pb.eye(3)) < 1e-6))
        True
    """
    if tensor.ndim < 2:
        raise pb.ShapeError(
            f"init.orthogonal: needs two axes, got shape {tuple(tensor.shape)}\nhelp: use normal for vectors"
        )
    if tensor.size == 0:
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    with pb.no_grad():
        q = pb.random.normal((min(rows, columns), max(rows, columns)), dtype=pb.float64, rng=rng)
        q = _orthonormal(_orthonormal(q))  # the second pass removes what rounding left
        q = q.mT if rows > columns else q
        return _fill(tensor, pb.reshape(q * gain, tensor.shape))


def trunc_normal(
    tensor: C.Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, rng: Any = None
) -> C.Tensor:
    """Normal with the given mean and standard deviation, conditioned to lie in [a, b] (values, not deviations).

    One uniform number per element goes through the inverse distribution function.

    Raises:
        ValueError: std <= 0 or a >= b.

    Example:
        >>> w = pb.nn.init.trunc_normal(pb.empty(100), std=0.02, a=-0.04, b=0.04)
        >>> bool(pb.all(pb.abs(w) <= 0.04))
        True
    """
    if not std > 0 or not a < b:
        raise ValueError(f"init.trunc_normal: std {std}, a {a}, b {b}\nhelp: std must be positive and a below b")
    low, high = (a - mean) / std, (b - mean) / std
    flip = low + high > 0  # work in the lower tail, where small probabilities keep their digits
    if flip:
        low, high = -high, -low
    root2 = math.sqrt(2)
    p_low, p_high = (0.5 * math.erfc(-z / root2) for z in (low, high))
    if not p_high > p_low:
        raise ValueError(
            f"init.trunc_normal: [{a}, {b}] has no probability for mean {mean} and std {std}\n"
            "help: the interval is too far from the mean or too narrow"
        )
    with pb.no_grad():
        p = pb.random.uniform(tensor.shape, low=p_low, high=p_high, dtype=pb.float64, rng=rng)
        z = _quantile(p)
        z = -z if flip else z
        x = pb.clip(z * std + mean, a, b)
        return _fill(tensor, pb.clip(x.astype(tensor.dtype), a, b))


def _quantile(p: C.Tensor) -> C.Tensor:
    """Inverse of the normal distribution function in float64: a rough start, then three Halley steps."""
    # Winitzki's inverse error function, good to two digits; 1 - x^2 = 4 p (1 - p) without cancellation.
    a = 0.147
    log = pb.log(4 * p * (1 - p))
    t = 2 / (math.pi * a) + 0.5 * log
    z = math.sqrt(2) * pb.sign(p - 0.5) * pb.sqrt(pb.maximum(pb.sqrt(t * t - log / a) - t, pb.zeros_like(t)))
    for _ in range(3):
        error = (0.5 * pb.erfc(z * -math.sqrt(0.5)) - p) * math.sqrt(2 * math.pi) * pb.exp(0.5 * z * z)
        z = z - error / (1 + 0.5 * z * error)
    return z
