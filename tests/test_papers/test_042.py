"""Row 42, "Few-Bit Backward: Quantized Gradients of Activation Functions for Memory Footprint Reduction".

The whole check is run: its tables, the bytes of codes, exact forward values, and a training.
"""

import itertools

import numpy as np
import pytest

import pullback as pb
from pullback import _core

X = np.linspace(-10, 10, 2_000_001)


def gelu_slope(x):
    return pb.grad(lambda v: pb.gelu(v).sum())(pb.asarray(x)).numpy()


def score(boundaries, levels, codes=None):
    """The integral of the squared error on [-10, 10], by the trapezoid rule with steps of 1e-5."""
    levels = np.asarray(levels)[np.arange(len(boundaries) + 1) if codes is None else np.asarray(codes)]
    return np.trapezoid((gelu_slope(X) - levels[np.searchsorted(boundaries, X)]) ** 2, X)


@pytest.mark.parametrize(
    ("bits", "error", "positive"),
    [(1, 0.14105, []), (2, 0.04056, [0.47]), (3, 0.01190, [0.326, 0.711, 2.398]), (4, 0.00314, None)],
)
def test_tables_of_gelu(bits, error, positive):
    """Weight uniform on [-10, 10], scheme interval: errors within 1 %, boundaries to the digits printed."""
    t = pb.fewbit.table("gelu", bits, weight="uniform", scheme="interval")
    assert t.error == pytest.approx(error, rel=0.01)
    assert score(t.boundaries, t.levels, t.codes) == pytest.approx(error, rel=0.01)
    if positive is not None:
        both = [-b for b in positive[::-1]] + [0] + positive
        assert t.boundaries == pytest.approx(both, abs=0.005)


def test_published_table():
    """Its three bits score what ours do."""
    low = [-0.0026, -0.0888, 0.1252, 0.3720]
    bounds = [-2.398, -0.711, -0.326, 0, 0.326, 0.711, 2.398]
    published = score(bounds, low + [1 - y for y in low[::-1]])
    assert published == pytest.approx(0.01190, rel=0.01)
    assert pb.fewbit.table("gelu", 3, weight="uniform", scheme="interval").error <= published * (1 + 1e-6)


def test_dynamic_program_is_brute_force():
    """Twelve cells of gelu's derivative, k = 3."""
    edges = np.linspace(-3, 3, 13)
    x = (edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * (np.arange(200) + 0.5) / 200).reshape(12, 200)
    g = gelu_slope(x.ravel()).reshape(12, 200)

    def cost(i, j):
        return ((g[i:j] - g[i:j].mean()) ** 2).sum()

    best = min(
        ((cost(0, i) + cost(i, j) + cost(j, 12)), (0, i, j, 12)) for i, j in itertools.combinations(range(1, 12), 2)
    )
    moments = [np.full(12, 200.0), g.sum(axis=1), (g * g).sum(axis=1)]
    assert tuple(_core.fewbit_partition(*[list(m) for m in moments], 3)) == best[1]


@pytest.mark.parametrize("name", ["gelu", "silu", "selu", "elu", "softplus", "tanh", "sigmoid", "hardswish"])
def test_tables_for_one_to_eight_bits(name):
    """Each bit more divides the error by two and more."""
    errors = [pb.fewbit.table(name, b, scheme="interval").error for b in range(1, 9)]
    assert all(a > 2 * b > 0 for a, b in itertools.pairwise(errors))


def test_tables_of_user_functions():
    t = pb.fewbit.solve(lambda x: pb.cos(x) * pb.exp(-x * x / 8), 4, weight="uniform", scheme="interval")
    cuts = [-10, *t.boundaries, 10]
    for a, b, code in zip(cuts, cuts[1:], t.codes, strict=False):  # a level is the mean on its interval
        inside = np.linspace(a, b, 20_001)
        mean = np.trapezoid(np.cos(inside) * np.exp(-inside * inside / 8), inside) / (b - a)
        assert t.levels[code] == pytest.approx(mean, abs=1e-6)


def test_relu_is_exact_with_one_bit():
    t = pb.fewbit.table("relu", 1, scheme="interval")
    x = np.array([-np.inf, -1.0, -1e-300, 0.0, 1e-300, 1.0, np.inf])
    exact = pb.grad(lambda v: pb.relu(v).sum())(pb.asarray(x)).numpy()
    assert np.array_equal(t(x).numpy(), exact) and exact.tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000])
def test_bytes_of_a_code(bits, n):
    """4 b ceil(n / 32), packed and kept by a graph; forward has the bits of the plain op."""
    expected = 4 * bits * -(-n // 32)
    assert pb.fewbit.pack(pb.zeros((n,), dtype=pb.uint8), bits).nbytes == expected
    x = pb.random.normal((n,))
    x.requires_grad = True
    y = pb.gelu(x, saved=bits)
    assert np.array_equal(y.detach().numpy(), pb.gelu(x.detach()).numpy())
    assert pb.memory.saved_bytes(y.sum()) == expected


def test_gradients_are_those_of_the_table():
    x = pb.random.normal((10_000,)) * 2
    t = pb.fewbit.table("gelu", 3)
    dx = pb.grad(lambda v: pb.gelu(v, saved=3).sum())(x).numpy()
    assert np.max(np.abs(dx - t(x).numpy())) <= 1e-6
    exact = pb.grad(lambda v: pb.gelu(v).sum())(x).numpy()
    assert np.max(np.abs(dx - exact)) <= t.max_error + 1e-6


def test_relu_with_a_code_is_exact():
    x = pb.asarray(np.array([-np.inf, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, np.inf], dtype=np.float32))
    exact = pb.grad(lambda v: pb.relu(v).sum())(x).numpy()
    assert np.array_equal(pb.grad(lambda v: pb.relu(v, saved=1).sum())(x).numpy(), exact)


def test_training_with_three_bits():
    """MLP 32-128-128-10, N(0, 1) inputs, Adam 1e-3: after 300 steps the losses differ by at most 2 %."""

    def train(saved):
        pb.manual_seed(0)
        model = pb.nn.Sequential(
            pb.nn.Linear(32, 128), pb.nn.GELU(), pb.nn.Linear(128, 128), pb.nn.GELU(), pb.nn.Linear(128, 10)
        )
        pb.fewbit.convert(model, saved)
        opt = pb.optim.Adam(model.parameters(), lr=1e-3)
        teacher = pb.random.normal((32, 10))
        losses = []
        for _ in range(300):
            x = pb.random.normal((128, 32))
            loss = pb.losses.cross_entropy(model(x), pb.argmax(x @ teacher, axis=1))
            losses.append(loss.item())
            opt.zero_grad()
            loss.backward()
            opt.step()
        return np.mean(losses[-20:]), losses

    (exact, first), (coded, second) = train(None), train(3)
    assert abs(coded / exact - 1) <= 0.02
    assert exact < 0.5 * first[0]
    assert first[0] == second[0] and first != second
