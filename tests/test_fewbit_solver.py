"""The solver of few-bit tables against references, brute force, other descents and closed forms."""

import doctest
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fewbit_refs import cases

import pullback as pb
from pullback import _core
from pullback.fewbit import Table, solve, table
from pullback.fewbit.tables import EVEN, SMOOTH, STEPS, derivative_of

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def g_gelu(x):
    return np.asarray([0.5 * math.erfc(-v / 2**0.5) for v in x.ravel()]).reshape(x.shape) + x * density(x)


def density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def uniform(x):
    return np.ones_like(x)


def integral(f, cuts):
    """By 40 Gauss points on each of the parts, none wider than 0.1."""
    total = 0.0
    for a, b in itertools.pairwise(cuts):
        edges = np.linspace(a, b, max(2, math.ceil((b - a) / 0.1) + 1))
        mid, half = (edges[:-1] + edges[1:]) / 2, (edges[1:] - edges[:-1]) / 2
        x = mid[:, None] + half[:, None] * NODES
        total += float((f(x) * WEIGHTS * half[:, None]).sum())
    return total


def numpy_g(name):
    g = derivative_of(name)

    def f(x):
        x = np.asarray(x, dtype=np.float64)
        return g(pb.asarray(x.ravel())).numpy().reshape(x.shape)

    return f


def level_at(t, x):
    """What a table stands for, by its definition."""
    piece = sum((x > s).astype(np.int64) for s in t.boundaries) + np.zeros(x.shape, np.int64)
    return np.asarray(t.levels)[np.asarray(t.codes)[piece]]


def quad_error(t, g, w, breaks=(), low=-10.0, high=10.0):
    cuts = sorted({low, high, *(b for b in (*t.boundaries, *breaks) if low < b < high)})
    return integral(lambda x: w(x) * (level_at(t, x) - g(x)) ** 2, cuts)


# ---- the references


@pytest.mark.parametrize(("name", "weight", "scheme", "bits", "reference"), list(cases()))
def test_error_of_every_table(name, weight, scheme, bits, reference):
    """The error is at most 1.001 times the reference, and it is what an independent quadrature finds."""
    t = table(name, bits, weight=weight, scheme=scheme)
    assert t.error <= 1.001 * reference
    breaks = {"selu": [0], "elu": [0], "celu": [0], "softsign": [0], "hardswish": [-3, 3]}.get(name, [])
    quad = quad_error(t, numpy_g(name), density if weight == "normal" else uniform, breaks)
    assert abs(quad - t.error) <= 1e-9 * quad + 1e-15
    assert quad <= 1.001 * reference


@pytest.mark.parametrize("name", EVEN)
@pytest.mark.parametrize("weight", ["normal", "uniform"])
@pytest.mark.parametrize("bits", [1, 3])
def test_folded_tables_mirror(name, weight, bits):
    """The derivative falls in |x|, so folding loses nothing against scheme value; levels are mirror images."""
    t = table(name, bits, weight=weight, scheme="folded")
    assert t.error == pytest.approx(table(name, bits, weight=weight).error, rel=1e-8)
    x = np.concatenate([np.linspace(0, 12, 4001), np.asarray(t.boundaries)])
    assert np.array_equal(t(x).numpy(), t(-x).numpy())


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_unbiased_levels(bits):
    """Variances known for gelu and N(0, 1); levels hold every value; the variance is what quadrature finds."""
    t = table("gelu", bits, scheme="unbiased")
    assert t.error <= 1.05 * (1.9e-1, 2.4e-2, 4.6e-3, 1.0e-3)[bits - 1]
    levels = np.unique(t.levels)
    assert t.boundaries == () and levels.size == 2**bits
    x = np.linspace(-10, 10, 400_001)
    g = g_gelu(x)
    assert levels[0] <= g.min() and g.max() <= levels[-1]
    up = np.clip(np.searchsorted(levels, g), 1, levels.size - 1)
    variance = (levels[up] - g) * (g - levels[up - 1])
    assert abs(np.trapezoid(variance * density(x), x) - t.error) <= 1e-4 * t.error
    assert abs(np.max(np.maximum(levels[up] - g, g - levels[up - 1])) - t.max_error) <= 1e-4


