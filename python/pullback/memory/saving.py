"""`with pb.saving(...)`: what backward keeps, for all activations of a region."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import _core as C

__all__ = ["saving"]


class saving:
    """Inside, activations keep for backward what `bits` says; a call's or a module's own `saved=` goes before.

    Args:
        bits: None leaves it; "input", "output" or "recompute"; 1 to 8: bits of a code of the derivative. What an
            activation does not offer is ignored here: it then keeps what it does by itself.
        inputs: bits of block-quantised inputs of Linear, Conv and attention, 4 or 8; None leaves it (exact).
        order: the order of derivatives that `.backward` will be asked for [1]. Codes that know fewer are not used.

    Inner regions go before outer ones; orders add up to the largest. Also a decorator.

    >>> x = pb.ones(1024, dtype=pb.float32); x.requires_grad = True
    >>> with pb.saving("recompute"):
    ...     y = pb.tanh(x * 2)
    >>> [row.scheme for row in pb.memory.report(y.sum()).rows]
    ['input']
    """

    def __init__(self, bits: Any = None, *, inputs: int | None = None, order: int = 1) -> None:
        self._arguments = (bits, inputs, order)
        C._restore_saving(C._set_saving(*self._arguments))  # refuses bad arguments here
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before.append(C._set_saving(*self._arguments))

    def __exit__(self, *exc: object) -> None:
        C._restore_saving(self._before.pop())

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(f)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self._arguments[0], inputs=self._arguments[1], order=self._arguments[2]):
                return f(*args, **kwargs)

        return wrapped
