"""Training in 16 bits: `pb.autocast`, and the scale of a float16 loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pullback as pb

from . import _core as C

__all__ = ["LossScale", "autocast"]

_LOWER = {"bfloat16": C.bfloat16, "float16": C.float16}


class autocast:
    """Inside, products run in a 16-bit type, losses in float32, and the rest in the type of its inputs.

    The floating inputs of an op are cast as PyTorch's `torch.autocast` casts them: matmul, linear, convolutions and
    attention take the 16-bit type, losses and `prod` float32, concat and stack the widest of their inputs. Parameters
    stay what they are: a float32 parameter receives a float32 gradient. A parameter's cast is made once for each of
    its versions and dropped at the end of the outermost block. float64 is left alone. Run backward outside the block.

    It is a context manager and a decorator, holds for this thread, and may be nested; with `enabled=False` an inner
    block is as if there were none around it.

    Args:
        dtype: "bfloat16" (the default) or "float16", also as `pb.bfloat16`; float16 needs a CUDA device.
        enabled: False turns it off.

    Raises:
        ValueError: another dtype.
        DeviceError: float16 without a CUDA device.

    Example:
        >>> with pb.autocast("bfloat16"):
        ...     y = pb.matmul(pb.ones((2, 3)), pb.ones((3, 2)))
        >>> y.dtype
        pullback.bfloat16
    """

    def __init__(self, dtype: Any = "bfloat16", *, enabled: bool = True) -> None:
        name = dtype.name if isinstance(dtype, C.dtype) else dtype
        if name not in _LOWER:
            raise ValueError(
                f"autocast: dtype must be 'bfloat16' or 'float16', got {dtype!r}\nhelp: pb.autocast('bfloat16')"
            )
        if enabled and name == "float16" and not half_devices():
            raise C.DeviceError(
                "autocast: float16 needs a CUDA device, and there is none\n"
                "help: use bfloat16, which has the range of float32 and needs no loss scale"
            )
        self._state = (_LOWER[name], bool(enabled))
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before.append(C._enter_autocast(*self._state))

    def __exit__(self, *exc: object) -> None:
        C._leave_autocast(*self._before.pop())

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(f)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before = C._enter_autocast(*self._state)
            try:
                return f(*args, **kwargs)
            finally:
                C._leave_autocast(*before)

        return wrapped


def half_devices() -> bool:
    """Whether there is a device on which float16 is worth its narrow range."""
    return pb.cuda.is_available()


class LossScale:
    """The factor that keeps the gradients of a float16 loss above the smallest float16 number.

    It starts at `initial`; a step with a gradient that is not finite is left out and the scale falls by `backoff`;
    after `interval` good steps in a row it grows by `growth`, unless it would overflow.

    Args:
        initial: the scale of the first step [2 ** 16].
        growth: the factor of an increase, above 1 [2.0].
        backoff: the factor of a decrease, in (0, 1) [0.5].
        interval: good steps before an increase [2000].

    Example:
        >>> scale = LossScale(interval=1)
        >>> scale.update(skipped=True); scale.value
        32768.0
        >>> scale.update(skipped=False); scale.value
        65536.0
    """

    def __init__(self, initial: float = 65536.0, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000):
        if not (initial > 0 and growth > 1 and 0 < backoff < 1 and interval >= 1):
            raise ValueError(
                f"LossScale: initial={initial}, growth={growth}, backoff={backoff}, interval={interval} is no scale\n"
                "help: initial > 0, growth > 1, backoff between 0 and 1, interval of at least 1"
            )
        self.value, self.growth, self.backoff, self.interval = float(initial), growth, backoff, interval
        self.good = 0  # steps since the last change

    def update(self, skipped: bool) -> None:
        """After each step: `skipped` tells that a gradient was not finite."""
        if skipped:
            self.value, self.good = self.value * self.backoff, 0
            return
        self.good += 1
        if self.good == self.interval:
            grown = _float32(self.value * self.growth)
            self.value, self.good = grown if math.isfinite(grown) else self.value, 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what state_dict gave."""
        self.value, self.good = state["value"], state["good"]


def _float32(value: float) -> float:
    return math.inf if value > 3.4028234663852886e38 else value
