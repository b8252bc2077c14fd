"""pullback for PyTorch: the optimizers on PyTorch's CPU tensors. Only this package imports torch.

>>> from pullback.torch import optim  # doctest: +SKIP
"""

from __future__ import annotations

from . import optim

__all__ = ["optim"]
