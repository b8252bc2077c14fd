"""The module tree: parameters, buffers, submodules, state dicts, hooks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pullback as pb
from pullback import _core as C

__all__ = ["Module", "Parameter", "functional_call", "replaced"]


class Parameter(C.Tensor):
    """A tensor that a module trains. It shares the storage of `data`.

    Args:
        data: a tensor, an array or nested numbers; floating unless `requires_grad` is False.
        requires_grad: whether gradients reach it [True].

    Raises:
        DTypeError: integers or bools with `requires_grad=True`.

    Example:
        >>> pb.nn.Parameter(pb.zeros((2, 3))).shape
        (2, 3)
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class LoadResult(NamedTuple):
    """What `load_state_dict` skipped with `strict=False`."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Hook:
    """Returned by the register methods; `remove()` takes the hook away."""

    _count = 0

    def __init__(self, hooks: dict) -> None:
        Hook._count += 1
        self._hooks, self._key = hooks, Hook._count

    def remove(self) -> None:
        """Takes the hook away; a second call does nothing."""
        self._hooks.pop(self._key, None)


class Module:
    """Base class of everything with parameters: assign tensors and modules as attributes, write `forward`.

    A `Parameter` is trained; a plain tensor is a buffer: saved and moved, never trained. Lists, tuples and dicts of
    modules or tensors belong to the tree (`layers.0.weight`); names that begin with `_` do not. No call of
    `super().__init__()` is needed.

    Example:
        >>> class Scale(pb.nn.Module):
        ...     def __init__(self):
        ...         self.factor = pb.nn.Parameter(pb.tensor(2.0))
        ...     def forward(self, x):
        ...         return self.factor * x
        >>> Scale()(pb.tensor([1.0, 2.0])).tolist()
        [2.0, 4.0]
        >>> Scale()
        Scale()  # 1 parameter
    """

    training: bool = True
    _forward_hooks: dict[int, Callable] | None = None
    _forward_pre_hooks: dict[int, Callable] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation; every module writes its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward\nhelp: define forward(self, ...) in the class")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._forward_hooks is None and self._forward_pre_hooks is None:
            return self.forward(*args, **kwargs)
        for hook in list((self._forward_pre_hooks or {}).values()):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        out = self.forward(*args, **kwargs)
        for hook in list((self._forward_hooks or {}).values()):
            changed = hook(self, args, out)
            if changed is not None:
                out = changed
        return out

    # ---- the tree

    def _members(self) -> list[tuple[str, Any]]:
        return [(k, v) for k, v in vars(self).items() if k[:1] != "_" and isinstance(v, _NODES)]

    def _walk(self, prefix: str = "", inside: tuple[int, ...] = ()) -> Iterator[tuple[str, Module]]:
        """Every (name, module) in pre-order; a shared module comes once under each of its names."""
        if id(self) in inside:
            raise ValueError(
                f"Module: '{prefix}' contains itself\n"
                "help: begin the name of a reference upwards with _, such as _parent"
            )
        yield prefix, self
        for name, child in self._named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name, (*inside, id(self)))

    def _named_children(self) -> Iterator[tuple[str, Module]]:
        for key, value in self._members():
            for name, leaf in _leaves(value, key):
                if isinstance(leaf, Module):
                    yield name, leaf

    def _own_tensors(self) -> list[tuple[str, C.Tensor]]:
        leaves = [pair for k, v in self._members() for pair in _leaves(v, k) if isinstance(pair[1], C.Tensor)]
        return sorted(leaves, key=lambda pair: not _is_parameter(pair[1]))  # parameters first; stable

    def _tensors(self, prefix: str = "") -> Iterator[tuple[str, C.Tensor]]:
        for path, module in self._walk(prefix):
            for name, value in module._own_tensors():
                yield (f"{path}.{name}" if path else name), value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of the whole tree, itself first under the name `prefix`; shared modules once."""
        return _once(self._walk(prefix))

    def modules(self) -> Iterator[Module]:
        """Every module of the tree, itself first; shared modules once."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly below; shared modules once."""
        return _once(self._named_children())

    def children(self) -> Iterator[Module]:
        """The modules directly below; shared modules once."""
        return (m for _, m in self.named_children())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of the tree; a shared parameter once, under its first name.

        Example:
            >>> [(name, p.shape) for name, p in pb.nn.Linear(3, 2).named_parameters()]
            [('weight', (2, 3)), ('bias', (2,))]
        """
        return _once((n, t) for n, t in self._tensors(prefix) if _is_parameter(t))

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter of the tree once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, C.Tensor]]:
        """(name, tensor) of what is saved but not trained; shared tensors once."""
        return _once((n, t) for n, t in self._tensors(prefix) if not _is_parameter(t))

    def buffers(self) -> Iterator[C.Tensor]:
        """Every buffer of the tree once."""
        return (b for _, b in self.named_buffers())

    # ---- state

    def state_dict(self) -> dict[str, C.Tensor]:
        """{name: tensor} of parameters and buffers. The tensors share memory with the module and are outside the graph.

        A shared tensor stands under each of its names.
        """
        return {name: t.detach() for name, t in self._unique_names()}

    def _unique_names(self) -> list[tuple[str, C.Tensor]]:
        pairs = list(self._tensors())
        if len({name for name, _ in pairs}) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(n for n in names if names.count(n) > 1)
            raise ValueError(
                f"state_dict: two tensors have the name '{twice}'\nhelp: use dict keys with distinct str()"
            )
        return pairs

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copies values into the tensors of the tree; nothing is written unless everything fits.

        Args:
            state: {name: tensor or array}, also a PyTorch state dict of the same layers. Values are cast to the dtype
                of the tensor they go to. A tensor shared by several names needs only one of them.
            strict: False skips missing and unexpected names instead of raising; shapes must always match.

        Returns:
            LoadResult(missing_keys, unexpected_keys).

        Raises:
            CheckpointError: names or shapes differ; the message lists every one.
        """
        own = dict(self._unique_names())
        given = {id(t) for name, t in own.items() if name in state}
        missing = [name for name, t in own.items() if id(t) not in given]
        unexpected = [name for name in state if name not in own]
        values = {name: _as_tensor(state[name]) for name in own if name in state}
        wrong = [
            f"{name} is {tuple(own[name].shape)} here and {tuple(v.shape)} there"
            for name, v in values.items()
            if tuple(own[name].shape) != tuple(v.shape)
        ]
        lines = [f"shapes differ: {'; '.join(wrong)}"] if wrong else []
        if strict:
            lines += [f"missing: {', '.join(missing)}"] if missing else []
            lines += [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
        if lines:
            raise pb.CheckpointError(
                f"load_state_dict: the state does not fit {type(self).__name__}\n  "
                + "\n  ".join(lines)
                + "\nhelp: build the model with the same arguments, or pass strict=False to skip names"
            )
        with pb.no_grad():
            for name, value in values.items():
                target = own[name].detach()
                target[...] = value.to(target.device).astype(target.dtype)
        return LoadResult(missing, unexpected)

    def train(self, mode: bool = True) -> Module:
        """Sets `training` in the whole tree; returns the module."""
        for m in self.modules():
            m.training = bool(mode)
        return self

    def eval(self) -> Module:
        """`train(False)`."""
        return self.train(False)

    def to(self, target: Any) -> Module:
        """Moves every tensor to a device, or casts the floating ones to a floating dtype; in place, returns the module.

        Raises:
            DTypeError: the target is a dtype that is not floating.
        """
        if isinstance(target, C.dtype) and not target.is_floating:
            raise pb.DTypeError(
                f"Module.to: {target!r} is not a floating dtype\nhelp: only floating parameters and buffers are cast"
            )
        with pb.no_grad():
            for _, t in _once(self._tensors()):
                if isinstance(target, C.dtype) and not t.dtype.is_floating:
                    continue
                moved = t.detach().to(target)
                if moved.dtype != t.dtype or moved.device != t.device:
                    grad = t.grad
                    t.grad = None
                    t._data_as(moved)
                    t.grad = None if grad is None else grad.detach().to(target)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Sets `requires_grad` of every parameter; returns the module."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Sets `.grad` of every parameter to None."""
        for p in self.parameters():
            p.grad = None

    def apply(self, f: Callable[[Module], Any]) -> Module:
        """Calls f(m) for every module of the tree, children first; returns the module."""
        self._apply(f, set())
        return self

    def _apply(self, f: Callable[[Module], Any], seen: set[int]) -> None:
        seen.add(id(self))
        for _, child in self._named_children():
            if id(child) not in seen:
                child._apply(f, seen)
        f(self)

    # ---- hooks

    def register_forward_pre_hook(self, hook: Callable) -> Hook:
        """hook(module, args) runs before forward; what it returns, unless None, replaces the arguments."""
        if self._forward_pre_hooks is None:
            self._forward_pre_hooks = {}
        return _add_hook(self._forward_pre_hooks, hook)

    def register_forward_hook(self, hook: Callable) -> Hook:
        """hook(module, args, output) runs after forward; what it returns, unless None, replaces the output."""
        if self._forward_hooks is None:
            self._forward_hooks = {}
        return _add_hook(self._forward_hooks, hook)

    # ---- text

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's line."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._named_children()]
        n = sum(p.size for p in self.parameters())
        count = f"  # {n:,} parameter{'s' if n != 1 else ''}" if n else ""
        head = f"{type(self).__name__}({self.extra_repr()}"
        if not children:
            return f"{head}){count}"
        return f"{head}{count}\n  " + "\n  ".join(children) + "\n)"


_NODES = (C.Tensor, Module, list, tuple, dict)


def _leaves(value: Any, name: str, inside: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(name, leaf) of the tensors and modules in an attribute; containers are opened."""
    if isinstance(value, (C.Tensor, Module)):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and id(value) not in inside:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            if isinstance(item, _NODES):
                yield from _leaves(item, f"{name}.{key}", (*inside, id(value)))


# Tensors that stand in for a parameter at this moment, by id: nested transforms still find them in parameters().
_stand_ins: dict[int, int] = {}


def _is_parameter(t: Any) -> bool:
    return isinstance(t, Parameter) or id(t) in _stand_ins


def _once(pairs: Any) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _add_hook(hooks: dict, hook: Callable) -> Hook:
    handle = Hook(hooks)
    hooks[handle._key] = hook
    return handle


def _as_tensor(value: Any) -> C.Tensor:
    if not isinstance(value, C.Tensor) and hasattr(value, "detach"):
        value = value.detach()  # a foreign tensor that tracks gradients does not export itself
    return C.asarray(value).detach()


def _rebuilt(value: Any, new: Mapping[int, C.Tensor]) -> Any:
    """`value` with every tensor whose id is in `new` replaced; containers are copied, never written to."""
    if isinstance(value, C.Tensor):
        return new.get(id(value), value)
    if isinstance(value, dict):
        out: Any = copy.copy(value)
        out.update({k: _rebuilt(v, new) for k, v in value.items()})
        return out
    if isinstance(value, (list, tuple)):
        items = [_rebuilt(v, new) for v in value]
        if isinstance(value, list):
            out = copy.copy(value)
            out[:] = items
            return out
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


@contextlib.contextmanager
def _exchanged(model: Module, new: Mapping[int, C.Tensor]) -> Iterator[None]:
    before: list[tuple[dict, str, Any]] = []
    stand_ins: list[int] = []
    for _, module in model.named_modules():
        attributes = vars(module)
        for key, value in module._members():
            hit = [leaf for _, leaf in _leaves(value, key) if id(leaf) in new]
            if hit:
                before.append((attributes, key, value))
                stand_ins += [id(new[id(leaf)]) for leaf in hit if _is_parameter(leaf)]
    try:
        for i in stand_ins:
            _stand_ins[i] = _stand_ins.get(i, 0) + 1
        for attributes, key, value in before:
            attributes[key] = _rebuilt(value, new)
        yield
    finally:
        for attributes, key, value in before:
            attributes[key] = value
        for i in stand_ins:
            _stand_ins[i] -= 1
            if not _stand_ins[i]:
                del _stand_ins[i]


def _by_identity(model: Module, params: Mapping[str, C.Tensor]) -> tuple[dict[int, C.Tensor], dict[str, C.Tensor]]:
    """{id of the tensor in the tree: its replacement}, and the tensors of the tree by name."""
    own = dict(model._tensors())
    unknown = [name for name in params if name not in own]
    if unknown:
        raise ValueError(
            f"functional_call: {type(model).__name__} has no {', '.join(unknown)}\n"
            "help: names are those of state_dict()"
        )
    new: dict[int, C.Tensor] = {}
    for name, value in params.items():
        old = own[name]
        if tuple(value.shape) != tuple(old.shape):
            raise pb.ShapeError(
                f"functional_call: {name} is {tuple(old.shape)}, the replacement is {tuple(value.shape)}\n"
                "help: a replacement has the shape of what it replaces"
            )
        if new.setdefault(id(old), value) is not value:
            raise ValueError(
                f"functional_call: {name} shares its tensor with another name, and their values differ\n"
                "help: give one of the names, or the same tensor for each"
            )
    return new, own


@contextlib.contextmanager
def replaced(model: Module, params: Mapping[str, C.Tensor]) -> Iterator[Module]:
    """Inside the block the named tensors of the tree are those of `params`; every attribute is put back at the end.

    Example:
        >>> model = pb.nn.Linear(1, 1)
        >>> with pb.nn.replaced(model, {"bias": pb.ones(1)}):
        ...     model.bias.tolist()
        [1.0]
    """
    with _exchanged(model, _by_identity(model, params)[0]):
        yield model


def functional_call(model: Module, params: Mapping[str, C.Tensor], *args: Any, **kwargs: Any) -> Any:
    """model(*args, **kwargs) with other parameters and buffers. Nothing is written back, also when forward raises.

    Args:
        params: {name: tensor}, any part of the names in `model.state_dict()`; one name replaces a shared tensor under
            all its names.

    Buffers are copied for the call, so statistics that forward updates in place change neither the model nor `params`.

    Raises:
        ValueError: a name is unknown, or the names of one shared tensor are given different values.
        ShapeError: a replacement has another shape.

    Example:
        >>> model = pb.nn.Linear(2, 1, bias=False)
        >>> pb.functional_call(model, {"weight": pb.ones((1, 2))}, pb.tensor([3.0, 4.0])).tolist()
        [7.0]
    """
    new, own = _by_identity(model, params)
    for tensor in own.values():
        if not _is_parameter(tensor):
            new[id(tensor)] = new[id(tensor)].clone() if id(tensor) in new else tensor.clone()
    with _exchanged(model, new):
        return model(*args, **kwargs)


@contextlib.contextmanager
def watched_calls(
    watch: Callable[[Callable[..., Any], Module, tuple[Any, ...], dict[str, Any]], Any],
) -> Iterator[None]:
    """Inside, every module call goes through watch(call, module, args, kwargs). Outside a call pays nothing for it."""
    plain = Module.__call__

    def call(module: Module, *args: Any, **kwargs: Any) -> Any:
        return watch(plain, module, args, kwargs)

    Module.__call__ = call  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Module.__call__ = plain  # type: ignore[method-assign]
