"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pullback.nn.module import Module

__all__ = ["ModuleDict", "ModuleList", "Sequential"]


def _check(module: Any, holder: Module) -> Module:
    if not isinstance(module, Module):
        raise TypeError(
            f"{type(holder).__name__}: items are modules, got {type(module).__name__}\n"
            "help: write a function as a class with a forward method"
        )
    return module


class ModuleList(Module):
    """A list of modules. Its items have the names "0", "1", ...

    Example:
        >>> layers = pb.nn.ModuleList([pb.nn.Linear(2, 2), pb.nn.ReLU()])
        >>> len(layers), list(layers.state_dict())
        (2, ['0.weight', '0.bias'])
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._items = [_check(m, self) for m in modules]

    def _members(self) -> list[tuple[str, Any]]:
        return super()._members() + [(str(i), m) for i, m in enumerate(self._items)]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = type(self).__new__(type(self))
            part._items = self._items[index]
            return part
        return self._items[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self._items[index] = _check(module, self)

    def __delitem__(self, index: int | slice) -> None:
        del self._items[index]

    def append(self, module: Module) -> ModuleList:
        """Adds one module at the end; returns the list."""
        self._items.append(_check(module, self))
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Adds modules at the end; returns the list."""
        self._items.extend(_check(m, self) for m in list(modules))
        return self

    def insert(self, index: int, module: Module) -> None:
        """Puts a module before position `index`."""
        self._items.insert(index, _check(module, self))


class Sequential(ModuleList):
    """Modules called one after the other, given as arguments or as one dict {name: module}.

    Example:
        >>> pb.nn.Sequential(pb.nn.Linear(3, 4), pb.nn.ReLU())
        Sequential(  # 16 parameters
          (0): Linear(in_features=3, out_features=4, bias=True)  # 16 parameters
          (1): ReLU()
        )
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        self._names: list[str] | None = None
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            self._names = [str(k) for k in modules[0]]
            modules = tuple(modules[0].values())
        super().__init__(modules)  # type: ignore[arg-type]

    def _members(self) -> list[tuple[str, Any]]:
        names = self._names or []
        names = names + [str(i) for i in range(len(names), len(self._items))]
        return Module._members(self) + list(zip(names, self._items, strict=True))

    def __getattr__(self, name: str) -> Module:
        names = self.__dict__.get("_names") or []
        if name in names:
            return self._items[names.index(name)]
        raise AttributeError(
            f"{type(self).__name__} has no attribute '{name}'\nhelp: the named children are {names}"
        )

    def __getitem__(self, index: int | slice) -> Any:
        part = super().__getitem__(index)
        if isinstance(index, slice):
            part._names = self._names[index] if self._names else None
        return part

    def __delitem__(self, index: int | slice) -> None:
        super().__delitem__(index)
        if self._names:
            del self._names[index]

    def insert(self, index: int, module: Module) -> None:
        """Puts a module before position `index`."""
        super().insert(index, module)
        if self._names:
            self._names.insert(index, f"inserted{len(self._names)}")

    def forward(self, x: Any) -> Any:
        for module in self._items:
            x = module(x)
        return x


class ModuleDict(Module):
    """A dict of modules.

    Example:
        >>> heads = pb.nn.ModuleDict({"a": pb.nn.Linear(2, 1)})
        >>> list(heads.state_dict())
        ['a.weight', 'a.bias']
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        self._items: dict[str, Module] = {}
        self.update(modules)

    def _members(self) -> list[tuple[str, Any]]:
        return super()._members() + list(self._items.items())

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __getitem__(self, name: str) -> Module:
        return self._items[name]

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(name, str):
            raise TypeError(f"ModuleDict: keys are strings, got {type(name).__name__}\nhelp: use str(key)")
        self._items[name] = _check(module, self)

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._items.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return self._items.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """(name, module) pairs."""
        return self._items.items()

    def pop(self, name: str) -> Module:
        """Removes a module and returns it."""
        return self._items.pop(name)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds or replaces modules."""
        for name, module in dict(modules).items():
            self[name] = module
