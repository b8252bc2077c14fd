"""pullback: a compiled tensor engine for gradient-based learning. Use it as `import pullback as pb`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    from . import _core
except ImportError as error:
    if str(error).startswith("PULLBACK_ISA"):  # an exception that leaves the init function of a module loses its class
        raise ValueError(str(error)) from None
    raise
from ._array_api import *
from ._core import *
from ._core import (
    CheckpointError,
    DeviceError,
    DTypeError,
    GraphError,
    ShapeError,
    Tensor,
    __version__,
    dtype,
)
from ._functions import *
from ._fused import *
from .transforms import (
    checkpoint,
    custom,
    detect_anomaly,
    enable_grad,
    grad,
    gradients,
    hessian,
    hvp,
    jacobian,
    jvp,
    linearize,
    no_grad,
    value_and_grad,
    vjp,
)

if TYPE_CHECKING:
    from . import cuda, data, fewbit, fused, io, losses, memory, nn, optim, random, testing, train
    from ._capture import capture
    from ._precision import autocast
    from .io import load, save
    from .memory import saving
    from .nn import functional_call
    from .profiler import profile
    from .random import manual_seed

#: Submodules and names that are loaded when first used, so that `import pullback` stays fast.
_LAZY_MODULES = (
    *("cuda", "data", "fewbit", "fused", "io", "losses", "memory", "nn", "optim", "random", "testing", "train"),
)
_LAZY_NAMES = {
    "autocast": "_precision",
    "capture": "_capture",
    "functional_call": "nn",
    "load": "io",
    "manual_seed": "random",
    "profile": "profiler",
    "save": "io",
    "saving": "memory",
}

#: What the core offers to the modules of this package alone.
_INTERNAL = {
    *(
        "FewbitCode",
        "Generator",
        "OptimDriver",
        "default_generator",
        "empty_cache",
        "frombuffer",
        "gelu_tanh",
        "memory_stats",
    ),
    *("promote_types", "reset_peak_memory"),
}
for _name in [n for n in globals() if n in _INTERNAL or n.startswith(("draw_", "fewbit_", "optim_"))]:
    del globals()[_name]


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY_NAMES:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pullback' has no attribute {name!r}\nhelp: pb.ops() lists the functions")


def __dir__() -> list[str]:
    imported = {"Any", "TYPE_CHECKING", "annotations", "importlib"}
    names = {*globals(), *_LAZY_MODULES, *_LAZY_NAMES} - imported
    return sorted(n for n in names if not n.startswith("_") or (n.endswith("__") and n != "__builtins__"))
