"""Slots that bind late: what a producer makes anew, norms with the product behind them, tensors that stand in."""

import gc

import numpy as np
import pytest
from saved_cases import leaf, normal

import pullback as pb
from pullback import _core as C

# ---- rebuilding


def net(x, w, saved):
    return (pb.matmul(pb.gelu(x * 1.5, saved=saved), w) ** 2).sum()


def test_a_product_rebuilds_its_operand():
    x, w = leaf(64 * 32).reshape(64, 32).detach(), leaf(32 * 8, 1).reshape(32, 8).detach()
    grads, kept = [], []
    for saved in ("input", "recompute"):
        a, b = pb.tensor(x.numpy(), requires_grad=True), pb.tensor(w.numpy(), requires_grad=True)
        loss = net(a, b, saved)
        kept.append(pb.memory.saved_bytes(loss))
        loss.backward()
        grads.append((a.grad.tobytes(), b.grad.tobytes()))
    assert grads[0] == grads[1]
    assert kept[0] - kept[1] == 64 * 32 * 8


def test_rebuilding_under_create_graph_hvp_and_checkpoint():
    w = normal(32 * 8, 1).reshape(32, 8)
    x, v = normal(64 * 32).reshape(64, 32), normal(64 * 32, 2).reshape(64, 32)

    def f(saved):
        return lambda a: net(a, w * a.sum(), saved)

    a, b = (pb.hvp(f(s), (x,), (v,))[0].numpy() for s in ("input", "recompute"))
    np.testing.assert_array_equal(a, b)
    double = [pb.grad(lambda t, s=s: (pb.grad(f(s))(t) * v).sum())(x).numpy() for s in ("input", "recompute")]
    np.testing.assert_allclose(double[0], double[1], rtol=1e-13)
    np.testing.assert_allclose(double[0], a, rtol=1e-10)
    grads = []
    for g in (f("input"), f("recompute"), pb.checkpoint(f("recompute"))):
        t = pb.tensor(x.numpy(), requires_grad=True)
        g(t).backward()
        grads.append(t.grad.tobytes())
    assert grads[0] == grads[1] == grads[2]


def test_in_place_after_a_rebuildable_activation():
    """y = gelu(h); y += 1 works; a consumer before and one after the write see what they saw."""
    for saved in (None, "recompute", "output"):
        h = leaf(1200).reshape(40, 30)
        w = normal(30 * 5, 3).reshape(30, 5)
        w.requires_grad = True
        y = pb.gelu(h * 1, saved=saved)
        if saved == "output":
            y += 1
            with pytest.raises(pb.GraphError, match="modified in place"):
                pb.matmul(y, w).sum().backward()
            continue
        y += 1
        assert pb.memory.saved_bytes(pb.matmul(y, w).sum()) >= 2 * 40 * 30 * 8 - 1  # h and y + 1
        pb.matmul(y, w).sum().backward()
        want = pb.gelu(h.detach()).numpy().sum(axis=0) + 40
        np.testing.assert_allclose(w.grad.numpy(), np.repeat(want[:, None], 5, axis=1), rtol=1e-12)


def test_a_write_without_grad_is_not_rebuilt_over():
    h = leaf(1200).reshape(40, 30) * 1
    w = normal(30 * 5, 3).reshape(30, 5)
    w.requires_grad = True
    y = pb.silu(h, saved="recompute")
    with pb.no_grad():
        y *= 2
    pb.matmul(y, w).sum().backward()
    want = 2 * pb.silu(h.detach()).numpy().sum(axis=0)
    np.testing.assert_allclose(w.grad.numpy(), np.repeat(want[:, None], 5, axis=1), rtol=1e-12)


def test_writing_to_what_a_rebuild_needs():
    h = leaf(1200).reshape(40, 30) * 1
    w = normal(30 * 5, 3).reshape(30, 5)
    w.requires_grad = True
    z = pb.matmul(pb.silu(h, saved="recompute"), w).sum()
    h += 1
    with pytest.raises(pb.GraphError, match="silu: a tensor kept for backward was modified in place"):
        z.backward()


