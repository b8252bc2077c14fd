"""What the array API standard asks about dtypes and about the namespace itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import _core as C
from ._core import Tensor, dtype

__all__ = ["astype", "broadcast_arrays", "can_cast", "finfo", "iinfo", "isdtype", "result_type"]

_BOOL = (C.bool,)
_SIGNED = (C.int8, C.int16, C.int32, C.int64)
_UNSIGNED = (C.uint8, C.uint16, C.uint32, C.uint64)
_FLOATING = (C.float16, C.bfloat16, C.float32, C.float64)
_KINDS: dict[str, tuple[dtype, ...]] = {
    "bool": _BOOL,
    "signed integer": _SIGNED,
    "unsigned integer": _UNSIGNED,
    "integral": _SIGNED + _UNSIGNED,
    "real floating": _FLOATING,
    "complex floating": (),
    "numeric": _SIGNED + _UNSIGNED + _FLOATING,
}
#: Explicit bits of the fraction and of the exponent.
_FORMATS = {"float16": (10, 5), "bfloat16": (7, 8), "float32": (23, 8), "float64": (52, 11)}


@dataclass(frozen=True)
class finfo_object:
    """Limits of a floating dtype, as `finfo` returns them."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: dtype


@dataclass(frozen=True)
class iinfo_object:
    """Limits of an integer dtype, as `iinfo` returns them."""

    bits: int
    max: int
    min: int
    dtype: dtype


def _dtype_of(x: Any, function: str) -> dtype:
    d = x.dtype if isinstance(x, Tensor) else x
    if not isinstance(d, dtype):
        raise C.DTypeError(f"{function}: {x!r} is no dtype or tensor\nhelp: pass one such as pb.float32")
    return d


def finfo(type: dtype | Tensor, /) -> finfo_object:
    """Limits of a floating dtype: bits, eps, max, min, smallest_normal, dtype.

    >>> pb.finfo(pb.float32).eps == 2.0**-23
    True
    """
    d = _dtype_of(type, "finfo")
    if d.name not in _FORMATS:
        raise C.DTypeError(f"finfo: {d.name} is no floating dtype\nhelp: use pb.iinfo for integers")
    fraction, exponent = _FORMATS[d.name]
    top = 2 ** (exponent - 1) - 1
    largest = (2.0 - 2.0**-fraction) * 2.0**top
    return finfo_object(8 * d.itemsize, 2.0**-fraction, largest, -largest, 2.0 ** (1 - top), d)


def iinfo(type: dtype | Tensor, /) -> iinfo_object:
    """Limits of an integer dtype: bits, max, min, dtype.

    >>> pb.iinfo(pb.int8).max
    127
    """
    d = _dtype_of(type, "iinfo")
    bits = 8 * d.itemsize
    if d in _SIGNED:
        return iinfo_object(bits, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), d)
    if d in _UNSIGNED:
        return iinfo_object(bits, 2**bits - 1, 0, d)
    raise C.DTypeError(f"iinfo: {d.name} is no integer dtype\nhelp: use pb.finfo for floats")


def isdtype(dtype: dtype, kind: dtype | str | tuple[Any, ...]) -> bool:
    """Whether a dtype is `kind`: a dtype, one of the standard's kind names, or a tuple of these.

    >>> pb.isdtype(pb.int8, "integral"), pb.isdtype(pb.int8, (pb.bool, "real floating"))
    (True, False)
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"isdtype: unknown kind {kind!r}\nhelp: kinds are {', '.join(_KINDS)}")
        return dtype in _KINDS[kind]
    return bool(dtype == kind)


def result_type(*arrays_and_dtypes: Any) -> dtype:
    """The dtype of an operation on these tensors, dtypes and Python scalars (which are weak).

    >>> pb.result_type(pb.int8, pb.uint8), pb.result_type(pb.float16, 2.0)
    (pullback.int16, pullback.float16)
    """
    strong = [x for x in arrays_and_dtypes if not isinstance(x, int | float)]
    if not strong:
        raise ValueError("result_type: there is no tensor or dtype\nhelp: Python scalars alone have no dtype")
    out = _dtype_of(strong[0], "result_type")
    for x in strong[1:]:
        out = C.promote_types(out, _dtype_of(x, "result_type"))
    for x in arrays_and_dtypes:
        if isinstance(x, bool):
            continue
        if isinstance(x, float) and out not in _FLOATING:
            out = C.float32
        elif isinstance(x, int) and out in _BOOL:
            out = C.int64
    return out


def can_cast(from_: dtype | Tensor, to: dtype, /) -> bool:
    """Whether promotion takes a dtype to `to`, so that no value is lost in kind.

    >>> pb.can_cast(pb.int8, pb.int16), pb.can_cast(pb.float32, pb.int64)
    (True, False)
    """
    source, target = _dtype_of(from_, "can_cast"), _dtype_of(to, "can_cast")
    return bool(C.promote_types(source, target) == target)


def astype(x: Tensor, dtype: dtype, /, *, copy: bool = True, device: str | None = None) -> Tensor:
    """x in another dtype; with copy=False x itself when it has that dtype.

    >>> pb.astype(pb.asarray([1.5]), pb.int64).tolist()
    [1]
    """
    y = x if device is None else x.to(device)
    return y.clone() if copy and y.dtype == dtype else y.astype(dtype)


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """Views of the arrays with their common shape.

    >>> [a.shape for a in pb.broadcast_arrays(pb.zeros((3, 1)), pb.zeros(4))]
    [(3, 4), (3, 4)]
    """
    shape: Any = ()
    for a in arrays:
        shape = C._broadcast_shapes(shape, a.shape)
    return [C.broadcast_to(a, shape) for a in arrays]
