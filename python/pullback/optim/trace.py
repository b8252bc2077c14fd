"""Tracing of update rules: a Python function of stand-in values becomes a list of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from .. import _core as C
from .._core import Tensor

Node = tuple[str, tuple[int, ...], tuple[float, ...]]

# Numbers of inputs and names of the operators.
_BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
    "ne": "not_equal", "and": "logical_and", "or": "logical_or", "xor": "logical_xor",
}  # fmt: skip
_REFLECTED = ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor")
_UNARY = {"neg": "negative", "abs": "abs", "invert": "logical_not"}


class Graph:
    """The operations of a rule; equal ones are kept once. Leaves are named "@p", "@g", "@state", ..."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.element: list[bool] = []  # one value per element of the parameter, else one number
        self._known: dict[str, int] = {}

    def add(self, op: str, inputs: tuple[int, ...] = (), constants: tuple[float, ...] = ()) -> Traced:
        """The value of an operation."""
        key = repr((op, inputs, constants))
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append((op, inputs, constants))
            leaf = op.startswith("@")
            self.element.append(op in ("@p", "@g", "@state") if leaf else any(self.element[i] for i in inputs))
        return Traced(self, self._known[key])

    def constant(self, value: float) -> Traced:
        """A number that the function wrote."""
        return self.add("@constant", (), (float(value),))

    def value(self, x: Any) -> Traced | None:
        """x as a traced value, None where it cannot be one."""
        if isinstance(x, Traced):
            if x._graph is not self:
                raise ValueError(f"{self.name}: a value of another trace is used\nhelp: keep no values between calls")
            return x
        return self.constant(x) if isinstance(x, (int, float)) else None

    def reached(self, outputs: list[int]) -> set[int]:
        """The nodes that the outputs depend on."""
        seen: set[int] = set()
        open_ = list(outputs)
        while open_:
            i = open_.pop()
            if i not in seen:
                seen.add(i)
                if not self.nodes[i][0].startswith("@"):
                    open_.extend(self.nodes[i][1])
        return seen


class Traced:
    """A value inside a rule: it stands for every element of a tensor, or for a number that is known at the step.

    It takes operators and the element-wise functions of pullback, nothing else.
    """

    __slots__ = ("_graph", "_id")
    __array_ufunc__ = None  # NumPy's numbers leave operators to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, graph: Graph, id_: int) -> None:
        self._graph = graph
        self._id = id_

    @property
    def _element(self) -> bool:
        return self._graph.element[self._id]

    def _apply(self, op: str, *inputs: Any) -> Any:
        values = [self._graph.value(x) for x in inputs]
        if any(v is None for v in values):
            return NotImplemented
        return self._graph.add(op, tuple(v._id for v in values if v is not None))

    def _pullback_op(self, op: str, inputs: list[Any], constants: list[float]) -> Traced:
        """What element-wise functions of pullback call."""
        values = [self._graph.value(x) for x in inputs]
        for x, v in zip(inputs, values, strict=True):
            if v is None:
                raise TypeError(
                    f"{self._graph.name}: {op} meets a {type(x).__name__}\n"
                    "help: a rule reads p, g, states, hyper and Python numbers; pass others as hyper-parameters"
                )
        return self._graph.add(op, tuple(v._id for v in values if v is not None), tuple(constants))

    def __pow__(self, other: Any) -> Any:
        if isinstance(other, (int, float)):
            if other == 2:
                return self._apply("square", self)
            if other == 0.5:
                return self._apply("sqrt", self)
        return self._apply("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._apply("pow", other, self)

    def __pos__(self) -> Traced:
        return self

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise TypeError(f"{self._graph.name}: {what} a value that is being traced\nhelp: {instead}")

    def __bool__(self) -> bool:
        self._refuse(
            "Python branches on", "use pb.where, pb.maximum or pb.minimum; the function runs once, for all elements"
        )

    def __float__(self) -> float:
        self._refuse("Python's math needs the number of", "use pb.sqrt, pb.exp, ..., also for hyper-parameters")

    __int__ = __index__ = __complex__ = __float__

    def __iter__(self) -> Iterator[Any]:
        self._refuse("a loop runs over", "a rule sees one element; give several numbers as a tuple in hyper")

    def __getitem__(self, key: Any) -> Any:
        self._refuse("an index reads", "a rule sees one element; give several numbers as a tuple in hyper")

    def __len__(self) -> int:
        self._refuse("len() asks for the size of", "count elements in measure: pb.where(p == p, 1.0, 1.0)")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("NumPy reads", "use the functions of pullback: pb.sqrt, pb.exp, ...")

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse(
            "a function that is not element-wise reads",
            "rules take operators and functions such as pb.sqrt, pb.where, pb.maximum; sums belong to measure",
        )

    __dlpack_device__ = __dlpack__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self._graph.name}: a value that is being traced has no attribute {name!r}\n"
            "help: rules take operators and functions such as pb.sqrt, pb.where, pb.maximum; sums belong to measure"
        )

    def __repr__(self) -> str:
        return f"<traced {'element' if self._element else 'number'} {self._id} of {self._graph.name}>"


