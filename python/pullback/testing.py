"""Checks for derivatives: what reverse and forward mode give against central differences in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pullback as pb
from pullback import _core as C
from pullback._tree import flatten

__all__ = ["gradcheck"]


def gradcheck(
    f: Callable[..., Any],
    inputs: Any,
    order: int = 1,
    modes: Sequence[str] = ("reverse", "forward"),
    eps: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-7,
) -> bool:
    """Compares every entry of the Jacobian of f with a central difference; returns True or raises.

    Args:
        f: takes the inputs, returns a tensor or a tree of tensors; only floating outputs are checked. The same inputs
            must give the same outputs.
        inputs: a tensor or a sequence of them; floating ones are float64 and are varied, others are passed on. Nothing
            is written to them.
        order: 2 also checks the derivatives of what each mode computes, and so on [1].
        modes: "reverse" (`pb.vjp`), "forward" (`pb.jvp`) or both; with order 2 in every combination.
        eps: step, times max(1, |x|) [1e-5].
        rtol, atol: an entry d is right when |d - difference| <= atol + rtol * |difference| [1e-5, 1e-7].

    Raises:
        AssertionError: an entry differs or is NaN; the message names mode, output, input, indices and both values.
        DTypeError: a floating input is not float64.
        ValueError: no input is floating, or a mode or the order is unknown.

    Example:
        >>> pb.testing.gradcheck(lambda x: pb.sin(x) * x, pb.tensor([0.3, -1.0], dtype=pb.float64), order=2)
        True
    """
    args = [inputs] if isinstance(inputs, C.Tensor) else list(inputs)
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [m for m in modes if m not in ("reverse", "forward")]
    if unknown or not modes or order < 1:
        raise ValueError(
            f"gradcheck: modes {modes!r}, order {order}\n"
            "help: modes are 'reverse' and 'forward', the order is at least 1"
        )
    for i, x in enumerate(args):
        if isinstance(x, C.Tensor) and x.dtype.is_floating and x.dtype != C.float64:
            raise C.DTypeError(f"gradcheck: input {i} is {x.dtype.name}\nhelp: differences need float64")
    where = [i for i, x in enumerate(args) if isinstance(x, C.Tensor) and x.dtype == C.float64]
    if not where:
        raise ValueError("gradcheck: no input is a float64 tensor\nhelp: pass what is to be varied as pb.float64")
    args = [x.detach() if isinstance(x, C.Tensor) else x for x in args]
    _check(f, args, where, order, modes, (eps, rtol, atol), "")
    return True


def _check(
    f: Callable[..., Any], args: list[Any], where: list[int], order: int, modes: tuple[str, ...],
    numbers: tuple[float, float, float], path: str,
) -> None:  # fmt: skip
    eps, rtol, atol = numbers

    def outputs(*varied: C.Tensor) -> list[C.Tensor]:
        full = list(args)
        for i, x in zip(where, varied, strict=True):
            full[i] = x
        leaves = flatten(f(*full))[0]
        return [y for y in leaves if isinstance(y, C.Tensor) and y.dtype.is_floating]

    primals = [args[i] for i in where]
    with pb.no_grad():
        first, second = outputs(*primals), outputs(*primals)
    if not first:
        raise ValueError("gradcheck: the function returns no floating tensor\nhelp: return what depends on the inputs")
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.tobytes() != b.tobytes():
            raise AssertionError(
                f"gradcheck{path}: output {k} differs between two calls with the same inputs\n"
                "help: fix the seed inside the function"
            )
    table = _differences(outputs, primals, eps)
    for mode in modes:
        derivatives = (_reverse if mode == "reverse" else _forward)(outputs, primals, first)
        for (k, i), d in derivatives.items():
            _compare(d, table[k, i], (rtol, atol), f"{path} {mode}", k, where[i], first[k].shape, primals[i].shape)
    if order > 1:
        for mode in modes:
            g, more = (_pulled if mode == "reverse" else _pushed)(outputs, primals, first)
            _check(g, more, list(range(len(more))), order - 1, modes, numbers, f"{path} {mode} then")


# A table of derivatives: for output k and input i a list of rows, [element of the output][element of the input].
Table = dict[tuple[int, int], list[list[float]]]


def _moved(x: C.Tensor, j: int, to: float) -> C.Tensor:
    flat = pb.reshape(x, (-1,)).clone()
    flat[j] = to
    return pb.reshape(flat, x.shape)


def _differences(outputs: Callable[..., list[C.Tensor]], primals: list[C.Tensor], eps: float) -> Table:
    columns: dict[tuple[int, int], list[list[float]]] = {}
    with pb.no_grad():
        for i, x in enumerate(primals):
            for j, value in enumerate(_flat(x)):
                step = eps * max(1.0, abs(value))
                high, low = value + step, value - step
                ends = [outputs(*primals[:i], _moved(x, j, v), *primals[i + 1 :]) for v in (high, low)]
                for k, (a, b) in enumerate(zip(*ends, strict=True)):
                    slope = [(p - q) / (high - low) for p, q in zip(_flat(a), _flat(b), strict=True)]
                    columns.setdefault((k, i), []).append(slope)
    return {key: [list(row) for row in zip(*c, strict=True)] for key, c in columns.items()}


def _flat(x: C.Tensor) -> list[float]:
    return pb.reshape(x.detach(), (-1,)).tolist()


def _units(x: C.Tensor) -> Iterator[C.Tensor]:
    zero = pb.zeros(x.shape, dtype=x.dtype)
    return (_moved(zero, j, 1.0) for j in range(x.size))


def _reverse(outputs: Callable[..., list[C.Tensor]], primals: list[C.Tensor], first: list[C.Tensor]) -> Table:
    table: Table = {}
    _, pull = pb.vjp(outputs, *primals)
    zeros = [pb.zeros(y.shape, dtype=y.dtype) for y in first]
    for k, y in enumerate(first):
        for e in _units(y):
            for i, g in enumerate(pull([*zeros[:k], e, *zeros[k + 1 :]])):
                table.setdefault((k, i), []).append(_flat(g))
    return table


def _forward(outputs: Callable[..., list[C.Tensor]], primals: list[C.Tensor], first: list[C.Tensor]) -> Table:
    columns: Table = {}
    zeros = [pb.zeros(x.shape, dtype=x.dtype) for x in primals]
    for i, x in enumerate(primals):
        for e in _units(x):
            tangents = pb.jvp(outputs, tuple(primals), (*zeros[:i], e, *zeros[i + 1 :]))[1]
            for k, t in enumerate(tangents):
                columns.setdefault((k, i), []).append(_flat(t))
    return {key: [list(row) for row in zip(*c, strict=True)] for key, c in columns.items()}


def _compare(
    got: list[list[float]], wanted: list[list[float]], tolerance: tuple[float, float], path: str, k: int, i: int,
    out_shape: Any, in_shape: Any,
) -> None:  # fmt: skip
    rtol, atol = tolerance
    for r, (row, expected) in enumerate(zip(got, wanted, strict=True)):
        for c, (d, difference) in enumerate(zip(row, expected, strict=True)):
            if not abs(d - difference) <= atol + rtol * abs(difference):  # a NaN fails
                raise AssertionError(
                    f"gradcheck{path}: output {k}{_index(r, out_shape)} by input {i}{_index(c, in_shape)}: "
                    f"the derivative is {d!r}, the central difference {difference!r}\n"
                    "help: if the function has a kink there, move the input away from it"
                )


def _index(flat: int, shape: Any) -> str:
    position = next(itertools.islice(itertools.product(*(range(n) for n in shape)), flat, None))
    return str(list(position)) if position else ""


def _weights(tensors: list[C.Tensor]) -> list[C.Tensor]:
    """Fixed values of no symmetry, one per element."""
    out = []
    for t in tensors:
        values = [math.cos(1.7 * j + 0.3) + 0.1 for j in range(t.size)]
        out.append(pb.reshape(pb.tensor(values, dtype=C.float64), t.shape) if values else pb.zeros_like(t))
    return out


def _pulled(
    outputs: Callable[..., list[C.Tensor]], primals: list[C.Tensor], first: list[C.Tensor]
) -> tuple[Callable[..., Any], list[C.Tensor]]:
    """The pullback as a function of the primals and the cotangents."""
    n = len(primals)

    def g(*xs: C.Tensor) -> Any:
        return pb.vjp(outputs, *xs[:n])[1](list(xs[n:]))

    return g, [*primals, *_weights(first)]


def _pushed(
    outputs: Callable[..., list[C.Tensor]], primals: list[C.Tensor], first: list[C.Tensor]
) -> tuple[Callable[..., Any], list[C.Tensor]]:
    """The directional derivative as a function of the primals and the tangents."""
    n = len(primals)

    def g(*xs: C.Tensor) -> Any:
        return pb.jvp(outputs, xs[:n], xs[n:])[1]

    return g, [*primals, *_weights(primals)]
