"""Packed codes: b bits per element, in groups of 32, and what backward keeps of an activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core import FewbitCode, Tensor, fewbit_pack, fewbit_unpack
from .tables import SCHEMES, table

__all__ = ["Code", "convert", "pack", "unpack"]


def pack(codes: Any, bits: int) -> Tensor:
    """Pack integer codes into 32-bit words, `4 * bits * ceil(n / 32)` bytes for n codes.

    The codes of 32 elements (in row-major order) become `bits` consecutive words; bit i of word p is bit p of the code
    of element i. Bits past the last element are zero.

    Args:
        codes: Integers or bools in 0 .. 2**bits - 1, any shape.
        bits: Bits per code, 1 to 8.

    Returns:
        A uint32 tensor of shape (bits * ceil(n / 32),).

    Raises:
        ValueError: bits is outside 1 .. 8, or a code does not fit.
        DTypeError: codes are not integers.

    Example:
        >>> import pullback as pb
        >>> pb.fewbit.pack(pb.asarray([1, 0, 3]), 2).tolist()
        [5, 4]
    """
    return fewbit_pack(codes, bits)


def unpack(words: Any, bits: int, n: int) -> Tensor:
    """The n codes that `pack` made words of.

    Args:
        words: uint32 of shape (bits * ceil(n / 32),).
        bits: Bits per code, 1 to 8.
        n: The number of codes.

    Returns:
        A uint8 tensor of shape (n,).

    Raises:
        ValueError: bits is outside 1 .. 8.
        ShapeError: the number of words does not fit n and bits.
        DTypeError: words are not uint32.

    Example:
        >>> import pullback as pb
        >>> pb.fewbit.unpack(pb.fewbit.pack(pb.asarray([1, 0, 3]), 2), 2, 3).tolist()
        [1, 0, 3]
    """
    return fewbit_unpack(words, bits, n)


@dataclass(frozen=True)
class Code:
    """A code of the derivative, for `saved=`: what an activation keeps instead of its input.

    The input's piece of the line is kept in `bits` bits; backward uses one value of the derivative per code. y has
    the bits it has without a code. +-inf have the values of the outer pieces, NaN that of the first. float64 is kept
    exactly, and so is everything when derivatives of an order that the code has not are announced.

    Args:
        bits: 1 to 8; 4 * bits * ceil(n / 32) bytes are kept.
        scheme: "value" (least mean square error for its number of values), "interval", "folded", "minimax" (bounded
            for every input), "unbiased" (random, right in the mean), "jet" (values of the second derivative as well,
            order 2).
        weight: The inputs that the error is weighed with: "normal", "uniform", a callable, or a histogram.

    Raises:
        ValueError: bits is outside 1 .. 8, or the scheme is unknown.

    Example:
        >>> import pullback as pb
        >>> pb.gelu(pb.zeros(2), saved=pb.fewbit.Code(3, scheme="minimax")).tolist()
        [0.0, 0.0]
    """

    bits: int
    scheme: str = "value"
    weight: Any = "normal"

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise ValueError(f"Code: bits must be 1 to 8, got {self.bits!r}\nhelp: 3 or 4 bits lose little")
        if self.scheme not in SCHEMES:
            raise ValueError(f"Code: unknown scheme {self.scheme!r}\nhelp: one of {', '.join(SCHEMES)}")


_made: dict[Any, FewbitCode] = {}


def code_of(name: str, parameters: Mapping[str, float], code: Code) -> FewbitCode:
    """The table of an activation in the form that kernels read, made once."""
    key: Any = (name, tuple(parameters.items()), code.bits, code.scheme, code.weight)
    try:
        found = _made.get(key)
    except TypeError:  # a weight that does not hash, a histogram
        key, found = None, None
    if found is None:
        found = _compile(name, parameters, code)
        if key is not None:
            _made[key] = found
    return found


def _look_up(name: str, parameters: Mapping[str, float], spec: int | Code, asked: bool) -> FewbitCode:
    """What the core asks at the first call of an activation with a code."""
    return code_of(name, parameters, spec if isinstance(spec, Code) else Code(spec))


def _compile(name: str, parameters: Mapping[str, float], code: Code) -> FewbitCode:
    made = table(name, code.bits, weight=code.weight, scheme=code.scheme, **parameters)
    return FewbitCode(code.bits, made.boundaries, made.codes, made.levels, made.second, code.scheme == "unbiased")


def convert(model: Any, bits: int | Code | None = 3) -> Any:
    """Set what backward keeps on every activation of a model, in place.

    Args:
        model: A `pb.nn.Module`.
        bits: Bits of the derivative's code, a `Code`, or None for the default again.

    Returns:
        The model.

    Raises:
        ValueError: bits is outside 1 .. 8.

    Example:
        >>> import pullback as pb
        >>> pb.fewbit.convert(pb.nn.Sequential(pb.nn.Linear(2, 2), pb.nn.GELU()))[1].saved
        3
    """
    from ..nn.activation import Activation

    if bits is not None and not isinstance(bits, Code):
        Code(bits)
    for _, module in model.named_modules():
        if isinstance(module, Activation):
            module.saved = bits
    return model
