"""Whole small models: accuracy on real digits, derivatives of every kind, the work and memory of a jvp."""

import numpy as np
import pytest

import pullback as pb
from pullback import nn
from pullback.cli.models import CharGPT
from pullback.cli.models import conv_net as demo_conv_net
from pullback.cli.models import mlp as demo_mlp


def mlp():
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4)).to(pb.float64)


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(24, 4),
    ).to(pb.float64)  # fmt: skip


MODELS = {"mlp": (mlp, (5, 12)), "conv": (conv_net, (5, 1, 8, 8))}


def problem(name):
    """Detached parameters, inputs, and the mean loss as a function of both."""
    make, shape = MODELS[name]
    model = make()
    rng = np.random.default_rng(7)
    x = pb.asarray(rng.normal(size=shape))
    y = pb.asarray(rng.integers(0, 4, shape[0]))
    params = {k: p.detach() for k, p in model.named_parameters()}

    def loss(params, x):
        return pb.losses.cross_entropy(pb.functional_call(model, params, x), y)

    return params, x, loss


def direction(params, seed):
    rng = np.random.default_rng(seed)
    return {k: pb.asarray(rng.normal(size=p.shape)) for k, p in params.items()}


def moved(params, v, h):
    return {k: p + h * v[k] for k, p in params.items()}


def dot(a, b):
    return sum((a[k] * b[k]).sum() for k in a)


def slope(f, params, v, h):
    """The derivative of f along v by a difference of fourth order."""
    at = [f(moved(params, v, k * h)).item() for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)


# ---- derivatives of whole models


def test_gradient_of_a_gpt():
    """Along random directions through every parameter at once, reverse and forward."""
    model = CharGPT(11, context=8, layers=2, heads=2, width=16).to(pb.float64)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 11, (3, 9))
    x, y = pb.asarray(codes[:, :-1].copy()), pb.asarray(codes[:, 1:].copy())
    params = {k: p.detach() * (5 if p.ndim > 1 else 1) for k, p in model.named_parameters()}  # far from linear

    def loss(params):
        return pb.losses.cross_entropy(pb.functional_call(model, params, x), y)

    g = pb.grad(loss)(params)
    for seed in range(3):
        v = direction(params, seed)
        want = slope(loss, params, v, 2e-5)
        assert abs(dot(g, v).item() - want) <= 1e-8 * abs(want)
        assert abs(pb.jvp(loss, (params,), (v,))[1].item() - want) <= 1e-8 * abs(want)
    u, v = direction(params, 3), direction(params, 4)
    want = slope(lambda p: dot(pb.grad(loss)(p), u), params, v, 2e-5)  # second order
    assert abs(dot(pb.hvp(loss, (params,), (v,))[0], u).item() - want) <= 1e-7 * abs(want)
    twice = pb.grad(lambda p: dot(pb.grad(loss)(p), u))(params)
    assert abs(dot(twice, v).item() - want) <= 1e-7 * abs(want)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_penalty(name):
    """The gradient of (|gradient by the inputs| - 1)^2: a derivative of a derivative by other variables."""
    params, x, loss = problem(name)

    def penalty(params):
        g = pb.grad(lambda x: loss(params, x) * x.shape[0])(x)
        norms = pb.sqrt(pb.sum(pb.reshape(g * g, (g.shape[0], -1)), axis=1))
        return pb.square(norms - 1).mean() + loss(params, x)

    value, g = pb.value_and_grad(penalty)(params)
    assert value.item() == penalty(params).item()
    for seed in range(3):
        v = direction(params, seed)
        want = slope(penalty, params, v, 1e-4)
        assert abs(dot(g, v).item() - want) <= 1e-8 * abs(want)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_penalty_by_backward(name):
    """The same with .backward() on a graph of a graph, as a training loop writes it."""
    params, x, loss = problem(name)
    leaves = {k: pb.asarray(p.numpy().copy()) for k, p in params.items()}
    for p in leaves.values():
        p.requires_grad = True

    def penalty(params, x):
        (g,) = pb.gradients(loss(params, x), x, create_graph=True)
        return (g * g).sum()

    x.requires_grad = True
    penalty(leaves, x).backward()
    v = direction(params, 1)
    want = slope(lambda p: penalty(p, x).detach(), params, v, 1e-4)
    assert abs(sum((leaves[k].grad * v[k]).sum().item() for k in v) - want) <= 1e-8 * abs(want)


