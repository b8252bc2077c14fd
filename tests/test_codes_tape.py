"""Codes of a derivative on the tape: `f(x, saved=...)`, order, bytes, and what a whole model's gradient loses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from code_cases import gelu_slope, level_of

import pullback as pb

ACTIVATIONS = (
    *("relu", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "softsign", "tanh"),
    *("tanhshrink", "sigmoid", "log_sigmoid", "hardswish", "hardsigmoid", "hardtanh", "relu6"),
)


def slope(name: str, x: np.ndarray, dy: np.ndarray, saved) -> tuple[np.ndarray, np.ndarray, int]:
    """(y, dx, bytes kept) of one activation of a result, so that x itself is nobody's."""
    leaf = pb.tensor(x, requires_grad=True)
    y = getattr(pb, name)(leaf * 1.0, saved=saved)
    kept = pb.memory.saved_bytes(y)
    y.backward(pb.asarray(dy).astype(y.dtype))
    return y.astype(pb.float32).numpy(), leaf.grad.astype(pb.float32).numpy(), kept


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dx_is_dy_times_the_level(name: str) -> None:
    """Forward as without a code, backward by the table that fewbit.table gives, bytes as FEWBIT counts them."""
    rng = np.random.default_rng(0)
    x, dy = (3 * rng.standard_normal(5000)).astype("f4"), rng.standard_normal(5000).astype("f4")
    for bits in (1, 3, 4):
        table = pb.fewbit.table(name, bits)
        y, dx, kept = slope(name, x, dy, bits)
        assert np.array_equal(y, getattr(pb, name)(pb.asarray(x)).numpy())
        assert np.array_equal(dx, dy * level_of(table, x))
        assert kept == 4 * bits * -(-5000 // 32)
    same = slope(name, x, dy, pb.fewbit.Code(3))
    plain = slope(name, x, dy, 3)
    assert np.array_equal(same[1], plain[1])


@pytest.mark.parametrize("scheme", ["interval", "value", "minimax", "jet"])
@pytest.mark.parametrize("dtype", [pb.bfloat16, pb.float16])
def test_schemes_in_16_bits(dtype, scheme: str) -> None:
    rng = np.random.default_rng(1)
    x = pb.asarray(rng.standard_normal(3001).astype("f4")).astype(dtype)
    leaf = pb.tensor(x, requires_grad=True)
    code = pb.fewbit.Code(3, scheme=scheme)
    y = pb.silu(leaf * 1.0, saved=code)
    assert y.dtype == dtype and pb.memory.saved_bytes(y) == 4 * 3 * -(-3001 // 32)
    y.sum().backward()
    levels = level_of(pb.fewbit.table("silu", 3, scheme=scheme), x.astype(pb.float32).numpy())
    expected = pb.asarray(levels).astype(dtype)
    assert np.array_equal(leaf.grad.astype(pb.float32).numpy(), expected.astype(pb.float32).numpy())


@pytest.mark.parametrize("bits", (1, 2, 3, 4))
@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "tanh"])
def test_minimax_bound(name: str, bits: int) -> None:
    """|dx - exact| <= (gmax - gmin) / 2**(bits + 1) for every finite float16, dy = 1."""
    every = np.arange(65536, dtype=np.uint16).view(np.float16).astype("f4")
    every = every[np.isfinite(every)]
    _, coded, _ = slope(name, every, np.ones_like(every), pb.fewbit.Code(bits, scheme="minimax"))
    wide = pb.tensor(every.astype("f8"), requires_grad=True)
    getattr(pb, name)(wide).sum().backward()
    g = wide.grad.numpy()
    grid = pb.tensor(np.linspace(-30, 30, 600001), requires_grad=True)
    getattr(pb, name)(grid).sum().backward()
    low, high = min(np.min(grid.grad.numpy()), 0.0), np.max(grid.grad.numpy())
    assert np.max(np.abs(coded - g)) <= (high - low) / 2 ** (bits + 1) + 2.0**-23


def test_error_of_a_normal_input() -> None:
    """The mean square error on N(0, 1) is the table's own figure."""
    x = np.random.default_rng(3).standard_normal(400_000).astype("f4")
    for bits in (1, 2, 3, 4):
        _, dx, _ = slope("gelu", x, np.ones_like(x), bits)
        table = pb.fewbit.table("gelu", bits)
        square = (dx - gelu_slope(x)) ** 2
        sigma = square.std() / math.sqrt(x.size)
        assert abs(square.mean() - table.error) <= 4 * sigma


