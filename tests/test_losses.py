"""The losses, against NumPy in float64, finite differences and forward mode."""

import numpy as np
import pytest

import pullback as pb
from pullback import losses


def close(got, want, tol=1e-12):
    got = np.asarray(got.numpy() if isinstance(got, pb.Tensor) else got, dtype=np.float64)
    want = np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape
    err = np.abs(got - want) / np.maximum(1.0, np.abs(want))
    assert got.size == 0 or np.max(err) <= tol, f"max error {np.max(err)}"


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def log_softmax(x, axis=-1):
    m = x.max(axis, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(axis, keepdims=True))


def np_cross_entropy(x, t, weight=None, ignore=None, smoothing=0.0, reduction="mean"):
    """Row by row over the last axis."""
    n = x.shape[-1]
    w = np.ones(n) if weight is None else weight
    logs = log_softmax(x).reshape(-1, n)
    loss, total = [], 0.0
    if t.dtype.kind in "iu":
        for row, c in zip(logs, t.reshape(-1), strict=True):
            if c == ignore:
                loss.append(0.0)
                continue
            q = np.full(n, smoothing / n)
            q[c] += 1 - smoothing
            loss.append(-(q * w * row).sum())
            total += w[c]
    else:
        for row, p in zip(logs, t.reshape(-1, n), strict=True):
            q = p * (1 - smoothing) + smoothing / n
            loss.append(-(q * w * row).sum())
            total += 1
    loss = np.array(loss)
    if reduction == "none":
        return loss.reshape(x.shape[:-1])
    return loss.sum() / (total if reduction == "mean" and total else 1.0)


CLASSES = np.random.default_rng(1).integers(0, 5, (3, 4))
PROBABILITIES = np.random.default_rng(2).dirichlet(np.ones(5), (3, 4))
WEIGHT = np.abs(draw(5, seed=3)) + 0.1


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, 2])
def test_cross_entropy_of_classes(reduction, smoothing, weighted, ignore):
    x = draw(3, 4, 5)
    w = WEIGHT if weighted else None
    kw = {"ignore_index": ignore, "label_smoothing": smoothing, "reduction": reduction}
    if weighted:
        kw["weight"] = pb.asarray(w)
    want = np_cross_entropy(x, CLASSES, w, ignore, smoothing, reduction)
    close(losses.cross_entropy(pb.asarray(x), pb.asarray(CLASSES), **kw), want)
    moved = pb.asarray(np.moveaxis(x, -1, 1).copy())
    close(losses.cross_entropy(moved, pb.asarray(CLASSES), axis=1, **kw), want)
    for dtype in (np.int32, np.uint8):
        close(losses.cross_entropy(pb.asarray(x), pb.asarray(CLASSES.astype(dtype)), **kw), want)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_probabilities(reduction, smoothing, weighted):
    x = draw(3, 4, 5)
    w = WEIGHT if weighted else None
    kw = {"label_smoothing": smoothing, "reduction": reduction, "weight": pb.asarray(w) if weighted else None}
    want = np_cross_entropy(x, PROBABILITIES, w, None, smoothing, reduction)
    close(losses.cross_entropy(pb.asarray(x), pb.asarray(PROBABILITIES), **kw), want)
    moved = [pb.asarray(np.moveaxis(v, -1, 0).copy()) for v in (x, PROBABILITIES)]
    close(losses.cross_entropy(*moved, axis=0, **kw), want)


def test_one_row_without_a_batch():
    x = draw(5)
    close(losses.cross_entropy(pb.asarray(x), pb.asarray(3)), -log_softmax(x)[3])
    close(losses.cross_entropy(pb.asarray(x), pb.tensor(3), reduction="none"), -log_softmax(x)[3])


def test_all_rows_ignored_gives_zero():
    x = pb.tensor(draw(3, 5), requires_grad=True)
    for f in (losses.cross_entropy, losses.nll):
        x.grad = None
        loss = f(x, pb.asarray(np.full(3, -100)), ignore_index=-100)
        assert loss.item() == 0.0
        loss.backward()
        assert x.grad.tolist() == [[0.0] * 5] * 3


