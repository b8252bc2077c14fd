"""Nested containers of tensors: flatten to leaves and build again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ._core import Tensor


def flatten(tree: Any) -> tuple[list[Any], Callable[[Iterable[Any]], Any]]:
    """Leaves of nested dicts, lists and tuples in order, and a function that rebuilds the tree from new leaves.

    >>> leaves, build = flatten({"a": 1, "b": [2, 3]})
    >>> leaves, build([10, 20, 30])
    ([1, 2, 3], {'a': 10, 'b': [20, 30]})
    """
    leaves: list[Any] = []
    spec = _spec(tree, leaves)

    def build(new: Iterable[Any]) -> Any:
        return _build(spec, iter(new))

    return leaves, build


def tensors(tree: Any) -> list[Tensor]:
    """The leaves that are tensors."""
    return [leaf for leaf in flatten(tree)[0] if isinstance(leaf, Tensor)]


def tree_map(f: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """f of each leaf of `tree` and the matching leaves of `others`."""
    leaves, build = flatten(tree)
    rest = [flatten(other)[0] for other in others]
    return build([f(*args) for args in zip(leaves, *rest, strict=True)])


def _spec(tree: Any, leaves: list[Any]) -> Any:
    if isinstance(tree, dict):
        return ("dict", type(tree), [(key, _spec(tree[key], leaves)) for key in tree])
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return ("named", type(tree), [_spec(item, leaves) for item in tree])
    if isinstance(tree, (list, tuple)):
        return ("seq", type(tree), [_spec(item, leaves) for item in tree])
    if tree is None:
        return None
    leaves.append(tree)
    return "leaf"


def _build(spec: Any, it: Any) -> Any:
    if spec is None:
        return None
    if spec == "leaf":
        return next(it)
    kind, cls, items = spec
    if kind == "dict":
        pairs = [(key, _build(item, it)) for key, item in items]
        return cls(pairs) if cls is not dict else dict(pairs)
    if kind == "named":
        return cls(*[_build(item, it) for item in items])
    return cls([_build(item, it) for item in items])
