"""Pooling over two axes. Inputs are (N, C, H, W) or (C, H, W)."""

from __future__ import annotations

from typing import Any

import pullback as pb
from pullback import _core as C
from pullback.nn.conv import sizes
from pullback.nn.module import Module

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "MaxPool2d"]


class _Pool(Module):
    def forward(self, x: Any) -> C.Tensor:
        if x.ndim not in (3, 4):
            raise pb.ShapeError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}\nhelp: it is (N, C, H, W) or (C, H, W)"
            )
        return self._pool(x) if x.ndim == 4 else pb.squeeze(self._pool(pb.expand_dims(x, 0)), 0)

    def _pool(self, x: C.Tensor) -> C.Tensor:
        raise NotImplementedError


def _only(kind: str, **options: tuple[Any, Any]) -> None:
    for name, (value, supported) in options.items():
        if value != supported:
            raise ValueError(f"{kind}: {name}={value!r} is not supported\nhelp: leave {name}={supported!r}")


class MaxPool2d(_Pool):
    """The largest element of each window.

    Args:
        kernel_size: window, an int or (height, width).
        stride: step between windows; None takes the window's size.
        padding: rows and columns of -inf around the input [0].

    Raises:
        ValueError: dilation, return_indices or ceil_mode differ from their defaults.

    Example:
        >>> pb.nn.MaxPool2d(2)(pb.zeros((1, 3, 8, 8))).shape
        (1, 3, 4, 4)
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        _only("MaxPool2d", dilation=(sizes(dilation, 2, "MaxPool2d"), (1, 1)), return_indices=(return_indices, False),
              ceil_mode=(ceil_mode, False))  # fmt: skip
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding = padding

    def _pool(self, x: C.Tensor) -> C.Tensor:
        return pb.max_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_Pool):
    """The mean of each window; padded zeros count.

    Args:
        kernel_size: window, an int or (height, width).
        stride: step between windows; None takes the window's size.
        padding: rows and columns of zeros around the input [0].

    Raises:
        ValueError: ceil_mode, count_include_pad or divisor_override differ from their defaults.

    Example:
        >>> pb.nn.AvgPool2d(2)(pb.ones((1, 1, 2, 2))).tolist()
        [[[[1.0]]]]
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        _only("AvgPool2d", ceil_mode=(ceil_mode, False), count_include_pad=(count_include_pad, True),
              divisor_override=(divisor_override, None))  # fmt: skip
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding = padding

    def _pool(self, x: C.Tensor) -> C.Tensor:
        return pb.avg_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(_Pool):
    """The mean of windows that cut the input into `output_size` parts.

    Args:
        output_size: an int or (height, width); None keeps a size.

    Example:
        >>> pb.nn.AdaptiveAvgPool2d(1)(pb.ones((1, 2, 5, 7))).shape
        (1, 2, 1, 1)
    """

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def _pool(self, x: C.Tensor) -> C.Tensor:
        wished = self.output_size if isinstance(self.output_size, (tuple, list)) else (self.output_size,) * 2
        size = tuple(n if w is None else w for w, n in zip(wished, x.shape[2:], strict=True))
        return pb.adaptive_avg_pool2d(x, size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
