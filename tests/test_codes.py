"""Packed codes: layout, round trips, sizes, errors."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb

SIZES = (0, 1, 31, 32, 33, 1000007)


def planes(codes: np.ndarray, bits: int) -> np.ndarray:
    """The layout, written from its definition."""
    n = codes.size
    padded = np.zeros((n + 31) // 32 * 32, np.uint64)
    padded[:n] = codes.ravel()
    groups = padded.reshape(-1, 1, 32)
    words = (groups >> np.arange(bits, dtype=np.uint64)[None, :, None] & np.uint64(1)) << np.arange(32, dtype=np.uint64)
    return words.sum(-1).astype(np.uint32).ravel()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", SIZES)
def test_pack_round_trip(n: int, bits: int) -> None:
    codes = np.random.default_rng(n + bits).integers(0, 1 << bits, n).astype(np.uint8)
    words = pb.fewbit.pack(pb.asarray(codes), bits)
    assert words.dtype == pb.uint32 and words.size * 4 == 4 * bits * -(-n // 32)
    assert np.array_equal(words.numpy(), planes(codes, bits))
    back = pb.fewbit.unpack(words, bits, n)
    assert back.dtype == pb.uint8 and np.array_equal(back.numpy(), codes)


def test_pack_takes_any_integers_and_layouts() -> None:
    codes = np.arange(64).reshape(8, 8) % 8
    for dtype in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64):
        assert np.array_equal(pb.fewbit.pack(codes.astype(dtype), 3).numpy(), planes(codes, 3))
    turned = pb.asarray(codes).T
    assert np.array_equal(pb.fewbit.pack(turned, 3).numpy(), planes(codes.T, 3))
    mask = codes > 3
    assert np.array_equal(pb.fewbit.pack(mask, 1).numpy(), planes(mask.astype(np.uint8), 1))


@pytest.mark.parametrize("bits", (0, 9, -1))
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(ValueError, match="bits must be 1 to 8"):
        pb.fewbit.pack(pb.asarray([0]), bits)
    with pytest.raises(ValueError, match="bits must be 1 to 8"):
        pb.fewbit.unpack(pb.zeros(1, dtype=pb.uint32), bits, 1)


def test_pack_errors() -> None:
    with pytest.raises(ValueError, match="does not fit in 2 bits"):
        pb.fewbit.pack(pb.asarray([1, 4]), 2)
    with pytest.raises(ValueError, match="does not fit in 8 bits"):
        pb.fewbit.pack(pb.asarray([-1]), 8)
    with pytest.raises(pb.DTypeError, match="integers or bools"):
        pb.fewbit.pack(pb.asarray([0.5]), 2)
    words = pb.fewbit.pack(pb.asarray([1, 2, 3]), 2)
    with pytest.raises(pb.ShapeError, match="33 codes of 2 bits are not 2 words"):
        pb.fewbit.unpack(words, 2, 33)
    with pytest.raises(pb.ShapeError, match="-1 codes"):
        pb.fewbit.unpack(words, 2, -1)
    with pytest.raises(pb.DTypeError, match="1-d uint32"):
        pb.fewbit.unpack(pb.asarray([1, 2]), 2, 3)
