"""Coded activations inside PyTorch models, and the kernels on any array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from code_cases import level_of  # noqa: E402

import pullback as pb  # noqa: E402
from pullback import _fused_activations as fused  # noqa: E402
from pullback.torch import fewbit  # noqa: E402

MODULES = [
    (torch.nn.ReLU(), "relu", {}),
    (torch.nn.LeakyReLU(0.2), "leaky_relu", {"negative_slope": 0.2}),
    (torch.nn.ELU(0.7), "elu", {"alpha": 0.7}),
    (torch.nn.SELU(), "selu", {}),
    (torch.nn.GELU(), "gelu", {}),
    (torch.nn.GELU(approximate="tanh"), "gelu", {"approximate": "tanh"}),
    (torch.nn.SiLU(), "silu", {}),
    (torch.nn.Mish(), "mish", {}),
    (torch.nn.Softplus(beta=2.0), "softplus", {"beta": 2.0}),
    (torch.nn.Tanh(), "tanh", {}),
    (torch.nn.Hardswish(), "hardswish", {}),
    (torch.nn.Hardtanh(-2.0, 1.0), "hardtanh", {"min_val": -2.0, "max_val": 1.0}),
]


@pytest.mark.parametrize(("module", "name", "parameters"), MODULES, ids=lambda v: v if isinstance(v, str) else "")
def test_module(module: Any, name: str, parameters: dict[str, Any]) -> None:
    """Forward equals PyTorch's, backward is dy times the level, and the words are all that is kept."""
    x = torch.randn(50, 41, generator=torch.Generator().manual_seed(0), requires_grad=True)
    converted = fewbit.convert(module, bits=3)
    y = converted(x)
    assert torch.allclose(y, module(x), rtol=1e-5, atol=2e-6)
    dy = torch.randn(50, 41, generator=torch.Generator().manual_seed(1))
    y.backward(dy)
    table = pb.fewbit.table(name, 3, **parameters)
    assert np.array_equal(x.grad.numpy(), dy.numpy() * level_of(table, x.detach().numpy()))


def test_nothing_but_words_is_kept() -> None:
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t)
    x = torch.randn(1024, requires_grad=True)
    with hooks:
        y = fewbit.activation(x, "gelu", 3)
    assert sum(kept) == 0 and y.grad_fn.words.size * 4 == 4 * 3 * 32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_types(dtype: Any) -> None:
    x = torch.randn(100).to(dtype).requires_grad_()
    y = fewbit.activation(x, "silu", 4)
    assert y.dtype == dtype and torch.allclose(y.float(), torch.nn.functional.silu(x).float(), rtol=1e-2, atol=1e-3)
    y.sum().backward()
    expected = torch.from_numpy(level_of(pb.fewbit.table("silu", 4), x.detach().float().numpy())).to(dtype)
    assert torch.equal(x.grad, expected)


def test_layouts() -> None:
    x = torch.randn(8, 6, requires_grad=True)
    y = fewbit.activation(x.T, "gelu", 3)
    assert torch.allclose(y, torch.nn.functional.gelu(x.T), atol=2e-6)
    y.backward(torch.ones(1, 1).expand(6, 8))
    assert np.array_equal(x.grad.numpy(), level_of(pb.fewbit.table("gelu", 3), x.detach().numpy()))


