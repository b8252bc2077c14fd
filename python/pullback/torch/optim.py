"""pullback's optimizers for PyTorch parameters on the CPU: each class is a `torch.optim.Optimizer`.

Replace `torch.optim.AdamW` by `pullback.torch.optim.AdamW`: the compiled driver steps PyTorch's memory in place, shared
through DLPack, and everything around it (param_groups, zero_grad, closures, state_dict, torch's lr_scheduler) stays as
it is. Every class of `pullback.optim` that needs one gradient per step is here, with its keywords and defaults; `wrap`
makes one of a rule of your own.

>>> from pullback.torch import optim  # doctest: +SKIP
>>> opt = optim.AdamW(model.parameters(), lr=1e-3)  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch.utils.dlpack import from_dlpack, to_dlpack

from .. import _core as C
from .. import optim as _optim
from ..optim.optimizer import RULES

__all__ = ["Optimizer", "state_dict", "wrap"]

# Keywords of torch.optim that choose among its implementations, and the values that ask for nothing else.
_IMPLEMENTATION: dict[str, tuple[Any, ...]] = {
    "foreach": (None, False, True),
    "fused": (None, False, True),
    "maximize": (False,),
    "capturable": (False,),
    "differentiable": (False,),
}


def _share(t: torch.Tensor) -> C.Tensor:
    """The same memory as a tensor of pullback."""
    if t.is_sparse or t.device.type != "cpu":
        kind = "sparse" if t.is_sparse else f"on {t.device}"
        raise TypeError(
            f"pullback.torch.optim: a tensor is {kind}\nhelp: parameters and gradients are dense, on the CPU"
        )
    return C.from_dlpack(to_dlpack(t.detach() if t.requires_grad else t))


class Optimizer(torch.optim.Optimizer):
    """Steps PyTorch parameters by a rule of pullback. Use a subclass such as `AdamW`.

    The keywords are those of the class of the same name in `pullback.optim`, weight decay, `state=` and `rounding=`
    included. torch's `foreach` and `fused` are accepted and change nothing; `maximize`, `capturable` and
    `differentiable` must be False. States are kept by the driver: `state_dict()` shows them under torch's names,
    `.state` stays empty.

    Raises:
        TypeError: an unknown keyword, a parameter that is sparse or not on the CPU.
        ValueError: a keyword out of its range, no parameters.
    """

    _class: ClassVar[type[_optim.Optimizer]]

    def __init__(self, params: Any, lr: Any = None, **keywords: Any) -> None:
        for key, values in _IMPLEMENTATION.items():
            if key in keywords and keywords.pop(key) not in values:
                raise ValueError(f"{type(self).__name__}: {key}=True is not offered\nhelp: leave it out")
        if lr is not None:
            keywords["lr"] = lr
        self._inner = self._class(None, **keywords)
        self._addresses: list[list[int]] = []
        super().__init__(params, dict(self._inner.defaults))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as in torch."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            own = {key: group[key] for key in (*self._inner.defaults, "prox") if key in group}
            self._inner.add_param_group({**own, "params": [_share(p) for p in group["params"]]})
        except BaseException:
            self.param_groups.pop()
            raise
        self._addresses.append([p.data_ptr() for p in group["params"]])

    @torch.no_grad()
    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: float | None = None,
    ) -> Any:
        """Updates every parameter that has a gradient.

        Args:
            closure: as in torch: clears gradients, calls backward and returns the loss.
            clip_norm, clip_value, scale: as in `pullback.optim.Optimizer.step`, fused into the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moved, grads = [], []
        for group, inner, addresses in zip(self.param_groups, self._inner.param_groups, self._addresses, strict=True):
            for key in inner:
                if key != "params" and key in group:
                    inner[key] = group[key]
            for i, p in enumerate(group["params"]):
                if p.data_ptr() != addresses[i]:
                    self._share_again(inner["params"], addresses, i, p)
                g = p.grad
                grads.append(None if g is None else _share(g))
                if g is not None:
                    moved.append(p)
        if moved:
            self._inner.step(grads=grads, clip_norm=clip_norm, clip_value=clip_value, scale=scale)
            torch.autograd.graph.increment_version(moved)
        return loss

    @property
    def last_norm(self) -> float | None:
        """2-norm of all gradients of the last step that clipped by norm or unscaled."""
        return self._inner.last_norm

    @property
    def last_skipped(self) -> bool:
        """The last step found a gradient that is not finite and changed nothing."""
        return self._inner.last_skipped

    def _share_again(self, params: list[Any], addresses: list[int], i: int, p: torch.Tensor) -> None:
        """A parameter's memory was replaced; its state goes on."""
        old, driver = params[i], self._inner._driver
        kept = driver.stored_state(old)
        params[i], addresses[i] = _share(p), p.data_ptr()
        driver.forget(old)
        if kept is not None:
            driver.set_state(params[i], *kept)

    # ---- states

    def state_dict(self) -> dict[str, Any]:
        """As in torch: {"state": {i: {"step": ..., "exp_avg": ...}}, "param_groups": [...]}; tensors are copies."""
        d = super().state_dict()
        d["state"] = dict(_torch_states(self._inner))
        return d

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned, here or of the class of the same name in torch.

        Raises:
            ValueError: other groups, missing or unknown entries. ShapeError: a state of another shape.
        """
        self._inner.load_state_dict(state_dict)
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        for group, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            group.update({key: inner[key] for key in self._inner.defaults})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "kept": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = state.pop("kept", None)
        super().__setstate__(state)
        if kept is None:  # torch calls this while it loads, too
            return
        self._inner = self._class(None, **{k: v for k, v in self.defaults.items() if k not in _IMPLEMENTATION})
        groups, self.param_groups, self._addresses = self.param_groups, [], []
        for group in groups:
            self.add_param_group(group)
        self.load_state_dict(kept)


def _torch_states(opt: _optim.Optimizer) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the parameter, its state as torch names it)."""
    at = 0
    for group in opt.param_groups:
        row = RULES[opt._rule(group)]
        for i, p in enumerate(group["params"], at):
            kept = opt._driver.get_state(p)
            if kept is None:
                continue
            entry: dict[str, Any] = {"step": torch.tensor(float(kept[0]))}
            for name, slot in zip(row["slots"], kept[1], strict=False):
                if slot is not None:
                    entry[name] = from_dlpack(slot).clone()
            entry.update(
                {name: torch.tensor(v, dtype=torch.float64) for name, v in zip(row["scalars"], kept[2], strict=False)}
            )
            rest = opt._driver.stored_state(p)[3]
            if rest is not None:
                entry["compensation" if rest.dtype == p.dtype else "master"] = from_dlpack(rest).clone()
            yield i, entry
        at += len(group["params"])


