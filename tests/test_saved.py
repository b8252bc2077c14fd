"""What a saved slot holds: chosen savings, masks, losses, who chooses, and the report."""

import gc

import numpy as np
import pytest
from saved_cases import leaf, normal

import pullback as pb
from pullback import _core as C

MONOTONE = ["relu", "leaky_relu", "elu", "celu", "selu", "softplus", "softsign", "tanh", "sigmoid", "log_sigmoid"]
MONOTONE += ["hardtanh", "relu6"]
TWO_SIDED = ["gelu", "gelu_tanh", "silu", "mish", "hardswish"]
ALL = [*MONOTONE, *TWO_SIDED, "tanhshrink", "hardsigmoid"]
#: Those whose own output saved=None keeps.
OWN_OUTPUT = ["relu", "leaky_relu", "elu", "selu", "celu", "sigmoid", "tanh", "softplus", "log_sigmoid"]
OWN_OUTPUT += ["hardtanh", "relu6"]


def slope(name, x, saved=None, **kw):
    """The derivative by the pull, of an input that has a node."""
    x = x.detach()
    x.requires_grad = True
    getattr(C, name)(x * 1, saved=saved, **kw).backward(pb.ones(x.shape, dtype=x.dtype))
    return x.grad.astype(pb.float64).numpy()


def rows(y):
    return [(r.bytes, r.scheme, r.error) for r in pb.memory.report(y.sum()).rows]


# ---- what is kept


@pytest.mark.parametrize("name", OWN_OUTPUT)
def test_none_keeps_the_own_output(name):
    h = leaf() * 1
    y = getattr(C, name)(h)
    kept = [s for s in C._saved(y.sum()) if s["op"] == name]
    assert [s["address"] for s in kept] == [y._address] and kept[0]["scheme"] == "output"


@pytest.mark.parametrize(
    ("name", "kw"),
    [
        ("leaky_relu", {"negative_slope": -0.5}),
        ("leaky_relu", {"negative_slope": 0.0}),
        ("elu", {"alpha": -1.5}),
        ("celu", {"alpha": -0.7}),
        ("softplus", {"threshold": 1.0}),
    ],
)
def test_constants_decide(name, kw):
    """Where the output does not tell the derivative it is not what is kept, and the gradient is that of the input."""
    x = normal(1500)
    h = (leaf(1500)) * 1
    y = getattr(C, name)(h, **kw)
    assert y._address not in {s["address"] for s in C._saved(y.sum())}
    np.testing.assert_array_equal(slope(name, x, None, **kw), slope(name, x, "input", **kw))


def test_bounds_that_16_bits_do_not_hold_keep_the_input():
    h = leaf(1500, dtype=pb.bfloat16) * 1
    near = pb.memory.report(pb.hardtanh(h, min_val=-0.3, max_val=0.3).sum()).rows[0]
    assert near.scheme == "input"
    assert pb.memory.report(pb.hardtanh(h).sum()).rows[0].scheme == "output"
    x = pb.asarray(np.float32([0.2998, 0.3, 0.3008, 0.31])).astype(pb.bfloat16)
    want = (np.abs(x.astype(pb.float64).numpy()) < np.float32(0.3)).astype(float)
    assert slope("hardtanh", x, min_val=-0.3, max_val=0.3).tolist() == want.tolist()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("saved", [None, "input", "output", "recompute"])
