"""Draws: exact bits against a Philox in Python, distributions by bounds that hold with probability 1 - 1e-9, states."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import pullback as pb

ALPHA = 1e-9


def philox(counter, key):
    """Philox 4x32-10 of one block, on Python ints."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def words(seed, offset, n):
    """The first n words of a stream whose counter stands at `offset`."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    blocks = ([b & 0xFFFFFFFF, b >> 32, 0, 0] for b in itertools.count(offset))
    return list(itertools.islice((w for c in blocks for w in philox(c, key)), n))


def dkw(n):
    """Largest distance of an empirical distribution function of n draws, except with probability ALPHA."""
    return math.sqrt(math.log(2 / ALPHA) / (2 * n))


def distance(x, cdf):
    """Kolmogorov-Smirnov distance between draws and a distribution function."""
    x = np.sort(np.asarray(x, dtype=np.float64))
    p = np.array([cdf(v) for v in x])
    i = np.arange(x.size)
    return np.max(np.maximum(p - i / x.size, (i + 1) / x.size - p))


def test_philox_known_answers():
    """The test vectors of the authors' Random123 library."""
    f = 0xFFFFFFFF
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([f] * 4, [f] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert philox(pi, [0xA4093822, 0x299F31D0]) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 7, 2**32 - 3, 2**40])
def test_golden_uniform(seed, offset):
    g = pb.random.Generator(seed)
    g.set_state((seed, offset))
    x = pb.random.uniform(203, rng=g).tolist()
    assert x == [((w >> 9) + 0.5) * 2.0**-23 for w in words(seed, offset, 203)]
    g.set_state((seed, offset))
    x = pb.random.uniform(103, dtype=pb.float64, rng=g).tolist()
    w = words(seed, offset, 206)
    assert x == [(((w[2 * i] << 32 | w[2 * i + 1]) >> 12) + 0.5) * 2.0**-52 for i in range(103)]


def test_golden_integers():
    g = pb.random.Generator(11)
    w = words(11, 0, 100)
    pairs = [w[2 * i] << 32 | w[2 * i + 1] for i in range(50)]
    assert pb.random.randint(-5, 1000, 50, rng=g).tolist() == [-5 + (p * 1005 >> 64) for p in pairs]
    g.set_state((11, 0))
    assert pb.random.randint(-(2**63), 2**63 - 1, 50, rng=g).tolist() == [
        -(2**63) + (p * (2**64 - 1) >> 64) for p in pairs
    ]
    g.set_state((11, 0))
    order = list(range(50))
    for i in range(49, 0, -1):
        j = pairs[i] * (i + 1) >> 64
        order[i], order[j] = order[j], order[i]
    assert pb.random.permutation(50, rng=g).tolist() == order


def test_golden_normal():
    """The inverse distribution function of the golden uniforms."""
    g = pb.random.Generator(4)
    x = pb.random.normal(64, dtype=pb.float64, rng=g).tolist()
    g.set_state((4, 0))
    u = pb.random.uniform(64, dtype=pb.float64, rng=g).tolist()
    for a, b in zip(x, u, strict=True):
        assert abs(0.5 * math.erfc(-a / math.sqrt(2)) - b) <= 1e-14


DRAWS = {
    "normal": lambda **k: pb.random.normal((30, 11), mean=1.0, std=2.0, **k),
    "uniform": lambda **k: pb.random.uniform((30, 11), **k),
    "exponential": lambda **k: pb.random.exponential((30, 11), rate=2.0, **k),
    "gumbel": lambda **k: pb.random.gumbel((30, 11), **k),
    "normal64": lambda **k: pb.random.normal((30, 11), dtype=pb.float64, **k),
    "randint": lambda **k: pb.random.randint(0, 1000, (30, 11), **k),
    "permutation": lambda **k: pb.random.permutation(330, **k),
    "bernoulli": lambda **k: pb.random.bernoulli(0.3, (30, 11), **k),
    "categorical": lambda **k: pb.random.categorical(pb.zeros(9), shape=(330,), **k),
}