@pytest.mark.parametrize("bits", [2, 3])
def test_unbiased_levels_are_a_minimum(bits):
    t = table("silu", bits, scheme="unbiased")
    x = np.linspace(-10, 10, 100_001)
    g, w = numpy_g("silu")(x), density(x)

    def variance(levels):
        up = np.clip(np.searchsorted(levels, g), 1, levels.size - 1)
        return np.trapezoid((levels[up] - g) * (g - levels[up - 1]) * w, x)

    levels = np.asarray(sorted(t.levels))
    best = variance(levels)
    for i in range(1, levels.size - 1):
        for step in (-3e-3, 3e-3):
            moved = levels.copy()
            moved[i] += step
            assert variance(moved) > best


@pytest.mark.parametrize("name", ["gelu", "silu", "softplus", "tanh", "selu"])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_jet_tables(name, bits):
    """Levels of g and of its derivative: both errors by quadrature; the sum is less than that of the interval table."""
    t = table(name, bits, weight="normal", scheme="jet")
    breaks = [0.0] if name == "selu" else []
    g = numpy_g(name)

    def slope(x, h=1e-3):  # of selu below 0 it is the function; else by differences of fourth order
        if name == "selu":
            return np.where(x < 0, g(x), 0.0)
        return (g(x - 2 * h) - 8 * g(x - h) + 8 * g(x + h) - g(x + 2 * h)) / (12 * h)

    def second_error(t, levels):
        piece = lambda x: sum((x > s).astype(np.int64) for s in t.boundaries) + np.zeros(x.shape, np.int64)  # noqa: E731
        cuts = sorted({-10.0, 10.0, *t.boundaries, *breaks})
        return integral(lambda x: density(x) * (np.asarray(levels)[piece(x)] - slope(x)) ** 2, cuts)

    assert quad_error(t, g, density, breaks) == pytest.approx(t.error, rel=1e-8)
    assert second_error(t, [t.second[c] for c in t.codes]) == pytest.approx(t.second_error, rel=1e-4)
    plain = table(name, bits, weight="normal", scheme="interval")
    cuts = [-10.0, *plain.boundaries, 10.0]
    means = [
        integral(lambda x: density(x) * slope(x), [a, b]) / integral(density, [a, b])
        for a, b in itertools.pairwise(cuts)
    ]
    assert t.error + t.second_error <= (plain.error + second_error(plain, means)) * (1 + 1e-6)


# ---- optimality


