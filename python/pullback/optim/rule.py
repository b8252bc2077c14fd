"""Optimizers of rules written in Python: traced once, checked, and run by the compiled driver."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from .. import _core as C
from . import pure
from .optimizer import _EXTRA, RULES, Group, Optimizer, Params
from .trace import Fields, Graph, Traced, replay

__all__ = ["rule"]

_RESERVED = {"t", "decoupled", "state", "rounding", *_EXTRA}
_NOT_NEGATIVE, _UNIT, _ANY = 0, 1, 2  # ranges, as in csrc/optim/rule.h
_RANGES = {"lr": _NOT_NEGATIVE, "eps": _NOT_NEGATIVE, "weight_decay": _NOT_NEGATIVE}


def rule(
    name: str,
    *,
    states: Sequence[str] | Mapping[str, str],
    hyper: Mapping[str, Any],
    update: Callable[..., Any],
    measure: Callable[..., Any] | None = None,
    over: str = "tensor",
) -> type[Optimizer]:
    """Makes an optimizer class of an update rule written in Python.

    `update(p, g, states, hyper)` returns the new p and the new states: `p, m, v` in the order of `states`, or
    `p, {"m": m, "v": v}`. It is called once, here, with values that stand for one element each, and becomes a program
    of compiled kernels that the same driver runs as every other rule: clipping, weight decay, proximal steps, groups,
    schedulers, state files and the pure form work as usual. It may use operators and the element-wise functions of
    pullback (pb.sqrt, pb.exp, pb.where, pb.maximum, ...), not Python's `if`, `math` or NumPy. What depends on
    hyper-parameters and `hyper.t` alone is computed once per step, in double.

    Args:
        name: of the class; an identifier.
        states: names of the states, tensors of the parameter's shape that start at 0. Or a dict that says for each
            "tensor", "exact" (a tensor that no `state=` format narrows, such as a point) or "number" (one float64 per
            parameter, starting at 0).
        hyper: keywords and their defaults: numbers or tuples of numbers. "lr" is needed. Read as `hyper.lr`,
            `hyper.betas[0]`; `hyper.t` is the number of the step, 1, 2, ..., of the parameter. lr, eps and weight_decay
            must be at least 0, beta and betas in [0, 1), others finite.
        update: the rule; with `measure` it is `update(p, g, states, hyper, sums)`.
        measure: `measure(p, g, states, hyper)` returns a dict of values that are summed over each tensor before the
            update, which reads the sums as `sums.name`. They are added in float64.
        over: "tensor" [default], or "model": the sums run over all parameters of the optimizer.

    The class takes the keywords of `hyper` and, unless it is among them, `weight_decay` [0.0], with `decoupled` [True]:
    p = p - lr weight_decay p before the step, else it is added to the gradient. A rule with a weight_decay of its own
    applies it itself; with decoupled=False it reads 0 and the gradient takes it.

    Raises:
        TypeError: the function branches on values, or uses what is not element-wise.
        ValueError: states, keywords or sums of wrong names or counts, or a keyword that is not used.

    >>> def update(p, g, states, hyper):
    ...     m = states.m + (1 - hyper.beta) * (g - states.m)
    ...     return p - hyper.lr * pb.sign(m), m
    >>> Signs = pb.optim.rule("Signs", states=["m"], hyper={"lr": 0.5, "beta": 0.9}, update=update)
    >>> p = pb.tensor([1.0, 2.0]); p.grad = pb.tensor([0.1, -7.0])
    >>> Signs([p], lr=0.25).step()
    >>> p.tolist()
    [0.75, 2.25]
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"rule: name must be an identifier, got {name!r}\nhelp: it names the class")
    if over not in ("tensor", "model"):
        raise ValueError(f"{name}: over must be 'tensor' or 'model', got {over!r}\nhelp: what the sums run over")
    kinds = _states(name, states)
    places = _places(name, hyper)
    trace = _Trace(name, kinds, hyper, places, update, measure)
    doc = (inspect.getdoc(update) or f"The rule {name}.").split("\n")[0]
    exact = sum(1 << j for j, s in enumerate(trace.tensors) if kinds[s] == "exact")
    numbers = [(key, float(_value(hyper, place)), _range(place[0])) for key, place in places.items()]
    index = C.optim_add_rule(
        name, doc, trace.tensors, exact, trace.numbers, numbers, over == "model", trace.graph.nodes,
        trace.new_p, trace.new_tensors, trace.new_numbers, list(trace.sums.values()),
    )  # fmt: skip
    key = f"{name}#{index}"
    RULES[key] = C.optim_rules()[index]
    keywords = {**hyper, **({} if "weight_decay" in hyper else {"weight_decay": 0.0}), "decoupled": True}
    body = {
        "__doc__": inspect.getdoc(update) or f"The rule {name}, made by `pb.optim.rule`.",
        "__module__": sys._getframe(1).f_globals.get("__name__", __name__),
        "__signature__": _signature(keywords),
        "_key": key,
        "_keywords": keywords,
        "_places": places,
        "_trace": trace,
        "_over": over,
    }
    return type(name, (_UserRule,), body)


