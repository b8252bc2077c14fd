"""What optimizers of the same build share: those around another one, and those that evaluate the loss themselves."""

from __future__ import annotations

from typing import Any

from .._core import GraphError
from .optimizer import Group, Optimizer


class Over(Optimizer):
    """Shares the groups, defaults and states of `base`."""

    def __init__(self, base: Optimizer) -> None:
        self.base = base
        self.defaults = base.defaults
        self._driver = base._driver

    @property
    def param_groups(self) -> list[Group]:  # type: ignore[override]
        """Those of the base."""
        return self.base.param_groups

    def add_param_group(self, group: Group) -> None:
        """Adds the group to the base."""
        self.base.add_param_group(group)


class Follower(Over):
    """One that leaves the gradient to the base: what a step needs and what became of it are the base's too."""

    @property
    def needs_closure(self) -> bool:
        """Whether the base does."""
        return bool(getattr(self.base, "needs_closure", False))

    @property
    def last_norm(self) -> float | None:  # type: ignore[override]
        """That of the base."""
        return self.base.last_norm

    @property
    def last_skipped(self) -> bool:  # type: ignore[override]
        """That of the base."""
        return self.base.last_skipped


class ClosureOnly(Optimizer):
    """A rule that evaluates the loss itself, at points of its own: it has no pure form."""

    needs_closure = True

    def init(self, params: Any) -> dict[str, Any]:
        """Not defined.

        Raises:
            GraphError: always.
        """
        raise GraphError(f"init: {type(self).__name__} needs a closure\nhelp: use opt.step(closure)")

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """Not defined.

        Raises:
            GraphError: always.
        """
        raise GraphError(f"update: {type(self).__name__} needs a closure\nhelp: use opt.step(closure)")
