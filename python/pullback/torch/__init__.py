"""pullback inside PyTorch programs: its optimizers on PyTorch's CPU tensors, and its few-bit activations.

Only the submodules `optim` and `fewbit` import torch.

>>> from pullback.torch import fewbit, optim  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import fewbit, optim

__all__ = ["fewbit", "optim"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'pullback.torch' has no attribute {name!r}\nhelp: it has fewbit and optim")
