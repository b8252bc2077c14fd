"""pb.autocast without PyTorch: nesting, threads, the cache of casts, gradients, checkpoints, errors."""

import threading

import numpy as np
import pytest

import pullback as pb
from pullback import _core as C
from pullback import nn

ONE, OTHER = pb.ones((3, 3)), pb.ones((3, 3))


def dtype_of_product():
    return (ONE @ OTHER).dtype


def test_a_block_casts_and_ends():
    assert dtype_of_product() == pb.float32
    with pb.autocast("bfloat16"):
        assert dtype_of_product() == pb.bfloat16 and pb.matmul(ONE, OTHER).dtype == pb.bfloat16
        assert (ONE + OTHER).dtype == pb.float32  # no row: the types of the inputs
    assert dtype_of_product() == pb.float32
    with pytest.raises(ZeroDivisionError), pb.autocast(pb.bfloat16):
        raise ZeroDivisionError
    assert dtype_of_product() == pb.float32


def test_blocks_nest_and_an_inner_one_may_be_off():
    cast = pb.autocast()
    with cast:
        with pb.autocast(enabled=False):
            assert dtype_of_product() == pb.float32
            with cast:  # the same object again
                assert dtype_of_product() == pb.bfloat16
            assert dtype_of_product() == pb.float32
        assert dtype_of_product() == pb.bfloat16
    with pb.autocast("float16", enabled=False):
        assert dtype_of_product() == pb.float32


def test_it_decorates():
    @pb.autocast("bfloat16")
    def f(x, *, times=1):
        """Doc."""
        return (x @ x) * times if times < 2 else f(x, times=times - 1)

    assert f(ONE, times=3).dtype == pb.bfloat16 and f.__doc__ == "Doc."
    assert dtype_of_product() == pb.float32


def test_each_thread_has_its_own():
    seen, inside, go_on = {}, threading.Event(), threading.Event()

    def other():
        inside.wait(10)
        seen["before"] = dtype_of_product()
        with pb.autocast():
            seen["in"] = dtype_of_product()
        seen["after"] = dtype_of_product()
        go_on.set()

    thread = threading.Thread(target=other)
    thread.start()
    with pb.autocast():
        inside.set()
        go_on.wait(10)
        assert dtype_of_product() == pb.bfloat16
    thread.join()
    assert seen == {"before": pb.float32, "in": pb.bfloat16, "after": pb.float32}


def test_what_is_never_cast():
    wide = pb.ones((3, 3), dtype=pb.float64)
    with pb.autocast():
        assert pb.matmul(wide, wide).dtype == pb.float64
        assert pb.matmul(pb.ones((2, 2), dtype=pb.int64), pb.ones((2, 2), dtype=pb.int64)).dtype == pb.int64
        assert pb.losses.mse(wide, wide).dtype == pb.float64
        assert (ONE * 2.0).dtype == pb.float32


# ---- gradients and the cache


def test_gradients_arrive_in_float32():
    layer = nn.Linear(4, 3)
    with pb.autocast():
        y = layer(pb.ones((2, 4)))
        assert y.dtype == pb.bfloat16
        loss = pb.losses.mse(y, pb.zeros((2, 3)))
    assert loss.dtype == pb.float32
    loss.backward()
    for p in layer.parameters():
        assert p.dtype == pb.float32 and p.grad.dtype == pb.float32 and p.grad.shape == p.shape


def test_a_parameter_is_cast_once_for_each_version():
    w = pb.tensor(np.eye(3, dtype=np.float32), requires_grad=True)
    x = pb.ones((3, 3))
    with pb.autocast():
        start = C._sequence()
        a = x @ w
        first = C._sequence() - start  # the cast and the product
        b = x @ w
        assert (first, C._sequence() - start - first) == (2, 1)
        with pb.autocast():  # an inner block shares them
            c = x @ w
        assert C._sequence() - start == 4
    pb.gradients([a.sum() + b.sum() + c.sum()], [w])
    with pb.autocast():  # a later block does not
        start = C._sequence()
        x @ w
        assert C._sequence() - start == 2


def test_a_written_parameter_is_cast_anew():
    w = pb.tensor([[1.0]], requires_grad=True)
    with pb.autocast():
        assert pb.matmul(ONE[:1, :1], w).item() == 1.0
        with pb.no_grad():
            w += 1.0
        assert pb.matmul(ONE[:1, :1], w).item() == 2.0
        w._data_as(pb.tensor([[5.0]]))
        assert pb.matmul(ONE[:1, :1], w).item() == 5.0


