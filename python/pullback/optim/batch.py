"""What a batch tells beyond its mean gradient: clipping by example, and how large the next batch should be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .. import _core as C
from .._core import ShapeError, Tensor
from .._tree import flatten

__all__ = ["NormTest", "clip_per_sample"]


def clip_per_sample(gradients: Any, max_norm: float) -> tuple[Any, Tensor]:
    """The mean over examples of gradients that are each scaled to at most the norm `max_norm`.

    The factor of example i is min(1, max_norm / (|g_i| + 1e-6)), |g_i| over all tensors together.

    Args:
        gradients: tensors whose first axis counts the examples, in nested dicts, lists and tuples, such as
            `pb.jacobian` gives of the losses of the examples.
        max_norm: positive.

    Returns:
        The mean gradients in the structure given, and the norms before clipping, one per example in float64.

    Raises:
        ValueError: max_norm is not positive, or there is no tensor.
        ShapeError: the tensors count different numbers of examples.

    >>> mean, norms = pb.optim.clip_per_sample([pb.tensor([[3.0, 4.0], [0.0, 0.5]])], 1.0)
    >>> [round(x, 3) for x in mean[0].tolist()], norms.tolist()
    ([0.3, 0.65], [5.0, 0.5])
    """
    if not max_norm > 0:
        raise ValueError(
            f"clip_per_sample: max_norm must be positive, got {max_norm}\nhelp: leave the call out instead"
        )
    leaves, build = flatten(gradients)
    if not leaves:
        raise ValueError("clip_per_sample: got no gradients\nhelp: give tensors whose first axis counts the examples")
    counts = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(counts) > 1 or None in counts:
        raise ShapeError(
            "clip_per_sample: gradients must have the same first axis\nhelp: it counts the examples of the batch"
        )
    flat = [leaf.reshape((leaf.shape[0], -1)) for leaf in leaves]
    squares: Any = sum((x.astype(C.float64) * x.astype(C.float64)).sum(axis=1) for x in flat)
    norms = C.sqrt(squares)
    factors = C.minimum(max_norm / (norms + 1e-6), 1.0) / max(1, norms.size)
    means = [(factors.astype(x.dtype) @ x).reshape(leaf.shape[1:]) for x, leaf in zip(flat, leaves, strict=True)]
    return build(means), norms


class NormTest:
    """Batch size by the norm test: large enough that the noise of the gradient is a share eta of its length.

    With g_i the gradients of a batch of b examples and g their mean, V = sum |g_i - g|^2 / (b - 1), and the next batch
    is max(b, ceil(V / (eta^2 |g|^2))). With `coordinates` the worst one decides: the largest V_c / (eta^2 g_c^2).
    Gradients of micro-batches of m examples serve as well: their variance is 1/m of V. For Adagrad and AdagradNorm:
    Lau, Liu and Kolar 2024.

    Args:
        eta: in (0, 1). Default 0.5.
        largest: cap of the batch size. Default None.
        coordinates: default False.

    Raises:
        ValueError: eta is out of its range.

    >>> test = pb.optim.NormTest(eta=0.5)
    >>> for g in (1.0, 3.0):
    ...     test.add([pb.tensor([g])])
    >>> test.next(2)
    2
    """

    def __init__(self, eta: float = 0.5, largest: int | None = None, *, coordinates: bool = False) -> None:
        if not 0 < eta < 1:
            raise ValueError(f"NormTest: eta must be in (0, 1), got {eta}\nhelp: the default is 0.5")
        self.eta, self.largest, self.coordinates = float(eta), largest, coordinates
        self.reset()

    def reset(self) -> None:
        """Forgets the gradients added; `next` does it, too."""
        self.count = 0
        self._means: list[Tensor] = []
        self._squares: list[Any] = []

    def add(self, grads: Iterable[Tensor]) -> None:
        """Takes the gradient of one example, or the mean gradient of one micro-batch; all of the same size.

        Raises:
            ShapeError: the tensors are not those of before.
        """
        before = C._set_grad_enabled(False)
        try:
            wide = [g.detach().astype(C.float64) for g in grads]
            if self.count and [g.shape for g in wide] != [m.shape for m in self._means]:
                raise ShapeError(
                    "NormTest: gradients have other shapes than those added before\nhelp: call reset for a new model"
                )
            self.count += 1
            if self.count == 1:
                self._means = wide
                self._squares = [(g * 0.0 if self.coordinates else 0.0) for g in wide]
                return
            share = (self.count - 1) / self.count
            for i, g in enumerate(wide):  # deviations from the running mean: equal gradients give exactly 0
                change = g - self._means[i]
                self._means[i] = self._means[i] + change / self.count
                square = share * change * change
                self._squares[i] = self._squares[i] + (square if self.coordinates else square.sum().item())
        finally:
            C._set_grad_enabled(before)

    @property
    def mean(self) -> list[Tensor]:
        """The mean gradient so far, in float64."""
        return list(self._means)

    def variance(self) -> float:
        """sum |g_i - g|^2 / (count - 1) of the gradients added.

        Raises:
            ValueError: fewer than two were added.
        """
        if self.count < 2:
            raise ValueError(f"NormTest: got {self.count} gradients\nhelp: add at least two before asking")
        total = sum(s.sum().item() if self.coordinates else s for s in self._squares)
        return float(total) / (self.count - 1)

    def next(self, batch_size: int) -> int:
        """The size of the next batch, where the gradients added make up one of `batch_size` examples; then forgets.

        Raises:
            ValueError: fewer than two gradients were added, or batch_size is no multiple of their number.
        """
        variance = self.variance()
        if batch_size < self.count or batch_size % self.count:
            raise ValueError(
                f"NormTest: {self.count} gradients cannot make up a batch of {batch_size}\n"
                "help: add one for each example or micro-batch, all of the same size"
            )
        each = batch_size // self.count
        if self.coordinates:
            needed = each * self._worst()
        else:
            square = sum((m * m).sum().item() for m in self._means)
            needed = _over(each * variance, self.eta**2 * square)
        self.reset()
        size = max(batch_size, math.ceil(needed) if needed < 2**62 else 2**62)
        return size if self.largest is None else max(batch_size, min(size, self.largest))

    def _worst(self) -> float:
        worst = 0.0
        for mean, square in zip(self._means, self._squares, strict=True):
            if not mean.size:
                continue
            below = self.eta**2 * mean * mean
            ratio = square / (self.count - 1) / C.where(below > 0, below, 1.0)
            endless = C.where(square > 0, float("inf"), 0.0)
            worst = max(worst, C.max(C.where(below > 0, ratio, endless)).item())
        return worst


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else (0.0 if a == 0 else float("inf"))
