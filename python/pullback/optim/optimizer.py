"""The base of all optimizers: groups, the step, states and the pure form. Arithmetic happens in the compiled driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypedDict

from .. import _core as C
from .._core import GraphError, Tensor
from . import pure, state

__all__ = ["Optimizer"]

Group = dict[str, Any]
Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Group] | Mapping[str, Tensor] | None

RULES: dict[str, dict[str, Any]] = {row["name"]: row for row in C.optim_rules()}

# Keys that a group may hold besides the optimizer's own keywords; schedulers keep theirs here.
_EXTRA = {"params", "names", "name", "prox", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}

# Proximal steps: their numbers after the name, and their place in the driver.
_PROX = {"l1": (1, 1), "box": (2, 2), "ball": (1, 3), "group": (1, 4)}


# Formats of states and of what parameters of 16 bits are rounded to, and their places in the driver.
STATES = ("float32", "bfloat16", "int8")
ROUNDINGS = ("nearest", "stochastic", "kahan", "master")


class Formats(TypedDict, total=False):
    """Keywords of every optimizer: how states and parameters lie in memory (see `Optimizer`)."""

    state: str
    rounding: str


class Optimizer:
    """Steps parameters in place by an update rule; one compiled call per step for all tensors of all groups.

    Use a subclass such as `SGD` or `AdamW`. A parameter is updated when it has a gradient; those without keep their
    value, their states and their step count. Any value in `param_groups` may be changed at any time.

    A group may have the key "prox", a proximal step fused after the rule: ("l1", c) for soft thresholding by lr c,
    ("box", low, high), ("ball", radius) for the 2-norm of each tensor, ("group", c) for p max(0, 1 - lr c / |p|) by
    tensor. Rules whose state holds the iterate itself (DoG, Prodigy, OptAMSGrad, ScheduleFreeAdamW, ...) refuse it.

    Every optimizer takes two keywords for memory, also by group; arithmetic is float32 in any case:

    state: "float32" [default], "bfloat16" (stochastically rounded) or "int8" (8-bit codes, one float32 scale for 256
        elements, stochastically rounded). Tensors of fewer than 4,096 elements keep float32 instead of int8, float64
        parameters keep float64, and states that hold points (of DoG, Prodigy, ...) stay as they are.
    rounding: how float16 and bfloat16 parameters are written: "nearest" [default], "stochastic", "kahan" (the rounding
        error is kept in the parameter's dtype) or "master" (a float32 copy is kept; the parameter is its rounded form).
        The two copies count as long as the parameter is what they round to, so it may be written at any time.

    The random bits depend on the step and on the element's place in its tensor, not on grouping or threads.

    Attributes:
        param_groups: one dict per group: "params" (a list of tensors) and the keywords, such as "lr".
        last_norm: 2-norm of all gradients of the last step, after unscaling and before clipping; None when neither
            clip_norm nor scale was given.
        last_skipped: the last step found a gradient that is not finite and changed nothing.
    """

    _origins: list[Tensor | None] | None = None  # what the next step starts from instead of the parameters

    def __init__(self, params: Params, *, formats: Formats | None = None, **defaults: Any) -> None:
        unknown = sorted(set(formats or ()) - {"state", "rounding"})
        if unknown:
            raise TypeError(
                f"{type(self).__name__}() got an unexpected keyword argument {unknown[0]!r}\n"
                f"help: keywords are params, {', '.join(defaults)}, state, rounding"
            )
        defaults = {**defaults, "state": "float32", "rounding": "nearest", **(formats or {})}
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.last_norm: float | None = None
        self.last_skipped = False
        self._driver = C.OptimDriver()
        self._check(defaults)
        if params is None:
            return
        for group in _as_groups(params):
            self.add_param_group(group)

    def _rule(self, group: Group) -> str:
        """Name of the compiled rule for these keywords."""
        raise NotImplementedError

    def _read(self, group: Group, key: str) -> Any:
        """The value of a rule's hyper-parameter: beta1 stands in group["betas"][0], None means 0."""
        if key == "eps_before":
            return float(group["eps_mode"] == "before")
        if key == "weight_decay" and not group["decoupled"]:
            return 0.0  # a rule with an own place for decay gives it up to the gradient
        if key in group:
            return 0.0 if group[key] is None else group[key]
        return group[key[:-1] + "s"][int(key[-1]) - 1]

    def _decay(self, row: dict[str, Any], group: Group) -> tuple[Any, bool]:
        """Weight decay as the driver applies it, and whether decoupled."""
        if group["decoupled"] and any(key == "weight_decay" for key, _ in row["hyper"]):
            return 0.0, False
        return group["weight_decay"], group["decoupled"]

    # ---- groups

    def add_param_group(self, group: Group) -> None:
        """Adds a dict with "params" and keywords that differ from the defaults.

        Raises:
            TypeError: a key that is no keyword of this optimizer, or something that is not a tensor.
            ValueError: no parameters, a parameter that is there already, a keyword out of range.
        """
        kind = type(self).__name__
        unknown = set(group) - set(self.defaults) - _EXTRA
        if unknown:
            raise TypeError(
                f"{kind}: a group has no keyword {sorted(unknown)[0]!r}\n"
                f"help: keywords are params, {', '.join(self.defaults)}"
            )
        if "params" not in group:
            raise TypeError(f'{kind}: a group needs the key "params"\nhelp: {{"params": [...], "lr": 0.1}}')
        names, tensors = _named(group["params"], kind)
        if not tensors:
            raise ValueError(f"{kind}: got an empty parameter list\nhelp: pass model.parameters()")
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in tensors:
            C.optim_check_parameter(p)
            if id(p) in known:
                raise ValueError(f"{kind}: a parameter appears twice\nhelp: name each tensor in one group, once")
            known.add(id(p))
        full: Group = {**self.defaults, **group, "params": tensors}
        if names:
            full["names"] = names
        self._check(full)
        self.param_groups.append(full)

    def _check(self, group: Group) -> None:
        row = RULES[self._rule(group)]
        betas, count = group.get("betas"), sum(key[:-1] == "beta" for key, _ in row["hyper"])
        if betas is not None and (not isinstance(betas, (tuple, list)) or len(betas) != count):
            raise ValueError(
                f"{type(self).__name__}: betas must be {count} numbers, got {betas!r}\n"
                f"help: such as {', '.join(str(value) for key, value in row['hyper'] if key.startswith('beta'))}"
            )
        if group.get("eps_mode", "after") not in ("after", "before"):
            raise ValueError(
                f"{type(self).__name__}: eps_mode must be 'after' or 'before', got {group['eps_mode']!r}\n"
                "help: after is eps outside the root of the corrected average"
            )
        self._proximal(row, group)
        self._formats(group)
        C.optim_check(row["index"], [float(self._read(group, key)) for key, _ in row["hyper"]], group["weight_decay"])

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    # ---- the step

    def zero_grad(self) -> None:
        """Sets the `.grad` of every parameter to None."""
        for group in self.param_groups:
            C.optim_zero_grad(group["params"])

    def step(
        self,
        closure: Callable[[], Tensor] | None = None,
        *,
        grads: Any = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: float | None = None,
    ) -> Tensor | None:
        """Updates every parameter that has a gradient.

        Args:
            closure: computes and returns the scalar loss and does not call backward; its gradient replaces `.grad`.
            grads: gradients to use instead of `.grad`: a list in the order of the parameters, or a dict by name.
                None stands for no gradient.
            clip_norm: the gradients of all groups together are scaled to at most this 2-norm.
            clip_value: each element is limited to [-clip_value, clip_value], after clip_norm.
            scale: the factor that the loss was multiplied by; gradients are divided by it first.

        With clip_norm or scale, a gradient that is not finite makes the step change nothing: parameters, states and
        step counts stay, and `last_skipped` is True.

        Returns:
            What closure returned, else None.

        Raises:
            GraphError: no parameter has a gradient, or the closure called backward or returned no differentiable loss.
            ShapeError, DTypeError: a gradient does not fit its parameter.
            ValueError: a keyword is out of its range.
        """
        loss = None
        if closure is not None:
            if grads is not None:
                raise ValueError("step: got a closure and grads\nhelp: give one of them")
            loss = self._differentiate(closure)
        if not self.param_groups:
            raise ValueError("step: this optimizer has no parameters\nhelp: use init and update, or pass params")
        rows = [self._pack(group) for group in self.param_groups]
        ordered = None if grads is None else self._order(grads)
        self.last_norm, self.last_skipped = self._driver.step(
            rows, ordered, clip_norm, clip_value, scale, self._origins
        )
        if C._capturing():
            from .._capture import joined

            joined(self)
        return loss

    def check_in_backward(self) -> None:
        """Raises GraphError unless parameters may be stepped one by one, each as backward completes its gradient.

        Example:
            >>> pb.optim.AdamW([pb.ones(2)]).check_in_backward()
        """
        kind = type(self).__name__
        if type(self).step is not Optimizer.step:
            raise GraphError(
                f"backward step: {kind} does more in a step than its rule, and needs all gradients for it\n"
                'help: use update="after"'
            )
        for group in self.param_groups:
            if RULES[self._rule(group)]["shared"]:
                raise GraphError(
                    f"backward step: the rule of {kind} needs sums over all gradients, and none is kept\n"
                    'help: use update="after"'
                )

    def step_in_backward(self, loss: Tensor, *, clip_value: float | None = None) -> None:
        """Backward from a scalar loss that steps each parameter as soon as its gradient is complete, and drops that.

        The same bits as `loss.backward(); step(); zero_grad()`, but the gradients are never all in memory. What stands
        in `.grad` before is part of the gradient. After an error in the middle some parameters have made their step.

        Args:
            loss: of one element.
            clip_value: as in `step`; clip_norm and scale would need all gradients.

        Raises:
            GraphError: this optimizer needs all gradients at once, the loss has no graph, or no gradient came.

        Example:
            >>> p = pb.tensor([1.0, 2.0], requires_grad=True)
            >>> pb.optim.SGD([p], lr=0.5).step_in_backward((p * p).sum()); p.tolist(), p.grad
            ([0.0, 0.0], None)
        """
        self.check_in_backward()
        self._driver.backward_step(loss, [self._pack(group) for group in self.param_groups], clip_value)

    def _pack(self, group: Group) -> tuple[Any, ...]:
        row = RULES[self._rule(group)]
        values = [self._read(group, key) for key, _ in row["hyper"]]
        prox = self._proximal(row, group) or (0, 0.0, 0.0)
        return row["index"], group["params"], values, *self._decay(row, group), *prox, *self._formats(group)

    def _formats(self, group: Group) -> tuple[int, int]:
        """The group's formats as the driver numbers them."""
        kind = type(self).__name__
        for key, known in (("state", self._states), ("rounding", self._roundings)):
            if group[key] not in known:
                raise ValueError(
                    f"{kind}: {key} must be {' or '.join(map(repr, known))}, got {group[key]!r}\n"
                    f"help: the default is {known[0]}"
                )
        return STATES.index(group["state"]), ROUNDINGS.index(group["rounding"])

    _states: ClassVar[tuple[str, ...]] = STATES
    _roundings: ClassVar[tuple[str, ...]] = ROUNDINGS

    def _proximal(self, row: dict[str, Any], group: Group) -> tuple[Any, ...]:
        """(kind, a, b) as the driver takes them, or nothing."""
        step = group.get("prox")
        if step is None:
            return ()
        kind = type(self).__name__
        name, *numbers = step if isinstance(step, (tuple, list)) and step else (step,)
        if name not in _PROX or len(numbers) != _PROX[name][0]:
            raise ValueError(
                f"{kind}: prox must be ('l1', c), ('box', low, high), ('ball', radius) or ('group', c), got {step!r}\n"
                "help: None is off"
            )
        low, high = float(numbers[0]), float(numbers[-1])
        if not (low <= high if name == "box" else 0 <= low < float("inf")):
            raise ValueError(f"{kind}: prox={step!r} has no meaning\nhelp: low <= high, and numbers from 0 on")
        if not self._takes_prox or {"displacement", "iterate", "z"} & set(row["slots"]):
            raise ValueError(f"{kind}: the iterate is kept in the state, so prox cannot move it\nhelp: leave prox out")
        return _PROX[name][1], low, high

    _takes_prox = True

    def _differentiate(self, closure: Callable[[], Tensor]) -> Tensor:
        self.zero_grad()
        before = C._set_grad_enabled(True)
        try:
            loss = closure()
            if not isinstance(loss, Tensor) or loss.size != 1:
                raise GraphError("step: the closure must return the loss, a tensor of one element\nhelp: return loss")
            if any(p.grad is not None for p in self._parameters()):
                raise GraphError("step: the closure called backward\nhelp: it only computes and returns the loss")
            if not loss.requires_grad:
                raise GraphError(
                    "step: the loss of the closure does not depend on a tensor that requires grad\n"
                    "help: compute it from the parameters, outside no_grad"
                )
            loss.backward()
        finally:
            C._set_grad_enabled(before)
        return loss

    def _order(self, grads: Any) -> list[Tensor | None]:
        params = self._parameters()
        if isinstance(grads, Mapping):
            names = [name for group in self.param_groups for name in group.get("names", ())]
            if len(names) == len(params):
                unknown = set(grads) - set(names)
                if unknown:
                    raise ValueError(
                        f"step: grads names an unknown parameter {sorted(unknown)[0]!r}\n"
                        "help: use the names of the optimizer"
                    )
                return [grads.get(name) for name in names]
            grads = grads.values()
        ordered = list(grads)
        if len(ordered) != len(params):
            raise ValueError(
                f"step: got {len(ordered)} gradients for {len(params)} parameters\nhelp: give one, or None, for each"
            )
        return ordered

    # ---- states

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """Everything that a continued run needs, as a flat dict of tensors and plain values.

        Keys: "rule"; "groups.<j>.<keyword>"; "state.<i>.step" and "state.<i>.<slot>", where i numbers the parameters
        through all groups. States are kept as they lie in memory: 8-bit codes are uint8, with their float32 scales as
        "state.<i>.<slot>.scale"; "state.<i>.compensation" and "state.<i>.master" belong to `rounding`. Tensors are
        copies unless `copy` is False.
        """
        return state.save(self, copy)

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned, or the state dict of the `torch.optim` class of the same name.

        The keywords "state" and "rounding" stay those of this optimizer: states saved in another format are converted
        by the next step, with rounding to nearest.

        Raises:
            ValueError: another optimizer, other groups, or missing or unknown entries.
            ShapeError: a state of another shape. The optimizer is unchanged then.
        """
        state.load(self, d)

    def bytes_per_step(self) -> int:
        """Bytes that a step reads and writes at least: parameters twice, gradients once, states twice.

        A gradient counts in the dtype of its parameter, a state in its format, with scales, compensation and master
        copies.
        """
        total = 0
        for group in self.param_groups:
            row = RULES[self._rule(group)]
            state, rounding = self._formats(group)
            for p in group["params"]:
                total += 3 * p.size * p.dtype.itemsize
                for j in range(len(row["slots"])):
                    total += 2 * C.optim_slot_bytes(p, state, bool(row["exact"] >> j & 1))
                if p.dtype.itemsize == 2 and rounding >= 2:
                    total += 2 * p.size * (2 if rounding == 2 else 4)
        return total

    # ---- the pure form

    def init(self, params: Any) -> dict[str, Any]:
        """The state of the pure form: {"step": 0, <slot>: zeros in the structure of params}; numbers are 0-d float64.

        Args:
            params: tensors in nested dicts, lists and tuples.
        """
        self._refuse_formats("init", self.defaults)
        return pure.init(RULES[self._rule(self.defaults)], params)

    def _refuse_formats(self, call: str, group: Group) -> None:
        if self._formats(group) != (0, 0):
            raise ValueError(
                f"{call}: the pure form keeps float32 states and rounds to nearest, got state={group['state']!r}, "
                f"rounding={group['rounding']!r}\nhelp: leave state and rounding out, or use opt.step"
            )

    def update(self, params: Any, grads: Any, state: dict[str, Any], **hyper: Any) -> tuple[Any, dict[str, Any]]:
        """One step as a function: (new params, new state); nothing is written in place.

        Differentiable in params, grads, the state and every keyword; keywords may be 0-d tensors and replace those of
        the constructor. A gradient of None leaves its parameter as it is.

        >>> opt = pb.optim.SGD(lr=0.5)
        >>> p = {"w": pb.tensor([1.0])}
        >>> new, state = opt.update(p, {"w": pb.tensor([1.0])}, opt.init(p), lr=0.25)
        >>> new["w"].tolist()
        [0.75]
        """
        unknown = set(hyper) - set(self.defaults)
        if unknown:
            raise TypeError(
                f"update: {type(self).__name__} has no keyword {sorted(unknown)[0]!r}\n"
                f"help: keywords are {', '.join(self.defaults)}"
            )
        group = {**self.defaults, **hyper}
        self._refuse_formats("update", group)
        row = RULES[self._rule(group)]
        values = [self._read(group, key) for key, _ in row["hyper"]]
        return pure.update(row, params, grads, state, pure.Compiled(row, values, *self._decay(row, group)))

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            words = [f"{k}={v!r}" for k, v in group.items() if k not in ("params", "names")]
            lines.append(f"  group {i}: {len(group['params'])} tensors, {', '.join(words)}")
        return "\n".join([*lines, ")"])


def _as_groups(params: Any) -> list[Group]:
    if isinstance(params, Tensor):
        raise TypeError("optimizer: params is one tensor\nhelp: pass a list: [x]")
    if isinstance(params, Mapping):
        return [{"params": list(params.items())}]
    try:
        items = list(params)
    except TypeError:
        raise TypeError(
            f"optimizer: params is {type(params).__name__}, not an iterable\nhelp: pass model.parameters()"
        ) from None
    if items and all(isinstance(item, Mapping) for item in items):
        return [dict(item) for item in items]
    return [{"params": items}]


def _named(params: Any, kind: str) -> tuple[list[str], list[Tensor]]:
    if isinstance(params, Tensor):
        params = [params]
    items = list(params.items()) if isinstance(params, Mapping) else list(params)
    names = [item[0] for item in items if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)]
    if names and len(names) != len(items):
        raise TypeError(f"{kind}: some parameters have names and some have not\nhelp: name all or none")
    tensors: list[Any] = [item[1] for item in items] if names else items
    for p in tensors:
        if not isinstance(p, Tensor):
            raise TypeError(f"{kind}: a parameter is {type(p).__name__}, not a tensor\nhelp: pass model.parameters()")
    return names, tensors