def test_two_backwards_in_one_block():
    w = pb.tensor([[2.0]], requires_grad=True)
    with pb.autocast():
        for expected in (1.0, 2.0):
            (ONE[:1, :1] @ w).sum().backward()  # frees the node of the cast
            assert w.grad.item() == expected


def test_no_grad_and_grad_do_not_share_a_cast():
    w = pb.tensor([[2.0]], requires_grad=True)
    with pb.autocast():
        with pb.no_grad():
            assert not (ONE[:1, :1] @ w).requires_grad
        y = ONE[:1, :1] @ w
        assert y.requires_grad
        with pb.no_grad():
            assert not (ONE[:1, :1] @ w).requires_grad
    y.sum().backward()
    assert w.grad.item() == 1.0


def test_nothing_is_held_after_the_block():
    w = pb.tensor(np.zeros((64, 64), np.float32), requires_grad=True)
    before = pb.memory.stats()["current"]
    with pb.autocast():
        pb.matmul(pb.ones((1, 64)), w)
        held = pb.memory.stats()["current"]
    assert held - before >= 64 * 64 * 2 and pb.memory.stats()["current"] == before


def test_a_shared_parameter_sums_its_gradients_before_they_are_widened():
    w = pb.tensor([[1.0]], requires_grad=True)
    x = pb.tensor([[1.0]])
    with pb.autocast():
        y = (x @ w) * 256.0 + x @ w  # in bfloat16 257 rounds to 256
    y.sum().backward()
    assert w.grad.item() == 256.0


def test_values_are_those_of_rounded_inputs():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((5, 7), dtype=np.float32), rng.standard_normal((7, 4), dtype=np.float32)
    with pb.autocast():
        got = pb.matmul(pb.tensor(a), pb.tensor(b))
    low = [pb.tensor(t).astype(pb.bfloat16) for t in (a, b)]
    np.testing.assert_array_equal(got.astype(pb.float32).numpy(), pb.matmul(*low).astype(pb.float32).numpy())


def test_a_checkpoint_is_computed_again_under_the_same_autocast():
    w = pb.tensor(np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3), requires_grad=True)
    x, seen = pb.ones((2, 3)), []

    def f(v):
        y = v @ w
        seen.append(y.dtype)
        return pb.tanh(y)

    with pb.autocast():
        plain = f(x).sum()
    plain.backward()
    expected, w.grad = w.grad, None
    with pb.autocast():
        again = pb.checkpoint(f)(x).sum()
    again.backward()  # outside the block
    assert seen == [pb.bfloat16] * 3 and w.grad.dtype == pb.float32
    np.testing.assert_array_equal(w.grad.numpy(), expected.numpy())
    with pb.autocast():  # and a forward without autocast is computed again without it
        with pb.autocast(enabled=False):
            y = pb.checkpoint(f)(x).sum()
        y.backward()
    assert seen[3:] == [pb.float32] * 2


def test_transforms_under_autocast():
    w, x = pb.tensor([[2.0]]), pb.tensor([[3.0]])

    def f(v):
        return (x @ v).sum()

    with pb.autocast():
        g = pb.grad(f)(w)
        out, tangent = pb.jvp(f, (w,), (pb.ones((1, 1)),))
    assert g.dtype == pb.float32 and g.item() == 3.0
    assert out.item() == 6.0 and tangent.item() == 3.0 and tangent.dtype == out.dtype == pb.bfloat16


def test_the_table_names_what_exists():
    known = {row["name"] for row in pb.ops()} | {"prelu", "bilinear"}
    for row in C._autocast_table():
        name = row["op"]
        assert name in known or name.startswith("_"), name
        if name.startswith("_"):
            assert hasattr(C, name) or name == "_pad_by_index", name
        assert {row["cpu"], row["cuda"]} <= {"inputs", "lower", "float32", "widest"}


# ---- errors


def test_other_dtypes_are_refused():
    for dtype in ("float32", pb.float64, "half", None):
        with pytest.raises(ValueError, match="dtype must be 'bfloat16' or 'float16'"):
            pb.autocast(dtype)


def test_float16_needs_a_gpu():
    if pb.cuda.is_available():
        pb.autocast("float16")
    else:
        for dtype in ("float16", pb.float16):
            with pytest.raises(pb.DeviceError, match="float16 needs a CUDA device"):
                pb.autocast(dtype)
