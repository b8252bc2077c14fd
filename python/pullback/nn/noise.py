"""Layers of reduced precision and analog noise: what hardware adds, and activations that stand it.

Put `pb.clip(x, -1, 1)`, `ReducePrecision` and `GaussianNoise` before a layer and on its weight, and the noise first
after it: a model trained so keeps its accuracy on low-precision analog hardware.
"""

from __future__ import annotations

import operator
from statistics import NormalDist
from typing import Any

import pullback as pb
from pullback import _core as C
from pullback.nn.module import Module


def _steps(kind: str, bits: Any) -> int:
    """2**bits - 1, the number of steps between 0 and 1."""
    bits = operator.index(bits)
    if not 1 <= bits <= 24:
        raise ValueError(f"{kind}: bits must be 1 to 24, got {bits}\nhelp: a float32 holds 24 bits")
    return 2**bits - 1


class ReducePrecision(Module):
    """Rounds to multiples of 1 / p with p = 2**bits - 1: sign(x) * ceil(|p x| - 1/2) / p; its derivative is 1.

    Halves go towards 0. Stochastic rounding takes the multiple above or below with the probability that makes the mean
    x. The gradient passes straight through, also in forward mode and at any order. Values are not limited: clip them
    before. Infinite values become NaN.

    Args:
        bits: 1 to 24.
        stochastic: round at random [False].

    Set the attribute `_rng` to a `pb.random.Generator` to draw from it instead of the default one.

    Raises:
        ValueError: bits outside 1 .. 24.

    Example:
        >>> pb.nn.ReducePrecision(1)(pb.tensor([0.5, -0.75, 1.0])).tolist()
        [0.0, -1.0, 1.0]
    """

    _rng: Any = None

    def __init__(self, bits: int, stochastic: bool = False) -> None:
        self._p = _steps("ReducePrecision", bits)
        self.bits, self.stochastic = bits, stochastic

    def forward(self, x: Any) -> C.Tensor:
        plain = pb.stop_gradient(x)
        wide = plain if plain.dtype == pb.float64 else plain.astype(pb.float32)
        steps = pb.abs(wide) * self._p
        if self.stochastic:
            low = pb.floor(steps)
            up = pb.random.uniform(wide.shape, dtype=wide.dtype, device=wide.device, rng=self._rng) < steps - low
            steps = low + up.astype(wide.dtype)
        else:
            steps = pb.ceil(steps - 0.5)
        rounded = (pb.sign(wide) * steps / self._p).astype(plain.dtype)
        return rounded + (x - plain)  # exactly `rounded`, with the derivative of x

    def extra_repr(self) -> str:
        return f"bits={self.bits}, stochastic={self.stochastic}"


class GaussianNoise(Module):
    """Adds normal noise so strong that a share `leakage` of the values leaves its half step; its derivative is 1.

    The standard deviation `std` is 1 / (2 sqrt(2) p erfinv(1 - leakage)) with p = 2**bits - 1: the probability that
    |noise| exceeds half a step, 1 / (2 p), is `leakage`. The noise belongs to the machine, so it is there in eval mode
    too.

    Args:
        leakage: in (0, 1).
        bits: 1 to 24, those of the `ReducePrecision` beside it.

    Set the attribute `_rng` to a `pb.random.Generator` to draw from it instead of the default one.

    Raises:
        ValueError: leakage outside (0, 1), bits outside 1 .. 24.

    Example:
        >>> round(pb.nn.GaussianNoise(0.5, 4).std, 6)
        0.04942
    """

    _rng: Any = None

    def __init__(self, leakage: float, bits: int) -> None:
        if not 0 < leakage < 1:
            raise ValueError(
                f"GaussianNoise: leakage must lie between 0 and 1, got {leakage}\n"
                "help: it is the probability that noise moves a value out of its half step"
            )
        self.leakage, self.bits = leakage, bits
        # erfinv(1 - l) = quantile(1 - l / 2) / sqrt(2)
        self.std = -1 / (2 * _steps("GaussianNoise", bits) * NormalDist().inv_cdf(leakage / 2))

    def forward(self, x: Any) -> C.Tensor:
        return x + pb.random.normal(x.shape, std=self.std, dtype=x.dtype, device=x.device, rng=self._rng)

    def extra_repr(self) -> str:
        return f"leakage={self.leakage}, bits={self.bits}"


class RectifierBlend(Module):
    """(1 - i) * leaky_relu(x) + i * x * Phi(s x): from the rectifier (i = 0) to GELU (i = 1, s = 1).

    For i < 1 the derivative jumps at 0, by 1 - i of the rectifier's jump.

    Args:
        i: share of the smooth function, in [0, 1].
        s: sharpness of the smooth function, positive.
        alpha: slope of the rectifier for x < 0.

    Raises:
        ValueError: i outside [0, 1], s not positive.

    Example:
        >>> pb.nn.RectifierBlend(0.0, 1.0, 0.5)(pb.tensor([-2.0, 3.0])).tolist()
        [-1.0, 3.0]
    """

    def __init__(self, i: float, s: float, alpha: float) -> None:
        if not 0 <= i <= 1:
            raise ValueError(
                f"RectifierBlend: i must be in [0, 1], got {i}\nhelp: it is the share of the smooth function"
            )
        if not 0 < s < float("inf"):
            raise ValueError(f"RectifierBlend: s must be positive and finite, got {s}\nhelp: 1 gives GELU")
        self.i, self.s, self.alpha = i, s, alpha

    def forward(self, x: Any) -> C.Tensor:
        smooth = pb.gelu(x) if self.s == 1 else pb.gelu(x * self.s) / self.s
        return (1 - self.i) * pb.leaky_relu(x, negative_slope=self.alpha) + self.i * smooth

    def extra_repr(self) -> str:
        return f"i={self.i}, s={self.s}, alpha={self.alpha}"
