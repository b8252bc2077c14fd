"""Tables that stand in for a derivative: solved for any function, shipped for the activations."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import pairwise
from typing import Any

from .. import _core as C
from .._core import Tensor
from .sampling import vectorised

SCHEMES = ("interval", "folded", "value", "minimax", "unbiased", "jet")


@dataclass(frozen=True)
class Table:
    """A piecewise constant stand-in for a derivative g, coded with `bits` bits.

    x lies in piece number `sum(x > s for s in boundaries)`; `codes[piece]` is its label, and `levels[label]` stands for
    g(x). The outer pieces are half lines. Where a boundary sits at a jump of g, the jump point itself goes to the side
    whose level is nearer g there. Labels are Gray codes, so that a boundary between neighbouring levels flips one bit.

    Attributes:
        bits: Bits per code.
        scheme: How it was made, see `solve`.
        boundaries: Ascending numbers. Empty for scheme "unbiased".
        codes: One label per piece, `len(boundaries) + 1` of them, each in 0 .. 2**bits - 1.
        levels: `2**bits` numbers by label. Labels that no piece uses repeat a neighbour's.
        error: The integral of w(x) * (levels - g(x))**2 over the domain (unbiased: of the variance). The weight w is 1
            for "uniform", the density of N(0, 1) for "normal" and of the sample for a histogram.
        max_error: The largest |levels - g(x)| over every float32 x; inf where g is not
            finite or keeps oscillating beyond the domain.
        second: For scheme "jet" the levels of g', by label; else empty.
        second_error: For scheme "jet" the integral of w(x) * (second - g'(x))**2.
    """

    bits: int
    scheme: str
    boundaries: tuple[float, ...]
    codes: tuple[int, ...]
    levels: tuple[float, ...]
    error: float
    max_error: float
    second: tuple[float, ...] = ()
    second_error: float = 0.0

    def __post_init__(self) -> None:
        for name in ("boundaries", "codes", "levels", "second"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        pieces, labels = len(self.boundaries) + 1, 2**self.bits
        if len(self.codes) != pieces or len(self.levels) != labels or len(self.second) not in (0, labels):
            raise ValueError(
                f"Table: {pieces - 1} boundaries, {len(self.codes)} codes, {len(self.levels)} levels, "
                f"{len(self.second)} second levels at {self.bits} bits\n"
                "help: one code per piece, 2**bits levels, as many second levels or none"
            )
        if not all(0 <= c < labels for c in self.codes):
            raise ValueError(
                f"Table: a code lies outside 0 .. {labels - 1}\nhelp: codes are labels of {self.bits} bits"
            )
        ascending = all(a < b for a, b in pairwise(self.boundaries))
        if not ascending or not all(map(math.isfinite, self.boundaries)):
            raise ValueError("Table: boundaries must be finite and ascend\nhelp: sort them")

    def __call__(self, x: Any) -> Tensor:
        """The level of each x, float64, of x's shape; NaN has the level of the first piece.

        Raises:
            ValueError: scheme "unbiased", whose levels are drawn at random.
        """
        if self.scheme == "unbiased":
            raise ValueError("Table: an unbiased code is random\nhelp: only its mean is a function of x")
        x = C.asarray(x).astype(C.float64)
        y = C.full_like(x, self.levels[self.codes[0]])
        for s, c in zip(self.boundaries, self.codes[1:], strict=True):
            y = C.where(x > s, self.levels[c], y)
        return y

    def to_json(self) -> str:
        """The table as JSON text; `Table.from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Table:
        """The table that `to_json` wrote."""
        return cls(**json.loads(text))

    def __repr__(self) -> str:
        return (
            f"Table({self.scheme}, {self.bits} bits, {len(self.boundaries)} boundaries, "
            f"error={self.error:.4g}, max_error={self.max_error:.4g})"
        )


def solve(
    derivative: Callable[..., Any],
    bits: int,
    *,
    weight: Any = "normal",
    domain: tuple[float, float] = (-10, 10),
    breakpoints: Sequence[float] = (),
    scheme: str = "value",
) -> Table:
    """The best table of `2**bits` levels for a derivative g: exact dynamic programming, then Newton's method.

    Schemes:
        "interval": `2**bits` intervals with a level each, least weighted squared error.
        "folded": intervals of |x|, for an even g.
        "value": `2**bits` levels, each used on any union of intervals; never worse than "interval" and "folded".
        "minimax": levels such that |level - g(x)| <= (max g - min g) / 2**(bits + 1) for every x. Ignores the weight.
        "unbiased": levels for random rounding, whose mean is g(x); least weighted variance.
        "jet": intervals with levels for g and for g', least sum of both weighted squared errors: for second order.

    Args:
        derivative: g, called with a float64 tensor of shape (n,) in the domain and, up to 3.4e38, beyond it. A
            function of NumPy arrays or of one float also works. It is seen at 32,000 points of the domain; where it is
            not finite beyond, or keeps oscillating, `max_error` is inf.
        bits: 1 to 8.
        weight: How likely inputs are: "normal" (N(0, 1)), "uniform" (1), a function like `derivative`, or a histogram
            `(counts, edges)` of real inputs. The weight is zero outside the domain.
        domain: (low, high), where the error is weighted. A histogram widens it to its edges.
        breakpoints: Ascending points inside the domain where g has a jump or a kink. Without them a table is right,
            but a little less than optimal.
        scheme: One of the above.

    Raises:
        ValueError: bits outside 1 .. 8, an empty domain, breakpoints that do not ascend or lie outside, a derivative
            that is not finite in the domain, a weight that is negative, NaN or zero everywhere, an unknown scheme or
            weight, "folded" of a function that is not even, "minimax" or "unbiased" of one that does not settle
            beyond the domain.
        TypeError: derivative or weight is no function that can be evaluated.

    Example:
        >>> import pullback as pb
        >>> t = pb.fewbit.solve(lambda x: 1 - pb.tanh(x) ** 2, 1)
        >>> [round(s, 4) for s in t.boundaries], t.codes, [round(y, 4) for y in t.levels]
        ([-0.7904, 0.7904], (0, 1, 0), [0.2869, 0.8455])
    """
    low, high = _pair(domain)
    heights: list[float] = []
    edges: list[float] = []
    if isinstance(weight, (tuple, list)):
        heights, edges = _histogram(weight)
        low, high = min(low, edges[0]), max(high, edges[-1])
    elif isinstance(weight, str):
        if weight not in ("normal", "uniform"):
            raise ValueError(
                f"fewbit.solve: no weight is called {weight!r}\n"
                "help: 'normal', 'uniform', a function or a histogram (counts, edges)"
            )
    elif callable(weight):
        weight = vectorised(weight, "weight", low, high)
    else:
        raise TypeError(
            f"fewbit.solve: weight is a {type(weight).__name__}\n"
            "help: 'normal', 'uniform', a function or a histogram (counts, edges)"
        )
    bits = operator.index(bits)
    found = C.fewbit_solve(
        derivative=vectorised(derivative, "derivative", low, high),
        weight=None if edges else weight,
        bits=max(min(bits, 2**62), -(2**62)),
        scheme=scheme,
        lo=low,
        hi=high,
        breakpoints=[float(b) for b in breakpoints],
        heights=heights,
        edges=edges,
    )
    boundaries, codes, levels, second, error, second_error, max_error = found
    return Table(bits, scheme, boundaries, codes, levels, error, max_error, second, second_error)


def _pair(domain: Any) -> tuple[float, float]:
    try:
        low, high = domain
        return float(low), float(high)
    except (TypeError, ValueError):
        raise ValueError(f"fewbit.solve: domain is {domain!r}\nhelp: domain=(low, high) with low < high") from None


def _histogram(weight: Sequence[Any]) -> tuple[list[float], list[float]]:
    """Densities and edges of (counts, edges), checked."""
    try:
        counts, edges = ([float(v) for v in part] for part in weight)
    except (TypeError, ValueError):
        raise ValueError("fewbit.solve: the histogram is not two lists of numbers\nhelp: see numpy.histogram") from None
    if len(edges) != len(counts) + 1 or not counts:
        raise ValueError(
            f"fewbit.solve: a histogram has one edge more than counts, got {len(counts)} and {len(edges)}\n"
            "help: weight=(counts, edges), as numpy.histogram returns them"
        )
    widths = [b - a for a, b in pairwise(edges)]
    if not all(0 < w < math.inf for w in widths):
        raise ValueError(
            "fewbit.solve: the edges of the histogram must be finite and ascend\nhelp: see numpy.histogram"
        )
    if not all(0 <= c < math.inf for c in counts):
        raise ValueError(
            "fewbit.solve: the counts of the histogram must be finite and not negative\nhelp: see numpy.histogram"
        )
    total = sum(counts)
    if not 0 < total < math.inf:
        raise ValueError("fewbit.solve: the histogram is empty\nhelp: see numpy.histogram")
    return [c / total / w for c, w in zip(counts, widths, strict=True)], edges


# ---- activations

#: Where the derivative of each activation has a jump or a kink, from its constants in order.
BREAKPOINTS: dict[str, Callable[..., tuple[float, ...]]] = {
    "relu": lambda: (0.0,),
    "leaky_relu": lambda slope: (0.0,),
    "relu6": lambda: (0.0, 6.0),
    "hardtanh": lambda low, high: (low, high),
    "hardsigmoid": lambda: (-3.0, 3.0),
    "hardswish": lambda: (-3.0, 3.0),
    "elu": lambda alpha: (0.0,),
    "celu": lambda alpha: (0.0,),
    "selu": lambda: (0.0,),
    "softsign": lambda: (0.0,),
    "gelu": lambda: (),
    "gelu_tanh": lambda: (),
    "silu": lambda: (),
    "mish": lambda: (),
    "softplus": lambda beta, threshold: (),
    "tanh": lambda: (),
    "tanhshrink": lambda: (),
    "sigmoid": lambda: (),
    "log_sigmoid": lambda: (),
}
#: Those whose derivative takes two values: one bit is exact.
STEPS = ("relu", "leaky_relu", "relu6", "hardtanh", "hardsigmoid")
EVEN = ("tanh", "tanhshrink", "sigmoid", "softsign")
SMOOTH = tuple(name for name in BREAKPOINTS if name not in STEPS)


def table(name: str, bits: int, *, weight: Any = "normal", scheme: str = "value", **parameters: Any) -> Table:
    """The table of an activation's derivative.

    Tables of the smooth activations with their default constants, 1 to 4 bits, weights "normal" and "uniform" on
    [-10, 10], are shipped; others are solved when first asked for and kept while the process lives (histograms and
    functions as weights are solved each time). The derivatives of relu, leaky_relu, relu6, hardtanh and hardsigmoid
    take two values, and schemes "value" and "minimax" are exact for them from 1 bit on, whatever the weight.

    Args:
        name: The function's name in `pb`, such as "gelu".
        bits: 1 to 8.
        weight: As in `solve`.
        scheme: As in `solve`; "folded" for tanh, tanhshrink, sigmoid, softsign, hardtanh and hardsigmoid.
        **parameters: The constants of the function, such as `alpha=0.5`; gelu takes `approximate`.

    Raises:
        ValueError: no activation has this name, or what `solve` raises.
        TypeError: the activation does not take such a constant.

    Example:
        >>> import pullback as pb
        >>> pb.fewbit.table("gelu", 3)
        Table(value, 3 bits, 9 boundaries, error=0.001902, max_error=0.08928)
        >>> pb.fewbit.table("leaky_relu", 1, negative_slope=0.2).levels
        (0.2, 1.0)
    """
    if name == "gelu":
        approximate = parameters.pop("approximate", "none")
        if approximate not in ("none", "tanh"):
            raise ValueError(
                f"fewbit.table: approximate must be 'none' or 'tanh', got {approximate!r}\nhelp: see pb.gelu"
            )
        name = "gelu_tanh" if approximate == "tanh" else name
    if name not in BREAKPOINTS:
        raise ValueError(f"fewbit.table: no activation is called {name!r}\nhelp: {', '.join(BREAKPOINTS)}")
    constants = _constants(name)
    for key in parameters:
        if key not in constants:
            raise TypeError(
                f"fewbit.table: {name} takes no argument {key!r}\nhelp: it takes {list(constants) or 'none'}"
            )
    values = tuple(float(parameters.get(key, default)) for key, default in constants.items())
    bits = operator.index(bits)
    if not isinstance(weight, str):
        return _solve_activation(name, bits, weight, scheme, values)
    return _cached(name, bits, weight, scheme, values)


@functools.cache
def _constants(name: str) -> dict[str, float]:
    return next(dict(row["args"]) for row in C.ops() if row["name"] == name)


@functools.lru_cache(maxsize=1024)
def _cached(name: str, bits: int, weight: str, scheme: str, values: tuple[float, ...]) -> Table:
    if values == tuple(_constants(name).values()):
        row = _shipped().get(key_of(name, bits, weight, scheme))
        if row:
            return Table(bits, scheme, *row)
    return _solve_activation(name, bits, weight, scheme, values)


def key_of(name: str, bits: int, weight: str, scheme: str) -> str:
    """The key of a table in tables.json. Scheme minimax does not read the weight."""
    return f"{name} {'any' if scheme == 'minimax' else weight} {scheme} {bits}"


@functools.cache
def _shipped() -> dict[str, list[Any]]:
    return json.loads(resources.files(__package__).joinpath("tables.json").read_text())


def derivative_of(name: str, values: Sequence[float] = ()) -> Callable[[Tensor], Tensor]:
    """The derivative of an activation with these constants, on float64 tensors."""
    from ..transforms import vjp

    f, constants = getattr(C, name), dict(zip(_constants(name), values, strict=False))

    def derivative(x: Tensor) -> Tensor:
        y, pull = vjp(lambda t: f(t, **constants), x)
        return pull(C.ones_like(y))[0]

    return derivative


def _solve_activation(name: str, bits: int, weight: Any, scheme: str, values: tuple[float, ...]) -> Table:
    breaks = sorted(set(BREAKPOINTS[name](*values)))
    if not all(map(math.isfinite, values)):
        raise ValueError(f"fewbit.table: the constants of {name} must be finite, got {values}\nhelp: see pb.{name}")
    low, high = min([-10.0, *(b - 1 for b in breaks)]), max([10.0, *(b + 1 for b in breaks)])
    if name in STEPS and isinstance(weight, str):
        if weight not in ("normal", "uniform"):
            raise ValueError(f"fewbit.table: no weight is called {weight!r}\nhelp: 'normal' or 'uniform'")
        weight = "uniform" if scheme in ("value", "minimax") else weight  # exact, also where inputs hardly come
    return solve(
        derivative_of(name, values), bits, weight=weight, domain=(low, high), breakpoints=breaks, scheme=scheme
    )