def test_two_consumers_rebuild_once_and_retain():
    h = leaf(1200).reshape(40, 30)
    w1, w2 = (pb.tensor(normal(150, s).reshape(30, 5).numpy(), requires_grad=True) for s in (1, 2))
    y = pb.silu(h * 1, saved="recompute")
    loss = (pb.matmul(y, w1) * pb.matmul(y, w2)).sum()
    loss.backward(retain_graph=True)
    first = w1.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(w1.grad.numpy(), 2 * first)


def test_a_pinned_producer_keeps_its_slots():
    """One consumer's backward releases the activation; the other one still reads what it rebuilds from."""
    h = leaf(1200).reshape(40, 30)
    w = pb.tensor(normal(150, 1).reshape(30, 5).numpy(), requires_grad=True)
    y = pb.silu(h * 1, saved="recompute")
    z = pb.matmul(y, w)
    y.sum().backward()
    (g,) = pb.gradients(z.sum(), w)
    want = pb.silu(h.detach()).numpy().sum(axis=0)
    np.testing.assert_allclose(g.numpy(), np.repeat(want[:, None], 5, axis=1), rtol=1e-12)


def one_step(saved, run):
    h = pb.tensor(normal(4000).reshape(100, 40).numpy(), requires_grad=True)
    w = pb.tensor(normal(200, 1).reshape(40, 5).numpy(), requires_grad=True)
    y = pb.dropout(pb.relu(pb.silu(pb.tanh(h * 1, saved=saved), saved=saved)), 0.5)
    z = pb.matmul(pb.layer_norm(y), w)
    if run:
        (z * z).sum().backward(create_graph=run == 2)
    w.grad = h.grad = None  # with create_graph they refer to the graph, which refers to the leaves


def test_nothing_leaks():
    one_step("recompute", 2)  # the kernels' scratch memory stays
    gc.collect()
    before = pb.memory.stats()
    for saved in ("recompute", "output", None):
        for run in range(3):
            one_step(saved, run)
    gc.collect()
    after = pb.memory.stats()
    assert (after["nodes"], after["current"]) == (before["nodes"], before["current"])


def test_a_chain_of_rebuilds_is_one_level_deep():
    """Each activation of a chain holds its input, so a long chain neither recurses nor goes quadratic."""
    x = leaf(64)
    y = x * 1
    for _ in range(3000):
        y = pb.tanh(y, saved="recompute")
    y.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_rows_of_zero_bytes_name_the_rebuild():
    w = pb.tensor(normal(150, 1).reshape(30, 5).numpy(), requires_grad=True)
    z = pb.matmul(pb.silu(leaf(1200).reshape(40, 30) * 1, saved="recompute"), w)
    report = pb.memory.report(z.sum())
    assert [(r.bytes, r.holder, r.scheme) for r in report.rows] == [(9600, "silu", "input"), (0, "matmul", "recompute")]
    assert "recompute" in str(report)


# ---- norms


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_a_norm_and_the_product_after_it_keep_one_tensor(norm, dtype):
    rng = np.random.default_rng(0)
    t = getattr(pb, dtype)
    x = pb.asarray(rng.standard_normal((50, 64))).astype(t)
    x.requires_grad = True
    scale, w = (pb.asarray(rng.standard_normal(s)).astype(t) for s in ((64,), (8, 64)))
    scale.requires_grad = w.requires_grad = True
    h = x * 1
    y = getattr(pb, norm)(h, scale)
    z = pb.linear(y, w)
    size = {"float32": 4, "bfloat16": 2, "float64": 8}[dtype]
    stats = 50 * (2 if norm == "layer_norm" else 1) * max(size, 4)
    assert pb.memory.saved_bytes(z.sum()) == 50 * 64 * size + stats
    z.backward(pb.ones(z.shape, dtype=t))
    want = np.repeat(y.detach().astype(pb.float64).numpy().sum(axis=0)[None], 8, axis=0)
    np.testing.assert_allclose(w.grad.astype(pb.float64).numpy(), want, rtol=2e-2 if size == 2 else 1e-5, atol=0.15)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_norm_keeps_the_input_in_its_own_type(dtype):
    """And with it the gradients of float32, to the rounding of the type."""
    rng = np.random.default_rng(0)
    t = getattr(pb, dtype)
    arrays = [rng.standard_normal(s) for s in ((8, 6, 5, 5), (6,), (6,))]
    wide = [pb.asarray(a).astype(t).astype(pb.float64) for a in arrays]
    x, w, b = (v.astype(t) for v in wide)
    g = pb.asarray(rng.standard_normal((8, 6, 5, 5))).astype(t)
    for v in (x, w, b, *wide):
        v.requires_grad = True
    y = pb.batch_norm(x * 1, None, None, w, b, training=True)
    assert pb.memory.saved_bytes(y.sum()) == x.size * (2 if dtype == "bfloat16" else 4) + 2 * 6 * 4
    y.backward(g)
    pb.batch_norm(wide[0] * 1, None, None, wide[1], wide[2], training=True).backward(g.astype(pb.float64))
    for have, want in zip((x, w, b), wide, strict=True):
        assert have.grad.dtype == t
        scale = np.max(np.abs(want.grad.numpy()))
        err = np.max(np.abs(have.grad.astype(pb.float64).numpy() - want.grad.numpy()))
        assert err <= scale * (8e-3 if dtype == "bfloat16" else 2e-6)


