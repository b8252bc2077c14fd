"""Rows, losses and attention give PyTorch's values and gradients."""

import numpy as np
import pytest

import pullback as pb
from pullback import losses

torch = pytest.importorskip("torch")
F = torch.nn.functional


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X, W, B = draw(6, 40), draw(40, seed=1), draw(40, seed=2)
IMAGE, CW, CB = draw(3, 6, 5, 4), draw(6, seed=1), draw(6, seed=2)
CLASSES = np.random.default_rng(3).integers(0, 40, 6)
PIXELS = np.random.default_rng(4).integers(0, 6, (3, 5, 4))
POSITIVE = np.abs(draw(40, seed=5)) + 0.1
Q = np.random.default_rng(6).uniform(0.05, 0.95, (6, 40))
QKV = [draw(2, 3, n, 8, seed=n) for n in (70, 90, 90)]
MASK = np.random.default_rng(7).uniform(size=(70, 90)) > 0.3


def t(x):
    return torch.from_numpy(np.array(x))


def p(x):
    return pb.asarray(np.array(x))


def ce(**k):
    ours = {a: p(v) if isinstance(v, np.ndarray) else v for a, v in k.items()}
    theirs = {a: t(v) if isinstance(v, np.ndarray) else v for a, v in k.items()}
    return (
        lambda x: losses.cross_entropy(x, p(CLASSES), **{a: cast_like(v, x) for a, v in ours.items()}),
        lambda x: F.cross_entropy(
            x, t(CLASSES), **{a: v.to(x.dtype) if torch.is_tensor(v) else v for a, v in theirs.items()}
        ),
    )


def cast_like(v, x):
    return v.astype(x.dtype) if isinstance(v, pb.Tensor) else v


# name: (ours, PyTorch's, inputs)
CASES = {
    "softmax": (lambda x: pb.softmax(x), lambda x: F.softmax(x, -1), [X]),
    "softmax, axis 1 of 4": (lambda x: pb.softmax(x, 1), lambda x: F.softmax(x, 1), [IMAGE]),
    "log_softmax": (lambda x: pb.log_softmax(x), lambda x: F.log_softmax(x, -1), [X]),
    "layer_norm": (lambda x, w, b: pb.layer_norm(x, w, b), lambda x, w, b: F.layer_norm(x, (40,), w, b), [X, W, B]),
    "layer_norm, two axes": (
        lambda x: pb.layer_norm(x, axis=(2, 3), eps=1e-3),
        lambda x: F.layer_norm(x, (5, 4), eps=1e-3),
        [IMAGE],
    ),
    "rms_norm": (lambda x, w: pb.rms_norm(x, w), lambda x, w: F.rms_norm(x, (40,), w, 1e-6), [X, W]),
    "group_norm": (
        lambda x, w, b: pb.group_norm(x, 3, w, b),
        lambda x, w, b: F.group_norm(x, 3, w, b),
        [IMAGE, CW, CB],
    ),
    "batch_norm": (
        lambda x, w, b: pb.batch_norm(x, None, None, w, b, training=True),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        [IMAGE, CW, CB],
    ),
    "batch_norm, columns": (
        lambda x, w, b: pb.batch_norm(x, None, None, w, b, training=True),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        [X, W, B],
    ),
    "cumulative_sum": (lambda x: pb.cumulative_sum(x, axis=0), lambda x: x.cumsum(0), [X]),
    "sort": (lambda x: pb.sort(x, descending=True), lambda x: x.sort(-1, descending=True)[0], [X]),
    "topk": (lambda x: pb.topk(x, 3, axis=0)[0], lambda x: x.topk(3, 0)[0], [X]),
    "cross_entropy": (*ce(), [X]),
    "cross_entropy, smoothing": (*ce(label_smoothing=0.1), [X]),
    "cross_entropy, weight": (*ce(weight=POSITIVE, label_smoothing=0.2), [X]),
    "cross_entropy, ignore": (*ce(ignore_index=int(CLASSES[0]), reduction="sum"), [X]),
    "cross_entropy, pixels": (
        lambda x: losses.cross_entropy(x, p(PIXELS), axis=1),
        lambda x: F.cross_entropy(x, t(PIXELS)),
        [IMAGE],
    ),
    "cross_entropy, probabilities": (losses.cross_entropy, F.cross_entropy, [X, Q]),
    "nll": (lambda x: losses.nll(x, p(CLASSES)), lambda x: F.nll_loss(x, t(CLASSES)), [X]),
    "mse": (losses.mse, F.mse_loss, [X, Q]),
    "l1": (losses.l1, F.l1_loss, [X, Q]),
    "huber": (lambda a, b: losses.huber(a, b, delta=0.7), lambda a, b: F.huber_loss(a, b, delta=0.7), [X, Q]),
    "smooth_l1": (lambda a, b: losses.smooth_l1(a, b, beta=0.7), lambda a, b: F.smooth_l1_loss(a, b, beta=0.7), [X, Q]),
    "bce": (losses.bce_with_logits, F.binary_cross_entropy_with_logits, [X, Q]),
    "bce, pos_weight": (
        lambda a, b: losses.bce_with_logits(a, b, pos_weight=2.5),
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, pos_weight=torch.tensor(2.5)),
        [X, Q],
    ),
    "kl_div": (
        lambda a, b: losses.kl_div(a, b, reduction="batchmean"),
        lambda a, b: F.kl_div(a, b, reduction="batchmean"),
        [X, Q],
    ),
    "cosine_embedding": (
        lambda a, b: losses.cosine_embedding(a, b, p(np.where(np.arange(6) % 2, 1, -1)), margin=-0.5),
        lambda a, b: F.cosine_embedding_loss(a, b, t(np.where(np.arange(6) % 2, 1, -1)), margin=-0.5),
        [X, Q],
    ),
    "attention": (pb.scaled_dot_product_attention, F.scaled_dot_product_attention, QKV),
    "attention, causal": (
        lambda q, k, v: pb.scaled_dot_product_attention(q, k, v, causal=True),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        QKV,
    ),
    "attention, mask": (
        lambda q, k, v: pb.scaled_dot_product_attention(q, k, v, p(MASK), scale=0.2),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, t(MASK), scale=0.2),
        QKV,
    ),
}