def test_partition_is_that_of_brute_force():
    """Twelve cells in three pieces, with a derivative that is not monotone."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, g = rng.uniform(0.1, 1, 12), rng.normal(size=12)
        cells = [(list(w), list(w * g), list(w * g * g))]

        def cost(i, j, w=w, g=g):
            mean = (w[i:j] * g[i:j]).sum() / w[i:j].sum()
            return (w[i:j] * (g[i:j] - mean) ** 2).sum()

        best = min(cost(0, i) + cost(i, j) + cost(j, 12) for i in range(1, 11) for j in range(i + 1, 12))
        cuts = _core.fewbit_partition(*cells[0], 3)
        assert cuts[0] == 0 and cuts[-1] == 12 and len(cuts) == 4
        assert sum(cost(i, j) for i, j in itertools.pairwise(cuts)) <= best + 1e-12


def test_clusters_are_those_of_brute_force():
    rng = np.random.default_rng(1)
    for k in (1, 2, 3, 4):
        for _ in range(20):
            v, w = np.sort(rng.normal(size=11)), rng.uniform(0.1, 1, 11)

            def cost(cuts, v=v, w=w):
                parts = [(v[i:j], w[i:j]) for i, j in itertools.pairwise(cuts) if j > i]
                return sum((p * (u - (p * u).sum() / p.sum()) ** 2).sum() for u, p in parts)

            best = min(cost([0, *c, 11]) for c in itertools.combinations(range(1, 11), k - 1))
            assert cost(_core.fewbit_cluster(list(v), list(w), k)) <= best + 1e-12


@pytest.mark.parametrize("weight", ["normal", "uniform"])
@pytest.mark.parametrize("scheme", ["interval", "value"])
@pytest.mark.parametrize("name", ["gelu", "silu", "tanh", "softplus", "selu"])
@pytest.mark.parametrize("bits", [2, 4])
def test_boundaries_are_stationary(name, scheme, weight, bits):
    """g(s) is the mean of the two levels beside s, except where s sits on a jump between them."""
    t = table(name, bits, weight=weight, scheme=scheme)
    g = numpy_g(name)
    for i, s in enumerate(t.boundaries):
        mid = (t.levels[t.codes[i]] + t.levels[t.codes[i + 1]]) / 2
        if name == "selu" and abs(s) < 1e-300:
            left, right = g(np.array([-1e-300, 1e-300]))
            assert min(left, right) <= mid <= max(left, right)
        else:
            assert abs(g(np.array([s]))[0] - mid) <= 1e-11


def descent(g, w, start, steps=400):
    """Alternates levels and boundaries on a fine grid from a random start; the error it ends with."""
    cuts = np.sort(start)
    for _ in range(steps):
        piece = np.searchsorted(cuts, XS)
        mass = np.bincount(piece, w, cuts.size + 1)
        y = np.bincount(piece, w * g, cuts.size + 1) / np.where(mass > 0, mass, 1)
        moved = cuts.copy()
        for i in range(cuts.size):  # the cut between two levels with the least cost, between the cuts beside it
            a, b = (cuts[i - 1] if i else -10), (cuts[i + 1] if i + 1 < cuts.size else 10)
            inside = (a < XS) & (b > XS)
            gain = np.cumsum((w * ((g - y[i]) ** 2 - (g - y[i + 1]) ** 2))[inside])
            if gain.size:
                moved[i] = XS[inside][gain.argmin()]
        if np.abs(moved - cuts).max() < 1e-12:
            break
        cuts = np.sort(moved)
    piece = np.searchsorted(cuts, XS)
    mass = np.bincount(piece, w, cuts.size + 1)
    y = np.bincount(piece, w * g, cuts.size + 1) / np.where(mass > 0, mass, 1)
    return (w * (g - y[piece]) ** 2).sum() * (XS[1] - XS[0])


XS = np.linspace(-10, 10, 8001)


@pytest.mark.parametrize("name", ["gelu", "selu"])
def test_no_descent_from_random_starts_beats_it(name):
    g, rng = numpy_g(name)(XS), np.random.default_rng(3)
    best = min(descent(g, density(XS), rng.normal(size=7) * 2) for _ in range(8))
    assert table(name, 3, scheme="interval").error <= best * (1 + 1e-3)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("weight", ["normal", "uniform"])
def test_order_of_the_schemes(name, weight):
    errors = {s: [table(name, b, weight=weight, scheme=s).error for b in (1, 2, 3, 4)] for s in ("interval", "value")}
    for b in range(4):
        assert errors["value"][b] <= errors["interval"][b] * (1 + 1e-9)
        assert errors["value"][b] <= table(name, b + 1, scheme="minimax", weight="normal").error or weight == "uniform"
    assert all(a > b for row in errors.values() for a, b in itertools.pairwise(row))


def test_published_three_bit_gelu():
    """The constants of the published table, to its digits; scored by quadrature."""
    t = table("gelu", 3, weight="uniform", scheme="interval")
    assert t.boundaries == pytest.approx([-2.398078, -0.711092, -0.326316, 0, 0.326316, 0.711092, 2.398078], abs=1e-6)
    low = [-0.0026, -0.088823, 0.12523, 0.372093]
    assert [t.levels[c] for c in t.codes] == pytest.approx(low + [1 - y for y in low[::-1]], abs=1e-6)


# ---- bounds


def every_half():
    """Every finite float16 and bfloat16, as float64."""
    raw = np.arange(2**16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        half = raw.view(np.float16).astype(np.float64)
        brain = (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    both = np.concatenate([half, brain])
    return both[np.isfinite(both)]


@pytest.mark.parametrize("name", SMOOTH)
def test_minimax_bound_for_every_half(name):
    """|level - g| <= (max g - min g) / 2^(bits + 1) for every finite 16-bit input; max_error bounds other schemes."""
    x, g = every_half(), numpy_g(name)
    values = g(x)
    fine = g(np.concatenate([np.linspace(-10, 10, 200_001), np.nextafter([-3, 3.0, 0, 0], [9, 0, 1, -1])]))
    for bits in (1, 2, 3, 4):
        t = table(name, bits, scheme="minimax")
        bound = (max(values.max(), fine.max()) - min(values.min(), fine.min())) / 2 ** (bits + 1)
        assert np.max(np.abs(t(x).numpy() - values)) <= bound * (1 + 1e-6)
        assert t.max_error <= bound * (1 + 1e-6)
        for scheme in ("interval", "value"):
            for weight in ("normal", "uniform"):
                other = table(name, bits, scheme=scheme, weight=weight)
                assert np.max(np.abs(other(x).numpy() - values)) <= other.max_error * (1 + 1e-9)


def test_known_minimax_bounds():
    for bits, bound in ((2, 0.157), (3, 0.0786), (4, 0.0393)):
        assert table("gelu", bits, scheme="minimax").max_error == pytest.approx(bound, rel=3e-3)
    rms = [(table("gelu", b, scheme="minimax").error / table("gelu", b).error) ** 0.5 for b in (3, 4)]
    assert rms == pytest.approx([1.14, 1.13], abs=0.01)


def test_minimax_uses_the_gaps_of_the_range():
    """A derivative with values in [0, 1] and {5}: one level for the point, the rest for the interval."""
    t = solve(lambda x: np.where(x > 1, 5.0, np.clip(x, 0, 1)), 2, scheme="minimax", breakpoints=(0, 1))
    assert t.max_error == pytest.approx(1 / 6, rel=1e-9)
    assert sorted(t.levels) == pytest.approx([1 / 6, 1 / 2, 5 / 6, 5])


# ---- labels


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("scheme", ["interval", "value", "minimax", "jet"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_a_boundary_flips_one_bit(name, scheme, bits):
    """For a continuous derivative; with values shared, neighbours are neighbouring levels."""
    t = table(name, bits, scheme=scheme)
    assert len(t.codes) == len(t.boundaries) + 1 and len(t.levels) == 2**bits
    continuous = name not in ("selu", "hardswish")
    order = sorted(set(t.levels))
    for a, b in itertools.pairwise(t.codes):
        assert a != b
        if continuous or scheme in ("interval", "jet"):
            assert (a ^ b).bit_count() == 1
        if continuous and scheme in ("value", "minimax"):
            assert abs(order.index(t.levels[a]) - order.index(t.levels[b])) == 1


# ---- steps and parameters


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("scheme", ["value", "minimax"])
def test_steps_are_exact(name, bits, scheme):
    """Also at the jumps themselves and for every half."""
    t = table(name, bits, scheme=scheme)
    assert (t.error, t.max_error) == (0, 0)
    x = np.concatenate([every_half(), [-3.0, 3.0, -1.0, 1.0, 0.0, 6.0]])
    assert np.array_equal(t(x).numpy(), numpy_g(name)(x))
    assert len(t.boundaries) == (1 if name in ("relu", "leaky_relu") else 2)


@pytest.mark.parametrize("parameters", [{"min_val": -100.0, "max_val": 40.0}, {"min_val": 0.5, "max_val": 0.75}])
def test_steps_with_parameters(parameters):
    t = table("hardtanh", 1, **parameters)
    x = np.array([-101, -100, -99.9, 0.5, 0.6, 0.75, 39, 40, 41.0])
    inside = (x > parameters["min_val"]) & (x < parameters["max_val"])
    assert np.array_equal(t(x).numpy(), inside)
    assert table("leaky_relu", 1, negative_slope=1.0).levels == (1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("elu", {"alpha": 0.5}), ("celu", {"alpha": 2.0}), ("softplus", {"beta": 3.0}), ("gelu", {"approximate": "tanh"})],
)
def test_tables_of_parameters(name, parameters):
    """Solved on demand, kept, and the right function's."""
    t = table(name, 4, **parameters)
    assert table(name, 4, **parameters) is t
    x = pb.linspace(-6, 6, 1001, dtype=pb.float64)
    y, pull = pb.vjp(lambda v: getattr(pb, name)(v, **parameters), x)
    g = pull(pb.ones_like(y))[0].numpy()
    assert np.max(np.abs(t(x).numpy() - g)) <= t.max_error * (1 + 1e-9)
    assert t.error**0.5 < 0.03


