"""Functions that are several ops in one: equal to their compositions in value, gradient, second order and jvp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from code_cases import level_of

import pullback as pb

RNG = np.random.default_rng


def numbers(shape: tuple[int, ...], seed: int, dtype: Any = pb.float64) -> pb.Tensor:
    return pb.asarray(RNG(seed).standard_normal(shape)).astype(dtype)


def everything(f: Callable[..., pb.Tensor], inputs: list[pb.Tensor]) -> list[np.ndarray]:
    """Value, gradients, gradients of a function of the gradients, tangent, tangent of a gradient."""

    def scalar(*args: pb.Tensor) -> pb.Tensor:
        return pb.sum(pb.sin(f(*args)))

    def again(*args: pb.Tensor) -> pb.Tensor:
        grads = pb.grad(scalar, argnums=tuple(range(len(args))))(*args)
        return sum(pb.sum(g * g * 0.5) for g in grads)  # type: ignore[return-value]

    places = tuple(range(len(inputs)))
    directions = tuple(numbers(t.shape, 100 + i, t.dtype) for i, t in enumerate(inputs))
    out = [f(*inputs), *pb.grad(scalar, argnums=places)(*inputs), *pb.grad(again, argnums=places)(*inputs)]
    out += pb.jvp(f, tuple(inputs), directions)
    out += pb.jvp(pb.grad(scalar, argnums=places), tuple(inputs), directions)[1]
    leaves = [pb.tensor(t, requires_grad=True) for t in inputs]
    f(*leaves).backward(pb.ones_like(out[0]))
    out += [leaf.grad for leaf in leaves]
    return [t.numpy() for t in out]


def same(fused: Callable[..., pb.Tensor], plain: Callable[..., pb.Tensor], inputs: list[pb.Tensor], tol: float) -> None:
    for a, b in zip(everything(fused, inputs), everything(plain, inputs), strict=True):
        assert a.shape == b.shape and np.allclose(a, b, rtol=tol, atol=tol)


ACTS = ("relu", "gelu", "silu", "tanh", "sigmoid", "hardswish", "relu6", "gelu_tanh", "elu")


def plain_act(act: str, x: pb.Tensor) -> pb.Tensor:
    return pb.gelu(x, approximate="tanh") if act == "gelu_tanh" else getattr(pb, act)(x)


# ---- bias_act_dropout


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("act", ACTS)
def test_bias_act_dropout(act: str, p: float) -> None:
    def fused(x: pb.Tensor, b: pb.Tensor) -> pb.Tensor:
        return pb.bias_act_dropout(x, b, act, p, rng=pb.random.Generator(3))

    def plain(x: pb.Tensor, b: pb.Tensor) -> pb.Tensor:
        return pb.dropout(plain_act(act, x + b), p, rng=pb.random.Generator(3))

    same(fused, plain, [numbers((5, 7), 0), numbers((7,), 1)], 1e-12)


@pytest.mark.parametrize("dtype", [pb.float32, pb.bfloat16, pb.float16])
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (33, 65), (3, 400, 40)])
def test_bias_act_dropout_types_and_sizes(shape: tuple[int, ...], dtype: Any) -> None:
    """float32 has the bits of the composition; 16-bit types are rounded once instead of three times."""
    x, b = numbers(shape, 0, dtype), numbers(shape[-1:], 1, dtype)
    fused = pb.bias_act_dropout(x, b, "gelu", 0.3, rng=pb.random.Generator(1))
    wide = pb.dropout(pb.gelu(x.astype(pb.float32) + b.astype(pb.float32)), 0.3, rng=pb.random.Generator(1))
    assert fused.dtype == dtype
    assert np.array_equal(fused.astype(pb.float32).numpy(), wide.astype(dtype).astype(pb.float32).numpy())


def test_bias_act_dropout_layouts() -> None:
    x, column = numbers((6, 5), 0), numbers((6, 1), 1)
    assert np.array_equal(pb.bias_act_dropout(x.T, None, "silu").numpy(), pb.silu(x.T).numpy())
    assert np.array_equal(pb.bias_act_dropout(x, column, pb.silu).numpy(), pb.silu(x + column).numpy())
    assert np.array_equal(pb.bias_act_dropout(x, pb.asarray(1.5), pb.gelu).numpy(), pb.gelu(x + 1.5).numpy())
    assert np.array_equal(pb.bias_act_dropout(x, None, "relu", 0.9, training=False).numpy(), pb.relu(x).numpy())


def kept(saved: Any, act: str, p: float = 0.1) -> tuple[int, np.ndarray, np.ndarray]:
    leaf = pb.tensor(RNG(0).standard_normal((64, 32)).astype("f4"), requires_grad=True)
    bias = pb.tensor(RNG(1).standard_normal(32).astype("f4"), requires_grad=True)
    y = pb.bias_act_dropout(leaf * 1.0, bias, act, p, rng=pb.random.Generator(2), saved=saved)
    size = pb.memory.saved_bytes(y)
    pb.sum(y).backward()
    return size, leaf.grad.numpy(), bias.grad.numpy()


def test_bias_act_dropout_bytes() -> None:
    """x for gelu, a code for bits, nothing but the result for relu (which a consumer keeps anyway)."""
    assert kept(None, "gelu")[0] == 4 * 2048
    assert kept(3, "gelu")[0] == 4 * 3 * 64
    y = pb.bias_act_dropout(pb.tensor(np.ones((64, 32), "f4"), requires_grad=True) * 1.0, None, "relu", 0.1)
    w = pb.tensor(np.ones((8, 32), "f4"), requires_grad=True)
    assert pb.memory.saved_bytes(pb.linear(y, w)) == 4 * 2048  # the result alone, for both


def test_bias_act_dropout_with_a_code() -> None:
    table = pb.fewbit.table("gelu", 3)
    x, b = RNG(0).standard_normal((64, 32)).astype("f4"), RNG(1).standard_normal(32).astype("f4")
    mask = pb.dropout(pb.ones((64, 32)), 0.1, rng=pb.random.Generator(2)).numpy()
    _, gx, gb = kept(3, "gelu")
    expected = mask * level_of(table, x + b)
    assert np.array_equal(gx, expected)
    assert np.allclose(gb, expected.sum(0), rtol=1e-5)
    leaf = pb.tensor(x, requires_grad=True)
    with pytest.raises(pb.GraphError, match="derivative code"):
        pb.sum(pb.bias_act_dropout(leaf * 1.0, None, "gelu", saved=3)).backward(create_graph=True)


def test_bias_act_dropout_errors() -> None:
    x = pb.ones((2, 3))
    with pytest.raises(pb.ShapeError, match="bias must broadcast"):
        pb.bias_act_dropout(x, pb.ones((4, 2, 3)), "relu")
    with pytest.raises(pb.ShapeError, match="bias_act_dropout"):
        pb.bias_act_dropout(x, pb.ones(2), "relu")
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\)"):
            pb.bias_act_dropout(x, None, "relu", p)
    with pytest.raises(ValueError, match="act must be an activation, got sign"):
        pb.bias_act_dropout(x, None, "sign")
    with pytest.raises(ValueError, match="act must be an activation, got add"):
        pb.bias_act_dropout(x, None, pb.add)
    with pytest.raises(ValueError, match="no element-wise op is called gelo"):
        pb.bias_act_dropout(x, None, "gelo")
    with pytest.raises(TypeError, match="act must be a name or a function"):
        pb.bias_act_dropout(x, None, 3)  # type: ignore[arg-type]
    with pytest.raises(pb.DTypeError, match="x must be floating"):
        pb.bias_act_dropout(pb.asarray([1, 2]), None, "relu")


# ---- linear_act


@pytest.mark.parametrize("act", ACTS)
def test_linear_act(act: str) -> None:
    inputs = [numbers((2, 3, 4), 0), numbers((5, 4), 1), numbers((5,), 2)]
    same(lambda x, w, b: pb.linear_act(x, w, b, act), lambda x, w, b: plain_act(act, pb.linear(x, w, b)), inputs, 1e-12)


def test_linear_act_bytes_and_errors() -> None:
    x = pb.tensor(np.ones((64, 32), "f4"), requires_grad=True) * 1.0
    w = pb.tensor(np.ones((96, 32), "f4"), requires_grad=True)
    assert pb.memory.saved_bytes(pb.linear_act(x, w, None, "gelu", saved=3)) == 4 * 2048 + 4 * 3 * 192
    assert pb.memory.saved_bytes(pb.linear_act(x, w, None, "gelu")) == 4 * 2048 + 4 * 6144
    with pytest.raises(ValueError, match="linear_act: act must be an activation"):
        pb.linear_act(x, w, None, "floor")
    with pytest.raises(pb.ShapeError, match="inner sizes differ"):
        pb.linear_act(x, pb.ones((2, 3)), None, "relu")


# ---- gates


@pytest.mark.parametrize(("gate", "act"), [(pb.silu_mul, pb.silu), (pb.gelu_mul, pb.gelu)])
def test_gates(gate: Any, act: Any) -> None:
    same(gate, lambda a, b: act(a) * b, [numbers((3, 5), 0), numbers((3, 5), 1)], 1e-12)
    same(gate, lambda a, b: act(a) * b, [numbers((3, 5), 0), numbers((5,), 1)], 1e-12)


@pytest.mark.parametrize("gate", [pb.silu_mul, pb.gelu_mul])
def test_gate_bytes(gate: Any) -> None:
    """a and b and no product, also where the product goes into a linear map; in blocks with saved="""
    a, b = (pb.tensor(RNG(i).standard_normal((16, 256)).astype("f4"), requires_grad=True) for i in range(2))
    w = pb.tensor(RNG(3).standard_normal((8, 256)).astype("f4"), requires_grad=True)
    grads = []
    for saved, size in (
        (None, 8 * 4096),
        ("input", 8 * 4096),
        (8, 2 * 4224),
        (5, 2 * 4224),
        (4, 2 * 2304),
        (3, 2 * 2304),
    ):
        for t in (a, b, w):
            t.grad = None
        pb.manual_seed(0)
        y = pb.linear(gate(a * 1.0, b * 1.0, saved=saved), w)
        assert pb.memory.saved_bytes(y) == size
        pb.sum(pb.sin(y)).backward()
        grads.append(np.concatenate([t.grad.numpy().ravel() for t in (a, b, w)]))
    exact = grads[0]
    for found, bound in zip(grads, (0, 0, 0.05, 0.05, 0.5, 0.5), strict=True):
        assert np.linalg.norm(found - exact) <= bound * np.linalg.norm(exact)
    with pytest.raises(ValueError, match="saved= takes None, 'input' or 1 to 8 bits, got 9"):
        gate(a, b, saved=9)


# ---- linear_cross_entropy


def plain_loss(x, w, b, t, **kw):
    return pb.losses.cross_entropy(pb.linear(x, w, b), t, **kw)


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.2}, {"ignore_index": 2}, {"reduction": "sum"}, {"reduction": "none"}]
)
def test_linear_cross_entropy(options: dict[str, Any]) -> None:
    target = pb.asarray(RNG(5).integers(0, 6, (3, 4)))
    inputs = [numbers((3, 4, 5), 0), numbers((6, 5), 1), numbers((6,), 2)]
    same(
        lambda x, w, b: pb.linear_cross_entropy(x, w, target, b, **options),
        lambda x, w, b: plain_loss(x, w, b, target, **options),
        inputs,
        1e-10,
    )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_cross_entropy_in_blocks_of_rows(reduction: str) -> None:
    """More rows than one block holds, and bytes without rows times classes."""
    rows, classes, width = 300, 8192, 16
    target = pb.asarray(RNG(1).integers(0, classes, rows))
    data, weight = (
        RNG(2).standard_normal((rows, width)).astype("f4"),
        RNG(3).standard_normal((classes, width)).astype("f4"),
    )
    found = []
    for f in (pb.linear_cross_entropy, lambda x, w, t, **kw: plain_loss(x, w, None, t, **kw)):
        x, w = pb.tensor(data, requires_grad=True), pb.tensor(weight, requires_grad=True)
        loss = f(x * 1.0, w, target, reduction=reduction)
        size = pb.memory.saved_bytes(loss)
        loss.backward(pb.asarray(RNG(4).standard_normal(loss.shape).astype("f4")))
        found.append((size, loss.numpy(), x.grad.numpy(), w.grad.numpy()))
    (small, *a), (large, *b) = found
    for u, v in zip(a, b, strict=True):
        assert np.allclose(u, v, rtol=2e-4, atol=1e-5)
    of_x, of_w, targets = 4 * rows * width, 4 * classes * width, 8 * rows
    assert small == (2 * of_x + of_w + targets if reduction == "mean" else of_x + targets)
    assert large > 4 * rows * classes


def test_linear_cross_entropy_edges() -> None:
    w = pb.tensor(np.ones((4, 3), "f4"), requires_grad=True)
    x = pb.tensor(np.ones((2, 3), "f4"), requires_grad=True)
    loss = pb.linear_cross_entropy(x, w, pb.asarray([1, 1]), ignore_index=1)
    loss.backward()
    assert loss.item() == 0 and np.all(w.grad.numpy() == 0)
    assert pb.linear_cross_entropy(pb.zeros((0, 3)), w, pb.zeros(0, dtype=pb.int64), reduction="sum").item() == 0
    low = pb.linear_cross_entropy(x.detach().astype(pb.bfloat16), w.detach().astype(pb.bfloat16), pb.asarray([0, 1]))
    assert low.dtype == pb.bfloat16 and abs(low.item() - np.log(4)) < 0.01
    with pytest.raises(pb.ShapeError, match="weight must be 2-d"):
        pb.linear_cross_entropy(x, pb.ones(3), pb.asarray([0, 1]))
    with pytest.raises(pb.ShapeError, match="inner sizes differ"):
        pb.linear_cross_entropy(x, pb.ones((4, 2)), pb.asarray([0, 1]))
    with pytest.raises(pb.ShapeError, match="one element per class"):
        pb.linear_cross_entropy(x, w, pb.asarray([0, 1]), pb.ones(3))
    with pytest.raises(pb.ShapeError, match="shape of x without its last axis"):
        pb.linear_cross_entropy(x, w, pb.asarray([0, 1, 2]))
    with pytest.raises(pb.DTypeError, match="integer classes"):
        pb.linear_cross_entropy(x, w, pb.ones((2, 4)))
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        pb.linear_cross_entropy(x, w, pb.asarray([0, 1]), label_smoothing=2.0)
    with pytest.raises(ValueError, match="unknown reduction 'most'"):
        pb.linear_cross_entropy(x, w, pb.asarray([0, 1]), reduction="most")
    with pytest.raises(IndexError, match="target 7"):
        pb.linear_cross_entropy(x, w, pb.asarray([0, 7]))


# ---- add_rms_norm


def test_add_rms_norm() -> None:
    inputs = [numbers((3, 5), 0), numbers((3, 5), 1), numbers((5,), 2)]

    def fused(x: pb.Tensor, r: pb.Tensor, w: pb.Tensor) -> pb.Tensor:
        y, s = pb.add_rms_norm(x, r, w, eps=1e-5)
        return y * 2.0 + s

    same(fused, lambda x, r, w: pb.rms_norm(x + r, w, eps=1e-5) * 2.0 + (x + r), inputs, 1e-12)
    y, s = pb.add_rms_norm(pb.tensor(np.ones((4, 8), "f4"), requires_grad=True) * 1.0, pb.ones((4, 8)))
    assert pb.memory.saved_bytes(pb.sum(y) + pb.sum(s)) == 4 * 32 + 4 * 4  # the sum, and one number a row
    with pytest.raises(pb.ShapeError, match="weight"):
        pb.add_rms_norm(pb.ones((2, 3)), pb.ones((2, 3)), pb.ones(4))
