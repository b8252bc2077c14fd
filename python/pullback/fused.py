"""The compiled kernels on any CPU arrays (pullback, NumPy, PyTorch and others through DLPack), without a tape.

For each activation `gelu_forward(x, bits=3) -> (y, code)` and `gelu_backward(dy, code)`: a code of the derivative
instead of x (`pullback.fewbit`). The update rules work in place: there is a function for each optimizer class that
takes one gradient per step: the name of the class in lower case and an underscore, such as `sgd_`, `adamw_`, `lion_`,
`adagradnorm_`:

    adamw_(params, grads, states, *, clip_norm=None, clip_value=None, scale=None, **hyper) -> bool

`params`, `grads` and `states` are lists of the same length. A parameter without a gradient (None) stays. A state is a
dict, {} at the start; the function fills it with "step" (an int) and the rule's arrays, of the kind of the parameter,
and changes them in place afterwards. `hyper` are the keywords of the class, "lr" included, with its defaults. The other
three keywords are those of `Optimizer.step`; with clip_norm or scale a gradient that is not finite makes the call
change nothing and return False.

>>> import numpy as np
>>> w, state = np.ones(3, np.float32), {}
>>> pb.fused.adamw_([w], [np.full(3, 2.0, np.float32)], [state], lr=0.5, weight_decay=0.0)
True
>>> w.tolist(), state["step"], sorted(state)
([0.5, 0.5, 0.5], 1, ['exp_avg', 'exp_avg_sq', 'step'])
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import _core as C
from . import _fused_activations
from . import optim as _optim
from ._core import Tensor
from .optim.optimizer import RULES

__all__: list[str] = [*_fused_activations.__all__]
globals().update({name: getattr(_fused_activations, name) for name in __all__})

State = dict[str, Any]


def _share(x: Any, what: str) -> Tensor:
    """The same memory as a tensor."""
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, (int, float, list, tuple)):
        raise TypeError(f"{what} is a {type(x).__name__}, not an array\nhelp: pass arrays that can be written in place")
    if hasattr(x, "detach") and getattr(x, "requires_grad", False):
        x = x.detach()
    return C.asarray(x, copy=False)


def _like(x: Any, t: Tensor) -> Any:
    """The memory of t as an array of the library of x."""
    if isinstance(x, Tensor):
        return t
    library = type(x).__module__.partition(".")[0]
    return t.numpy() if library == "numpy" else sys.modules[library].from_dlpack(t)


def _state(
    op: str, i: int, x: Any, p: Tensor, row: dict[str, Any], opt: _optim.Optimizer, state: State
) -> tuple[int, list[Tensor], list[float]]:
    """(step count, slots, numbers) of one parameter; a fresh state is filled."""
    if not isinstance(state, dict):
        raise TypeError(f"{op}: state {i} is a {type(state).__name__}, not a dict\nhelp: start with {{}}")
    names = ("step", *row["slots"], *row["scalars"])
    if not state:
        fresh = opt.init([p])
        state["step"] = 0
        state.update({name: _like(x, fresh[name][0]) for name in row["slots"]})
        state.update({name: fresh[name][0].item() for name in row["scalars"]})
    if set(state) != set(names):
        wrong = sorted(set(state) ^ set(names))[0]
        raise ValueError(
            f"{op}: state {i} has a missing or unknown entry {wrong!r}\nhelp: this rule keeps {', '.join(names)}"
        )
    slots = [_share(state[name], f"{op}: state {i}, {name}") for name in row["slots"]]
    return int(state["step"]), slots, [float(state[name]) for name in row["scalars"]]


def _step(
    cls: type[_optim.Optimizer], op: str, params: Sequence[Any], grads: Sequence[Any], states: Sequence[State],
    clip_norm: float | None, clip_value: float | None, scale: float | None, hyper: dict[str, Any],
) -> bool:  # fmt: skip
    if hyper.get("state", "float32") != "float32" or hyper.get("rounding", "nearest") in ("kahan", "master"):
        raise ValueError(f"{op}: states are arrays of the compute type\nhelp: use pullback.optim.{cls.__name__}")
    for name, value in (("params", params), ("grads", grads), ("states", states)):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{op}: {name} is a {type(value).__name__}\nhelp: pass a list")
        if len(value) != len(params):
            raise ValueError(f"{op}: {len(params)} params, but {len(value)} {name}\nhelp: give one for each")
    opt = cls(None, **hyper)
    tensors = [_share(p, f"{op}: parameter {i}") for i, p in enumerate(params)]
    slopes = [None if g is None else _share(g, f"{op}: gradient {i}") for i, g in enumerate(grads)]
    if all(g is None for g in slopes):
        return True
    row = RULES[opt._rule(opt.defaults)]
    driver = C.OptimDriver()
    for i, (x, p, state, g) in enumerate(zip(params, tensors, states, slopes, strict=True)):
        if g is not None:
            C.optim_adopt_state(driver, p, *_state(op, i, x, p, row, opt, state))
    packed = opt._pack({**opt.defaults, "params": tensors})
    _, skipped = driver.step([packed], slopes, clip_norm, clip_value, scale)
    for p, state, g in zip(tensors, states, slopes, strict=True):
        if g is not None and not skipped:
            kept = driver.get_state(p)
            state["step"] = kept[0]
            state.update(zip(row["scalars"], kept[2], strict=False))
    return not skipped


def _make(cls: type[_optim.Optimizer], name: str) -> Callable[..., bool]:
    def call(
        params: Sequence[Any], grads: Sequence[Any], states: Sequence[State], *, clip_norm: float | None = None,
        clip_value: float | None = None, scale: float | None = None, **hyper: Any,
    ) -> bool:  # fmt: skip
        return _step(cls, name, params, grads, states, clip_norm, clip_value, scale, hyper)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = (
        f"One step of `pullback.optim.{cls.__name__}` on arrays, in place; see `pullback.fused`.\n\n"
        f"Keywords: {', '.join(_keywords(cls))}."
    )
    return call


def _keywords(cls: type[_optim.Optimizer]) -> list[str]:
    given = inspect.signature(cls).parameters.values()
    return [f"{p.name}={p.default!r}" for p in given if p.name != "params" and p.kind != p.VAR_KEYWORD]


def _make_all() -> None:
    for name in _optim.__all__:
        cls = getattr(_optim, name)
        if isinstance(cls, type) and issubclass(cls, _optim.Optimizer) and cls.step is _optim.Optimizer.step:
            if cls is _optim.Optimizer or "params" not in inspect.signature(cls).parameters:
                continue
            function = f"{name.lower()}_"
            globals()[function] = _make(cls, function)
            __all__.append(function)


_make_all()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"pullback.fused has no {name!r}\nhelp: it has {', '.join(sorted(__all__))}")