def state_dict(opt: _optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer of pullback as the `torch.optim` class of the same name loads it; tensors are copies.

    The other direction needs no call: `opt.load_state_dict(theirs.state_dict())`.

    Raises:
        TypeError: torch.optim has no class of this name.
        ValueError: a keyword that torch does not have, such as amsgrad="paper".

    >>> theirs.load_state_dict(pullback.torch.optim.state_dict(opt))  # doctest: +SKIP
    """
    name = type(opt).__name__
    theirs = getattr(torch.optim, name, None)
    if theirs is None or type(opt) is not getattr(_optim, name, None):
        raise TypeError(f"state_dict: torch.optim has no {name}\nhelp: use opt.state_dict()")
    defaults = theirs([torch.zeros(1)]).defaults
    groups, at = [], 0
    for group in opt.param_groups:
        _check_torch(name, group, defaults)
        values = {**defaults, **{key: group[key] for key in defaults if key in group}}
        if "decoupled_weight_decay" in defaults:
            values["decoupled_weight_decay"] = group["decoupled"]
        groups.append({**values, "params": list(range(at, at + len(group["params"])))})
        at += len(group["params"])
    states = {}
    for i, entry in _torch_states(opt):
        if name == "SGD":  # torch counts no steps there
            del entry["step"]
        states[i] = entry
    return {"state": states, "param_groups": groups}


def _check_torch(name: str, group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    problems = {
        "amsgrad='paper'": group.get("amsgrad") == "paper",
        "adamnc": bool(group.get("adamnc")),
        "a proximal step": group.get("prox") is not None,
        f"eps_mode={group.get('eps_mode')!r}": group.get("eps_mode", "after")
        != ("before" if name == "RAdam" else "after")
        and "eps_mode" in group,
        "decoupled weight decay": bool(group["decoupled"] and group["weight_decay"])
        and "decoupled_weight_decay" not in defaults
        and name != "AdamW",
        "coupled weight decay": name == "AdamW"
        and bool(not group["decoupled"] and group["weight_decay"])
        and "decoupled_weight_decay" not in defaults,
    }
    for what, there in problems.items():
        if there:
            raise ValueError(f"state_dict: torch.optim.{name} has no {what}\nhelp: use opt.state_dict()")


def wrap(cls: type[_optim.Optimizer]) -> type[Optimizer]:
    """The PyTorch class of an optimizer class of pullback, such as one that `pullback.optim.rule` made.

    Raises:
        TypeError: a class that needs more than one gradient per step.
    """
    if getattr(cls, "needs_closure", False) or "params" not in inspect.signature(cls).parameters:
        raise TypeError(f"wrap: {cls.__name__} calls its closure more than once\nhelp: use it from pullback.optim")
    doc = f"`pullback.optim.{cls.__name__}` for PyTorch parameters.\n\n{inspect.getdoc(cls) or ''}"
    signature = inspect.signature(cls)
    first = signature.parameters["params"].replace(default=inspect.Parameter.empty)
    rest = [p for p in signature.parameters.values() if p.name != "params"]
    body = {
        "__doc__": doc.split("\n>>> ")[0].rstrip(),
        "__module__": __name__,
        "__signature__": inspect.Signature([first, *rest]),
        "_class": cls,
    }
    return type(cls.__name__, (Optimizer,), body)


def _wrap_all() -> None:
    for name in _optim.__all__:
        cls = getattr(_optim, name)
        if not isinstance(cls, type) or not issubclass(cls, _optim.Optimizer) or cls is _optim.Optimizer:
            continue
        if getattr(cls, "needs_closure", False) or "params" not in inspect.signature(cls).parameters:
            continue
        globals()[name] = wrap(cls)
        __all__.append(name)


_wrap_all()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"pullback.torch.optim has no {name!r}\nhelp: it has {', '.join(sorted(__all__))}")