def error(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    assert a.shape == b.shape
    return np.max(np.abs(a - b) / np.maximum(1.0, np.abs(b)), initial=0.0)


@pytest.mark.parametrize("dtype,tol", [(np.float32, 4e-6), (np.float64, 1e-11)])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, dtype, tol):
    ours, theirs, inputs = CASES[name]
    a = [pb.tensor(x.astype(dtype), requires_grad=True) for x in inputs]
    b = [torch.tensor(x.astype(dtype), requires_grad=True) for x in inputs]
    y, z = ours(*a), theirs(*b)
    assert error(y.detach().numpy(), z.detach().numpy()) <= tol
    c = draw(*y.shape, seed=11).astype(dtype)
    (y * pb.asarray(c)).sum().backward()
    (z * torch.from_numpy(np.asarray(c))).sum().backward()
    for u, v in zip(a, b, strict=True):
        scale = max(1.0, float(v.grad.abs().max()))
        assert error(u.grad.numpy() / scale, v.grad.numpy() / scale) <= tol


def test_batch_norm_updates_running_statistics_as_pytorch_does():
    mean, var = pb.zeros((6,)), pb.ones((6,))
    theirs = torch.zeros(6), torch.ones(6)
    for seed in range(3):
        x = draw(3, 6, 5, 4, seed=seed).astype(np.float32)
        pb.batch_norm(pb.asarray(x), mean, var, training=True, momentum=0.2)
        F.batch_norm(torch.from_numpy(x), *theirs, training=True, momentum=0.2)
    assert error(mean.numpy(), theirs[0].numpy()) <= 1e-6
    assert error(var.numpy(), theirs[1].numpy()) <= 1e-6


def test_orders_of_nan_are_pytorchs():
    x = np.array([2.0, np.nan, -1.0, np.inf, np.nan])
    for descending in (False, True):
        want = torch.from_numpy(x).sort(stable=True, descending=descending)[1].numpy()
        np.testing.assert_array_equal(pb.argsort(pb.asarray(x), descending=descending).numpy(), want)