def test_unbiased_scheme() -> None:
    """Over many draws the mean of dx is the exact one, within 4 sigma."""
    points = np.linspace(-3, 3, 25).astype("f4")
    x = np.repeat(points, 4000)
    for bits in (2, 3):
        pb.manual_seed(bits)
        _, dx, kept = slope("gelu", x, np.ones_like(x), pb.fewbit.Code(bits, scheme="unbiased"))
        assert kept == 4 * bits * -(-x.size // 32)
        draws = dx.reshape(25, 4000).astype("f8")
        sigma = draws.std(1) / math.sqrt(4000)
        assert np.all(np.abs(draws.mean(1) - gelu_slope(points)) <= 4 * sigma + 1e-6)
        assert np.median(draws.std(1)) > 0


def test_random_codes_leave_the_draws_alone() -> None:
    """Rounding has a stream of its own: dropout draws what it draws without codes."""
    results = []
    for saved in (None, pb.fewbit.Code(3, scheme="unbiased")):
        pb.manual_seed(5)
        x = pb.tensor(np.ones(100, "f4"), requires_grad=True)
        results.append(pb.dropout(pb.gelu(x * 1.0, saved=saved), 0.5).numpy())
    assert np.array_equal(*results)


def test_float64_is_exact() -> None:
    x = pb.tensor(np.linspace(-3, 3, 64), requires_grad=True)
    pb.gelu(x * 1.0, saved=2).sum().backward()
    assert np.max(np.abs(x.grad.numpy() - gelu_slope(np.linspace(-3, 3, 64)))) <= 1e-12
    assert pb.testing.gradcheck(lambda t: pb.gelu(t, saved=1), (pb.tensor(np.linspace(-2, 2, 8)),), order=2)


def test_infinity_and_nan() -> None:
    x = np.array([-np.inf, np.inf, np.nan] + [0.0] * 61, "f4")
    y, dx, _ = slope("gelu", x, np.ones_like(x), 3)
    table = pb.fewbit.table("gelu", 3)
    first, last = (np.float32(table.levels[table.codes[i]]) for i in (0, -1))
    assert np.array_equal(dx[:3], [first, last, first]) and np.isnan(y[2]) and y[1] == np.inf and y[0] == 0


@pytest.mark.parametrize("n", (0, 1, 31, 32, 33))
def test_sizes(n: int) -> None:
    x = np.linspace(-2, 2, n).astype("f4")
    _, dx, kept = slope("silu", x, np.ones_like(x), 3)
    assert dx.shape == (n,) and kept == 12 * -(-n // 32)
    assert np.array_equal(dx, level_of(pb.fewbit.table("silu", 3), x))


# ---- order


def test_order_one_refuses_a_second() -> None:
    x = pb.tensor(np.ones(8, "f4"), requires_grad=True)
    y = pb.gelu(x * 1.0, saved=3).sum()
    with pytest.raises(pb.GraphError, match=r'derivative code.*no derivative of this order[\s\S]*saved="input"'):
        y.backward(create_graph=True)


def test_jet_has_a_second_and_no_third() -> None:
    rng = np.random.default_rng(0)
    data, u, v = (rng.standard_normal(777).astype("f4") for _ in range(3))
    table = pb.fewbit.table("gelu", 3, scheme="jet")
    piece = np.searchsorted(table.boundaries, data)
    first, second = (np.asarray(part, "f4")[np.asarray(table.codes)[piece]] for part in (table.levels, table.second))
    x = pb.tensor(data, requires_grad=True)
    dy = pb.tensor(u, requires_grad=True)
    y = pb.gelu(x * 1.0, saved=pb.fewbit.Code(3, scheme="jet"))
    (gx,) = pb.gradients([y], [x], [dy], create_graph=True)
    assert np.array_equal(gx.numpy(), u * first)
    gxx, gdy = pb.gradients([gx], [x, dy], [pb.asarray(v)])
    assert np.allclose(gxx.numpy(), v * u * second, rtol=1e-6, atol=0)
    assert np.array_equal(gdy.numpy(), v * first)
    y = pb.gelu(x * 1.0, saved=pb.fewbit.Code(3, scheme="jet"))
    (gx,) = pb.gradients([y], [x], [dy], create_graph=True)
    with pytest.raises(pb.GraphError, match="order 2"):
        pb.gradients([gx], [x], [pb.asarray(v)], create_graph=True)


def test_announced_order_keeps_what_is_needed() -> None:
    data = np.linspace(-2, 2, 40).astype("f4")

    def f(t):
        return pb.sum(pb.gelu(t * 1.0, saved=2))

    x = pb.asarray(data)
    nested = pb.grad(lambda t: pb.sum(pb.grad(f)(t)))(x)
    exact = pb.grad(lambda t: pb.sum(pb.grad(lambda s: pb.sum(pb.gelu(s)))(t)))(x)
    assert np.allclose(nested.numpy(), exact.numpy(), rtol=1e-5, atol=1e-6)
    (product,) = pb.hvp(f, (x,), (pb.ones_like(x),))
    assert np.allclose(product.numpy(), exact.numpy(), rtol=1e-5, atol=1e-6)
    _, tangent = pb.jvp(lambda t: pb.gelu(t, saved=1), (x,), (pb.ones_like(x),))
    assert np.allclose(tangent.numpy(), gelu_slope(data), atol=1e-6)
    leaf = pb.tensor(data, requires_grad=True)
    with pb.saving(order=2):
        y = pb.gelu(leaf * 1.0, saved=2).sum()
    y.backward(create_graph=True)
    assert np.allclose(leaf.grad.numpy(), gelu_slope(data), atol=1e-6)


def test_saving_region_and_precedence() -> None:
    leaf = pb.tensor(np.linspace(-2, 2, 64).astype("f4"), requires_grad=True)
    with pb.saving(bits=3):
        assert pb.memory.saved_bytes(pb.gelu(leaf * 1.0)) == 24
        assert pb.memory.saved_bytes(pb.gelu(leaf * 1.0, saved=1)) == 8
        assert pb.memory.saved_bytes(pb.gelu(leaf * 1.0, saved="input")) == 256
        assert pb.memory.saved_bytes(pb.sin(leaf * 1.0)) == 256  # not an activation
    assert pb.memory.saved_bytes(pb.gelu(leaf * 1.0)) == 256
    row = pb.memory.report(pb.gelu(leaf * 1.0, saved=3)).rows[0]
    assert (row.scheme, row.error, row.holder) == ("3-bit code", "bounded", "gelu")


def test_errors() -> None:
    x = pb.tensor(np.ones(4, "f4"), requires_grad=True)
    for bits in (0, 9, -3):
        with pytest.raises(ValueError, match="must be 1 to 8"):
            pb.gelu(x, saved=bits)
        with pytest.raises(ValueError, match="Code: bits must be 1 to 8"):
            pb.fewbit.Code(bits)
    with pytest.raises(ValueError, match="Code: bits must be 1 to 8"):
        pb.fewbit.Code(2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Code: unknown scheme 'best'"):
        pb.fewbit.Code(2, scheme="best")
    with pytest.raises(ValueError, match="saved= takes None"):
        pb.gelu(x, saved="few")
    with pytest.raises(ValueError, match="saved= takes None or 'input'"):
        pb.sign(x, saved=3)  # no derivative to code
    with pytest.raises(ValueError, match="Code: bits must be 1 to 8"):
        pb.fewbit.convert(pb.nn.GELU(), bits=12)


# ---- a model


class Language(pb.nn.Module):
    """A small language model of blocks with attention, norms and a GELU each."""

    def __init__(self) -> None:
        self.embed = pb.nn.Embedding(32, 48)
        self.blocks = [pb.nn.TransformerBlock(48, 4, causal=True) for _ in range(2)]
        self.norm, self.head = pb.nn.LayerNorm(48), pb.nn.Linear(48, 32)

    def forward(self, tokens):
        h = self.embed(tokens)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def gradient(model: Language, tokens: np.ndarray) -> np.ndarray:
    for p in model.parameters():
        p.grad = None
    logits = model(pb.asarray(tokens[:, :-1]))
    pb.losses.cross_entropy(logits, pb.asarray(tokens[:, 1:])).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]).astype("f8")


@pytest.fixture(scope="module")
def language() -> tuple[Language, np.ndarray, np.ndarray]:
    """A model after some steps on text of a simple grammar, so that its gradients are those of training."""
    pb.manual_seed(0)
    rng = np.random.default_rng(0)
    model, step = Language(), rng.integers(1, 4, (16, 1))
    tokens = (rng.integers(0, 32, (16, 1)) + step * np.arange(33)) % 32
    opt = pb.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(15):
        gradient(model, tokens)
        opt.step()
    return model, tokens, gradient(model, tokens)


@pytest.mark.parametrize(("bits", "least"), [(1, 0.99), (2, 0.998), (3, 0.9995), (4, 0.9998)])
def test_gradient_cosine_of_a_language_model(language, bits: int, least: float) -> None:
    model, tokens, exact = language
    pb.fewbit.convert(model, bits=bits)
    found = gradient(model, tokens)
    pb.fewbit.convert(model, bits=None)
    cosine = found @ exact / np.sqrt((found @ found) * (exact @ exact))
    assert cosine >= least
    assert not np.array_equal(found, exact)  # the code was used
    assert np.array_equal(gradient(model, tokens), exact)


def test_convert() -> None:
    model = pb.nn.Sequential(pb.nn.Linear(4, 4), pb.nn.GELU(), pb.nn.Sequential(pb.nn.SiLU(), pb.nn.Tanh()))
    assert pb.fewbit.convert(model, bits=2) is model
    assert [m.saved for m in (model[1], model[2][0], model[2][1])] == [2, 2, 2] and model[0].saved is None
    x = pb.tensor(np.ones((64, 4), "f4"))
    kept = pb.memory.report(model(x)).rows
    assert sorted(r.bytes for r in kept if r.scheme == "2-bit code") == [64, 64, 64]
    pb.fewbit.convert(model, bits=pb.fewbit.Code(3, scheme="minimax"))
    assert model[1].saved.scheme == "minimax"
