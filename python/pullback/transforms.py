"""Function transforms (JAX's names) and graph control (PyTorch's names). Signatures and trees; no arithmetic."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import _core as C
from ._core import GraphError, ShapeError, Tensor
from ._tree import flatten, tree_map

__all__ = [
    "checkpoint",
    "custom",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "gradients",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "linearize",
    "no_grad",
    "value_and_grad",
    "vjp",
]


class _Switch:
    """A context manager and decorator that turns recording on or off in this thread."""

    _on = True

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(C._set_grad_enabled(self._on))

    def __exit__(self, *exc: object) -> None:
        C._set_grad_enabled(self._before.pop())

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(f)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return f(*args, **kwargs)

        return wrapped


class no_grad(_Switch):
    """Inside, nothing is recorded for backward.

    >>> x = pb.ones(2, dtype=pb.float32); x.requires_grad = True
    >>> with pb.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    _on = False


class enable_grad(_Switch):
    """Inside, recording is on again, also within no_grad."""

    _on = True


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside, a backward that makes a NaN or an infinity raises GraphError and names the forward call."""
    before = C._set_anomaly(True)
    try:
        yield
    finally:
        C._set_anomaly(before)


@contextmanager
def _differentiating() -> Iterator[None]:
    C._enter_graph()
    before = C._set_grad_enabled(True)
    try:
        yield
    finally:
        C._set_grad_enabled(before)
        C._leave_graph()


@contextmanager
def _level() -> Iterator[int]:
    level = C._enter_level()
    try:
        yield level
    finally:
        C._leave_level()


class _Argument:
    """One argument of a transformed function: a tree of tensors, or a module whose parameters are the leaves."""

    def __init__(self, arg: Any, op: str) -> None:
        self.module = arg if _is_module(arg) else None
        if self.module is not None:
            from .nn.module import replaced

            named = dict(self.module.named_parameters())
            self.leaves: list[Any] = list(named.values())
            self.build: Callable[[Any], Any] = lambda new: dict(zip(named, new, strict=True))
            self.replaced = replaced
        else:
            self.leaves, self.build = flatten(arg)
        self.leaves = [C.asarray(leaf) if isinstance(leaf, float) else leaf for leaf in self.leaves]
        for leaf in self.leaves:
            if not isinstance(leaf, Tensor):
                raise C.DTypeError(
                    f"{op}: cannot differentiate by an argument of type {type(leaf).__name__}\n"
                    "help: arguments are tensors, nested dicts, lists and tuples of tensors, or modules"
                )

    @contextmanager
    def with_leaves(self, new: Sequence[Tensor]) -> Iterator[Any]:
        """What to hand to the function, with `new` in the place of the leaves."""
        if self.module is None:
            yield self.build(new)
        else:
            with self.replaced(self.module, self.build(new)):
                yield self.module


def _call(
    f: Callable[..., Any], args: list[Any], picked: list[tuple[int, _Argument, list[Tensor]]], kwargs: Any
) -> Any:
    """f(*args) with the leaves of the picked arguments replaced."""
    if not picked:
        return f(*args, **kwargs)
    (i, argument, leaves), *rest = picked
    with argument.with_leaves(leaves) as value:
        return _call(f, [*args[:i], value, *args[i + 1 :]], rest, kwargs)


def _positions(argnums: int | Sequence[int], n: int, op: str) -> list[int]:
    nums = [argnums] if isinstance(argnums, int) else list(argnums)
    for i in nums:
        if not -n <= i < n:
            raise ShapeError(
                f"{op}: argnums {i} is out of range for {n} arguments\nhelp: pass the argument by position"
            )
    return [i % n for i in nums]


def _scalar(value: Any, op: str) -> Tensor:
    if not isinstance(value, Tensor) or value.size != 1:
        got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
        raise GraphError(
            f"{op}: the function must return a tensor of one element, got {got}\nhelp: use pb.vjp or pb.jacobian"
        )
    return value


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns f's value and its gradient by the arguments `argnums`.

    The gradient of one argument, or a tuple for a tuple of argnums; containers keep their structure; for a Module a
    flat dict {parameter name: tensor}. With has_aux, f returns (value, aux) and so does the first result.

    >>> value, g = pb.value_and_grad(lambda x: (x * x).sum())(pb.tensor([1.0, 2.0]))
    >>> value.item(), g.tolist()
    (5.0, [2.0, 4.0])
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        outer = C._grad_enabled()
        where = _positions(argnums, len(args), "grad")
        arguments = [_Argument(args[i], "grad") for i in where]
        with _differentiating():
            lifted = [[C._lift(leaf) for leaf in a.leaves] for a in arguments]
            picked = list(zip(where, arguments, lifted, strict=True))
            out = _call(f, list(args), picked, kwargs)
            value, aux = out if has_aux else (out, None)
            value = _scalar(value, "grad")
            leaves = [leaf for group in lifted for leaf in group]
            further = outer and C._depends_on_others([value], leaves)
            flat = iter(C._gradients([value], leaves, None, further, further))
        if not further:
            value, aux = value.detach(), _constant(aux)
        grads = tuple(a.build([next(flat) for _ in a.leaves]) for a in arguments)
        result = grads[0] if isinstance(argnums, int) else grads
        return ((value, aux) if has_aux else value), result

    return wrapped


def _constant(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of the scalar function f; see value_and_grad. Nests to any order.

    >>> pb.grad(pb.grad(lambda x: x**3))(pb.tensor(2.0)).item()
    12.0
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return wrapped


def gradients(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    cotangents: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of the sum of outputs (weighted by cotangents) by each input; zeros where independent.

    Nothing is added to .grad, and the graph stays usable.

    >>> x = pb.tensor([1.0, 2.0], requires_grad=True)
    >>> pb.gradients((x**2).sum(), x)[0].tolist()
    [2.0, 4.0]
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if isinstance(cotangents, Tensor):
        cotangents = [cotangents]
    return C._gradients(outs, ins, cotangents, create_graph, True)


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., tuple[Any, ...]]]:
    """f's value at the primals and a function pull(cotangent) -> a tuple with the cotangent of each primal.

    >>> out, pull = pb.vjp(lambda x: x * x, pb.tensor([3.0, 4.0]))
    >>> pull(pb.tensor([1.0, 10.0]))[0].tolist()
    [6.0, 80.0]
    """
    outer = C._grad_enabled()
    arguments = [_Argument(p, "vjp") for p in primals]
    with _differentiating():
        lifted = [[C._lift(leaf) for leaf in a.leaves] for a in arguments]
        out = _call(f, list(primals), list(zip(range(len(primals)), arguments, lifted, strict=True)), {})
    outs, build = flatten(out)
    leaves = [leaf for group in lifted for leaf in group]
    further = outer and C._depends_on_others(outs, leaves)

    def pull(cotangent: Any) -> tuple[Any, ...]:
        given = flatten(cotangent)[0]
        if len(given) != len(outs):
            raise ShapeError(
                f"vjp: {len(given)} cotangents for {len(outs)} outputs\nhelp: give a tree like the output's"
            )
        create = C._grad_enabled() and (further or any(g.requires_grad for g in given))
        flat = iter(C._gradients(outs, leaves, given, create, True))
        return tuple(a.build([next(flat) for _ in a.leaves]) for a in arguments)

    return build(outs if further else [o.detach() for o in outs]), pull


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """f's value at the primals and its derivative along the tangents, in forward mode: no tape is made for it.

    >>> out, d = pb.jvp(lambda x: x * x, (pb.tensor(3.0),), (pb.tensor(1.0),))
    >>> out.item(), d.item()
    (9.0, 6.0)
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise C.DTypeError("jvp: primals and tangents are tuples\nhelp: pb.jvp(f, (x,), (v,))")
    if len(primals) != len(tangents):
        raise ShapeError(f"jvp: {len(primals)} primals and {len(tangents)} tangents\nhelp: give one tangent per primal")
    arguments = [_Argument(p, "jvp") for p in primals]
    with _level() as level:
        duals = []
        for argument, t in zip(arguments, tangents, strict=True):
            along = flatten(t)[0]
            if len(along) != len(argument.leaves):
                raise ShapeError(
                    "jvp: a tangent has another structure than its primal\nhelp: give a tree like the primal's"
                )
            pairs = zip(argument.leaves, along, strict=True)
            duals.append([C._make_dual(leaf, C.asarray(d), level) for leaf, d in pairs])
        out = _call(f, list(primals), list(zip(range(len(primals)), arguments, duals, strict=True)), {})
        outs, build = flatten(out)
        pushed = [C._tangent(o, level) for o in outs]
        pushed = [C.zeros_like(o.detach()) if t is None else t for o, t in zip(outs, pushed, strict=True)]
        return build([C._strip(o, level) for o in outs]), build(pushed)


