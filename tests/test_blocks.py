"""Block-quantised inputs of Linear, Conv2d and attention: rounding, bytes, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb
from pullback import _core as C

RNG = np.random.default_rng


def restored(x: np.ndarray, bits: int) -> np.ndarray:
    """x after a round through blocks."""
    t = pb.asarray(x)
    return C.fewbit_restore(C.fewbit_quantise(t, bits), t.shape, t.dtype, bits).astype(pb.float32).numpy()


def row_bytes(n: int, bits: int) -> int:
    """Bytes of a row by the layout: bodies, rounded up to even, and 2 or 4 bytes a block."""
    body = n if bits == 8 else n // 64 * 32 + (n % 64 + 1) // 2
    return (body + 1) // 2 * 2 + (2 if bits == 8 else 4) * -(-n // 64)


@pytest.mark.parametrize("bits", (4, 8))
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (64,), (65,), (3, 128), (2, 5, 97), (4, 0), (1000007,)])
def test_error_is_below_a_step(shape: tuple[int, ...], bits: int) -> None:
    x = RNG(len(shape)).standard_normal(shape).astype("f4")
    words = C.fewbit_quantise(pb.asarray(x), bits)
    n = shape[-1]
    assert words.size == (x.size // n if n else 0) * row_bytes(n, bits)
    back = restored(x, bits)
    assert back.shape == shape
    rows, again = x.reshape(-1, n) if n else x, back.reshape(-1, n) if n else back
    for at in range(0, n, 64):
        block, found = rows[:, at : at + 64], again[:, at : at + 64]
        if bits == 8:
            step = np.abs(block).max(1) / 127 * 1.01
        else:
            span = block.max(1) - block.min(1)
            step = (span + np.abs(block.min(1)) * 2.0**-7) / 15 * 1.01
        assert np.all(np.abs(found - block) <= step[:, None] + 1e-30)


def test_bits_per_element() -> None:
    assert C.fewbit_quantise(pb.zeros((16, 256)), 8).size * 8 / 4096 == 8.25
    assert C.fewbit_quantise(pb.zeros((16, 256)), 4).size * 8 / 4096 == 4.5


@pytest.mark.parametrize("bits", (4, 8))
def test_rounding_is_unbiased(bits: int) -> None:
    """The mean of many roundings is x within 4 sigma, at the ends of the grid as well."""
    x = np.concatenate([RNG(0).standard_normal(60), [-3.0, 3.0, 0.0, 1e-3]]).astype("f4")
    draws = restored(np.tile(x, (6000, 1)), bits).astype("f8")
    sigma = draws.std(0) / np.sqrt(6000)
    assert np.all(np.abs(draws.mean(0) - x) <= 4 * sigma + 2e-6)
    assert np.median(draws.std(0)) > 0
    assert not np.array_equal(draws[0], draws[1])


@pytest.mark.parametrize("bits", (4, 8))
def test_special_values(bits: int) -> None:
    """A block with inf, NaN or overflow reads back as NaN, whole; its neighbours are not touched."""
    for bad in (np.inf, -np.inf, np.nan, 3e38):
        x = np.ones(192, "f4")
        x[70] = bad
        back = restored(x, bits)
        assert np.all(np.isnan(back[64:128])) and np.all(np.abs(back[:64] - 1) < 0.01)
        assert np.all(np.abs(back[128:] - 1) < 0.01)
    assert np.array_equal(restored(np.zeros(100, "f4"), bits), np.zeros(100))
    tiny = np.full(64, 1e-44, "f4")
    assert np.all(np.abs(restored(tiny, bits)) <= 2.0**-99)
    big = np.linspace(-8e37, 8e37, 64).astype("f4")
    assert np.all(np.isfinite(restored(big, bits)))


def test_same_bits_for_any_number_of_threads() -> None:
    x = pb.asarray(RNG(1).standard_normal((900, 300)).astype("f4"))
    before, found = pb.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            pb.set_num_threads(threads)
            pb.manual_seed(3)
            found.add(C.fewbit_quantise(x, 4).numpy().tobytes())
    finally:
        pb.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize("dtype", [pb.float16, pb.bfloat16])
def test_16_bit_types(dtype) -> None:
    x = pb.asarray(RNG(2).standard_normal((5, 130)).astype("f4")).astype(dtype)
    for bits, tolerance in ((8, 0.05), (4, 0.5)):
        back = C.fewbit_restore(C.fewbit_quantise(x, bits), x.shape, dtype, bits)
        assert back.dtype == dtype
        assert np.max(np.abs(back.astype(pb.float32).numpy() - x.astype(pb.float32).numpy())) <= tolerance


# ---- consumers


def parts(saved, dtype=pb.float32):
    """loss, weight and input of a linear layer whose input is a result that nobody else keeps."""
    pb.manual_seed(0)
    x = pb.asarray(RNG(3).standard_normal((40, 128)).astype("f4")).astype(dtype)
    w = pb.tensor(RNG(4).standard_normal((24, 128)).astype("f4"), requires_grad=True).astype(dtype)
    leaf, weight = pb.tensor(x, requires_grad=True), pb.tensor(w.detach(), requires_grad=True)
    return pb.linear(leaf * 1.0, weight, saved=saved), weight, leaf


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.02), (4, 0.2)])
def test_linear(bits: int, bound: float) -> None:
    exact, we, xe = parts(None)
    found, wf, xf = parts(bits)
    assert np.array_equal(exact.numpy(), found.numpy())
    assert pb.memory.saved_bytes(exact) == 4 * 40 * 128
    assert pb.memory.saved_bytes(found) == 40 * row_bytes(128, bits)
    dy = RNG(5).standard_normal((40, 24)).astype("f4")
    exact.backward(pb.asarray(dy))
    found.backward(pb.asarray(dy))
    assert np.array_equal(xe.grad.numpy(), xf.grad.numpy())
    a, b = we.grad.numpy().ravel(), wf.grad.numpy().ravel()
    assert 0 < np.linalg.norm(a - b) <= bound * np.linalg.norm(a)


def test_weight_gradient_is_unbiased() -> None:
    draws = []
    dy = pb.asarray(RNG(5).standard_normal((40, 24)).astype("f4"))
    exact, we, _ = parts(None)
    exact.backward(dy)
    for seed in range(400):
        y, w, _ = parts(4)
        pb.manual_seed(seed)
        x = pb.asarray(RNG(3).standard_normal((40, 128)).astype("f4"))
        y = pb.linear(x * 1.0, w, saved=4)
        y.backward(dy)
        draws.append(w.grad.numpy().ravel()[:200])
    found = np.stack(draws).astype("f8")
    sigma = found.std(0) / np.sqrt(400)
    assert np.all(np.abs(found.mean(0) - we.grad.numpy().ravel()[:200]) <= 4.5 * sigma + 1e-5)


def test_shared_input_is_kept_once() -> None:
    leaf = pb.tensor(RNG(6).standard_normal((32, 64)).astype("f4"), requires_grad=True)
    weights = [pb.tensor(RNG(i).standard_normal((16, 64)).astype("f4"), requires_grad=True) for i in range(3)]
    h = leaf * 1.0
    q, k, v = (pb.linear(h, w, saved=8) for w in weights)
    assert pb.memory.saved_bytes(pb.sum(q) + pb.sum(k) + pb.sum(v)) == 32 * row_bytes(64, 8)
    h2 = leaf * 2.0  # other memory, other words
    both = pb.sum(q) + pb.sum(pb.linear(h2, weights[0], saved=8))
    assert pb.memory.saved_bytes(both) == 2 * 32 * row_bytes(64, 8)
    del q, k, v, h, h2, both


def test_writes_after_the_call_do_not_reach_the_blocks() -> None:
    leaf = pb.tensor(np.ones((4, 64), "f4"), requires_grad=True)
    w = pb.tensor(np.ones((2, 64), "f4"), requires_grad=True)
    h = leaf * 1.0
    y = pb.linear(h, w, saved=8)
    h += 5.0
    z = pb.linear(h, w, saved=8)  # not the words of before
    (pb.sum(y)).backward(retain_graph=True)
    assert np.allclose(w.grad.numpy(), 4.0, rtol=0.02)
    w.grad = None
    pb.sum(z).backward()
    assert np.allclose(w.grad.numpy(), 24.0, rtol=0.02)


def test_second_order_uses_the_restored_input() -> None:
    leaf = pb.tensor(RNG(7).standard_normal((6, 64)).astype("f4"), requires_grad=True)
    w = pb.tensor(RNG(8).standard_normal((3, 64)).astype("f4"), requires_grad=True)
    y = pb.sum(pb.square(pb.linear(leaf * 1.0, w, saved=8)))
    (gw,) = pb.gradients([y], [w], create_graph=True)
    (gx,) = pb.gradients([pb.sum(gw * gw)], [leaf])
    y2 = pb.sum(pb.square(pb.linear(leaf * 1.0, w)))
    (gw2,) = pb.gradients([y2], [w], create_graph=True)
    (gx2,) = pb.gradients([pb.sum(gw2 * gw2)], [leaf])
    assert np.linalg.norm(gx.numpy() - gx2.numpy()) <= 0.05 * np.linalg.norm(gx2.numpy())


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.02), (4, 0.2)])
def test_conv2d(bits: int, bound: float) -> None:
    grads = []
    for saved in (None, bits):
        leaf = pb.tensor(RNG(0).standard_normal((2, 3, 16, 64)).astype("f4"), requires_grad=True)
        w = pb.tensor(RNG(1).standard_normal((4, 3, 3, 3)).astype("f4"), requires_grad=True)
        y = pb.conv2d(leaf * 1.0, w, padding=1, saved=saved)
        if saved:
            assert pb.memory.saved_bytes(y) == 2 * 3 * 16 * row_bytes(64, bits)
        y.backward(pb.asarray(RNG(2).standard_normal(y.shape).astype("f4")))
        grads.append(w.grad.numpy().ravel())
    assert 0 < np.linalg.norm(grads[0] - grads[1]) <= bound * np.linalg.norm(grads[0])
    layer = pb.nn.Conv2d(3, 4, 3, saved=bits)
    leaf = pb.tensor(np.ones((1, 3, 8, 64), "f4"), requires_grad=True)
    assert pb.memory.saved_bytes(layer(leaf * 1.0)) == 24 * row_bytes(64, bits)


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.02), (4, 0.35)])
def test_attention(bits: int, bound: float) -> None:
    """The relative error is some 2.6 of the rounding's, from q, k, v and the result.

    A block of 64 normal numbers spans about 4.8, so a 4-bit step is 0.32 and random rounding errs by
    step / sqrt(6) = 0.13; an 8-bit step, 2.4 / 127, by 0.0077.
    """
    grads, shape = [], (2, 4, 12, 64)
    for saved in (None, bits):
        q, k, v = (pb.tensor(RNG(i).standard_normal(shape).astype("f4"), requires_grad=True) for i in range(3))
        y = pb.scaled_dot_product_attention(q * 1.0, k * 1.0, v * 1.0, causal=True, saved=saved)
        if saved:
            joined = 2 * 12 * row_bytes(256, bits)
            assert pb.memory.saved_bytes(y) == 3 * 96 * row_bytes(64, bits) + joined + 4 * 96
        y.backward(pb.asarray(RNG(9).standard_normal(shape).astype("f4")))
        grads.append(np.concatenate([t.grad.numpy().ravel() for t in (q, k, v)]))
    assert 0 < np.linalg.norm(grads[0] - grads[1]) <= bound * np.linalg.norm(grads[0])


def test_attention_and_projection_share_the_result() -> None:
    q, k, v = (pb.tensor(RNG(i).standard_normal((2, 4, 12, 64)).astype("f4"), requires_grad=True) for i in range(3))
    w = pb.tensor(RNG(4).standard_normal((8, 256)).astype("f4"), requires_grad=True)
    y = pb.scaled_dot_product_attention(q * 1.0, k * 1.0, v * 1.0, saved=8)
    alone = pb.memory.saved_bytes(y)
    out = pb.linear(pb.reshape(pb.permute_dims(y, (0, 2, 1, 3)), (2, 12, 256)), w, saved=8)
    assert pb.memory.saved_bytes(out) == alone


def test_region_and_errors() -> None:
    leaf = pb.tensor(np.ones((8, 64), "f4"), requires_grad=True)
    w = pb.tensor(np.ones((4, 64), "f4"), requires_grad=True)
    with pb.saving(inputs=4):
        assert pb.memory.saved_bytes(pb.linear(leaf * 1.0, w)) == 8 * row_bytes(64, 4)
        assert pb.memory.saved_bytes(pb.linear(leaf * 1.0, w, saved=8)) == 8 * row_bytes(64, 8)
        with pb.saving(inputs=None):  # leaves the region around it as it is
            assert pb.memory.saved_bytes(pb.linear(leaf * 1.0, w)) == 8 * row_bytes(64, 4)
    row = pb.memory.report(pb.linear(leaf * 1.0, w, saved=8)).rows[0]
    assert (row.scheme, row.error) == ("int8 blocks", "unbiased")
    for saved in (3, 0, 16, True, "input", "output", 4.0):
        with pytest.raises(ValueError, match="linear: saved= takes 4 or 8"):
            pb.linear(leaf, w, saved=saved)
        with pytest.raises(ValueError, match="conv2d: saved= takes 4 or 8"):
            pb.conv2d(pb.ones((1, 1, 4, 4)), pb.ones((1, 1, 2, 2)), saved=saved)
        with pytest.raises(ValueError, match="attention: saved= takes 4 or 8"):
            pb.scaled_dot_product_attention(*(pb.ones((2, 3, 4)),) * 3, saved=saved)


def test_float64_stays_exact() -> None:
    leaf = pb.tensor(RNG(0).standard_normal((4, 64)), requires_grad=True)
    w = pb.tensor(RNG(1).standard_normal((4, 64)), requires_grad=True)
    y = pb.linear(leaf * 1.0, w, saved=4)
    assert pb.memory.saved_bytes(y) == 8 * 256