def test_ignored_rows_may_hold_anything():
    x = draw(3, 5)
    x[1] = np.nan
    t = pb.tensor(x, requires_grad=True)
    target = pb.asarray(np.array([0, -1, 2]))
    for graph in (False, True):
        t.grad = None
        loss = losses.cross_entropy(t, target, ignore_index=-1)
        close(loss, np_cross_entropy(x[[0, 2]], np.array([0, 2])))
        loss.backward(create_graph=graph)
        assert np.isfinite(t.grad.detach().numpy()).all()
        assert t.grad.detach().numpy()[1].tolist() == [0.0] * 5
    _, pushed = pb.jvp(lambda v: losses.cross_entropy(v, target, ignore_index=-1), (pb.asarray(x),), (pb.ones((3, 5)),))
    assert np.isfinite(pushed.item())


def test_empty_batches_and_large_logits():
    t = pb.asarray(np.zeros(0, dtype=np.int64))
    assert losses.cross_entropy(pb.zeros((0, 5)), t).item() == 0.0
    assert losses.cross_entropy(pb.zeros((0, 5)), t, reduction="none").shape == (0,)
    assert losses.nll(pb.zeros((0, 5)), t).item() == 0.0
    x = np.array([[3e4, 3e4 + 1, 0.0]], dtype=np.float32)
    close(losses.cross_entropy(pb.asarray(x), pb.asarray(np.array([0]))), np.log1p(np.exp(1.0)), 1e-6)
    x = np.array([[0.0, -np.inf]])
    assert losses.cross_entropy(pb.asarray(x), pb.asarray(np.array([0]))).item() == 0.0
    assert losses.cross_entropy(pb.asarray(x), pb.asarray(np.array([1]))).item() == np.inf
    one_hot = pb.asarray(np.array([[1.0, 0.0]]))
    assert losses.cross_entropy(pb.asarray(x), one_hot).item() == 0.0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types(dtype):
    d = getattr(pb, dtype)
    x = pb.tensor(draw(4, 5), dtype=d, requires_grad=True)
    loss = losses.cross_entropy(x, pb.asarray(CLASSES[0]))
    assert loss.dtype == d
    wide = losses.cross_entropy(x.detach().astype(pb.float32), pb.asarray(CLASSES[0]))
    assert loss.item() == wide.astype(d).item()
    loss.backward()
    assert x.grad.dtype == d


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nll(weighted, ignore, reduction):
    x = draw(3, 4, 5)
    w = WEIGHT if weighted else None
    got = losses.nll(
        pb.log_softmax(pb.asarray(x)),
        pb.asarray(CLASSES),
        weight=pb.asarray(w) if weighted else None,
        ignore_index=ignore,
        reduction=reduction,
    )
    close(got, np_cross_entropy(x, CLASSES, w, ignore, 0.0, reduction))


# ---- element-wise losses

A, B = draw(3, 4), draw(3, 4, seed=1)
Q = np.random.default_rng(5).uniform(0.1, 0.9, (3, 4))
SIGNS = np.sign(draw(3, 4, seed=6))


def np_huber(d, delta):
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