@pytest.mark.parametrize("weight", ["normal", "uniform"])
def test_shipped_tables_are_those_of_the_solver(weight):
    from pullback.fewbit.tables import BREAKPOINTS, _constants, _shipped, key_of

    rng = np.random.default_rng(11)
    for name in rng.choice(SMOOTH, 6, replace=False):
        for scheme in ("interval", "value", "minimax", "unbiased", "jet"):
            bits = int(rng.integers(1, 5))
            breaks = BREAKPOINTS[name](*_constants(name).values())
            fresh = solve(derivative_of(name), bits, weight=weight, breakpoints=breaks, scheme=scheme)
            shipped = Table(bits, scheme, *_shipped()[key_of(name, bits, weight, scheme)])
            assert shipped.codes == fresh.codes
            assert shipped.boundaries == pytest.approx(fresh.boundaries, rel=1e-6, abs=1e-6)
            assert shipped.levels == pytest.approx(fresh.levels, rel=1e-6, abs=1e-6)
            assert shipped.second == pytest.approx(fresh.second, rel=1e-5, abs=1e-5)
            if scheme != "minimax":  # it is shipped once, with the other weight's error
                both = fresh.error + fresh.second_error  # what a jet table minimises, to rounding
                assert shipped.error + shipped.second_error == pytest.approx(both, rel=1e-9, abs=1e-15)
            assert shipped.max_error == pytest.approx(fresh.max_error, rel=1e-6)


