"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import pullback as pb
from pullback import _core as C
from pullback.nn.module import Module, Parameter

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm", "InstanceNorm2d", "LayerNorm", "RMSNorm"]


def _ones(shape: tuple[int, ...], dtype: Any, device: Any) -> Parameter:
    return Parameter(pb.ones(shape, dtype=dtype or pb.float32, device=device))


def _zeros(shape: tuple[int, ...], dtype: Any, device: Any) -> Parameter:
    return Parameter(pb.zeros(shape, dtype=dtype or pb.float32, device=device))


# True while an optimizer evaluates the same batch again: statistics stay as they are.
statistics_frozen = False


class _Running(Module):
    """Weight, bias and running statistics of one value per channel, which is axis 1."""

    ranks: tuple[int, ...] = ()

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        n = (num_features,)
        self.weight: Any = _ones(n, dtype, device) if affine else None
        self.bias: Any = _zeros(n, dtype, device) if affine else None
        self.running_mean: Any = None
        self.running_var: Any = None
        self.num_batches_tracked: Any = None
        if track_running_stats:
            self.running_mean = pb.zeros(n, dtype=dtype or pb.float32, device=device)
            self.running_var = pb.ones(n, dtype=dtype or pb.float32, device=device)
            self.num_batches_tracked = pb.zeros((), dtype=pb.int64, device=device)

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batches seen."""
        if self.running_mean is not None:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked[...] = 0

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, fresh statistics."""
        self.reset_running_stats()
        with pb.no_grad():
            if self.weight is not None:
                self.weight.detach()[...] = 1
                self.bias.detach()[...] = 0

    def _factor(self) -> float:
        """Weight of the new statistics; counts the batch."""
        if statistics_frozen:
            return 0.0
        if self.num_batches_tracked is not None:
            with pb.no_grad():
                self.num_batches_tracked += 1
            if self.momentum is None:  # the plain average of all batches
                return 1.0 / int(self.num_batches_tracked)
        return 0.0 if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Running):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, x: Any) -> C.Tensor:
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            raise pb.ShapeError(
                f"{type(self).__name__}: {self.num_features} channels, input of shape {tuple(x.shape)}\n"
                f"help: the input has {' or '.join(map(str, self.ranks))} axes, and axis 1 is the channel"
            )
        use_batch = self.training or self.running_mean is None
        momentum = self._factor() if self.training else 0.0
        return pb.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=use_batch, momentum=momentum,
            eps=self.eps,
        )  # fmt: skip


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) per channel.

    In training with the mean and variance of the batch, which also move the running ones by `momentum` (the running
    variance with n - 1); in eval mode with the running ones.

    Args:
        num_features: channels C.
        eps: added to the variance [1e-5].
        momentum: weight of a new batch in the running statistics [0.1]; None averages all batches equally.
        affine: whether weight and bias are learned [True].
        track_running_stats: False always takes the batch's own [True].

    Raises:
        ShapeError: another rank or channel count.

    Example:
        >>> list(pb.nn.BatchNorm1d(2).state_dict())
        ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W) per channel; see `BatchNorm1d`.

    Example:
        >>> pb.nn.BatchNorm2d(3)(pb.ones((2, 3, 4, 4))).shape
        (2, 3, 4, 4)
    """

    ranks = (4,)


class InstanceNorm2d(_Running):
    """Every channel of every sample of (N, C, H, W) or (C, H, W) normalised over its own pixels.

    Args:
        num_features: channels C.
        eps: added to the variance [1e-5].
        momentum: weight of a new batch in the running statistics [0.1]; None never moves them.
        affine: whether weight and bias are learned [False].
        track_running_stats: keep running statistics and use them in eval mode [False].

    Example:
        >>> pb.nn.InstanceNorm2d(3)(pb.ones((2, 3, 4, 4))).shape
        (2, 3, 4, 4)
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, x: Any) -> C.Tensor:
        if x.ndim not in (3, 4) or x.shape[-3] != self.num_features:
            raise pb.ShapeError(
                f"InstanceNorm2d: {self.num_features} channels, input of shape {tuple(x.shape)}\n"
                "help: the input is (N, C, H, W) or (C, H, W)"
            )
        single = x.ndim == 3
        if single:
            x = pb.expand_dims(x, 0)
        if self.running_mean is not None and not self.training:
            y = pb.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        else:
            y = pb.group_norm(x, self.num_features, self.weight, self.bias, eps=self.eps)
            if self.running_mean is not None:
                self._track(x)
        return pb.squeeze(y, 0) if single else y

    def _track(self, x: C.Tensor) -> None:
        with pb.no_grad():
            x, m = x.detach(), self.momentum or 0.0
            mean = pb.mean(pb.mean(x, axis=(2, 3)), axis=0)
            var = pb.mean(pb.var(x, axis=(2, 3), correction=1), axis=0)
            self.running_mean[...] = self.running_mean * (1 - m) + mean * m
            self.running_var[...] = self.running_var * (1 - m) + var * m


