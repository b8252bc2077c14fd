"""`<activation>_forward` and `<activation>_backward`: the kernels of derivative codes on any CPU array, without a tape.

`pullback.fused` offers them; there is one pair for every activation of the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import _core as C
from .fewbit.codes import Code, code_of

__all__: list[str] = []

_NAMES = (
    *("relu", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "softsign", "tanh"),
    *("tanhshrink", "sigmoid", "log_sigmoid", "hardswish", "hardsigmoid", "hardtanh", "relu6"),
)


@dataclass(frozen=True)
class Packed:
    """What backward needs of one call: the words of the codes, the table they refer to, the shape of x."""

    words: C.Tensor
    table: C.FewbitCode
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the words."""
        return 4 * self.words.size


def _array(x: Any) -> C.Tensor:
    return x.detach() if isinstance(x, C.Tensor) else C.asarray(x)


def _target(out: Any) -> C.Tensor | None:
    if out is None:
        return None
    return out if isinstance(out, C.Tensor) else C.asarray(out, copy=False)


def forward(name: str, x: Any, bits: int | Code, out: Any, parameters: dict[str, float]) -> tuple[Any, Packed]:
    """y and the codes of x; `name` is that of the registry."""
    code = bits if isinstance(bits, Code) else Code(bits)
    row = _rows()[name]
    unknown = set(parameters) - set(row["args"])
    if unknown:
        raise TypeError(f"{name}_forward: unexpected argument {min(unknown)!r}\nhelp: it takes {list(row['args'])}")
    table = code_of(name, {**row["args"], **parameters}, code)
    x = _array(x)
    y, words = C.fewbit_forward(name, x, table, parameters, _target(out))
    return (y if out is None else out), Packed(words, table, tuple(x.shape))


def backward(name: str, dy: Any, code: Packed, out: Any) -> Any:
    """dx from dy and the codes."""
    dy = _array(dy)
    if tuple(dy.shape) != code.shape:
        raise C.ShapeError(
            f"{name}_backward: dy has shape {tuple(dy.shape)}, x had {code.shape}\nhelp: the shapes are equal"
        )
    dx = C.fewbit_backward(dy, code.words, code.table, _target(out))
    return dx if out is None else out


_found: dict[str, dict[str, Any]] = {}


def _rows() -> dict[str, dict[str, Any]]:
    if not _found:
        _found.update({row["name"]: row for row in C.ops()})
    return _found


def _pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def run_forward(x: Any, bits: int | Code = 3, *, out: Any = None, **parameters: Any) -> tuple[Any, Packed]:
        op = name
        if name == "gelu" and parameters.pop("approximate", "none") == "tanh":
            op = "gelu_tanh"
        return forward(op, x, bits, out, parameters)

    def run_backward(dy: Any, code: Packed, *, out: Any = None) -> Any:
        return backward(name, dy, code, out)

    run_forward.__name__ = run_forward.__qualname__ = f"{name}_forward"
    run_backward.__name__ = run_backward.__qualname__ = f"{name}_backward"
    run_forward.__doc__ = f"""(y, code) with y = {name}(x) and the derivative's code of every element, in one pass.

    Args:
        x: An array in host memory: pullback, NumPy, or anything with DLPack; float32, bfloat16 or float16.
        bits: Bits of the code, 1 to 8, or a `pb.fewbit.Code` [3].
        out: Where y goes: a contiguous array of the shape of x, which may be x itself; None makes a new tensor.
        parameters: Those of `pb.{name}`.

    Returns:
        y (a tensor, or `out`) and the code, 4 * bits * ceil(n / 32) bytes, for `{name}_backward`.

    Example:
        >>> from pullback import _fused_activations as fused
        >>> y, code = fused.{name}_forward(pb.zeros(64), bits=3)
        >>> code.bytes
        24
    """
    run_backward.__doc__ = f"""dx = dy times the derivative that the code keeps, in one pass.

    Args:
        dy: An array like x.
        code: What `{name}_forward` returned.
        out: Where dx goes: a contiguous array, which may be dy itself; None makes a new tensor.

    Example:
        >>> from pullback import _fused_activations as fused
        >>> _, code = fused.{name}_forward(pb.ones(3), bits=3)
        >>> fused.{name}_backward(pb.ones(3), code).shape
        (3,)
    """
    return run_forward, run_backward


for _name in _NAMES:
    globals()[f"{_name}_forward"], globals()[f"{_name}_backward"] = _pair(_name)
    __all__ += [f"{_name}_forward", f"{_name}_backward"]