@pytest.mark.parametrize("name", DRAWS)
def test_streams(name):
    """A seed fixes the bits; other seeds and later draws give others; states go back and forth."""
    draw = DRAWS[name]
    g = pb.random.Generator(5)
    state = g.get_state()
    first, second = draw(rng=g), draw(rng=g)
    assert first.tobytes() != second.tobytes()
    assert draw(rng=pb.random.Generator(6)).tobytes() != first.tobytes()
    assert draw(rng=pb.random.Generator(5)).tobytes() == first.tobytes()
    assert g.get_state() != state
    g.set_state(state)
    assert draw(rng=g).tobytes() == first.tobytes()
    assert draw(rng=g).tobytes() == second.tobytes()
    pb.manual_seed(5)
    assert draw().tobytes() == first.tobytes()
    assert pb.random.default_generator().get_state() != state
    assert not draw().requires_grad


def test_streams_do_not_overlap():
    """Every draw takes counters that no other draw took."""
    g = pb.random.Generator(1)
    taken = 0
    for n in (1, 2, 3, 4, 5, 1023, 4096):
        for dtype, words_each in ((pb.float32, 1), (pb.float64, 2)):
            offset = g.get_state()[1]
            assert offset >= taken
            pb.random.uniform(n, dtype=dtype, rng=g)
            taken = offset + (n * words_each + 3) // 4
            assert g.get_state()[1] >= taken
        for draw in (lambda: pb.random.randint(0, 9, n, rng=g), lambda: pb.random.permutation(n, rng=g)):  # noqa: B023
            offset = g.get_state()[1]
            assert offset >= taken
            draw()
            taken = offset + (2 * n + 3) // 4
            assert g.get_state()[1] >= taken


def test_seeds_and_draws_share_no_words():
    generators = [pb.random.Generator(s) for s in (0, 1, 2, 2**63)]
    values = [
        v for g in generators for _ in range(4) for v in pb.random.uniform(1000, dtype=pb.float64, rng=g).tolist()
    ]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", ["normal", "uniform", "exponential", "gumbel"])
@pytest.mark.parametrize("dtype", [pb.float32, pb.float64])
def test_threads_do_not_change_bits(name, dtype):
    bits = set()
    for threads in (1, 2, 3, 5):
        pb.set_num_threads(threads)
        g = pb.random.Generator(8)
        bits.add(getattr(pb.random, name)(700_001, dtype=dtype, rng=g).tobytes())
    assert len(bits) == 1


def test_shape_does_not_change_bits():
    flat = pb.random.normal(60, rng=pb.random.Generator(2))
    assert pb.random.normal((3, 4, 5), rng=pb.random.Generator(2)).tobytes() == flat.tobytes()
    assert pb.random.normal([3, 20], rng=pb.random.Generator(2)).tobytes() == flat.tobytes()
    assert pb.random.normal(rng=pb.random.Generator(2)).item() == flat[0].item()


def normal_cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


