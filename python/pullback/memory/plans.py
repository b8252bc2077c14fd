"""Plans: what each module of a model keeps for backward, so that all of it fits a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .. import _core as C
from .._core import Tensor
from ..nn.module import watched_calls
from .planner import Candidate, Choice, choose

__all__ = ["Plan", "PlanRow", "plan", "policy"]

#: What a module may be asked to keep, the exact forms first.
ACTIVATION_FORMS: tuple[Any, ...] = (None, "recompute", "output", 4, 3, 2, 1)
INPUT_FORMS: tuple[Any, ...] = (None, 8, 4)
#: An error below this share of the squared gradient is rounding.
ROUNDING = 1e-10
#: Forms of several modules share storages, so the bytes of a plan are not the sum of its parts: it is measured, and
#: where it is too large chosen anew with a smaller budget, so many times.
TRIES = 12


@dataclass(frozen=True)
class PlanRow:
    """What one unit keeps: `saved` as at a call; bytes gained over keeping its default; its part of the error."""

    name: str
    kind: str
    saved: Any
    gain: int
    error: float


@dataclass(frozen=True)
class Plan:
    """What the modules of a model keep, made by `plan` and put to work by `policy`.

    Attributes:
        rows: one per activation, and one per module for the inputs of the products and norms that it calls.
        bytes: kept for backward in a forward pass under the plan.
        default_bytes: the same without a plan.
        error: expected relative error of the gradient of all parameters, ||g - g_exact|| / ||g_exact||.
        seconds: measured extra time of the chosen forms.
        optimal: whether no other choice from the same measurements has less error.
    """

    rows: tuple[PlanRow, ...]
    bytes: int
    default_bytes: int
    error: float
    seconds: float
    optimal: bool
    units: tuple[tuple[Unit, Any], ...] = field(repr=False, default=())

    def __str__(self) -> str:
        width = max([6, *(len(r.name) for r in self.rows)])
        lines = [f"{'module':{width}}  {'class':<20} {'saved':<10} {'gain':>12}  error"]
        for r in self.rows:
            lines.append(f"{r.name:{width}}  {r.kind:<20} {r.saved!r:<10} {r.gain:>12,}  {r.error:.2e}")
        total = f"{self.bytes:,} bytes of {self.default_bytes:,}, relative gradient error {self.error:.2e}"
        return "\n".join([*lines, total])


@dataclass(frozen=True)
class Unit:
    """What is asked together: one activation, or the inputs of the products and norms that one module calls.

    The inputs of a block are asked together because they share storages: what attention returns is also the input of
    the projection behind it, and in two forms it would be kept twice.
    """

    name: str
    module: Any  # the activation, or the module that calls
    inputs: bool
    members: tuple[Any, ...]  # whose calls it decides

    @property
    def forms(self) -> tuple[Any, ...]:
        return INPUT_FORMS if self.inputs else ACTIVATION_FORMS

    @contextmanager
    def keeping(self, saved: Any) -> Iterator[None]:
        before = C._set_policy(None if self.inputs else saved, saved if self.inputs else None)
        try:
            yield
        finally:
            C._restore_saving(before)


def units_of(model: Any) -> dict[str, Unit]:
    """The units of a model by name. Modules whose own `saved` is set decide for themselves."""
    from ..nn import GELU, Conv1d, Conv2d, Dropout, LayerNorm, Linear, RMSNorm
    from ..nn.activation import Activation

    units: dict[str, Unit] = {}
    members: dict[str, list[Any]] = {}
    owners: dict[str, Any] = {}
    seen: set[int] = set()
    for name, m in model.named_modules():
        if id(m) in seen:  # a shared module once, under its first name
            continue
        seen.add(id(m))
        if isinstance(m, (Activation, GELU)):
            if m.saved is None:
                units[name] = Unit(name, m, False, (m,))
        elif isinstance(m, (Linear, Conv1d, Conv2d, LayerNorm, RMSNorm)):
            owner = next((o for o in reversed(owners) if not o or name.startswith(o + ".")), name)
            owners.setdefault(owner, m)
            members.setdefault(owner, []).append(m)
        elif not isinstance(m, Dropout):
            owners[name] = m
            members[name] = [m]
    for name, parts in members.items():
        units[name] = Unit(name, owners[name], True, tuple(parts))
    return units


@contextmanager
def under(choice: Iterable[tuple[Unit, Any]]) -> Iterator[None]:
    """Inside, the units keep what is said of them."""
    said = {id(m): (unit, saved) for unit, saved in choice for m in unit.members}

    def watch(plain: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if id(module) not in said:
            return plain(module, *args, **kwargs)
        unit, saved = said[id(module)]
        with unit.keeping(saved):
            return plain(module, *args, **kwargs)

    with watched_calls(watch):
        yield


class policy:
    """`with pb.memory.policy(plan):` the modules of the plan keep what it says.

    A call's `saved=`, a module's attribute and an inner `pb.saving` go before it.

    Example:
        >>> pb.manual_seed(0)
        >>> model = pb.nn.Sequential(pb.nn.Linear(64, 256), pb.nn.GELU(), pb.nn.Linear(256, 64))
        >>> x = pb.random.normal((128, 64))
        >>> def loss(y, target):
        ...     return pb.mean((y - target) ** 2)
        >>> plan = pb.memory.plan(model, (x, x), budget_bytes=160_000, loss=loss)
        >>> with pb.memory.policy(plan):
        ...     kept = pb.memory.saved_bytes(loss(model(x), x))
        >>> kept == plan.bytes <= 160_000
        True
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._open: list[Any] = []

    def __enter__(self) -> Plan:
        scope = under(self.plan.units)
        scope.__enter__()
        self._open.append(scope)
        return self.plan

    def __exit__(self, *error: Any) -> None:
        self._open.pop().__exit__(*error)


