"""Codes of a derivative: encode in the forward pass, decode in backward, without a tape."""

from __future__ import annotations

import numpy as np
import pytest
from code_cases import gelu_slope, minimax_table

import pullback as pb
from pullback import _core as C

SIZES = (0, 1, 31, 32, 33, 4097, 1000007)
TABLES = {bits: minimax_table(gelu_slope, bits) for bits in (1, 2, 3, 4, 5)}


def code(bits: int) -> C.FewbitCode:
    return C.FewbitCode(bits, *TABLES[bits][:3])


def labels(x: np.ndarray, bits: int) -> np.ndarray:
    """The label of each x by the definition: how many boundaries lie below."""
    boundaries, pieces, _, _ = TABLES[bits]
    return np.asarray(pieces)[np.searchsorted(boundaries, x.astype(np.float64), side="left")]


@pytest.mark.parametrize("bits", TABLES)
@pytest.mark.parametrize("n", SIZES)
def test_forward_and_backward(n: int, bits: int) -> None:
    rng = np.random.default_rng(n)
    x = (3 * rng.standard_normal(n)).astype(np.float32)
    y, words = C.fewbit_forward("gelu", x, code(bits))
    assert np.array_equal(y.numpy(), pb.gelu(pb.asarray(x)).numpy())  # bit for bit
    assert words.size * 4 == 4 * bits * -(-n // 32)
    expected = labels(x, bits)
    assert np.array_equal(pb.fewbit.unpack(words, bits, n).numpy(), expected)
    dy = rng.standard_normal(n).astype(np.float32)
    dx = C.fewbit_backward(dy, words, code(bits)).numpy()
    assert np.array_equal(dx, dy * np.asarray(TABLES[bits][2], np.float32)[expected])


def test_tail_bits_are_zero() -> None:
    for bits in TABLES:
        _, words = C.fewbit_forward("gelu", np.full(33, 9.0, np.float32), code(bits))
        assert np.all(words.numpy()[bits:] <= 1)


@pytest.mark.parametrize("bits", TABLES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bound_on_every_16_bit_input(dtype: str, bits: int) -> None:
    """The distribution-free bound on each finite number of the type."""
    raw = np.arange(65536, dtype=np.uint32)
    every = raw.astype(np.uint16).view(np.float16).astype(np.float32) if dtype == "float16" else (raw << 16).view("f4")
    every = every[np.isfinite(every)]
    x = pb.asarray(every).astype(getattr(pb, dtype))
    assert np.array_equal(x.astype(pb.float32).numpy(), every)
    y, words = C.fewbit_forward("gelu", x, code(bits))
    assert y.dtype == x.dtype and np.array_equal(y.astype(pb.float32).numpy(), pb.gelu(x).astype(pb.float32).numpy())
    slope = C.fewbit_backward(np.ones(every.size, np.float32), words, code(bits)).numpy().astype(np.float64)
    rounding = np.max(np.abs(TABLES[bits][2])) * 2.0**-24  # levels are kept as float32
    assert np.max(np.abs(slope - gelu_slope(every))) <= TABLES[bits][3] + rounding
    narrow = C.fewbit_backward(pb.ones(every.size, dtype=x.dtype), words, code(bits))
    assert narrow.dtype == x.dtype
    assert np.array_equal(
        narrow.astype(pb.float32).numpy(), pb.asarray(slope.astype("f4")).astype(x.dtype).astype(pb.float32).numpy()
    )


def test_infinity_and_nan() -> None:
    """+-inf have the outer levels, NaN that of the first piece; y is what it is without codes."""
    x = np.array([-np.inf, np.inf, np.nan, -np.nan], np.float32)
    for bits in TABLES:
        _boundaries, pieces, levels, _ = TABLES[bits]
        y, words = C.fewbit_forward("gelu", x, code(bits))
        assert np.array_equal(y.numpy(), [0, np.inf, np.nan, np.nan], equal_nan=True)
        dx = C.fewbit_backward(np.ones(4, np.float32), words, code(bits)).numpy()
        first, last = np.float32(levels[pieces[0]]), np.float32(levels[pieces[-1]])
        assert np.array_equal(dx, [first, last, first, first])


def test_layouts_and_out() -> None:
    x = np.random.default_rng(0).standard_normal((37, 65)).astype(np.float32)
    turned = pb.asarray(x).T
    y, words = C.fewbit_forward("gelu", turned, code(3))
    assert y.shape == (65, 37) and np.array_equal(y.numpy(), pb.gelu(turned).numpy())
    assert np.array_equal(pb.fewbit.unpack(words, 3, x.size).numpy(), labels(x.T.ravel(), 3))
    one = pb.asarray(x[0, :1])
    wide = pb.broadcast_to(one, (40,))
    _, words = C.fewbit_forward("gelu", wide, code(3))
    assert np.array_equal(pb.fewbit.unpack(words, 3, 40).numpy(), np.repeat(labels(x[0, :1], 3), 40))
    flat = pb.asarray(x.ravel().copy())
    expected, same = C.fewbit_forward("gelu", flat, code(3))
    y, words = C.fewbit_forward("gelu", flat, code(3), {}, flat)  # in place: codes are taken before the write
    assert np.array_equal(flat.numpy(), expected.numpy()) and np.array_equal(words.numpy(), same.numpy())


def test_threads_do_not_change_bits() -> None:
    x = np.random.default_rng(1).standard_normal(300_001).astype(np.float32)
    before = pb.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            pb.set_num_threads(threads)
            y, words = C.fewbit_forward("gelu", x, code(3))
            results.append((y.numpy().tobytes(), words.numpy().tobytes()))
    finally:
        pb.set_num_threads(before)
    assert len(set(results)) == 1


@pytest.mark.parametrize("bits", (1, 2, 3, 4))
def test_random_codes_are_unbiased(bits: int) -> None:
    """The mean over many draws is the derivative itself, within 4 sigma of the mean."""
    levels = np.linspace(-0.14, 1.14, 1 << bits)
    random = C.FewbitCode(bits, [], [0], levels[::-1].tolist(), [], True)
    points, draws = np.linspace(-4, 4, 41).astype(np.float32), 4000
    x = np.repeat(points, draws)
    y, words = C.fewbit_forward("gelu", x, random, {}, None, pb.random.Generator(7))
    assert np.array_equal(y.numpy(), pb.gelu(pb.asarray(x)).numpy())
    found = C.fewbit_backward(np.ones_like(x), words, random).numpy().astype(np.float64).reshape(41, draws)
    g, step = gelu_slope(points), levels[1] - levels[0]
    below = np.floor((g - levels[0]) / step) * step + levels[0]
    sigma = np.sqrt((g - below) * (below + step - g) / draws)
    assert np.all(np.abs(found - g[:, None]) <= step * (1 + 1e-5))  # one of the two levels beside it
    assert np.all(np.abs(found.mean(1) - g) <= 4 * sigma + 1e-6)
    assert np.all(found.std(1)[sigma > 0.01 * step] > 0)


def test_many_pieces() -> None:
    """More boundaries than registers hold, up to 8 bits, and labels that are not Gray."""
    rng = np.random.default_rng(5)
    for bits, pieces in ((1, 2), (2, 9), (3, 10), (4, 31), (4, 32), (5, 33), (6, 64), (8, 700)):
        boundaries = np.sort(rng.standard_normal(pieces - 1).astype(np.float32))
        label = rng.integers(0, 1 << bits, pieces)
        levels = rng.standard_normal(1 << bits).astype(np.float32)
        table = C.FewbitCode(bits, boundaries.tolist(), label.tolist(), levels.tolist())
        x = np.concatenate([rng.standard_normal(1000).astype(np.float32), boundaries])
        expected = label[np.searchsorted(boundaries, x, side="left")]
        _, words = C.fewbit_forward("tanh", x, table)
        assert np.array_equal(pb.fewbit.unpack(words, bits, x.size).numpy(), expected)
        dy = rng.standard_normal(x.size).astype(np.float32)
        assert np.array_equal(C.fewbit_backward(dy, words, table).numpy(), dy * levels[expected])


def test_errors() -> None:
    table = TABLES[2]
    with pytest.raises(ValueError, match="bits must be 1 to 8"):
        C.FewbitCode(0, *table[:3])
    with pytest.raises(ValueError, match="bits must be 1 to 8"):
        C.FewbitCode(9, *table[:3])
    with pytest.raises(ValueError, match="boundaries must ascend"):
        C.FewbitCode(2, table[0][::-1], *table[1:3])
    with pytest.raises(ValueError, match="one label per piece"):
        C.FewbitCode(2, table[0], table[1][1:], table[2])
    with pytest.raises(ValueError, match="levels must be finite"):
        C.FewbitCode(2, table[0], table[1], [0.0, 1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="boundaries must be finite"):
        C.FewbitCode(2, [float("inf")], [0, 1], table[2])
    with pytest.raises(ValueError, match="levels do not fit 1 bits"):
        C.FewbitCode(1, table[0], table[1], table[2])
    with pytest.raises(ValueError, match="label 7 has no level"):
        C.FewbitCode(2, [0.0], [0, 7], table[2])
    x = np.zeros(40, np.float32)
    with pytest.raises(pb.DTypeError, match="float32, bfloat16 and float16"):
        C.fewbit_forward("gelu", np.zeros(4), code(2))
    with pytest.raises(ValueError, match="no element-wise op is called"):
        C.fewbit_forward("gelo", x, code(2))
    with pytest.raises(ValueError, match="not an activation with a derivative"):
        C.fewbit_forward("sign", x, code(2))
    with pytest.raises(pb.DTypeError, match="unexpected argument 'beta'"):
        C.fewbit_forward("gelu", x, code(2), {"beta": 1.0})
    with pytest.raises(pb.ShapeError, match="out must be contiguous"):
        C.fewbit_forward("gelu", x, code(2), {}, pb.zeros(3))
    _, words = C.fewbit_forward("gelu", x, code(2))
    with pytest.raises(pb.ShapeError, match="words do not fit 400 codes of 2 bits"):
        C.fewbit_backward(np.zeros(400, np.float32), words, code(2))
    with pytest.raises(pb.DTypeError, match="cotangents of codes"):
        C.fewbit_backward(np.zeros(40), words, code(2))