def np_cosine(a, b, t, margin):
    cos = (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.where(t == 1, 1 - cos, np.maximum(0, cos - margin))


def np_bce(x, t):
    return -(t * np.log(1 / (1 + np.exp(-x))) + (1 - t) * np.log(1 - 1 / (1 + np.exp(-x))))


# name: (loss, its differentiable inputs, what it is per element)
ELEMENTWISE = {
    "mse": (losses.mse, [A, B], (A - B) ** 2),
    "l1": (losses.l1, [A, B], np.abs(A - B)),
    "huber": (lambda a, b, **k: losses.huber(a, b, delta=0.7, **k), [A, B], np_huber(A - B, 0.7)),
    "smooth_l1": (lambda a, b, **k: losses.smooth_l1(a, b, beta=0.7, **k), [A, B], np_huber(A - B, 0.7) / 0.7),
    "smooth_l1, beta 0": (lambda a, b, **k: losses.smooth_l1(a, b, beta=0, **k), [A, B], np.abs(A - B)),
    "bce": (losses.bce_with_logits, [A, Q], np_bce(A, Q)),
    "bce, weights": (
        lambda a, b, **k: losses.bce_with_logits(
            a, b, weight=pb.asarray(np.arange(1.0, 5.0)), pos_weight=pb.asarray(2.0), **k
        ),
        [A, Q],
        np.arange(1.0, 5.0) * -(2 * Q * -np.log1p(np.exp(-A)) + (1 - Q) * -np.log1p(np.exp(A))),
    ),
    "kl_div": (losses.kl_div, [A, Q], Q * (np.log(Q) - A)),
    "kl_div, log": (lambda a, b, **k: losses.kl_div(a, b, log_target=True, **k), [A, B], np.exp(B) * (B - A)),
    "hinge": (lambda a, **k: losses.hinge(a, pb.asarray(SIGNS), **k), [A], np.maximum(0, 1 - SIGNS * A)),
    "cosine_embedding": (
        lambda a, b, **k: losses.cosine_embedding(a, b, pb.asarray(np.array([1, -1, 1])), margin=-0.9, **k),
        [A, B],
        np_cosine(A, B, np.array([1, -1, 1]), -0.9),
    ),
}
SHAPED = {
    "cross_entropy": (lambda x, **k: losses.cross_entropy(x, pb.asarray(CLASSES), **k), [draw(3, 4, 5)]),
    "cross_entropy, all options": (
        lambda x, **k: losses.cross_entropy(
            x, pb.asarray(CLASSES), axis=1, weight=pb.asarray(WEIGHT), ignore_index=2, label_smoothing=0.3, **k
        ),
        [draw(3, 5, 4)],
    ),
    "cross_entropy, probabilities": (
        lambda x, p, **k: losses.cross_entropy(x, p, weight=pb.asarray(WEIGHT), label_smoothing=0.3, **k),
        [draw(3, 4, 5), PROBABILITIES],
    ),
    "nll": (
        lambda x, w, **k: losses.nll(x, pb.asarray(CLASSES), weight=w, ignore_index=2, **k),
        [draw(3, 4, 5), WEIGHT],
    ),
}
ALL = {**{k: v[:2] for k, v in ELEMENTWISE.items()}, **SHAPED}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_and_reductions(name):
    f, inputs, want = ELEMENTWISE[name]
    t = [pb.asarray(v) for v in inputs]
    close(f(*t, reduction="none"), want, 1e-11)
    close(f(*t, reduction="sum"), want.sum(), 1e-11)
    close(f(*t), want.mean(), 1e-11)


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_both_orders(name):
    f, inputs = ALL[name]

    def gradient(at, graph=False):
        t = [pb.tensor(v, requires_grad=True) for v in at]
        loss = f(*t, reduction="none")
        c = pb.asarray(draw(*loss.shape, seed=8))
        return t, pb.gradients(pb.sum(c * loss + 0.1 * loss * loss), t, create_graph=graph)

    def value(at):
        loss = f(*[pb.asarray(v) for v in at], reduction="none")
        return pb.sum(pb.asarray(draw(*loss.shape, seed=8)) * loss + 0.1 * loss * loss).item()

    _, first = gradient(inputs)
    for i, x in enumerate(inputs):
        numeric = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            ends = []
            for h in (1e-6, -1e-6):
                moved = [v.copy() for v in inputs]
                moved[i][at] += h
                ends.append(value(moved))
            numeric[at] = (ends[0] - ends[1]) / 2e-6
        close(first[i], numeric, 2e-7)
    ways = [draw(*x.shape, seed=20 + i) for i, x in enumerate(inputs)]
    t, graph = gradient(inputs, graph=True)
    for a, b in zip(first, graph, strict=True):
        close(b.detach(), a.numpy(), 1e-13)
    along = sum((pb.sum(a * pb.asarray(w)) for a, w in zip(graph, ways, strict=True)), pb.asarray(0.0))
    second = pb.gradients(along, t)
    _, up = gradient([x + 1e-6 * w for x, w in zip(inputs, ways, strict=True)])
    _, down = gradient([x - 1e-6 * w for x, w in zip(inputs, ways, strict=True)])
    for got, a, b in zip(second, up, down, strict=True):
        close(got, (a.numpy() - b.numpy()) / 2e-6, 1e-6)


@pytest.mark.parametrize("name", ALL)
def test_jvp_is_the_transpose_of_vjp(name):
    f, inputs = ALL[name]
    primals = tuple(pb.asarray(v) for v in inputs)
    tangents = tuple(pb.asarray(draw(*v.shape, seed=30 + i)) for i, v in enumerate(inputs))

    def rows(*a):
        return f(*a, reduction="none")

    out, pushed = pb.jvp(rows, primals, tangents)
    close(out, rows(*primals), 1e-13)
    c = pb.asarray(draw(*out.shape, seed=40))
    _, pull = pb.vjp(rows, *primals)
    right = sum(pb.sum(a * b).item() for a, b in zip(pull(c), tangents, strict=True))
    assert abs(pb.sum(pushed * c).item() - right) <= 1e-11 * max(1.0, abs(right))


def test_kl_div_of_zero_probabilities():
    q = pb.tensor(np.array([0.0, 1.0]), requires_grad=True)
    x = pb.tensor(np.array([-3.0, -0.5]), requires_grad=True)
    loss = losses.kl_div(x, q, reduction="sum")
    close(loss.detach(), 0.5)
    loss.backward()
    close(x.grad, [0.0, -1.0])
    assert np.isfinite(q.grad.numpy()).all()
    assert losses.kl_div(pb.zeros((4, 5)), pb.ones((4, 5)) / 5, reduction="batchmean").item() == pytest.approx(
        -np.log(5)
    )


def test_bce_is_finite_for_large_logits():
    x = pb.tensor(np.array([800.0, -800.0, 800.0], dtype=np.float32), requires_grad=True)
    loss = losses.bce_with_logits(x, pb.asarray(np.array([1.0, 0.0, 0.0], dtype=np.float32)), reduction="none")
    assert loss.tolist() == [0.0, 0.0, 800.0]
    pb.sum(loss).backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0]


