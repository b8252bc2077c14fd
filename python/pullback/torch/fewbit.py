"""Few-bit activations for PyTorch models: the kernels of `pb.fewbit` behind a torch.autograd.Function.

`convert(model, bits=3)` is all that most programs need.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _core as C
from ..fewbit.codes import Code, code_of

__all__ = ["FewBit", "activation", "convert"]

#: Class: name in the registry and the attributes that are its parameters.
_KNOWN: dict[type, tuple[str, tuple[str, ...]]] = {
    torch.nn.ReLU: ("relu", ()),
    torch.nn.LeakyReLU: ("leaky_relu", ("negative_slope",)),
    torch.nn.ELU: ("elu", ("alpha",)),
    torch.nn.CELU: ("celu", ("alpha",)),
    torch.nn.SELU: ("selu", ()),
    torch.nn.GELU: ("gelu", ()),
    torch.nn.SiLU: ("silu", ()),
    torch.nn.Mish: ("mish", ()),
    torch.nn.Softplus: ("softplus", ("beta", "threshold")),
    torch.nn.Softsign: ("softsign", ()),
    torch.nn.Tanh: ("tanh", ()),
    torch.nn.Tanhshrink: ("tanhshrink", ()),
    torch.nn.Sigmoid: ("sigmoid", ()),
    torch.nn.LogSigmoid: ("log_sigmoid", ()),
    torch.nn.Hardswish: ("hardswish", ()),
    torch.nn.Hardsigmoid: ("hardsigmoid", ()),
    torch.nn.Hardtanh: ("hardtanh", ("min_val", "max_val")),
    torch.nn.ReLU6: ("relu6", ()),
}
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


class _Coded(torch.autograd.Function):
    """y = f(x), keeping the codes of x alone. They have no derivative of a second order."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, name: str, parameters: dict[str, float], table: C.FewbitCode) -> Any:
        x = x.detach().contiguous()
        y = torch.empty_like(x)
        _, words = C.fewbit_forward(name, C.asarray(x), table, parameters, C.asarray(y, copy=False))
        ctx.words, ctx.table = words, table
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph=True: the result would be taken for a constant
            raise C.GraphError(
                "fewbit: a derivative code has no derivative of a second order\n"
                "help: convert(model, bits=None) puts the exact activations back"
            )
        dy = dy.detach().contiguous()
        dx = torch.empty_like(dy)
        C.fewbit_backward(C.asarray(dy), ctx.words, ctx.table, C.asarray(dx, copy=False))
        return dx, None, None, None


def activation(x: torch.Tensor, name: str, bits: int | Code = 3, **parameters: float) -> torch.Tensor:
    """The activation `name` of pullback's registry on a PyTorch tensor, keeping a code of its derivative.

    Args:
        x: float32, bfloat16 or float16 on the CPU.
        name: For example "gelu", "gelu_tanh", "silu".
        bits: Bits of the code, 1 to 8, or a `pb.fewbit.Code` [3].
        parameters: Those of the function.

    Raises:
        DTypeError: x is of another type.
        ValueError: bits is outside 1 .. 8, or there is no such activation.

    Example:
        >>> import torch, pullback.torch.fewbit as fewbit
        >>> fewbit.activation(torch.zeros(2), "gelu").tolist()
        [0.0, 0.0]
    """
    code = bits if isinstance(bits, Code) else Code(bits)
    return _Coded.apply(x, name, parameters, code_of(name, parameters, code))


class FewBit(torch.nn.Module):
    """An activation of a model with a code of its derivative in place of its input.

    Where there is no code (float64, another device, no gradient wanted) the original module runs.
    """

    def __init__(self, original: torch.nn.Module, bits: int | Code = 3) -> None:
        super().__init__()
        self.code = bits if isinstance(bits, Code) else Code(bits)
        self.original = original
        name, attributes = _KNOWN[type(original)]
        if name == "gelu" and getattr(original, "approximate", "none") == "tanh":
            name = "gelu_tanh"
        self.name, self.parameters_ = name, {a: float(getattr(original, a)) for a in attributes}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activation of x, of any shape."""
        coded = x.dtype in _TYPES and x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled()
        return activation(x, self.name, self.code, **self.parameters_) if coded else self.original(x)

    def extra_repr(self) -> str:
        """What the representation shows."""
        return f"bits={self.code.bits}, scheme={self.code.scheme!r}"


def convert(model: torch.nn.Module, bits: int | Code | None = 3) -> torch.nn.Module:
    """Give every activation module of a model a code of its derivative, in place.

    Args:
        model: Any torch.nn.Module. Activations that are called as functions in its code are not seen.
        bits: Bits of the code, 1 to 8, or a `pb.fewbit.Code`; None puts the original modules back [3].

    Returns:
        The model, or the module that replaces it if it is an activation itself.

    Raises:
        ValueError: bits is outside 1 .. 8.

    Example:
        >>> import torch, pullback.torch.fewbit as fewbit
        >>> model = fewbit.convert(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU()), bits=3)
        >>> model(torch.zeros(2, 4)).sum().backward()
    """
    if bits is not None and not isinstance(bits, Code):
        Code(bits)
    made: dict[torch.nn.Module, torch.nn.Module] = {}

    def replaced(module: torch.nn.Module) -> torch.nn.Module:
        if module in made:
            return made[module]
        original = module.original if isinstance(module, FewBit) else module
        if type(original) in _KNOWN:
            made[module] = original if bits is None else FewBit(original, bits)
            return made[module]
        made[module] = module
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = replaced(child)
        return module

    return replaced(model)
