"""Packed codes: b bits per element, in groups of 32."""

from __future__ import annotations

from typing import Any

from .._core import Tensor, fewbit_pack, fewbit_unpack


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