Place = tuple[str, int | None]  # a keyword, and the position in its tuple


def _states(name: str, states: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(states, str):
        raise TypeError(f"{name}: states is one string\nhelp: pass a list of names: [{states!r}]")
    kinds = dict(states) if isinstance(states, Mapping) else {}
    if not isinstance(states, Mapping):
        for s in states:
            if s in kinds:
                raise ValueError(f"{name}: the state {s!r} appears twice\nhelp: give each state a name of its own")
            kinds[s] = "tensor"
    for s, kind in kinds.items():
        if not isinstance(s, str) or not s.isidentifier() or s == "step":
            raise ValueError(f"{name}: a state is called {s!r}\nhelp: use an identifier other than step")
        if kind not in ("tensor", "exact", "number"):
            raise ValueError(
                f"{name}: the state {s!r} must be 'tensor', 'exact' or 'number', got {kind!r}\n"
                "help: a number is one value per parameter"
            )
    return kinds


def _places(name: str, hyper: Mapping[str, Any]) -> dict[str, Place]:
    """Names of single numbers, lr first: betas = (0.9, 0.999) gives beta1 and beta2."""
    if "lr" not in hyper:
        raise ValueError(f'{name}: hyper has no "lr"\nhelp: schedulers and weight decay need it: {{"lr": 1e-3, ...}}')
    places: dict[str, Place] = {"lr": ("lr", None)}
    for key, value in hyper.items():
        if not isinstance(key, str) or not key.isidentifier() or key in _RESERVED:
            raise ValueError(f"{name}: hyper cannot hold {key!r}\nhelp: the name is taken, or not an identifier")
        if isinstance(value, (tuple, list)) and key != "lr" and value:
            items: dict[str, Place] = {f"{key.removesuffix('s')}{i + 1}": (key, i) for i in range(len(value))}
        else:
            items = {key: (key, None)}
        for item, place in items.items():
            number = _value(hyper, place)
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise TypeError(
                    f"{name}: the default of {key} is {value!r}\nhelp: hyper-parameters are numbers or tuples of them"
                )
            if item in places and item != "lr":
                raise ValueError(f"{name}: hyper names {item!r} twice\nhelp: choose another name")
            places[item] = place
    return places


def _value(group: Mapping[str, Any], place: Place) -> Any:
    key, i = place
    return group[key] if i is None else group[key][i]


def _range(key: str) -> int:
    return _UNIT if key in ("beta", "betas") or (key[:4] == "beta" and key[4:].isdigit()) else _RANGES.get(key, _ANY)


def _signature(keywords: Mapping[str, Any]) -> inspect.Signature:
    kind = inspect.Parameter
    rest = [kind(k, kind.KEYWORD_ONLY, default=v) for k, v in keywords.items() if k != "lr"]
    both = kind.POSITIONAL_OR_KEYWORD
    return inspect.Signature([kind("params", both, default=None), kind("lr", both, default=keywords["lr"]), *rest])


class _Trace:
    """The functions of a rule as one graph, checked."""

    def __init__(
        self, name: str, kinds: dict[str, str], hyper: Mapping[str, Any], places: dict[str, Place],
        update: Callable[..., Any], measure: Callable[..., Any] | None,
    ) -> None:  # fmt: skip
        self.name, self.kinds = name, kinds
        self.tensors = [s for s, kind in kinds.items() if kind != "number"]
        self.numbers = [s for s, kind in kinds.items() if kind == "number"]
        self.graph = graph = Graph(name)
        leaves: dict[str, Traced] = {s: graph.add("@state", (i,)) for i, s in enumerate(self.tensors)}
        leaves |= {s: graph.add("@number", (i,)) for i, s in enumerate(self.numbers)}
        given = {key: graph.add("@hyper", (i,)) for i, key in enumerate(places)}
        known: dict[str, Any] = {}
        for key, value in hyper.items():
            items = [given[item] for item, place in places.items() if place[0] == key]
            known[key] = tuple(items) if isinstance(value, (tuple, list)) else items[0]
        known["t"] = graph.add("@t")
        args = [
            graph.add("@p"),
            graph.add("@g"),
            Fields(name, "states", {s: leaves[s] for s in kinds}),
            Fields(name, "hyper", known),
        ]
        self.sums: dict[str, int] = {}
        if measure is not None:
            self.sums = self._measured(measure(*args))
            args.append(Fields(name, "sums", {key: graph.add("@sum", (i,)) for i, key in enumerate(self.sums)}))
        p, new = self._updated(update(*args))
        self.new_p = self._node(p, "the new p", True)
        self.new_tensors = [self._node(new[s], f"the new state {s!r}", True) for s in self.tensors]
        self.new_numbers = [self._node(new[s], f"the new number {s!r}", False) for s in self.numbers]
        self._check_used(list(places))

    def _node(self, x: Any, what: str, element: bool) -> int:
        v = self.graph.value(x)
        if v is None:
            raise TypeError(f"{self.name}: {what} is {type(x).__name__}\nhelp: compute it from p, g, states and hyper")
        if element and not v._element:
            raise ValueError(
                f"{self.name}: {what} is one number, not a value of each element\n"
                f'help: it must depend on p, g or a state; one number per tensor is states={{"name": "number"}}'
            )
        if not element and v._element:
            raise ValueError(
                f"{self.name}: {what} differs from element to element\nhelp: sum in measure, and use the sum"
            )
        return v._id

    def _measured(self, result: Any) -> dict[str, int]:
        if not isinstance(result, Mapping) or not result:
            raise TypeError(f"{self.name}: measure returned {result!r}\nhelp: return a dict of values to be summed")
        return {str(key): self._node(x, f"the summand {key!r}", True) for key, x in result.items()}

    def _updated(self, result: Any) -> tuple[Any, Mapping[str, Any]]:
        names = list(self.kinds)
        shape = f"p, {', '.join(names)}" if names else "p"
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
            p, new = result
            wrong = sorted(set(names) ^ set(new))
            if wrong:
                verb = "returned no" if wrong[0] in names else "returned an unknown"
                raise ValueError(
                    f"{self.name}: update {verb} state {wrong[0]!r}\nhelp: states are {', '.join(names) or 'none'}; "
                    "return an unchanged one as it came"
                )
            return p, new
        values = result if isinstance(result, tuple) else (result,)
        if result is None or len(values) != 1 + len(names):
            got = "nothing" if result is None else f"{len(values)} values"
            raise ValueError(
                f"{self.name}: update returned {got}, not the new p and {len(names)} states\nhelp: return {shape}"
            )
        return values[0], dict(zip(names, values[1:], strict=True))

    def _check_used(self, places: list[str]) -> None:
        outputs = [self.new_p, *self.new_tensors, *self.new_numbers, *self.sums.values()]
        seen = self.graph.reached(outputs)
        read = {(self.graph.nodes[i][0], *self.graph.nodes[i][1]) for i in seen}
        for i, key in enumerate(places):
            if ("@hyper", i) not in read:
                raise ValueError(f"{self.name}: the rule does not use {key}\nhelp: use hyper.{key}, or leave it out")
        for i, key in enumerate(self.sums):
            if ("@sum", i) not in read:
                raise ValueError(f"{self.name}: the update does not use the sum {key!r}\nhelp: leave it out of measure")
        if ("@g",) not in read:
            raise ValueError(f"{self.name}: the rule does not use the gradient g\nhelp: return a p that depends on it")


class _UserRule(Optimizer):
    _key: ClassVar[str]
    _keywords: ClassVar[dict[str, Any]]
    _places: ClassVar[dict[str, Place]]
    _trace: ClassVar[_Trace]
    _over: ClassVar[str]

    def __init__(self, params: Params = None, lr: Any = None, **keywords: Any) -> None:
        if lr is not None:
            keywords["lr"] = lr
        formats: Any = {key: value for key, value in keywords.items() if key not in self._keywords}
        known = {key: keywords.get(key, default) for key, default in self._keywords.items()}
        super().__init__(params, formats=formats, **known)

    def _rule(self, group: Group) -> str:
        return self._key

    def _read(self, group: Group, key: str) -> Any:
        if key == "weight_decay" and not group["decoupled"]:
            return 0.0
        return _value(group, self._places[key])

    def _check(self, group: Group) -> None:
        for key, default in self._keywords.items():
            if isinstance(default, (tuple, list)):
                value = group[key]
                if not isinstance(value, (tuple, list)) or len(value) != len(default):
                    raise ValueError(
                        f"{type(self).__name__}: {key} must be {len(default)} numbers, got {value!r}\n"
                        f"help: such as {', '.join(map(str, default))}"
                    )
        super()._check(group)

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """One step as a function; see `Optimizer.update`."""
        unknown = set(hyper) - set(self.defaults)
        if unknown:
            raise TypeError(
                f"update: {type(self).__name__} has no keyword {sorted(unknown)[0]!r}\n"
                f"help: keywords are {', '.join(self.defaults)}"
            )
        group = {**self.defaults, **hyper}
        self._check(group)
        row = RULES[self._key]
        numbers = [_number(self._read(group, key)) for key, _ in row["hyper"]]
        decay, decoupled = self._decay(row, group)
        return pure.update(row, params, grads, state, _Replay(self._trace, numbers, decay, decoupled))


def _number(x: Any) -> Any:
    return x.astype(C.float64) if isinstance(x, C.Tensor) else C.optim_scalar(float(x))


class _Replay:
    """The two steps that `pure.update` takes for each tensor, on recorded operations."""

    def __init__(self, trace: _Trace, hyper: list[Any], decay: Any, decoupled: bool) -> None:
        self.trace, self.hyper, self.decay, self.decoupled = trace, hyper, decay, decoupled

    def _leaves(self, p: Any, g: Any, slots: list[Any], numbers: list[Any], t: int) -> dict[tuple[str, int], Any]:
        wide = _compute(p)
        leaves: dict[tuple[str, int], Any] = {("@t", 0): C.optim_scalar(float(t))}
        leaves |= {("@state", j): x.astype(wide) for j, x in enumerate(slots)}
        leaves |= {("@number", j): x.astype(C.float64) for j, x in enumerate(numbers)}
        leaves |= {("@hyper", j): x for j, x in enumerate(self.hyper)}
        leaves["@p", 0], leaves["@g", 0] = p.astype(wide), g.astype(wide)
        if not self.decoupled and self._decays():
            leaves["@g", 0] = leaves["@g", 0] + _number(self.decay).astype(wide) * leaves["@p", 0]
        return leaves

    def _decays(self) -> bool:
        return isinstance(self.decay, C.Tensor) or self.decay != 0

    def sums(self, p: Any, g: Any, slots: list[Any], numbers: list[Any], t: int) -> list[Any]:
        """What one tensor adds to the sums."""
        leaves = self._leaves(p, g, slots, numbers, t)
        parts = replay(self.trace.graph, leaves, list(self.trace.sums.values()), _compute(p))
        return [part.astype(C.float64).sum() for part in parts]

    def step(
        self, p: Any, g: Any, slots: list[Any], numbers: list[Any], t: int, sums: list[Any]
    ) -> tuple[Any, list[Any], list[Any]]:
        """The new p, slots and numbers."""
        leaves = self._leaves(p, g, slots, numbers, t)
        leaves |= {("@sum", j): x for j, x in enumerate(sums)}
        wide = _compute(p)
        if self.decoupled and self._decays():
            leaves["@p", 0] = leaves["@p", 0] - (self.hyper[0] * _number(self.decay)).astype(wide) * leaves["@p", 0]
        trace = self.trace
        new = replay(trace.graph, leaves, [trace.new_p, *trace.new_tensors, *trace.new_numbers], wide)
        cut = 1 + len(trace.tensors)
        return new[0].astype(p.dtype), new[1:cut], new[cut:]


def _compute(p: Any) -> Any:
    return C.float64 if p.dtype == C.float64 else C.float32
