"""Linear maps, tables of vectors, dropout, flatten."""

from __future__ import annotations

import math
from typing import Any

import pullback as pb
from pullback import _core as C
from pullback.nn import init
from pullback.nn.module import Module, Parameter

__all__ = ["Bilinear", "Dropout", "Embedding", "Flatten", "Linear"]


def _empty(shape: tuple[int, ...], dtype: Any, device: Any) -> Parameter:
    return Parameter(pb.empty(shape, dtype=dtype or pb.float32, device=device))


class Linear(Module):
    """x @ weight.T + bias on the last axis.

    Args:
        in_features, out_features: sizes of the last axis before and after.
        bias: whether a bias is added [True].
        saved: 4 or 8 keeps the input for backward in that many bits; None keeps it exactly.

    `weight` is (out_features, in_features), uniform within 1 / sqrt(in_features), as is `bias` (out_features,).

    Example:
        >>> pb.nn.Linear(3, 2)(pb.zeros((5, 3))).shape
        (5, 2)
    """

    saved: Any = None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None,
        *, saved: Any = None,
    ) -> None:  # fmt: skip
        self.in_features, self.out_features = in_features, out_features
        self.weight = _empty((out_features, in_features), dtype, device)
        self.bias = _empty((out_features,), dtype, device) if bias else None
        if saved is not None:
            self.saved = saved
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        for p in self.parameters():
            init.uniform(p, -bound, bound)

    def forward(self, x: Any) -> C.Tensor:
        if self.saved is not None:
            linear: Any = pb.linear
            return linear(x, self.weight, self.bias, saved=self.saved)
        return pb.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """y_k = a . weight_k . b + bias_k on the last axes of two inputs.

    Args:
        in1_features, in2_features: sizes of the last axes of a and b, whose other axes are equal.
        out_features: size of the last axis of the result.
        bias: whether a bias is added [True].

    Example:
        >>> pb.nn.Bilinear(3, 4, 2)(pb.zeros((5, 3)), pb.zeros((5, 4))).shape
        (5, 2)
    """

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if in1_features <= 0:
            raise ValueError(f"Bilinear: in1_features must be positive, got {in1_features}\nhelp: give at least one")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = _empty((out_features, in1_features, in2_features), dtype, device)
        self.bias = _empty((out_features,), dtype, device) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, uniform within 1 / sqrt(in1_features)."""
        bound = 1 / math.sqrt(self.in1_features)
        for p in self.parameters():
            init.uniform(p, -bound, bound)

    def forward(self, a: Any, b: Any) -> C.Tensor:
        if tuple(a.shape[:-1]) != tuple(b.shape[:-1]):
            raise pb.ShapeError(
                f"Bilinear: inputs of shape {tuple(a.shape)} and {tuple(b.shape)}\n"
                "help: all axes but the last must be equal"
            )
        k, i, j = self.weight.shape
        # (..., i) x (i, k * j) is the large product; the sum over j reads its result once.
        half = pb.matmul(a, pb.reshape(pb.permute_dims(self.weight, (1, 0, 2)), (i, k * j)))
        half = pb.reshape(half, (*a.shape[:-1], k, j))
        out = pb.squeeze(pb.matmul(half, pb.expand_dims(b, -1)), -1)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Embedding(Module):
    """Rows of a table by integer index.

    Args:
        num_embeddings, embedding_dim: the shape of `weight`, drawn from the standard normal distribution.
        padding_idx: a row that starts at zero and gets no gradient.
        max_norm: rows that are looked up and have a larger norm are first scaled to it, in place.
        norm_type: order of that norm [2.0].
        scale_grad_by_freq: divide the gradient of a row by how often it was looked up [False].
        sparse: only False.

    Raises:
        ValueError: padding_idx outside the table, or sparse=True.

    Example:
        >>> pb.nn.Embedding(10, 4)(pb.tensor([[1, 2, 3]])).shape
        (1, 3, 4)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        if sparse:
            raise ValueError("Embedding: gradients are dense\nhelp: leave sparse=False")
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"Embedding: padding_idx {padding_idx} is outside a table of {num_embeddings} rows\n"
                    "help: it names one row"
                )
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.weight = _empty((num_embeddings, embedding_dim), dtype, device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the table anew; the padding row is zero."""
        init.normal(self.weight)
        if self.padding_idx is not None:
            with pb.no_grad():
                self.weight.detach()[self.padding_idx] = 0.0

    def _count(self, indices: C.Tensor) -> C.Tensor:
        flat = pb.reshape(indices, (-1,)).astype(pb.int64)
        like = {"dtype": self.weight.dtype, "device": self.weight.device}
        return pb.scatter_add(pb.zeros((self.num_embeddings,), **like), flat, pb.ones(flat.shape, **like), axis=0)

    def _limit_norms(self, indices: C.Tensor) -> None:
        with pb.no_grad():
            table = self.weight.detach()
            norms = pb.norm(table, self.norm_type, axis=1)
            large = pb.logical_and(norms > self.max_norm, self._count(indices) > 0)
            factor = pb.where(large, self.max_norm / (norms + 1e-7), pb.ones_like(norms))
            table[...] = table * pb.expand_dims(factor, 1)

    def forward(self, indices: Any) -> C.Tensor:
        indices = pb.asarray(indices)
        if self.max_norm is not None:
            self._limit_norms(indices)
        out = pb.embedding(indices, self.weight)
        if self.scale_grad_by_freq:
            count = pb.expand_dims(pb.take(self._count(indices), indices, axis=0), -1)
            fixed = pb.stop_gradient(out)
            out = fixed + (out - fixed) / count
        if self.padding_idx is not None:
            out = pb.where(pb.expand_dims(indices == self.padding_idx, -1), pb.stop_gradient(out), out)
        return out

    def extra_repr(self) -> str:
        pad = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{pad}"


class Dropout(Module):
    """In training, zeroes elements with probability p and divides the others by 1 - p; in eval mode the identity.

    Args:
        p: probability of zero, in [0, 1] [0.5].
        inplace: accepted; the input is never overwritten.

    Set the attribute `_rng` to a `pb.random.Generator` to draw from it instead of the default one.

    Example:
        >>> pb.nn.Dropout(0.5).eval()(pb.ones(2)).tolist()
        [1.0, 1.0]
    """

    _rng: Any = None

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}\nhelp: p is the probability of a zero")
        self.p = p

    def forward(self, x: Any) -> C.Tensor:
        if not self.training or self.p == 0:
            return x
        return pb.dropout(x, self.p, training=True, rng=self._rng)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """Joins axes start_dim to end_dim, both included, into one.

    Example:
        >>> pb.nn.Flatten()(pb.zeros((2, 3, 4))).shape
        (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> C.Tensor:
        n = x.ndim
        if n == 0:
            return pb.reshape(x, (1,))
        first, last = (d + n if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < n:
            raise pb.ShapeError(
                f"Flatten: axes {self.start_dim} to {self.end_dim} of an input of shape {tuple(x.shape)}\n"
                "help: start_dim must not lie after end_dim, and both must exist"
            )
        return pb.reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