# ---- measurements


class _Probe:
    """One step of the model: what every form of every unit would cost."""

    def __init__(self, model: Any, forward: Callable[[], Tensor]) -> None:
        self.forward = forward
        self.units = units_of(model)
        self.params = [p for p in model.parameters() if p.requires_grad]

    def bytes(self, choice: Iterable[tuple[Unit, Any]]) -> int:
        """What a forward pass keeps."""
        from . import saved_bytes

        with under(choice):
            return saved_bytes(self.forward())

    def run(self) -> tuple[dict[str, list[Candidate]], float]:
        """Candidates per unit, and the squared norm of the gradient. Errors are squared, of all parameters."""
        asked = {id(unit.module) for unit in self.units.values()}
        calls: dict[int, list[_Call]] = {}

        def watch(plain: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            state = C.default_generator().get_state()
            out = plain(module, *args, **kwargs)
            if id(module) in asked:
                calls.setdefault(id(module), []).append(_Call(args, kwargs, _tensor(out), state))
            return out

        with watched_calls(watch):
            loss = self.forward()
        all_calls = [call for each in calls.values() for call in each]
        found = _gradients([loss], [*self.params, *(call.out for call in all_calls)], None)
        norm = sum(_square(g) for g in found[: len(self.params)])
        for call, dy in zip(all_calls, found[len(self.params) :], strict=True):
            call.dy = dy
        base = self.bytes(())
        table = {}
        for name, unit in self.units.items():
            made = calls.get(id(unit.module), [])
            table[name] = [Candidate("None", base)]
            table[name] += [self._candidate(unit, saved, made, base, norm) for saved in unit.forms[1:]]
        return table, norm

    def _candidate(self, unit: Unit, saved: Any, calls: list[_Call], base: int, norm: float) -> Candidate:
        size = self.bytes([(u, saved if u is unit else None) for u in self.units.values()]) if calls else base
        if size >= base:  # never chosen
            return Candidate(repr(saved), size, 1.0, norm)
        error = took = 0.0
        for call in calls:
            e, t = self._replay(unit, saved, call)
            error, took = error + e, took + t
        return Candidate(repr(saved), size, max(0.0, took), 0.0 if error <= ROUNDING * norm else error)

    def _replay(self, unit: Unit, saved: Any, call: _Call) -> tuple[float, float]:
        """Squared error of all parameters' gradients, and extra seconds, of one call with another form."""
        own = [p for p in unit.module.parameters() if p.requires_grad]
        inputs = [a for a in call.args if isinstance(a, Tensor) and a.requires_grad]

        def pull(form: Any) -> tuple[list[Tensor], float]:
            fresh = [_leaf(a) if isinstance(a, Tensor) and a.requires_grad else a for a in call.args]
            leaves = [a for a, b in zip(fresh, call.args, strict=True) if a is not b]
            C.default_generator().set_state(call.state)
            start = time.perf_counter()
            with under([(unit, form)]):
                y = _tensor(unit.module(*fresh, **call.kwargs))
            grads = _gradients([y], [*leaves, *own], [call.dy]) if leaves or own else []
            return grads, time.perf_counter() - start

        exact, slow = pull(None)
        coded, took = pull(saved)
        differences = [a - b for a, b in zip(coded, exact, strict=True)]
        error = sum(_square(d) for d in differences[len(inputs) :])
        if inputs and any(_square(d) > 0 for d in differences[: len(inputs)]):
            below = _gradients(inputs, self.params, differences[: len(inputs)])
            error += sum(_square(g) for g in below)
        return error, took - slow


class _Call:
    """A call of a module in the probe, and what came back to its output."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor, state: Any):
        self.args, self.kwargs, self.out, self.state = args, kwargs, out, state
        self.dy = out


def _tensor(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def _gradients(outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Tensor] | None) -> list[Tensor]:
    return list(C._gradients(outputs, inputs, cotangents, False, True))


def _square(x: Tensor) -> float:
    wide = x.astype(C.float32) if x.dtype in (C.float16, C.bfloat16) else x
    return float(C.sum(wide * wide).item())


# ---- the plan


def plan(model: Any, batch: Any, *, budget_bytes: int, loss: Callable[..., Tensor] | None = None) -> Plan:
    """Chooses what each module keeps so that a forward pass keeps at most `budget_bytes` for backward.

    One probe step measures, for every activation, for the inputs of the products and norms of every block, and for
    every form they offer, the bytes a forward pass would then keep and the squared error that the gradient of all
    parameters would get: the error that the form makes in the module's own pull, sent down the rest of the graph. Forms
    without error go first; among the others a multiple-choice knapsack takes the least sum of errors. Modules whose
    `saved` is set are left alone.

    Args:
        model: a `pb.nn.Module` in the mode and with the parameters it will be trained with.
        batch: (x, y) for `loss(model(x), y)`; without `loss`, what `model(batch)` makes a scalar of.
        budget_bytes: the most that `pb.memory.saved_bytes` may be.
        loss: loss(prediction, target) -> scalar.

    Raises:
        ValueError: the budget is below what the smallest forms need; the message says how much that is.

    Source: codes are those of Novikov et al., "Few-bit backward" (2022); the choice by sensitivity is GACT's (2022).
    """
    return plan_of(model, lambda: model(batch) if loss is None else loss(model(batch[0]), batch[1]), budget_bytes)


def plan_of(model: Any, compute: Callable[[], Tensor], budget_bytes: int) -> Plan:
    """`plan` for a function that computes the loss of a batch."""

    def forward() -> Tensor:
        generator = C.default_generator()
        before = generator.get_state()
        try:
            return compute()
        finally:  # every pass draws the same numbers, and training goes on as if none had been made
            generator.set_state(before)

    generator = C.default_generator()
    roundings = generator.roundings
    buffers = [(b, b + 0) for _, b in model.named_buffers()]
    try:
        return _plan(_Probe(model, forward), budget_bytes)
    finally:
        generator.roundings = roundings
        for b, before in buffers:  # running statistics
            b[...] = before


def named(model: Any, choices: Mapping[str, Any]) -> tuple[tuple[Unit, Any], ...]:
    """The units of {unit's name: what it keeps}, as `Plan.units` holds them."""
    return tuple((unit, choices[name]) for name, unit in units_of(model).items() if name in choices)


# Note [Two families of plans]
# Gains add up only among forms that do not touch each other's storages. An output that is made anew is not packed by
# its consumer, so "recompute" and "output" gain nothing beside packed inputs. Either activations take any form and all
# inputs stay exact, or inputs take any form and activations are coded or left alone; the better of the two is taken.
def _allowed(unit: Unit, packed: bool) -> list[int]:
    if unit.inputs:
        return list(range(len(unit.forms))) if packed else [0]
    return [i for i, form in enumerate(unit.forms) if not packed or form not in ("recompute", "output")]


def _plan(probe: _Probe, budget_bytes: int) -> Plan:
    found, norm = probe.run()
    base = probe.bytes(())
    plans, least = [], base
    for packed in (False, True):
        options = [(u, [(found[u.name][i], u.forms[i]) for i in _allowed(u, packed)]) for u in probe.units.values()]
        fits, size, picked, pairs = _fit(probe, options, base, budget_bytes)
        least = min(least, size)
        if fits:
            plans.append((picked.error, size, picked, pairs, options))
    if not plans:
        raise ValueError(
            f"plan: the budget of {budget_bytes} bytes is below the least possible, {least} bytes\n"
            "help: raise the budget, use a smaller batch, or pb.checkpoint"
        )
    error, size, picked, pairs, options = min(plans, key=lambda p: p[:2])
    relative = 1 / norm**0.5 if norm > 0 else 0.0
    rows = []
    for (unit, saved), (_, forms), i in zip(pairs, options, picked.picks, strict=True):
        kind = type(unit.module).__name__ + (" inputs" if unit.inputs else "")
        taken = forms[i][0]
        rows.append(PlanRow(unit.name, kind, saved, base - taken.bytes, relative * taken.error**0.5))
    return Plan(tuple(rows), size, base, relative * error**0.5, picked.time, picked.exact, tuple(pairs))


def _fit(probe: _Probe, options: Any, base: int, budget: int) -> tuple[bool, int, Choice, list[tuple[Unit, Any]]]:
    """The choice of least error whose measured bytes are within the budget; False with the smallest if none is."""
    lows = [min(c.bytes for c, _ in forms) for _, forms in options]
    shifted = [[_with_bytes(c, c.bytes - low) for c, _ in f] for (_, f), low in zip(options, lows, strict=True)]
    room = budget - base + sum(base - low for low in lows)
    for _ in range(TRIES):
        picked = choose(shifted, max(0, room)) if shifted else Choice((), 0, 0.0, 0.0, True)
        pairs = [(unit, forms[i][1]) for (unit, forms), i in zip(options, picked.picks, strict=True)]
        size = probe.bytes(pairs)
        if size <= budget or room <= 0:
            break
        room -= max(1, size - budget)
    return size <= budget, size, picked, pairs


def _with_bytes(c: Candidate, size: int) -> Candidate:
    return Candidate(c.name, size, c.time, c.error)