class Leveled(torch.autograd.Function):
    """PyTorch's GELU with the levels of a 3-bit table in the place of its derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.nn.functional.gelu(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.from_numpy(level_of(pb.fewbit.table("gelu", 3), x.numpy())).to(g.dtype)


def test_convert_a_model() -> None:
    torch.manual_seed(0)
    shared = torch.nn.GELU()
    model = torch.nn.Sequential(
        torch.nn.Linear(16, 64), shared, torch.nn.Linear(64, 64), shared, torch.nn.Linear(64, 4)
    )
    x, target = 3 * torch.randn(32, 16), torch.randint(0, 4, (32,))

    def gradient() -> np.ndarray:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x), target).backward()
        return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]).astype("f8")

    exact, before = gradient(), model(x).detach()
    assert fewbit.convert(model, bits=3) is model
    assert isinstance(model[1], fewbit.FewBit) and model[1] is model[3]
    assert "bits=3" in repr(model) and torch.allclose(model(x), before, atol=1e-5)
    found = gradient()
    assert found @ exact / math.sqrt((found @ found) * (exact @ exact)) >= 0.998 and not np.array_equal(found, exact)
    torch.nn.functional.cross_entropy(
        model[4](Leveled.apply(model[2](Leveled.apply(model[0](x))))), target
    ).backward()  # adds the same gradient, by PyTorch
    twice = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    assert np.linalg.norm(twice - 2 * found) <= 1e-6 * np.linalg.norm(found)
    fewbit.convert(model, bits=2)  # again, with another number of bits
    assert model[1].code.bits == 2 and type(model[1].original) is torch.nn.GELU
    fewbit.convert(model, bits=None)
    assert model[1] is shared and np.array_equal(gradient(), exact)


def test_where_there_is_no_code() -> None:
    layer = fewbit.convert(torch.nn.GELU(), bits=1)
    x = torch.randn(9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    plain = torch.randn(9)
    assert torch.equal(layer(plain), torch.nn.functional.gelu(plain))
    with torch.no_grad():
        assert torch.equal(layer(plain.requires_grad_()), torch.nn.functional.gelu(plain))


def test_errors() -> None:
    with pytest.raises(ValueError, match="Code: bits must be 1 to 8"):
        fewbit.convert(torch.nn.GELU(), bits=0)
    with pytest.raises(pb.DTypeError, match="float32, bfloat16 and float16"):
        fewbit.activation(torch.zeros(3, dtype=torch.float64), "gelu")
    with pytest.raises(ValueError, match="no activation is called 'gelo'"):
        fewbit.activation(torch.zeros(3), "gelo")
    x = torch.zeros(3, requires_grad=True)
    with pytest.raises(pb.GraphError, match="no derivative of a second order"):
        torch.autograd.grad(fewbit.activation(x, "gelu").sum(), x, create_graph=True)


# ---- the kernels on any array


def test_arrays_of_all_makes() -> None:
    data, dy = np.random.default_rng(0).standard_normal((2, 33, 5)).astype("f4")
    levels = level_of(pb.fewbit.table("gelu", 3), data)
    for make in (np.asarray, torch.from_numpy, pb.asarray):
        y, code = fused.gelu_forward(make(data.copy()), bits=3)
        assert isinstance(y, pb.Tensor) and np.array_equal(y.numpy(), pb.gelu(pb.asarray(data)).numpy())
        assert code.bytes == 4 * 3 * 6 and code.shape == (33, 5)
        assert np.array_equal(fused.gelu_backward(make(dy.copy()), code).numpy(), dy * levels)
        out, dx = make(np.zeros_like(data)), make(np.zeros_like(data))
        same, code = fused.gelu_forward(make(data.copy()), bits=3, out=out)
        assert same is out and np.array_equal(np.asarray(out), y.numpy())
        assert fused.gelu_backward(make(dy.copy()), code, out=dx) is dx
        assert np.array_equal(np.asarray(dx), dy * levels)


def test_array_functions_exist_for_every_activation() -> None:
    assert len(fused.__all__) == 36
    x = np.linspace(-2, 2, 9).astype("f4")
    for name in fused.__all__:
        if name.endswith("_forward"):
            y, code = getattr(fused, name)(x)
            assert np.array_equal(y.numpy(), getattr(pb, name[:-8])(pb.asarray(x)).numpy())
            dx = getattr(fused, name[:-8] + "_backward")(np.ones_like(x), code)
            assert np.array_equal(dx.numpy(), level_of(pb.fewbit.table(name[:-8], 3), x))
    y, _ = fused.gelu_forward(x, approximate="tanh")
    assert np.array_equal(y.numpy(), pb.gelu(pb.asarray(x), approximate="tanh").numpy())
    y, _ = fused.elu_forward(x, 2, alpha=0.5)
    assert np.array_equal(y.numpy(), pb.elu(pb.asarray(x), alpha=0.5).numpy())


def test_array_errors() -> None:
    x = np.zeros((3, 4), np.float32)
    _, code = fused.silu_forward(x)
    with pytest.raises(pb.ShapeError, match=r"dy has shape \(4, 3\), x had \(3, 4\)"):
        fused.silu_backward(x.T, code)
    with pytest.raises(TypeError, match="unexpected argument 'beta'"):
        fused.silu_forward(x, beta=1.0)
    with pytest.raises(ValueError, match="Code: bits must be 1 to 8"):
        fused.silu_forward(x, bits=9)
    with pytest.raises(pb.ShapeError, match="out must be contiguous"):
        fused.silu_forward(x, out=np.zeros((4, 3), np.float32))
    with pytest.raises(pb.DTypeError, match="float32, bfloat16 and float16"):
        fused.silu_forward(x.astype(np.float64))