def test_gradcheck(name, saved):
    """In float64 every choice gives the derivative; an inverted output to about 1e-8."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-2.9, 2.9, 40)
    for kink in (0.0, -1.0, 1.0, -0.75, -1.28, -1.19, -1.5):
        x = np.where(np.abs(x - kink) < 0.03, x + 0.07, x)
    h = 1e-6
    f = getattr(C, name)
    want = (f(pb.asarray(x + h)).numpy() - f(pb.asarray(x - h)).numpy()) / (2 * h)
    np.testing.assert_allclose(slope(name, pb.asarray(x), saved), want, rtol=0, atol=2e-8)


@pytest.mark.parametrize("name", ALL)
def test_input_is_kept_exactly(name):
    h = leaf() * 1
    y = getattr(C, name)(h, saved="input")
    assert {s["address"] for s in C._saved(y.sum()) if s["op"] == name} == {h._address}
    g = normal(seed=9)
    grads = []
    for saved in ("input", "recompute"):
        x = leaf()
        getattr(C, name)(x * 1, saved=saved).backward(g)
        grads.append(x.grad.tobytes())
    assert grads[0] == grads[1]


@pytest.mark.parametrize("name", TWO_SIDED)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 2e-3), ("float16", 4e-4)])
def test_error_of_an_inverted_output(name, dtype, bound):
    """RMS error of the derivative for normal inputs. In 16 bits the inverse is read before the product with g."""
    x = normal(200_000, dtype=getattr(pb, dtype))
    y = getattr(C, name)(x)
    least = {"gelu": -0.7517915, "gelu_tanh": -0.7524614, "silu": -1.2784645, "mish": -1.1924312, "hardswish": -1.5}
    side = (x.astype(pb.float64) > least[name]).astype(pb.float32)
    half = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    back = C.op(f"_{name}_inverse")(y.astype(pb.float32), side, half=half)
    exact = slope(name, x.astype(pb.float64), "input")
    err = slope(name, back.astype(pb.float64), "input") - exact
    assert np.sqrt(np.mean(err**2)) <= bound
    if dtype == "float32":  # and through the tape
        assert np.sqrt(np.mean((slope(name, x, "output") - exact) ** 2)) <= bound


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "hardswish", "gelu_tanh", "tanhshrink"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_inverted_output_of_special_inputs(name, dtype):
    x = pb.asarray([0.0, -0.0, 1e-30, -1e-30, 30.0, -30.0, 1e4, -1e4, np.inf, -np.inf, np.nan] * 3).astype(
        getattr(pb, dtype)
    )
    got, want = slope(name, x, "output"), slope(name, x, "input")
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-2 if dtype == "bfloat16" else 1e-5)


@pytest.mark.parametrize(("name", "side"), [*[(n, True) for n in TWO_SIDED], ("tanhshrink", False), ("tanh", False)])
def test_output_keeps_the_output_and_a_side_bit(name, side):
    y = getattr(C, name)(leaf(1000) * 1, saved="output")
    want = [8000, 128] if side else [8000]
    assert [b for b, _, _ in rows(y) if b] == want
    assert all(error == "near" for b, _, error in rows(y) if b and name in TWO_SIDED)


@pytest.mark.parametrize("name", TWO_SIDED)
def test_second_derivative_of_an_inverted_output(name):
    """The recovered input has its place in the graph: to every order a derivative, never a silent zero."""
    f = getattr(C, name)
    x = np.array([-2.0, -0.4, 0.3, 1.7])

    def second(saved):
        v = pb.tensor(x, requires_grad=True)
        y = f(v * 1, saved=saved)
        (g,) = pb.gradients(y.sum(), v, create_graph=True)
        return pb.gradients((g * g).sum(), v)[0].numpy()

    np.testing.assert_allclose(second("output"), second("input"), rtol=1e-5, atol=1e-6)


def test_bad_choices():
    x = leaf(4) * 1
    with pytest.raises(ValueError, match="must be 1 to 8, got 0"):
        pb.silu(x, saved=0)
    with pytest.raises(ValueError, match="must be 1 to 8, got 9"):
        pb.silu(x, saved=9)
    with pytest.raises(ValueError, match="takes None, 'input', 'output', 'recompute' or 1 to 8 bits, got 'all'"):
        pb.silu(x, saved="all")
    with pytest.raises(ValueError, match="takes None, 'input', 'output', 'recompute' or 1 to 8 bits, got True"):
        pb.silu(x, saved=True)
    with pytest.raises(ValueError, match="keeps inputs or outputs exactly; saved= takes None or 'input'"):
        C.exp(x, saved="output")
    with pytest.raises(ValueError, match="the output of this op does not tell the derivative"):
        pb.softplus(x, threshold=1.0, saved="output")


# ---- masks


def masked(f, *arrays):
    tensors = [pb.tensor(a, requires_grad=True) for a in arrays]
    y = f(*[t * 1 for t in tensors])
    kept = pb.memory.report(y.sum())
    y.backward(pb.asarray(np.linspace(1, 2, y.size)).reshape(y.shape))
    return kept, [t.grad.numpy() for t in tensors]


@pytest.mark.parametrize(
    ("f", "n", "bits"),
    [
        (lambda a: abs(a), 1, 2),
        (lambda a: pb.clip(a, -0.5, 0.7), 1, 1),
        (lambda a: pb.clip(a, None, 0.7), 1, 1),
        (lambda a: pb.clip(a, 2.0, 1.0), 1, 1),
        (lambda a: pb.maximum(a, 0.3), 1, 2),
        (lambda a, b: pb.maximum(a, b), 2, 2),
        (lambda a, b: pb.minimum(a, b), 2, 2),
        (lambda a, b: pb.where(a > b, a, b), 2, 1),
        (lambda a: pb.leaky_relu(a, negative_slope=-0.1), 1, 1),
        (lambda a: pb.hardsigmoid(a), 1, 1),
    ],
)
def test_masks(f, n, bits):
    """A large call keeps a few bits and has the gradient of small calls, which keep their inputs; ties among them."""
    rng = np.random.default_rng(5)
    size = 2500
    arrays = [np.round(rng.uniform(-4, 4, size), 1) for _ in range(n)]
    kept, got = masked(f, *arrays)
    assert kept.total == (size + 31) // 32 * bits * 4
    assert {r.scheme for r in kept.rows} == {"mask"} and {r.error for r in kept.rows} == {"exact"}
    g = np.linspace(1, 2, size)
    for start in range(0, size, 500):
        part = slice(start, start + 500)
        tensors = [pb.tensor(a[part], requires_grad=True) for a in arrays]
        y = f(*[t * 1 for t in tensors])
        assert "mask" not in {r.scheme for r in pb.memory.report(y.sum()).rows}
        y.backward(pb.asarray(g[part]))
        for have, t in zip(got, tensors, strict=True):
            np.testing.assert_array_equal(have[part], t.grad.numpy())


def test_masks_to_second_order():
    """The derivative of a step is zero, and what multiplies it is differentiated."""
    v = leaf(2048)
    (g,) = pb.gradients((abs(v * 1) ** 3).sum(), v, create_graph=True)
    (second,) = pb.gradients(g.sum(), v)
    np.testing.assert_allclose(second.numpy(), 6 * np.abs(v.numpy()), rtol=1e-12)


def test_mask_of_a_condition_that_is_broadcast_stays_as_it_is():
    mask = pb.asarray(np.random.default_rng(0).uniform(size=(64, 64)) > 0.5)
    x = leaf(8 * 64 * 64).reshape(8, 64, 64) * 1
    assert pb.memory.report(pb.where(mask, x, -1e9).sum()).total == 64 * 64


# ---- cross entropy


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 2}, {"weight": True}])
def test_cross_entropy_keeps_its_slope_and_has_all_orders(options):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((6, 5))
    target = pb.asarray(rng.integers(0, 5, 6))
    kw = dict(options)
    if kw.pop("weight", None):
        kw["weight"] = pb.asarray(rng.uniform(0.5, 2, 5))

    def loss(x):
        return pb.losses.cross_entropy(x, target, **kw)

    x = pb.tensor(logits, requires_grad=True)
    value = loss(x * 1)
    kept = pb.memory.report(value)
    assert {r.holder for r in kept.rows} == {"cross_entropy"}
    assert kept.total == 6 * 5 * 8 + 6 * 8 + (5 * 8 if "weight" in kw else 0)
    hess = pb.hessian(loss)(pb.asarray(logits)).numpy().reshape(30, 30)

    def gradient(v):
        t = pb.tensor(v.reshape(6, 5), requires_grad=True)
        loss(t).backward()
        return t.grad.numpy().ravel()

    flat, h = logits.ravel(), 1e-5
    want = np.stack([(gradient(flat + h * e) - gradient(flat - h * e)) / (2 * h) for e in np.eye(30)])
    np.testing.assert_allclose(hess, want, rtol=0, atol=1e-9)
    leaf_x = pb.tensor(logits, requires_grad=True)
    (g,) = pb.gradients(loss(leaf_x), leaf_x, create_graph=True)
    (again,) = pb.gradients(g[0, 0], leaf_x, create_graph=True)
    np.testing.assert_allclose(again.numpy().ravel(), want[0], rtol=0, atol=1e-9)
    (third,) = pb.gradients(again[0, 1], leaf_x)

    def second(v):
        return pb.hessian(loss)(pb.asarray(v.reshape(6, 5))).numpy().reshape(30, 30)[0, 1]

    for k in range(5):
        e = np.eye(30)[k] * 1e-5
        assert abs(third.numpy().ravel()[k] - (second(flat + e) - second(flat - e)) / 2e-5) <= 1e-9


# ---- pooling


@pytest.mark.parametrize(("size", "bits"), [(2, 2), (3, 4), ((1, 2), 1), (5, 5)])
def test_max_pool_keeps_the_cell_of_a_window_in_few_bits(size, bits):
    rng = np.random.default_rng(0)
    x = pb.tensor(rng.standard_normal((3, 4, 15, 15)), requires_grad=True)
    y = pb.max_pool2d(x * 1, size)
    assert pb.memory.saved_bytes(y.sum()) == (y.size + 31) // 32 * bits * 4
    y.sum().backward()
    assert x.grad.numpy().sum() == y.size
    picked = np.sort(x.numpy()[x.grad.numpy() > 0])
    np.testing.assert_array_equal(picked, np.sort(np.unique(y.numpy().ravel())))


# ---- gates


@pytest.mark.parametrize("name", ["silu_mul", "gelu_mul"])
def test_a_gate_keeps_its_two_inputs(name):
    a, b = leaf(1200).reshape(40, 30), leaf(1200, 1).reshape(40, 30)
    w = pb.tensor(normal(150, 2).reshape(30, 5).numpy(), requires_grad=True)
    f = getattr(pb, name)
    act = getattr(pb, name.split("_")[0])
    out = pb.matmul(f(a * 1, b * 1), w)
    assert pb.memory.saved_bytes(out.sum()) == 2 * 1200 * 8
    (out**2).sum().backward()
    v = [pb.tensor(t.detach().numpy(), requires_grad=True) for t in (a, b, w)]
    (pb.matmul(act(v[0]) * v[1], v[2]) ** 2).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), v[2].grad.numpy(), rtol=1e-11)


# ---- who chooses


def test_precedence():
    x = leaf(1200)

    def kept(saved=None):
        return [s for b, s, _ in rows(pb.silu(x * 1, saved=saved)) if b]

    assert kept() == ["input"]
    with pb.saving("output"):
        assert kept() == ["output", "side"]
        assert kept("input") == ["input"]
        with pb.saving("recompute"):
            assert kept() == ["input"]
        with pb.saving(order=2):
            assert kept() == ["output", "side"]
        m = pb.nn.SiLU(saved="input")
        assert [s for b, s, _ in rows(m(x * 1)) if b] == ["input"]
        assert [s for b, s, _ in rows(pb.nn.SiLU()(x * 1)) if b] == ["output", "side"]
        assert [s for _, s, _ in rows(pb.softplus(x * 1, threshold=1.0))] == ["input"]  # not offered, not an error
    assert kept() == ["input"]

    @pb.saving("output")
    def inside():
        return kept()

    assert inside() == ["output", "side"] and kept() == ["input"]


def test_saving_is_undone_after_an_error_and_refuses_bad_arguments():
    with pytest.raises(RuntimeError), pb.saving("output"):
        raise RuntimeError
    assert [s for b, s, _ in rows(pb.silu(leaf(1200) * 1)) if b] == ["input"]
    with pytest.raises(ValueError, match="saved= as a number of bits must be 1 to 8, got 12"):
        pb.saving(12)
    with pytest.raises(ValueError, match="inputs must be 4 or 8 bits, got 5"):
        pb.saving(inputs=5)
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        pb.saving(order=0)


def test_saving_does_not_reach_ops_of_the_pull_itself():
    """Inside a region, the second derivative is that outside of it."""
    x = normal(50)

    def second():
        return pb.hessian(lambda v: (pb.tanh(v) * pb.silu(v)).sum())(x).numpy()

    want = second()
    for choice in ("input", "output", "recompute"):
        with pb.saving(choice):
            np.testing.assert_allclose(second(), want, rtol=1e-6, atol=1e-7)


# ---- the report is what the allocator says


@pytest.mark.parametrize("saved", [None, "input", "output", "recompute"])
def test_the_report_equals_the_allocator(saved):
    gc.collect()
    x = pb.tensor(normal(8 * 4 * 12 * 12).reshape(8, 4, 12, 12).numpy(), dtype=pb.float32, requires_grad=True)
    conv, lin = pb.nn.Conv2d(4, 6, 3), pb.nn.Linear(150, 10)
    target = pb.asarray(np.arange(8) % 10)

    def forward():
        h = pb.max_pool2d(pb.silu(conv(x), saved=saved), 2)
        h = pb.dropout(pb.relu(pb.layer_norm(h.reshape(8, 150))), 0.1)
        return pb.losses.cross_entropy(lin(pb.tanh(h, saved=saved)), target)

    forward()  # the kernels' scratch memory stays
    gc.collect()
    base = pb.memory.stats()["current"]
    loss = forward()
    held = pb.memory.stats()["current"] - base - loss.nbytes
    report = pb.memory.report(loss)
    assert report.total == pb.memory.saved_bytes(loss) == sum(r.bytes for r in report.rows)
    # the target is copied by the loss; x belongs to the caller and is a leaf
    assert held == report.total