def _operators() -> None:
    def forward(op: str) -> Callable[..., Any]:
        return lambda self, other: self._apply(op, self, other)

    def backward(op: str) -> Callable[..., Any]:
        return lambda self, other: self._apply(op, other, self)

    def unary(op: str) -> Callable[..., Any]:
        return lambda self: self._apply(op, self)

    for name, op in _BINARY.items():
        setattr(Traced, f"__{name}__", forward(op))
    for name in _REFLECTED:
        setattr(Traced, f"__r{name}__", backward(_BINARY[name]))
    for name, op in _UNARY.items():
        setattr(Traced, f"__{name}__", unary(op))


_operators()


class Fields:
    """Named values, read as `x.name` or `x["name"]`; looping gives the values in order."""

    def __init__(self, owner: str, what: str, values: Mapping[str, Any]) -> None:
        self.__dict__.update(_owner=owner, _what=what, _values=dict(values))

    def _missing(self, name: str) -> str:
        names = ", ".join(self._values) or "nothing"
        return f"{self._owner}: {self._what} has no {name!r}\nhelp: it has {names}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__dict__["_values"]:
            raise AttributeError(self._missing(name))
        return self._values[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise KeyError(self._missing(name))
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise TypeError(f"{self._owner}: {self._what} cannot be written\nhelp: return the new p and the new states")

    __setitem__ = __setattr__

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values.values())

    def __len__(self) -> int:
        return len(self._values)


# ---- the same operations on tensors

_LOGIC = ("logical_and", "logical_or", "logical_xor", "logical_not")


def replay(graph: Graph, leaves: Mapping[tuple[str, int], Any], outputs: list[int], dtype: Any) -> list[Any]:
    """The outputs as recorded operations.

    Numbers are 0-d float64 tensors, as the driver keeps them in double; where they meet elements they are cast to
    `dtype`. The derivative of sqrt at 0 is taken as 0, so that a parameter without gradients makes no NaN.
    """
    values: dict[int, Any] = {}
    for i in sorted(graph.reached(outputs)):
        op, inputs, constants = graph.nodes[i]
        if op == "@constant":
            values[i] = C.optim_scalar(constants[0])
        elif op.startswith("@"):
            values[i] = leaves[op, inputs[0] if inputs else 0]
        else:
            wide = dtype if graph.element[i] else C.float64
            x = [_widened(values[j], op, k, wide) for k, j in enumerate(inputs)]
            values[i] = _root(x[0]) if op == "sqrt" else getattr(C, op)(*x, *constants)
    return [values[i] for i in outputs]


def _widened(x: Tensor, op: str, k: int, dtype: Any) -> Tensor:
    if x.dtype == dtype or op in _LOGIC or (op == "where" and k == 0):
        return x
    return x.astype(dtype)


def _root(x: Tensor) -> Tensor:
    zero = C.equal(x, 0.0)
    return C.where(zero, 0.0, C.sqrt(C.where(zero, 1.0, x)))
