"""Function transforms over nested containers and modules."""

import numpy as np
import pytest

import pullback as pb


def f(x):
    return (pb.sin(x) * x).sum()


X = pb.tensor([0.3, -1.2, 2.0], dtype=pb.float64)


def test_grad_of_containers():
    params = {"w": X, "b": [pb.tensor(2.0, dtype=pb.float64), (X * 2,)]}

    def loss(p, scale):
        return ((p["w"] * p["b"][0] + p["b"][1][0]) * scale).sum()

    g = pb.grad(loss)(params, 3.0)
    assert list(g) == ["w", "b"]
    assert isinstance(g["b"], list) and isinstance(g["b"][1], tuple)
    assert g["w"].tolist() == [6, 6, 6]
    assert g["b"][1][0].tolist() == [3, 3, 3]
    value, gs = pb.value_and_grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(X, X * 2)
    assert gs[0].tolist() == (X * 2).tolist() and gs[1].tolist() == X.tolist()
    assert not value.requires_grad and not gs[0].requires_grad


def test_has_aux_and_errors():
    g, aux = pb.grad(lambda x: ((x * x).sum(), {"n": x * 1}), has_aux=True)(X)
    assert g.tolist() == (2 * X).tolist()
    assert aux["n"].tolist() == X.tolist() and not aux["n"].requires_grad
    with pytest.raises(pb.GraphError, match="one element"):
        pb.grad(lambda x: x * 2)(X)
    with pytest.raises(pb.ShapeError, match="argnums 2"):
        pb.grad(f, argnums=2)(X)
    with pytest.raises(pb.DTypeError, match="only floating"):
        pb.grad(lambda x: x.sum())(pb.tensor([1, 2]))
    with pytest.raises(pb.DTypeError, match="argument of type str"):
        pb.grad(f)("a")


def test_independent_inputs_give_zeros():
    assert pb.grad(lambda x, y: (x * 2).sum(), argnums=1)(X, X).tolist() == [0, 0, 0]
    assert pb.grad(lambda x: pb.tensor(1.0))(X).tolist() == [0, 0, 0]
    a = pb.tensor([1.0], requires_grad=True)
    b = pb.tensor([1.0], requires_grad=True)
    assert pb.gradients((a * 2).sum(), [a, b])[1].tolist() == [0]
    (a * 2).sum().backward()
    assert b.grad is None


def test_grad_inside_no_grad():
    with pb.no_grad():
        assert pb.grad(lambda x: (x * x).sum())(X).tolist() == (2 * X).tolist()


def test_captured_tensors_stay_differentiable():
    w = pb.tensor(3.0, dtype=pb.float64, requires_grad=True)
    g = pb.grad(lambda x: (w * x * x).sum())(X)
    g.sum().backward()
    assert abs(w.grad.item() - (2 * X).sum().item()) <= 1e-14


def test_nested_grad_does_not_confuse_levels():
    inner = lambda x: pb.grad(lambda y: x * y * y)(pb.tensor(2.0))  # noqa: E731
    assert pb.grad(inner)(pb.tensor(5.0)).item() == 4.0
    tangled = lambda x: pb.jvp(lambda y: x * y, (pb.tensor(1.0),), (pb.tensor(1.0),))[1]  # noqa: E731
    assert pb.jvp(tangled, (pb.tensor(3.0),), (pb.tensor(1.0),))[1].item() == 1.0


def test_vjp_pulls_more_than_once():
    out, pull = pb.vjp(lambda x, y: {"p": x * y, "s": x + y}, X, X * 2)
    a = pull({"p": pb.ones((3,), dtype=pb.float64), "s": pb.zeros((3,), dtype=pb.float64)})
    b = pull({"p": pb.zeros((3,), dtype=pb.float64), "s": pb.ones((3,), dtype=pb.float64)})
    assert a[0].tolist() == (X * 2).tolist() and b[1].tolist() == [1, 1, 1]
    assert out["s"].tolist() == (X * 3).tolist()
    with pytest.raises(pb.ShapeError, match="cotangents for"):
        pull(X)


def test_jvp_against_closed_form_and_trees():
    v = pb.tensor([1.0, 0.5, -2.0], dtype=pb.float64)
    out, d = pb.jvp(lambda p: {"y": pb.sin(p["x"])}, ({"x": X},), ({"x": v},))
    np.testing.assert_allclose(d["y"].numpy(), np.cos(X.numpy()) * v.numpy(), rtol=1e-14)
    np.testing.assert_allclose(out["y"].numpy(), np.sin(X.numpy()), rtol=1e-14)
    assert pb.jvp(lambda x: pb.ones((2,)), (X,), (v,))[1].tolist() == [0, 0]
    with pytest.raises(pb.ShapeError, match="shape of its primal"):
        pb.jvp(f, (X,), (pb.ones((2,)),))
    with pytest.raises(pb.DTypeError, match="tuples"):
        pb.jvp(f, X, v)
    with pytest.raises(pb.ShapeError, match="2 primals and 1 tangents"):
        pb.jvp(f, (X, X), (v,))