def test_shipped_tables_are_complete_and_small():
    sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
    try:
        import fewbit_tables
    finally:
        sys.path.pop(0)
    from pullback.fewbit.tables import _shipped, key_of

    assert set(_shipped()) == {key_of(*job) for job in fewbit_tables.jobs()}
    assert fewbit_tables.PATH.stat().st_size < 300_000


# ---- inputs of solve


def test_functions_of_any_kind():
    """A tensor, an array, a float: the same table."""
    by_tensor = solve(lambda x: 1 / (1 + pb.exp(-x)), 3)
    by_array = solve(lambda x: 1 / (1 + np.exp(-x)), 3)
    by_float = solve(lambda x: 1 / (1 + math.exp(-x)), 3)  # math.exp overflows far out: no bound there
    for t in (by_array, by_float):
        assert t.boundaries == pytest.approx(by_tensor.boundaries, abs=1e-9)
        assert t.error == pytest.approx(by_tensor.error, rel=1e-9)
    assert by_array.max_error == pytest.approx(by_tensor.max_error) and by_float.max_error == math.inf
    step = solve(lambda x: 1.0 if x > 0.3 else 0.0, 1, breakpoints=[0.3])
    assert step.boundaries == (0.3,) and step.levels == (0.0, 1.0)


def test_side_of_a_jump():
    """The jump itself belongs to the side that the function says; found also without a breakpoint."""
    for breaks in ([], [1.0]):
        closed = solve(lambda x: (x >= 1) * 1.0, 1, breakpoints=breaks)
        opened = solve(lambda x: (x > 1) * 1.0, 1, breakpoints=breaks)
        x = np.array([np.nextafter(1, 0), 1.0, np.nextafter(1, 2)])
        assert closed(x).tolist() == [0, 1, 1]
        assert opened(x).tolist() == [0, 0, 1]


def test_custom_weight_and_histogram():
    """The normal density as a function and as a fine histogram give the normal table."""
    normal = solve(derivative_of("silu"), 3, weight="normal")
    function = solve(derivative_of("silu"), 3, weight=lambda x: pb.exp(-x * x / 2) / (2 * math.pi) ** 0.5)
    assert function.error == pytest.approx(normal.error, rel=1e-12)
    edges = np.linspace(-12, 12, 2401)
    counts = density((edges[1:] + edges[:-1]) / 2)
    histogram = solve(derivative_of("silu"), 3, weight=(counts, edges))
    assert histogram.error == pytest.approx(normal.error, rel=1e-3)
    assert histogram.boundaries == pytest.approx(normal.boundaries, abs=1e-3)