@pytest.mark.parametrize("name", MODELS)
def test_hessian_products_agree(name):
    """hvp (forward over reverse) equals reverse over reverse, reverse over forward, and a difference of gradients."""
    params, x, loss = problem(name)

    def f(params):
        return loss(params, x)

    v = direction(params, 0)
    products = {
        "forward over reverse": pb.hvp(f, (params,), (v,))[0],
        "reverse over reverse": pb.grad(lambda p: dot(pb.grad(f)(p), v))(params),
        "reverse over forward": pb.grad(lambda p: pb.jvp(f, (p,), (v,))[1])(params),
    }
    exact = products["reverse over reverse"]
    size = max(np.max(np.abs(p.numpy())) for p in exact.values())
    for how, product in products.items():
        for k in exact:
            assert np.max(np.abs((product[k] - exact[k]).numpy())) <= 1e-12 * size, (how, k)
    u = direction(params, 1)
    want = slope(lambda p: dot(pb.grad(f)(p), u), params, v, 1e-4)
    assert abs(dot(exact, u).item() - want) <= 1e-8 * abs(want)


# ---- cost of forward mode


def deep(layers, width=64):
    rng = pb.random.Generator(layers)

    def draw(*shape):
        return pb.random.normal(shape, rng=rng) / width**0.5

    params = [(draw(width, width), draw(width)) for _ in range(layers)]
    tangents = [(draw(width, width), draw(width)) for _ in range(layers)]
    x = draw(width, width)

    def f(params):
        h = x
        for w, b in params:
            h = pb.tanh(pb.linear(h, w, b))
        return h.sum()

    def forward():
        with pb.no_grad():
            return f(params)

    return forward, lambda: pb.jvp(f, (params,), (tangents,))


def count(call):
    """Results allocated (one per kernel that does not add to an older result), nodes made, and peak bytes."""
    call()
    before, node = pb.memory.stats(), pb._core._sequence()
    pb._core.reset_peak_memory()
    call()
    after = pb.memory.stats()
    return after["allocations"] - before["allocations"], pb._core._sequence() - node, after["peak"] - before["current"]


def test_work_of_a_jvp():
    """A jvp by all parameters makes two results where the forward makes one (value and tangent) and no node.

    A layer costs the forward one product and one activation, and the jvp in addition two products, of which the second
    is added to the first, and one activation's slope times the tangent: three products and two passes for one and one,
    which stays below three forwards.
    """
    pb.set_num_threads(1)
    forward, push = zip(*(deep(layers) for layers in (3, 12)), strict=True)
    ahead, pushed = [count(f) for f in forward], [count(f) for f in push]
    assert ahead[1][0] - ahead[0][0] == 9 * 2
    assert pushed[1][0] - pushed[0][0] == 9 * 4
    for one, both in zip(ahead, pushed, strict=True):
        assert both[0] <= 3 * one[0]
        assert one[1] == both[1] == 0


def test_memory_of_a_jvp_is_that_of_one_layer():
    pb.set_num_threads(1)
    peaks = [count(deep(layers)[1])[2] for layers in (3, 12, 48)]
    assert peaks[0] == peaks[1] == peaks[2]
    assert peaks[0] <= 2.2 * count(deep(3)[0])[2]


# ---- training


def accuracy(model, data):
    with pb.no_grad():
        return (pb.argmax(model(data[0]), axis=1) == data[1]).astype(pb.float64).mean().item()


@pytest.mark.parametrize(("make", "goal"), [(demo_mlp, 0.95), (demo_conv_net, 0.97)], ids=["mlp", "conv"])
def test_learns_the_digits(make, goal):
    """1,437 real handwritten digits of 8 x 8; accuracy on the 360 that were held out."""
    pytest.importorskip("sklearn")
    pb.set_num_threads(1)
    train, test = ((d.tensors[0], d.tensors[1]) for d in pb.data.digits())
    model = make(8)
    opt = pb.optim.AdamW(model.parameters(), lr=3e-3)
    rng = pb.random.Generator(0)
    n, batch = train[0].shape[0], 64
    before = accuracy(model, test)
    for _ in range(12):
        order = pb.random.permutation(n, rng=rng)
        for i in range(0, n - batch + 1, batch):
            rows = order[i : i + batch]
            loss = pb.losses.cross_entropy(model(train[0][rows]), train[1][rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
    assert before < 0.5
    assert accuracy(model, test) >= goal
