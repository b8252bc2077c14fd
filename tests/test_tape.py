"""Reverse and forward mode, hooks, versions, graphs of any size."""

import gc
import weakref

import pytest

import pullback as pb
from pullback import _core as C


def figures():
    """Bytes of data, live tensors and live nodes."""
    stats = pb.memory.stats()
    return stats["current"], stats["tensors"], stats["nodes"]


def test_gradients_accumulate_and_zero_grad_is_none():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [4, 8]
    x.grad = None
    assert x.grad is None


def test_gradient_is_never_a_shared_buffer():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    y = pb.tensor([1.0, 2.0], requires_grad=True)
    (x + y).sum().backward()
    x.grad[0] = 7.0
    assert y.grad.tolist() == [1, 1]


def test_diamond():
    x = pb.tensor(3.0, requires_grad=True)
    a = x * 2
    b = a * a
    (b + a).backward()
    assert x.grad.item() == 2 * 2 * 6 + 2


def test_second_backward_is_an_error():
    x = pb.tensor([1.0], requires_grad=True)
    y = pb.exp(x).sum()
    y.backward()
    with pytest.raises(pb.GraphError, match=r"freed.*\nhelp: pass retain_graph=True"):
        y.backward()


def test_retained_graph_runs_twice():
    x = pb.tensor([1.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4]


def test_backward_needs_a_scalar_or_a_cotangent():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(pb.GraphError, match="one element"):
        (x * 2).backward()
    with pytest.raises(pb.ShapeError, match="shape of the output"):
        (x * 2).backward(pb.ones((3,)))
    (x * 2).backward(pb.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2, 20]


def test_backward_without_graph():
    with pytest.raises(pb.GraphError, match="does not require grad"):
        pb.tensor(1.0).backward()
    x = pb.tensor(1.0, requires_grad=True)
    with pb.no_grad():
        y = x * 2
    with pytest.raises(pb.GraphError, match="does not require grad"):
        y.backward()


def test_leaf_backward():
    x = pb.tensor(1.0, requires_grad=True)
    x.backward()
    assert x.grad.item() == 1


def test_hooks():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    y = x * 3
    y.register_hook(lambda g: g * 10)
    (y * y).sum().backward()
    assert seen == [[180.0, 360.0]]
    assert x.grad.tolist() == [180, 360]
    handle.remove()
    (x * 1).sum().backward()
    assert len(seen) == 1
    with pytest.raises(pb.GraphError, match="register_hook"):
        pb.tensor(1.0).register_hook(lambda g: g)
    x.register_hook(lambda g: "no")
    with pytest.raises(pb.DTypeError, match="returns a tensor or None"):
        (x * 1).sum().backward()


def test_retain_grad():
    x = pb.tensor(2.0, requires_grad=True)
    y = x * 3
    y.retain_grad()
    (y * y).backward()
    assert y.grad.item() == 12


def test_stale_saved_tensor():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    z = y * y
    y += 1
    with pytest.raises(pb.GraphError, match="modified in place"):
        z.sum().backward()


def test_in_place_forms():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y *= y
    y += 1
    y.sum().backward()
    assert x.grad.tolist() == [8, 16]
    with pytest.raises(pb.GraphError, match="leaf that requires grad"):
        x += 1
    with pb.no_grad():
        x += 1
    assert x.tolist() == [2, 3]


def test_in_place_writes_make_no_cycles():
    w = pb.tensor([1.0, 2.0], requires_grad=True)

    def run():
        y = w * 1
        z = y * y  # keeps y
        y += z  # y's new node leads to z's, which keeps y
        c = pb.ones((2,))
        v = w * c  # keeps c
        c += v
        return y, c

    run()
    gc.collect()
    before = figures()
    for _ in range(10):
        run()
    assert figures() == before


def test_activation_then_in_place():
    x = pb.tensor([0.5, -0.5], requires_grad=True)
    y = pb.gelu(x)
    y += 1
    y.sum().backward()
    z = pb.tensor([0.5, -0.5], requires_grad=True)
    pb.gelu(z).sum().backward()
    assert x.grad.tolist() == z.grad.tolist()


def test_long_chain_neither_overflows_nor_leaks():
    def chain(n):
        x = pb.tensor([1.0], requires_grad=True)
        y = x
        for _ in range(n):
            y = y * 1.0
        return x, y

    chain(10)[1].sum().backward()
    gc.collect()
    before = figures()
    x, y = chain(100_000)
    y.sum().backward()
    assert x.grad.item() == 1
    del x, y
    x, y = chain(100_000)  # dropped without backward
    del x, y
    gc.collect()
    assert figures() == before


def test_create_graph_loop_keeps_memory_flat():
    w = pb.tensor([1.0, 2.0, 3.0], requires_grad=True)
    seen = []
    for i in range(60):
        y = pb.exp(w * 0.1).sum()
        (g,) = pb.gradients(y, w, create_graph=True)
        ((g * g).sum() + y).backward()
        w.grad = None
        del g, y
        if i >= 10:
            seen.append(figures())
    assert max(seen) == min(seen)


def test_tensor_is_freed_with_its_graph():
    x = pb.tensor([1.0], requires_grad=True)
    y = x * 2
    ref = weakref.ref(y)
    z = y + 1
    del y, z
    assert ref() is None


def test_any_order():
    x = pb.tensor(0.7, dtype=pb.float64)
    f = pb.tanh
    for _ in range(4):
        f = pb.grad(f)
    t = pb.tanh(x).item()
    s = 1 - t * t
    want = s * (16 * t * s - 8 * t**3)  # fourth derivative of tanh
    assert abs(f(x).item() - want) <= 1e-12


def test_modes_nest():
    x = pb.tensor(1.0, requires_grad=True)
    with pb.no_grad():
        with pb.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad

    @pb.no_grad()
    def f():
        return x * 2

    assert not f().requires_grad
    assert (x * 2).requires_grad


def test_detect_anomaly_names_the_forward_call():
    x = pb.tensor([0.0], requires_grad=True)
    with pb.detect_anomaly():
        y = pb.sqrt(x)  # this line
        with pytest.raises(pb.GraphError, match=r"non-finite(.|\n)*this line"):
            y.sum().backward()


def test_graph_is_usable_after_an_error():
    x = pb.tensor([1.0], requires_grad=True)

    @pb.custom
    def bad(v):
        return v * 2

    @bad.pull
    def _(g, out, v):
        raise ValueError("on purpose")

    y = bad(x * 1)
    with pytest.raises(ValueError, match="on purpose"):
        (y * 1).sum().backward()
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3]


def test_no_op_uses_the_two_vjp_trick():
    """Forward mode of built-in ops records nothing: no node is made while pushing."""
    x = pb.ones((3, 4))
    v = pb.ones((3, 4))
    w = pb.ones((4, 4))
    before = C._sequence()
    pb.jvp(lambda a: pb.softmax(pb.gelu(a @ w), axis=-1).sum(), (x,), (v,))
    assert C._sequence() == before


def test_integers_never_require_grad():
    with pytest.raises(pb.DTypeError, match="floating"):
        pb.tensor([1, 2], requires_grad=True)
    x = pb.tensor([1.5], requires_grad=True)
    assert not (x > 1).requires_grad
    assert not x.astype(pb.int64).requires_grad
    assert not pb.floor(x).requires_grad


def test_op_without_derivative():
    x = pb.tensor([1.0], requires_grad=True)
    y = pb.random.bernoulli(x * 0.5)
    assert not y.requires_grad