N = 100_000
LAWS = {
    "normal": (lambda **k: pb.random.normal(N, **k), normal_cdf, 0.0, 1.0),
    "shifted": (
        lambda **k: pb.random.normal(N, mean=-3.0, std=0.5, **k),
        lambda x: normal_cdf((x + 3) / 0.5),
        -3.0,
        0.25,
    ),
    "uniform": (lambda **k: pb.random.uniform(N, **k), lambda x: min(max(x, 0.0), 1.0), 0.5, 1 / 12),
    "interval": (lambda **k: pb.random.uniform(N, low=-2.0, high=6.0, **k), lambda x: (x + 2) / 8, 2.0, 64 / 12),
    "exponential": (lambda **k: pb.random.exponential(N, rate=4.0, **k), lambda x: -math.expm1(-4 * x), 0.25, 1 / 16),
    "gumbel": (
        lambda **k: pb.random.gumbel(N, loc=1.0, scale=2.0, **k),
        lambda x: math.exp(-math.exp(-(x - 1) / 2)),
        1 + 2 * 0.5772156649015329,
        4 * math.pi**2 / 6,
    ),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", [pb.float32, pb.float64])
def test_distribution(law, dtype):
    draw, cdf, mean, var = LAWS[law]
    x = draw(dtype=dtype, rng=pb.random.Generator(21))
    assert x.dtype == dtype and x.shape == (N,)
    v = np.asarray(x.tolist())
    assert np.all(np.isfinite(v))
    assert distance(v, cdf) <= dkw(N)
    deviations = 6.2  # two-sided 6e-10
    assert abs(v.mean() - mean) <= deviations * math.sqrt(var / N)
    fourth = np.mean((v - mean) ** 4)
    assert abs(np.mean((v - mean) ** 2) - var) <= deviations * math.sqrt((fourth - var**2) / N)


def test_neighbours_are_independent():
    """Correlation of a draw with its neighbours and with the next stream."""
    g = pb.random.Generator(3)
    x, y = (np.asarray(pb.random.normal(N, dtype=pb.float64, rng=g).tolist()) for _ in range(2))
    bound = 6.2 / math.sqrt(N)
    for lag in (1, 2, 3, 4, 8, 64):
        assert abs(np.mean(x[:-lag] * x[lag:])) <= 1.01 * bound
    assert abs(np.mean(x * y)) <= bound
    z = np.asarray(pb.random.normal(N, dtype=pb.float64, rng=pb.random.Generator(4)).tolist())
    assert abs(np.mean(x * z)) <= bound


@pytest.mark.parametrize("dtype", [pb.float16, pb.bfloat16])
def test_half_precision_draws(dtype):
    x = pb.random.normal(N, dtype=dtype, rng=pb.random.Generator(3))
    assert x.dtype == dtype
    v = np.asarray(x.astype(pb.float32).tolist())
    assert abs(v.mean()) <= 6.2 / math.sqrt(N) and abs(v.std() - 1) <= 0.02


def counts_fit(values, probabilities):
    """Hoeffding's bound for every category at once."""
    n = len(values)
    counts = np.bincount(values, minlength=len(probabilities))
    assert counts.size == len(probabilities)
    bound = math.sqrt(math.log(2 * len(probabilities) / ALPHA) / (2 * n))
    assert np.max(np.abs(counts / n - np.asarray(probabilities))) <= bound


def test_randint():
    g = pb.random.Generator(2)
    counts_fit(pb.random.randint(0, 7, N, rng=g).tolist(), [1 / 7] * 7)
    x = pb.random.randint(-3, 2, (5, 6), dtype=pb.int8, rng=g)
    assert x.dtype == pb.int8 and x.shape == (5, 6)
    assert set(pb.random.randint(-3, 2, 1000, rng=g).tolist()) == {-3, -2, -1, 0, 1}
    assert pb.random.randint(5, 6, 3).tolist() == [5, 5, 5]
    assert pb.random.randint(0, 2).dtype == pb.int64 and pb.random.randint(0, 2).shape == ()


def test_permutation():
    g = pb.random.Generator(2)
    orders = list(itertools.permutations(range(4)))
    index = {o: i for i, o in enumerate(orders)}
    drawn = [index[tuple(pb.random.permutation(4, rng=g).tolist())] for _ in range(20_000)]
    counts_fit(drawn, [1 / 24] * 24)
    assert sorted(pb.random.permutation(1000, rng=g).tolist()) == list(range(1000))
    assert pb.random.permutation(0).tolist() == [] and pb.random.permutation(1).tolist() == [0]
    assert pb.random.permutation(5, dtype=pb.int32).dtype == pb.int32


def test_bernoulli():
    g = pb.random.Generator(2)
    x = pb.random.bernoulli(0.3, N, rng=g)
    assert x.dtype == pb.bool
    counts_fit(np.asarray(x.tolist(), dtype=int), [0.7, 0.3])
    p = pb.tensor([0.0, 0.25, 1.0])
    x = pb.random.bernoulli(p, (N, 3), dtype=pb.float32, rng=g)
    assert x.dtype == pb.float32
    v = np.asarray(x.tolist(), dtype=int)
    assert v[:, 0].sum() == 0 and v[:, 2].sum() == N
    counts_fit(v[:, 1], [0.75, 0.25])
    assert pb.random.bernoulli(p).shape == (3,)
    assert pb.random.bernoulli().shape == ()
    assert pb.random.bernoulli(1, 3).tolist() == [True] * 3


def test_categorical():
    g = pb.random.Generator(2)
    p = [0.05, 0.6, 0.0, 0.35]
    logits = pb.tensor([math.log(v) if v else -math.inf for v in p]) + 100.0
    x = pb.random.categorical(logits, shape=(N,), rng=g)
    assert x.dtype == pb.int64
    counts_fit(x.tolist(), p)
    assert pb.random.categorical(logits).shape == ()
    table = pb.tensor(np.log([[0.2, 0.9, 0.5], [0.8, 0.1, 0.5]]))
    x = pb.random.categorical(table, axis=0, shape=(N, 3), rng=g)
    v = np.asarray(x.tolist())
    for column, (a, b) in enumerate([(0.2, 0.8), (0.9, 0.1), (0.5, 0.5)]):
        counts_fit(v[:, column], [a, b])
    assert pb.random.categorical(table, axis=1).shape == (2,)
    assert pb.random.categorical(table, axis=0, dtype=pb.int32).dtype == pb.int32
    assert pb.random.categorical(pb.zeros((0, 3))).shape == (0,)
    rare = pb.tensor([0.0, -30.0])  # float32 noise could never choose it
    assert pb.random.categorical(rare, shape=(1000,), rng=g).sum().item() == 0


def test_categorical_reaches_rare_categories():
    """Probability 2^-20 in a million draws: between 0 and 40 hits, except with probability below 1e-30."""
    x = pb.random.categorical(pb.tensor([20 * math.log(2), 0.0]), shape=(1 << 20,), rng=pb.random.Generator(7))
    assert 0 <= x.sum().item() <= 40


def test_dropout():
    x = pb.tensor([1.0] * N, requires_grad=True)
    g = pb.random.Generator(3)
    y = pb.dropout(x, 0.25, rng=g)
    v = np.asarray(y.tolist())
    assert set(np.unique(v)) == {0.0, np.float32(1 / 0.75)}
    counts_fit((v == 0).astype(int), [0.75, 0.25])
    y.sum().backward()
    assert x.grad.tobytes() == y.tobytes()  # backward draws the same numbers again
    assert pb.dropout(x, 0.25, rng=g).tobytes() != y.tobytes()
    assert pb.dropout(x, 0.25, rng=pb.random.Generator(3)).tobytes() == y.tobytes()
    assert pb.dropout(x, 0.0).tobytes() == x.tobytes()
    assert pb.dropout(x, 0.5, training=False).tobytes() == x.tobytes()
    z = pb.tensor([1.0, -2.0, 0.0], requires_grad=True)
    out = pb.dropout(z, 1.0)
    assert out.tolist() == [0.0, 0.0, 0.0]
    out.sum().backward()
    assert z.grad.tolist() == [0.0, 0.0, 0.0]


def test_dropout_derivatives():
    x = pb.tensor([0.3, -1.0, 2.0, 0.1], dtype=pb.float64)

    def f(v):
        return pb.dropout(v * v * v, 0.4, rng=pb.random.Generator(3))

    assert pb.testing.gradcheck(f, x, order=2)


def test_empty_shapes():
    for draw in (pb.random.normal, pb.random.uniform, pb.random.gumbel, pb.random.exponential):
        assert draw(0).shape == (0,) and draw((2, 0, 3)).shape == (2, 0, 3) and draw(()).shape == ()
        assert draw().dtype == pb.float32
    assert pb.random.randint(0, 5, (0, 2)).shape == (0, 2)


def test_generator():
    g = pb.random.Generator(9)
    g.set_state((9, 12))
    assert g.get_state() == (9, 12)
    assert (g.seed, g.offset) == (9, 12)
    assert pb.random.Generator().get_state() == (0, 0)
    pb.manual_seed(2**64 - 1)
    assert pb.random.default_generator().get_state() == (2**64 - 1, 0)


def test_generator_copies():
    """A generator is copied with its state, and pickled."""
    g = pb.random.Generator(9)
    pb.random.normal(10, rng=g)
    for other in (copy.deepcopy(g), copy.copy(g), pickle.loads(pickle.dumps(g))):
        assert other is not g and other.get_state() == g.get_state()
        before = g.get_state()
        pb.random.normal(10, rng=other)
        assert g.get_state() == before


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: pb.random.normal(3, std=-1.0), ValueError, "std must not be negative"),
        (lambda: pb.random.normal(3, mean=math.nan), ValueError, "mean must be finite"),
        (lambda: pb.random.normal(3, dtype=pb.int64), pb.DTypeError, "draws are floating"),
        (lambda: pb.random.normal(3, dtype="float32"), pb.DTypeError, "draws are floating"),
        (lambda: pb.random.normal(3, device="cuda:9"), pb.DeviceError, "not available"),
        (lambda: pb.random.normal(3, rng=7), pb.DTypeError, "must be a pb.random.Generator"),
        (lambda: pb.random.normal((2, -1)), pb.ShapeError, "negative"),
        (lambda: pb.random.normal((2**40, 2**40)), pb.ShapeError, "overflow"),
        (lambda: pb.random.uniform(3, low=2.0, high=1.0), ValueError, "is below low"),
        (lambda: pb.random.uniform(3, high=math.inf), ValueError, "high must be finite"),
        (lambda: pb.random.exponential(3, rate=0.0), ValueError, "rate must be positive"),
        (lambda: pb.random.gumbel(3, scale=-1.0), ValueError, "scale must not be negative"),
        (lambda: pb.random.randint(3, 3, 2), ValueError, "high must be above low"),
        (lambda: pb.random.randint(0, 3, 2, dtype=pb.float32), pb.DTypeError, "must be an integer type"),
        (lambda: pb.random.randint(0, 300, 2, dtype=pb.int8), ValueError, "does not fit in int8"),
        (lambda: pb.random.permutation(-1), pb.ShapeError, "must not be negative"),
        (lambda: pb.random.bernoulli(1.5), ValueError, "outside"),
        (lambda: pb.random.bernoulli(math.nan), ValueError, "outside"),
        (lambda: pb.random.bernoulli(pb.zeros(3) + 0.5, (2,)), pb.ShapeError, "broadcast"),
        (lambda: pb.random.categorical(pb.tensor([math.nan, 0.0])), ValueError, "NaN"),
        (lambda: pb.random.categorical(pb.tensor([-math.inf, -math.inf])), ValueError, "nothing but -inf"),
        (lambda: pb.random.categorical(pb.zeros((2, 0))), pb.ShapeError, "no categories"),
        (lambda: pb.random.categorical(pb.zeros((2, 3)), axis=2), pb.ShapeError, "no categories"),
        (lambda: pb.random.categorical(pb.zeros((2, 3)), shape=(4,)), pb.ShapeError, "does not end with"),
        (lambda: pb.manual_seed(-1), ValueError, "must be in"),
        (lambda: pb.manual_seed(2**64), ValueError, "must be in"),
        (lambda: pb.random.manual_seed(-3), ValueError, "must be in"),
        (lambda: pb.random.Generator(-1), ValueError, "must be in"),
        (lambda: pb.random.randint(-1, 3, 2, dtype=pb.uint32), ValueError, "does not fit in uint32"),
        (lambda: pb.dropout(pb.zeros(2), 1.5), ValueError, "must be in"),
        (lambda: pb.dropout(pb.zeros(2), math.nan), ValueError, "must be in"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as info:
        call()
    assert "help: " in str(info.value)