def linearize(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """f's value at the primals and push(*tangents), its derivative there as a linear function.

    push evaluates f in forward mode at the kept primals; nothing else is stored.

    >>> out, push = pb.linearize(lambda x: x**2, pb.tensor(3.0))
    >>> push(pb.tensor(2.0)).item()
    12.0
    """
    kept = tuple(p if _is_module(p) else tree_map(C.stop_gradient, p) for p in primals)
    out = f(*primals)

    def push(*tangents: Any) -> Any:
        return jvp(f, kept, tangents)[1]

    return out, push


def _is_module(x: Any) -> bool:
    modules = sys.modules.get("pullback.nn.module")  # not imported: then x cannot be a module
    return modules is not None and isinstance(x, modules.Module)


def hvp(f: Callable[..., Any], primals: Sequence[Any], vectors: Sequence[Any]) -> tuple[Any, ...]:
    """Products of the Hessian of the scalar function f with the vectors, forward over reverse.

    >>> pb.hvp(lambda x: (x**3).sum(), (pb.tensor([1.0, 2.0]),), (pb.tensor([1.0, 1.0]),))[0].tolist()
    [6.0, 12.0]
    """
    return jvp(grad(f, tuple(range(len(primals)))), tuple(primals), tuple(vectors))[1]


def _basis(like: Tensor) -> Iterator[Tensor]:
    for i in range(like.size):
        e = C.zeros((like.size,), dtype=like.dtype)
        e[i] = 1
        yield C.reshape(e, like.shape)


def _one_jacobian(f: Callable[[Tensor], Any], x: Tensor, mode: str) -> Any:
    if mode == "forward":
        if x.size == 0:
            return tree_map(lambda o: C.zeros((*o.shape, *x.shape), dtype=o.dtype), f(x))
        columns = [flatten(jvp(f, (x,), (e,))[1]) for e in _basis(x)]
        build = columns[0][1]
        merged = [C.stack(group, axis=-1) for group in zip(*[leaves for leaves, _ in columns], strict=True)]
        return build([C.reshape(m, (*m.shape[:-1], *x.shape)) for m in merged])
    out, pull = vjp(f, x)
    outs, build = flatten(out)
    blocks = []
    for i, o in enumerate(outs):
        zeros = [C.zeros(p.shape, dtype=p.dtype) for p in outs]
        rows = [pull(build([*zeros[:i], e, *zeros[i + 1 :]]))[0] for e in _basis(o)]
        shape = (*o.shape, *x.shape)
        blocks.append(C.reshape(C.stack(rows), shape) if rows else C.zeros(shape, dtype=x.dtype))
    return build(blocks)


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, mode: str = "auto") -> Callable[..., Any]:
    """A function that returns the Jacobian of f, of shape out.shape + in.shape.

    mode: "forward", "reverse", or "auto" (forward when there are fewer inputs than outputs). A tuple of argnums gives
    a tuple; an output tree gives a tree.

    >>> pb.jacobian(lambda x: x * x)(pb.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    if mode not in ("auto", "forward", "reverse"):
        raise ValueError(f'jacobian: unknown mode {mode!r}\nhelp: use "auto", "forward" or "reverse"')

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def by(i: int) -> Any:
            x = C.asarray(args[i])

            def single(v: Tensor) -> Any:
                return f(*args[:i], v, *args[i + 1 :], **kwargs)

            chosen = mode
            if mode == "auto":
                with no_grad():
                    size = sum(o.size for o in flatten(single(x.detach()))[0])
                chosen = "forward" if x.size < size else "reverse"
            return _one_jacobian(single, x, chosen)

        result = tuple(by(i) for i in _positions(argnums, len(args), "jacobian"))
        return result[0] if isinstance(argnums, int) else result

    return wrapped


def hessian(f: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """A function that returns the matrix of second derivatives of the scalar function f, in.shape + in.shape.

    >>> pb.hessian(lambda x: (x**3).sum())(pb.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacobian(grad(f, argnums), argnums, mode="forward")


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """f with its intermediate results dropped after forward and computed again in backward.

    Random draws repeat: the state of the default generator, and of generators among the arguments, is put back for the
    second evaluation, which runs under the autocast of the first. Inside forward mode f runs as it is. Source: Chen et
    al., arXiv:1604.06174.

    >>> x = pb.tensor(2.0, requires_grad=True)
    >>> pb.checkpoint(lambda v: pb.exp(v) * v)(x).backward()
    >>> round(x.grad.item(), 4)
    22.1672
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not C._grad_enabled() or any(C._has_tangent(t) for t in _tensors((args, kwargs))):
            return f(*args, **kwargs)
        generators = [C.default_generator(), *(g for g in flatten((args, kwargs))[0] if isinstance(g, C.Generator))]
        states, casts = [g.get_state() for g in generators], C._autocast_state()
        start = C._sequence()
        outs, build = flatten(f(*args, **kwargs))
        floating = [o for o in outs if isinstance(o, Tensor) and o.requires_grad]
        sources = C._boundary(floating, start)
        if not sources:
            return build(outs)

        def pull(cotangents: list[Any]) -> tuple[Any, ...]:
            now = [g.get_state() for g in generators]
            for g, s in zip(generators, states, strict=True):
                g.set_state(s)
            before = C._enter_autocast(*casts)
            try:
                with enable_grad():
                    again = flatten(f(*args, **kwargs))[0]
            finally:
                C._leave_autocast(*before)
                for g, s in zip(generators, now, strict=True):
                    g.set_state(s)
            roots = [o for o in again if isinstance(o, Tensor) and o.requires_grad]
            pairs = [(r, c) for r, c in zip(roots, cotangents, strict=True) if c is not None]
            create = C._grad_enabled()
            return C._pull_boundary([r for r, _ in pairs], [c for _, c in pairs], sources, create)

        results = iter(C._custom_boundary("checkpoint", sources, floating, pull))
        return build([next(results) if isinstance(o, Tensor) and o.requires_grad else o for o in outs])

    return wrapped


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(tree)[0] if isinstance(leaf, Tensor)]


class custom:
    """A function with a derivative of its own.

    `pull(cotangent, out, *args)` returns the cotangent of each tensor argument (None: zero; one tensor for one
    argument); `push(tangents, out, *args)` the tangent of the output, `tangents` holding one tensor or None per tensor
    argument. For several outputs `cotangent`, `out` and push's result are tuples. Both are differentiable when written
    in recorded ops. Without push, forward mode raises GraphError.

    >>> @pb.custom
    ... def sign_through(x):
    ...     return pb.sign(x)
    >>> @sign_through.pull
    ... def _(g, out, x):
    ...     return g
    >>> pb.grad(lambda x: sign_through(x).sum())(pb.tensor([0.5, -2.0])).tolist()
    [1.0, 1.0]
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        functools.update_wrapper(self, f)
        self._f = f
        self._pull: Callable[..., Any] | None = None
        self._push: Callable[..., Any] | None = None

    def pull(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Sets the reverse rule; usable as a decorator."""
        self._pull = rule
        return rule

    def push(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Sets the forward rule; usable as a decorator."""
        self._push = rule
        return rule

    def __call__(self, *args: Any) -> Any:
        if self._pull is None:
            raise GraphError(f"custom: {self._f.__name__} has no pull\nhelp: define one with @{self._f.__name__}.pull")
        where = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ins = [args[i] for i in where]
        with no_grad():
            plain = list(args)
            for i in where:
                plain[i] = args[i].detach()
            out = self._f(*plain)
        many = isinstance(out, (tuple, list))
        outs = list(out) if many else [out]

        def fill(tensors: list[Tensor]) -> list[Any]:
            full = list(args)
            for i, t in zip(where, tensors, strict=True):
                full[i] = t
            return full

        def pack(tensors: list[Any]) -> Any:
            return tuple(tensors) if many else tensors[0]

        pull_rule, push_rule = self._pull, self._push

        def pull(gs: list[Any], ys: list[Tensor], xs: list[Tensor]) -> Any:
            gs = [C.zeros_like(y) if g is None else g for g, y in zip(gs, ys, strict=True)]
            return _one_per(pull_rule(pack(gs), pack(ys), *fill(xs)), len(xs), "pull")

        def push(ts: list[Any], ys: list[Tensor], xs: list[Tensor]) -> Any:
            return _one_per(push_rule(tuple(ts), pack(ys), *fill(xs)), len(ys), "push")  # type: ignore[misc]

        results = C._custom(self._f.__name__, ins, outs, pull, push if push_rule else None)
        return tuple(results) if many else results[0]


def _one_per(result: Any, n: int, what: str) -> Any:
    values = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    if len(values) != n:
        raise GraphError(
            f"custom: {what} returned {len(values)} values for {n} tensors\nhelp: return one per tensor, or None"
        )
    return values