class _LastAxes(Module):
    def __init__(self, normalized_shape: Any) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(int(n) for n in normalized_shape)
        if not shape:
            raise ValueError(f"{type(self).__name__}: normalized_shape is empty\nhelp: give the sizes of the last axes")
        self.normalized_shape = shape

    def _axis(self, x: Any) -> Any:
        shape = self.normalized_shape
        if tuple(x.shape[max(x.ndim - len(shape), 0) :]) != shape:
            raise pb.ShapeError(
                f"{type(self).__name__}: normalized_shape {shape}, input of shape {tuple(x.shape)}\n"
                "help: the last axes of the input have these sizes"
            )
        return -1 if len(shape) == 1 else tuple(range(-len(shape), 0))


class LayerNorm(_LastAxes):
    """(x - mean) / sqrt(var + eps) over the last axes, times weight plus bias.

    Args:
        normalized_shape: sizes of the axes that are normalised, an int or a tuple.
        eps: added to the variance [1e-5].
        elementwise_affine: whether there is a weight (ones) [True].
        bias: whether there is a bias (zeros), if there is a weight [True].

    Example:
        >>> pb.nn.LayerNorm(4)(pb.ones((2, 4))).tolist()[0]
        [0.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = _ones(self.normalized_shape, dtype, device) if elementwise_affine else None
        self.bias = _zeros(self.normalized_shape, dtype, device) if elementwise_affine and bias else None

    def forward(self, x: Any) -> C.Tensor:
        return pb.layer_norm(x, self.weight, self.bias, axis=self._axis(x), eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(_LastAxes):
    """x / sqrt(mean(x^2) + eps) over the last axes, times weight.

    Args:
        normalized_shape: sizes of the axes that are normalised, an int or a tuple.
        eps: added to the mean square; None takes the machine epsilon of the input's dtype.
        elementwise_affine: whether there is a weight (ones) [True].

    Example:
        >>> pb.nn.RMSNorm(2)(pb.tensor([[1.0, 7.0]])).shape
        (1, 2)
    """

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = _ones(self.normalized_shape, dtype, device) if elementwise_affine else None

    def forward(self, x: Any) -> C.Tensor:
        eps = _EPS.get(x.dtype.name, 2.0**-23) if self.eps is None else self.eps
        return pb.rms_norm(x, self.weight, axis=self._axis(x), eps=eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


class GroupNorm(Module):
    """Channels of (N, C, *) in groups, each normalised over its channels and space.

    Args:
        num_groups: number of groups, a divisor of num_channels.
        num_channels: size of axis 1.
        eps: added to the variance [1e-5].
        affine: whether weight and bias of one value per channel are learned [True].

    Raises:
        ValueError: the groups do not divide the channels.

    Example:
        >>> pb.nn.GroupNorm(2, 4)(pb.ones((1, 4, 3))).shape
        (1, 4, 3)
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if num_groups <= 0 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: {num_channels} channels do not split into {num_groups} groups\n"
                "help: num_groups divides num_channels"
            )
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight = _ones((num_channels,), dtype, device) if affine else None
        self.bias = _zeros((num_channels,), dtype, device) if affine else None

    def forward(self, x: Any) -> C.Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise pb.ShapeError(
                f"GroupNorm: {self.num_channels} channels, input of shape {tuple(x.shape)}\nhelp: axis 1 is the channel"
            )
        return pb.group_norm(x, self.num_groups, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