def test_cosine_of_a_zero_vector_has_a_finite_gradient():
    a = pb.tensor(np.zeros((1, 3)), requires_grad=True)
    losses.cosine_embedding(a, pb.asarray(np.ones((1, 3))), pb.asarray(np.array([1]))).backward()
    assert np.isfinite(a.grad.numpy()).all()


def test_same_bits_for_any_number_of_threads():
    x, target = draw(3000, 130).astype(np.float32), pb.asarray(np.random.default_rng(0).integers(0, 130, 3000))

    def run(threads):
        pb.set_num_threads(threads)
        t = pb.tensor(x, requires_grad=True)
        loss = losses.cross_entropy(t, target, label_smoothing=0.1)
        loss.backward()
        return loss.item(), t.grad.numpy().tobytes()

    assert run(1) == run(2) == run(3)


X, T = pb.zeros((2, 3)), pb.asarray(np.array([0, 1]))
ERRORS = [
    (
        lambda: losses.cross_entropy(X, pb.asarray(np.array([0, 3]))),
        IndexError,
        r"target 3 at position 1 is not in \[0, 3\)",
    ),
    (lambda: losses.cross_entropy(X, pb.asarray(np.array([-1, 0]))), IndexError, "target -1 at position 0"),
    (lambda: losses.nll(X, pb.asarray(np.array([0, 7]))), IndexError, "nll: target 7 at position 1"),
    (lambda: losses.cross_entropy(X, pb.asarray(np.array([0, 1, 2]))), pb.ShapeError, "does not fit the input"),
    (lambda: losses.cross_entropy(X, pb.zeros((2,))), pb.ShapeError, "does not fit the input"),
    (lambda: losses.cross_entropy(X, T, weight=pb.ones((2,))), pb.ShapeError, "one number per class"),
    (lambda: losses.cross_entropy(X, T, label_smoothing=1.5), ValueError, r"label_smoothing must be in \[0, 1\]"),
    (lambda: losses.cross_entropy(X, T, reduction="avg"), ValueError, "reduction must be .* got 'avg'"),
    (lambda: losses.cross_entropy(pb.tensor(1.0), T), pb.ShapeError, "needs a class axis"),
    (lambda: losses.cross_entropy(X, pb.asarray(np.array([True, False]))), TypeError, "integer classes or float"),
    (lambda: losses.cross_entropy(X, X, ignore_index=0), ValueError, "ignore_index= needs integer targets"),
    (
        lambda: losses.cross_entropy(X, T, weight=pb.tensor([1.0, 1.0, 1.0], requires_grad=True)),
        pb.GraphError,
        "class weights is not known",
    ),
    (lambda: losses.nll(X, X), TypeError, "nll: the target must be integer classes"),
    (lambda: losses.mse(X, pb.zeros((3, 2))), pb.ShapeError, "mse: input and target differ in shape"),
    (lambda: losses.mse(pb.zeros((4, 1)), pb.zeros((4,))), pb.ShapeError, "differ in shape"),
    (lambda: losses.l1(X, X, reduction="average"), ValueError, "l1: reduction must be"),
    (lambda: losses.huber(X, X, delta=0), ValueError, "delta must be positive"),
    (lambda: losses.smooth_l1(X, X, beta=-1), ValueError, "beta must not be negative"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors(number):
    f, kind, message = ERRORS[number]
    with pytest.raises(kind, match=message) as e:
        f()
    assert "help:" in str(e.value)
