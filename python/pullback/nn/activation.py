"""One module per activation, made from the registry, and the few that are more than a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pullback as pb
from pullback import _core as C
from pullback.nn.module import Module, Parameter

_NAMES = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "celu": "CELU",
    "selu": "SELU",
    "silu": "SiLU",
    "mish": "Mish",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
    "tanhshrink": "Tanhshrink",
    "sigmoid": "Sigmoid",
    "log_sigmoid": "LogSigmoid",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "hardtanh": "Hardtanh",
    "relu6": "ReLU6",
}

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Sine",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
]


class Activation(Module):
    """Base of the element-wise activations: `op` names the function, `defaults` its constants in order.

    `saved` is what backward keeps (None: the default of the function); `inplace` is accepted and changes nothing:
    the result is the same and the input is never overwritten.
    """

    op: str = ""
    defaults: ClassVar[dict[str, float]] = {}

    def __init__(self, *args: Any, inplace: bool = False, saved: Any = None, **kwargs: Any) -> None:
        names = list(self.defaults)
        kind = type(self).__name__
        if len(args) == len(names) + 1 and isinstance(args[-1], bool):
            args = args[:-1]  # PyTorch's last positional argument
        if len(args) > len(names):
            raise TypeError(f"{kind} takes {len(names)} arguments, got {len(args)}\nhelp: they are {names}")
        values = {**self.defaults, **dict(zip(names, args, strict=False))}
        for name, value in kwargs.items():
            if name not in self.defaults or names.index(name) < len(args):
                raise TypeError(
                    f"{kind}: unexpected argument '{name}'\nhelp: its arguments are {names}, inplace, saved"
                )
            values[name] = value
        for name, value in values.items():
            setattr(self, name, value)
        self.saved = saved

    def forward(self, x: Any) -> C.Tensor:
        kwargs = {name: getattr(self, name) for name in self.defaults}
        if self.saved is not None:
            kwargs["saved"] = self.saved
        return getattr(pb, self.op)(x, **kwargs)

    def extra_repr(self) -> str:
        shown = [f"{name}={getattr(self, name)}" for name in self.defaults]
        return ", ".join(shown + ([f"saved={self.saved!r}"] if self.saved is not None else []))


def _make(op: str, name: str, row: dict) -> type[Activation]:
    args = "".join(f", {k}={v:g}" for k, v in row["args"].items())
    doc = (
        f"{row['doc']}\n\nElement by element, any shape. `{name}({args[2:]})` calls `pb.{op}(x{args})`.\n\n"
        f"Example:\n    >>> pb.nn.{name}()(pb.zeros((2, 3))).shape\n    (2, 3)"
    )
    members = {"op": op, "defaults": dict(row["args"]), "__doc__": doc, "__module__": __name__, "__qualname__": name}
    return type(name, (Activation,), members)


if TYPE_CHECKING:  # what the loop makes, for readers of types
    ReLU = LeakyReLU = ELU = CELU = SELU = SiLU = Mish = Softplus = Activation
    Softsign = Tanh = Tanhshrink = Sigmoid = LogSigmoid = Hardswish = Hardsigmoid = Hardtanh = ReLU6 = Activation
_rows = {row["name"]: row for row in C.ops()}
for _op, _name in _NAMES.items():
    globals()[_name] = _make(_op, _name, _rows[_op])


class GELU(Activation):
    """x * Phi(x), Phi the normal distribution function; `approximate="tanh"` takes the tanh formula.

    Example:
        >>> pb.nn.GELU()(pb.zeros(3)).tolist()
        [0.0, 0.0, 0.0]
    """

    op = "gelu"

    def __init__(self, approximate: str = "none", *, saved: Any = None) -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}\nhelp: 'none' is exact")
        self.approximate, self.saved = approximate, saved

    def forward(self, x: Any) -> C.Tensor:
        return pb.gelu(x, approximate=self.approximate, saved=self.saved)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Sine(Module):
    """sin(w0 * x): the activation of sinusoidal networks.

    Args:
        w0: frequency in radians per unit of x [1.0].

    Example:
        >>> pb.nn.Sine(30.0)(pb.zeros(2)).tolist()
        [0.0, 0.0]
    """

    def __init__(self, w0: float = 1.0) -> None:
        self.w0 = w0

    def forward(self, x: Any) -> C.Tensor:
        return pb.sin(x if self.w0 == 1 else x * self.w0)

    def extra_repr(self) -> str:
        return f"w0={self.w0}"


class PReLU(Module):
    """x where x > 0, else weight * x, with a learned weight.

    Args:
        num_parameters: 1, or the number of channels, which is axis 1 of the input [1].
        init: start value of the weight [0.25].

    Example:
        >>> pb.nn.PReLU()(pb.tensor([-4.0, 2.0])).tolist()
        [-1.0, 2.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(pb.full((num_parameters,), float(init), dtype=dtype or pb.float32, device=device))

    def forward(self, x: Any) -> C.Tensor:
        weight: C.Tensor = self.weight
        if self.num_parameters > 1:
            channels = x.shape[1] if x.ndim > 1 else 0
            if channels != self.num_parameters:
                raise pb.ShapeError(
                    f"PReLU: {self.num_parameters} weights, input of shape {tuple(x.shape)}\n"
                    "help: axis 1 of the input has one channel per weight"
                )
            weight = pb.reshape(weight, (self.num_parameters,) + (1,) * (x.ndim - 2))
        x, weight = C._autocast("prelu", x, weight)
        return pb.where(x > 0, x, weight * x)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `dim`.

    Args:
        dim: the axis; None takes the last one.

    Example:
        >>> pb.nn.Softmax(dim=-1)(pb.zeros(2)).tolist()
        [0.5, 0.5]
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, x: Any) -> C.Tensor:
        return pb.softmax(x, axis=-1 if self.dim is None else self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """log(softmax(x)) along `dim`, without overflow.

    Args:
        dim: the axis; None takes the last one.

    Example:
        >>> pb.nn.LogSoftmax(dim=-1)(pb.zeros(1)).tolist()
        [0.0]
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, x: Any) -> C.Tensor:
        return pb.log_softmax(x, axis=-1 if self.dim is None else self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