ORDERS = {
    "reverse over reverse": lambda g: pb.jacobian(pb.grad(g), mode="reverse"),
    "forward over reverse": lambda g: pb.jacobian(pb.grad(g), mode="forward"),
    "reverse over forward": lambda g: pb.jacobian(pb.jacobian(g, mode="forward"), mode="reverse"),
    "forward over forward": lambda g: pb.jacobian(pb.jacobian(g, mode="forward"), mode="forward"),
    "hessian": pb.hessian,
}
FUNCTIONS = {
    "elementwise": lambda x: (pb.exp(x) * pb.tanh(x) + pb.sigmoid(x) * pb.sqrt(x * x + 1)).sum(),
    "reduce": lambda x: pb.logsumexp(x) * pb.norm(x) + pb.prod(x) + pb.var(x),
    "views": lambda x: (x[::-1] * pb.reshape(x, (3, 1))[:, 0] * x[1] ** 2).sum(),
    "rows": lambda x: (pb.softmax(x) * pb.log_softmax(x) + pb.layer_norm(x * x)).sum() * x[0],
    "matmul": lambda x: ((pb.outer(x, x * x) @ x) * x).sum(),
}


@pytest.mark.parametrize("how", ORDERS)
@pytest.mark.parametrize("which", FUNCTIONS)
def test_hessians_agree_in_every_order(how, which):
    g = FUNCTIONS[which]
    got = ORDERS[how](g)(X).numpy()
    first = pb.grad(g)
    h = 1e-5
    want = np.stack(
        [(first(X + pb.asarray(e)).numpy() - first(X - pb.asarray(e)).numpy()) / (2 * h) for e in np.eye(3) * h], -1
    )
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_hvp_equals_hessian_product():
    v = pb.tensor([1.0, -1.0, 0.5], dtype=pb.float64)
    g = FUNCTIONS["elementwise"]
    (product,) = pb.hvp(g, (X,), (v,))
    np.testing.assert_allclose(product.numpy(), pb.hessian(g)(X).numpy() @ v.numpy(), rtol=1e-12)
    a, b = pb.hvp(lambda x, y: (x * x * y).sum(), (X, X), (v, v))
    np.testing.assert_allclose(a.numpy(), (2 * X * v + 2 * X * v).numpy(), rtol=1e-12)
    np.testing.assert_allclose(b.numpy(), (2 * X * v).numpy(), rtol=1e-12)


def test_jacobian_modes_and_shapes():
    a = pb.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    for mode in ("auto", "forward", "reverse"):
        j = pb.jacobian(lambda x: pb.sin(a @ x), mode=mode)(X)
        assert j.shape == (4, 3)
        np.testing.assert_allclose(j.numpy(), np.cos(a.numpy() @ X.numpy())[:, None] * a.numpy(), rtol=1e-13)
    m = pb.jacobian(lambda m: (m * m).sum(axis=0), mode="forward")(a)
    assert m.shape == (3, 4, 3)
    both = pb.jacobian(lambda x, y: x * y, argnums=(0, 1))(X, X * 2)
    assert both[1].shape == (3, 3)
    assert pb.jacobian(lambda x: x * 2)(pb.zeros((0,))).shape == (0, 0)
    with pytest.raises(ValueError, match="unknown mode"):
        pb.jacobian(f, mode="sideways")


def test_linearize():
    out, push = pb.linearize(pb.sin, X)
    v = pb.ones((3,), dtype=pb.float64)
    np.testing.assert_allclose(push(v).numpy(), np.cos(X.numpy()), rtol=1e-14)
    np.testing.assert_allclose(push(v * 2).numpy(), 2 * np.cos(X.numpy()), rtol=1e-14)
    assert out.tolist() == pb.sin(X).tolist()


def test_checkpoint_recomputes_and_keeps_less():
    w = pb.tensor(np.random.default_rng(0).normal(size=(20, 20)) / 5, requires_grad=True)

    def block(x):
        for _ in range(4):
            x = pb.tanh(x @ w)
        return pb.dropout(x, 0.5)

    def run(g):
        pb.manual_seed(5)
        x = pb.tensor(np.random.default_rng(1).normal(size=(8, 20)), requires_grad=True)
        y = (g(x) ** 2).sum() + pb.random.uniform().item()
        kept = pb.memory.saved_bytes(y)
        y.backward()
        grads = x.grad.numpy().copy(), w.grad.numpy().copy()
        w.grad = None
        return y.item(), kept, *grads

    plain, thrifty = run(block), run(pb.checkpoint(block))
    assert plain[0] == thrifty[0]
    assert thrifty[1] < plain[1] / 2
    assert (plain[2] == thrifty[2]).all() and (plain[3] == thrifty[3]).all()