# ---- a tensor that stands in


def chain(n=4096, p=0.25):
    x = pb.tensor(normal(n).reshape(-1, 64).numpy(), requires_grad=True)
    w = pb.tensor(normal(64 * 3, 1).reshape(64, 3).numpy(), requires_grad=True)
    pb.manual_seed(7)
    y = pb.relu(x * 1)
    z = pb.dropout(y, p)
    return x, w, y, z


def test_relu_dropout_linear_keeps_one_tensor():
    x, w, _, z = chain()
    out = pb.matmul(z, w)
    assert pb.memory.saved_bytes(out.sum()) == 4096 * 8
    g = normal(out.size, 4).reshape(out.shape)
    out.backward(g)
    want = (g.numpy() @ w.detach().numpy().T) * (z.detach().numpy() != 0) / 0.75
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-12)


def test_a_later_use_of_the_relu_puts_its_output_back():
    x, w, y, z = chain()
    out = pb.matmul(z, w).sum() + (y * 3).sum()
    assert pb.memory.saved_bytes(out) == 2 * 4096 * 8
    out.backward()
    drop = (np.ones((64, 3)) @ w.detach().numpy().T) * (z.detach().numpy() != 0) / 0.75
    np.testing.assert_allclose(x.grad.numpy(), (drop + 3) * (y.detach().numpy() > 0), rtol=1e-12)


def test_a_use_before_the_product_leaves_the_output():
    x, w, y, z = chain()
    other = y * 3
    out = pb.matmul(z, w).sum() + other.sum()
    out.backward()
    drop = (np.ones((64, 3)) @ w.detach().numpy().T) * (z.detach().numpy() != 0) / 0.75
    np.testing.assert_allclose(x.grad.numpy(), (drop + 3) * (y.detach().numpy() > 0), rtol=1e-12)


def test_writing_to_the_relu_after_something_stands_in():
    _, w, y, z = chain()
    out = pb.matmul(z, w).sum()
    y += 1
    with pytest.raises(pb.GraphError, match="modified in place"):
        out.backward()
    _, w, y, z = chain()
    out = pb.matmul(z, w).sum()
    with pb.no_grad():
        z *= 2
    with pytest.raises(pb.GraphError, match="modified in place"):
        out.backward()


def test_a_use_without_data_after_something_stands_in():
    """What a checkpoint refers to by place alone cannot put the output back: an error, never a wrong number."""
    _, w, y, z = chain()
    out = pb.matmul(z, w).sum()
    C._custom_boundary("place", C._boundary([y], C._sequence()), [pb.zeros(())], lambda g: g)
    with pytest.raises(pb.GraphError, match="the output was given up for that of a dropout"):
        out.backward()


def test_standing_in_under_create_graph_and_retain():
    x, w, _, z = chain()
    out = (pb.matmul(z, w) ** 2).sum()
    (g,) = pb.gradients(out, x, create_graph=True)
    (second,) = pb.gradients((g**2).sum(), x)
    keep = (z.detach().numpy() != 0) / 0.75
    m = w.detach().numpy() @ w.detach().numpy().T
    first = 2 * (x.detach().numpy() * keep @ m) * keep
    np.testing.assert_allclose(g.numpy(), first, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(second.numpy(), 4 * ((first * keep) @ m) * keep, rtol=1e-10, atol=1e-10)