def test_histogram_of_inputs():
    """Inputs in [2, 14], none in [3, 4]. The error is that of the sample's density, and the normal table far worse."""
    edges, counts = [2.0, 3.0, 4.0, 14.0], [30, 0, 10]
    t = solve(derivative_of("gelu"), 2, weight=(counts, edges))

    def w(x):
        return np.where(x < 3, 0.75, np.where(x < 4, 0.0, 0.025)) * (x > 2)

    cuts = sorted({2.0, 3.0, 4.0, 14.0, *(s for s in t.boundaries if 2 < s < 14)})
    for one, error in ((t, t.error), (table("gelu", 2), None)):
        inside = sorted({*cuts, *(s for s in one.boundaries if 2 < s < 14)})
        quad = integral(lambda x, one=one: w(x) * (level_at(one, x) - g_gelu(x)) ** 2, inside)
        if error is None:
            assert quad > 10 * t.error
        else:
            assert quad == pytest.approx(error, rel=1e-8)


def test_wide_and_narrow_domains():
    for low, high in ((-100, 100), (-2, 2), (0.5, 3)):
        t = solve(derivative_of("gelu"), 2, weight="uniform", domain=(low, high), scheme="interval")
        assert quad_error(t, g_gelu, uniform, low=low, high=high) == pytest.approx(t.error, rel=1e-8)
        assert all(low < s < high for s in t.boundaries)


def test_oscillation_beyond_the_domain():
    """What the points far out do not show is left alone: boundaries lie in the domain, and there is no bound."""
    t = solve(lambda x: pb.cos(20 * x), 2)
    assert all(-10 < s < 10 for s in t.boundaries) and t.max_error == math.inf
    assert quad_error(t, lambda x: np.cos(20 * x), density) == pytest.approx(t.error, rel=1e-7)
    with pytest.raises(ValueError, match="'minimax' needs a derivative that settles beyond the domain"):
        solve(lambda x: pb.cos(20 * x), 2, scheme="minimax")


def test_constant_derivative():
    for scheme in ("interval", "value", "minimax", "unbiased", "jet", "folded"):
        t = solve(lambda x: x * 0 + 2.5, 3, scheme=scheme)
        assert (t.boundaries, t.codes, t.error, t.max_error) == ((), (0,), 0, 0)
        assert t.levels == (2.5,) * 8


def test_eight_bits():
    t = solve(derivative_of("gelu"), 8)
    assert quad_error(t, g_gelu, density) == pytest.approx(t.error, rel=1e-7)
    assert t.error < table("gelu", 4).error / 200
    assert len(set(t.levels)) == 256


def test_reading_and_writing():
    t = table("gelu", 3, scheme="jet")
    assert Table.from_json(t.to_json()) == t
    assert repr(t).startswith("Table(jet, 3 bits, 7 boundaries, error=0.00316")
    with pytest.raises(AttributeError):
        t.error = 0.0
    x = np.array([[-np.inf, np.inf], [np.nan, 0.1]])
    assert t(x).shape == (2, 2)
    assert t(x)[0].tolist() == [t.levels[t.codes[0]], t.levels[t.codes[-1]]]
    assert t(x)[1, 0].item() == t.levels[t.codes[0]]


def test_without_numpy():
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import pullback as pb\n"
        "t = pb.fewbit.solve(lambda x: 1 if x > 0 else 0, 1, breakpoints=[0])\n"
        "assert t.levels == (0.0, 1.0) and t.boundaries == (0.0,)\n"
        "assert pb.fewbit.table('gelu', 2).error < 0.0081"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_examples_of_the_guide():
    guide = Path(__file__).parent.parent / "docs/few_bit.md"
    result = doctest.testfile(str(guide), module_relative=False, globs={"pb": pb, "np": np})
    assert result.attempted >= 10 and result.failed == 0
    pictures = {line.split("(images/")[1].rstrip(")") for line in guide.read_text().splitlines() if "(images/" in line}
    assert pictures >= {f"fewbit_{name}.png" for name in SMOOTH}
    sizes = [(guide.parent / "images" / name).stat().st_size for name in pictures]
    assert sum(sizes) < 500_000
