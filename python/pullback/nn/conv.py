"""Convolutions. Inputs are (batch, channels, *space) or without the batch axis."""

from __future__ import annotations

import math
from typing import Any

import pullback as pb
from pullback import _core as C
from pullback.nn import init
from pullback.nn.module import Module, Parameter

__all__ = ["Conv1d", "Conv2d", "ConvTranspose2d"]

_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # PyTorch's name: NumPy's name


def sizes(value: Any, n: int, name: str) -> tuple[int, ...]:
    """`n` ints from an int or a sequence of n ints."""
    if isinstance(value, int):
        return (value,) * n
    value = tuple(int(v) for v in value)
    if len(value) != n:
        raise ValueError(f"{name}: needs an int or {n} ints, got {value}\nhelp: one int per spatial axis")
    return value


class _Conv(Module):
    axes = 2
    transposed = False
    saved: Any = None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
        groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        kind = type(self).__name__
        if groups <= 0 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{kind}: {in_channels} and {out_channels} channels do not split into {groups} groups\n"
                "help: groups divides both"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = sizes(kernel_size, self.axes, kind)
        self.stride = sizes(stride, self.axes, kind)
        self.dilation = sizes(dilation, self.axes, kind)
        self.padding_mode = padding_mode
        if padding_mode != "zeros" and padding_mode not in _PAD_MODES:
            raise ValueError(
                f"{kind}: unknown padding_mode {padding_mode!r}\nhelp: zeros, reflect, replicate or circular"
            )
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{kind}: unknown padding {padding!r}\nhelp: an int, ints, 'same' or 'valid'")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f"{kind}: padding='same' needs stride 1\nhelp: give the padding in numbers")
            self.padding: Any = padding
        else:
            self.padding = sizes(padding, self.axes, kind)
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(pb.empty(shape, dtype=dtype or pb.float32, device=device))
        self.bias = Parameter(pb.empty((out_channels,), dtype=dtype or pb.float32, device=device)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, uniform within 1 / sqrt(fan in)."""
        fan_in = math.prod(self.weight.shape[1:])
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        for p in self.parameters():
            init.uniform(p, -bound, bound)

    def _widths(self) -> tuple[tuple[int, int], ...]:
        if self.padding == "valid":
            return ((0, 0),) * self.axes
        if self.padding == "same":  # the odd element goes to the end
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple((t // 2, t - t // 2) for t in total)
        return tuple((p, p) for p in self.padding)

    def _batched(self, x: Any) -> tuple[C.Tensor, bool]:
        if x.ndim not in (self.axes + 1, self.axes + 2):
            raise pb.ShapeError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}\n"
                f"help: it has {self.axes + 2} axes: batch, channels, space; or {self.axes + 1} without the batch"
            )
        return (x, True) if x.ndim == self.axes + 2 else (pb.expand_dims(x, 0), False)

    def forward(self, x: Any) -> C.Tensor:
        x, batched = self._batched(x)
        widths = self._widths()
        if self.padding_mode != "zeros":
            x = pb.pad(x, ((0, 0), (0, 0), *widths), mode=_PAD_MODES[self.padding_mode])
            padding = (0,) * self.axes
        elif any(a != b for a, b in widths):
            x = pb.pad(x, ((0, 0), (0, 0), *widths))
            padding = (0,) * self.axes
        else:
            padding = tuple(a for a, _ in widths)
        y = self._conv(x, padding)
        return y if batched else pb.squeeze(y, 0)

    def _conv(self, x: C.Tensor, padding: tuple[int, ...]) -> C.Tensor:
        conv = pb.conv2d if self.axes == 2 else pb.conv1d
        kwargs: dict[str, Any] = {
            "stride": self.stride,
            "padding": padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "saved": self.saved,
        }
        return conv(x, self.weight, self.bias, **kwargs)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        zero, one = (0,) * self.axes, (1,) * self.axes
        text += f", padding={self.padding}" if self.padding != zero else ""
        text += f", dilation={self.dilation}" if self.dilation != one else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        return text + (f", padding_mode={self.padding_mode!r}" if self.padding_mode != "zeros" else "")


class Conv1d(_Conv):
    """Convolution over one axis: (N, C, L) to (N, out_channels, L'),
    L' = (L + 2 padding - dilation (k - 1) - 1) // stride + 1.

    Args:
        in_channels, out_channels: sizes of axis 1.
        kernel_size, stride, padding, dilation: an int or one per axis [stride 1, padding 0, dilation 1]; padding may be
            "valid" or, with stride 1, "same".
        groups: channels are cut into this many independent parts [1].
        bias: whether a bias is added [True].
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        saved: 4 or 8 keeps the input for backward in that many bits; None keeps it exactly.

    `weight` is (out_channels, in_channels / groups, k).

    Example:
        >>> pb.nn.Conv1d(2, 4, 3, padding=1)(pb.zeros((1, 2, 8))).shape
        (1, 4, 8)
    """

    axes = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
        dtype: Any = None, *, saved: Any = None,
    ) -> None:  # fmt: skip
        self.saved = saved
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
                         device, dtype)  # fmt: skip


class Conv2d(_Conv):
    """Convolution over two axes: (N, C, H, W) to (N, out_channels, H', W'). Arguments are those of `Conv1d`.

    `weight` is (out_channels, in_channels / groups, kh, kw).

    Example:
        >>> pb.nn.Conv2d(3, 8, 3, stride=2, padding=1)(pb.zeros((1, 3, 8, 8))).shape
        (1, 8, 4, 4)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
        dtype: Any = None, *, saved: Any = None,
    ) -> None:  # fmt: skip
        self.saved = saved
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
                         device, dtype)  # fmt: skip


class ConvTranspose2d(_Conv):
    """The transpose of a convolution: (N, C, H, W) to (N, out_channels, H', W'),
    H' = (H - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.

    `weight` is (in_channels, out_channels / groups, kh, kw).

    Example:
        >>> pb.nn.ConvTranspose2d(4, 2, 2, stride=2)(pb.zeros((1, 4, 3, 3))).shape
        (1, 2, 6, 6)
    """

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ValueError("ConvTranspose2d: padding is in numbers, with zeros\nhelp: pad the input first")
        self.output_padding = sizes(output_padding, 2, "ConvTranspose2d")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
                         device, dtype)  # fmt: skip

    def forward(self, x: Any, output_size: Any = None) -> C.Tensor:
        """`output_size`, (H', W'), chooses the output padding."""
        x, batched = self._batched(x)
        extra = self.output_padding if output_size is None else self._extra(x, tuple(output_size)[-2:])
        y = pb.conv_transpose2d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, output_padding=extra,
            groups=self.groups, dilation=self.dilation,
        )  # fmt: skip
        return y if batched else pb.squeeze(y, 0)

    def _extra(self, x: C.Tensor, wished: tuple[int, ...]) -> tuple[int, ...]:
        least = [
            (x.shape[2 + i] - 1) * self.stride[i]
            - 2 * self.padding[i]
            + self.dilation[i] * (self.kernel_size[i] - 1)
            + 1
            for i in range(2)
        ]
        extra = tuple(w - n for w, n in zip(wished, least, strict=True))
        if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, self.stride, self.dilation, strict=True)):
            raise pb.ShapeError(
                f"ConvTranspose2d: output_size {wished} cannot come from an input of shape {tuple(x.shape)}\n"
                f"help: each size is at least {tuple(least)} and less than one stride larger"
            )
        return extra