def test_checkpoint_nests_and_differentiates_twice():
    g = pb.checkpoint(lambda x: pb.checkpoint(pb.sin)(x) * x)
    x = pb.tensor(0.7, dtype=pb.float64, requires_grad=True)
    (d,) = pb.gradients(g(x), x, create_graph=True)
    (d2,) = pb.gradients(d, x)
    assert abs(d.item() - (np.cos(0.7) * 0.7 + np.sin(0.7))) <= 1e-14
    assert abs(d2.item() - (2 * np.cos(0.7) - 0.7 * np.sin(0.7))) <= 1e-14


def test_checkpoint_with_captured_results():
    x = pb.tensor(2.0, dtype=pb.float64, requires_grad=True)
    h = x * x
    y = pb.checkpoint(lambda v: v * h)(h * 3)  # h is used inside and outside
    (y + h).backward()
    assert x.grad.item() == 12 * 8 + 4


def test_custom_rules():
    calls = []

    @pb.custom
    def clipped(x, limit):
        return pb.clip(x, -limit, limit)

    @clipped.pull
    def _(g, out, x, limit):
        calls.append(limit)
        return g * 2

    @clipped.push
    def _(tangents, out, x, limit):
        return tangents[0] * 2

    assert pb.grad(lambda x: clipped(x, 1.0).sum())(X).tolist() == [2, 2, 2]
    assert calls == [1.0]
    assert pb.jvp(lambda x: clipped(x, 1.0), (X,), (X,))[1].tolist() == (X * 2).tolist()
    assert clipped(X, 1.0).tolist() == [0.3, -1.0, 1.0]


def test_custom_is_differentiable_again_and_takes_many():
    @pb.custom
    def product(x, y):
        return x * y, x + y

    @product.pull
    def _(g, out, x, y):
        return g[0] * y + g[1], g[0] * x + g[1]

    h = pb.hessian(lambda x: (product(x, x)[0] * product(x, x)[1]).sum())

    with pytest.raises(pb.GraphError, match="no forward-mode rule"):
        h(X)
    second = pb.jacobian(pb.grad(lambda x: (product(x, x)[0] * x).sum()), mode="reverse")(X)
    np.testing.assert_allclose(second.numpy(), np.diag(6 * X.numpy()), rtol=1e-13)


def test_custom_errors():
    @pb.custom
    def g(x):
        return x * 2

    with pytest.raises(pb.GraphError, match="has no pull"):
        g(X)

    @g.pull
    def _(c, out, x):
        return c, c

    with pytest.raises(pb.GraphError, match="returned 2 values for 1"):
        pb.grad(lambda x: g(x).sum())(X)
    g.pull(lambda c, out, x: pb.ones((7,)))
    with pytest.raises(pb.ShapeError, match="another shape"):
        pb.grad(lambda x: g(x).sum())(X)


def test_stop_gradient():
    assert pb.grad(lambda x: (pb.stop_gradient(x) * x).sum())(X).tolist() == X.tolist()


def test_module_arguments():
    model = pb.nn.Linear(3, 2)
    x = pb.ones((4, 3))
    _, g = pb.value_and_grad(lambda m: (m(x) ** 2).sum())(model)
    assert set(g) == {"weight", "bias"}
    (model(x) ** 2).sum().backward()
    np.testing.assert_allclose(g["weight"].numpy(), model.weight.grad.numpy(), rtol=1e-6)
    assert isinstance(model.weight, pb.nn.Parameter)
    moved = {k: p.detach() + 1 for k, p in model.named_parameters()}
    assert pb.functional_call(model, moved, x).shape == (4, 2)
    params = {k: p.detach() for k, p in model.named_parameters()}
    g2 = pb.grad(lambda p: (pb.functional_call(model, p, x) ** 2).sum())(params)
    np.testing.assert_allclose(g2["bias"].numpy(), g["bias"].numpy(), rtol=1e-6)


def test_jvp_of_an_mlp_keeps_peak_memory_flat():
    def peak(depth):
        ws = [pb.ones((64, 64)) * 0.01 for _ in range(depth)]

        def mlp(x):
            for w in ws:
                x = pb.gelu(x @ w)
            return x

        x = pb.ones((256, 64))
        pb.jvp(mlp, (x,), (x,))
        base = pb.memory.stats()["current"]
        pb._core.reset_peak_memory()
        pb.jvp(mlp, (x,), (x,))
        return pb.memory.stats()["peak"] - base

    assert peak(12) <= peak(3) + 4096
