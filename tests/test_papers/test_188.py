"""Row 188, "Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth": normalised steps and SPIDER.

The whole check is run.
"""

import numpy as np

import pullback as pb
from pullback import optim


def tensor(x):
    t = pb.tensor(np.asarray(x, np.float64))
    t.requires_grad = True
    return t


def test_quartic_shrinks_by_a_constant_factor():
    x = tensor([10.0])
    opt = optim.NormalizedGD([x], lr=0.1, beta=2 / 3)
    for t in range(1, 31):
        opt.step(lambda: (x**4).sum())
        assert abs(x.item() / (10 * (1 - 0.1 * 4 ** (1 / 3)) ** t) - 1) <= 1e-12
    assert abs(x.item() - 0.0559636) <= 5e-8


def test_gradient_descent_diverges_there():
    x = tensor([10.0])
    opt = optim.SGD([x], lr=0.01)
    for _ in range(8):
        opt.step(lambda: (x**4).sum())
    assert not np.isfinite(x.item())


def test_ends_of_beta():
    rng = np.random.default_rng(188)
    start = [rng.normal(size=s) for s in [(5, 3), (7,)]]
    params = {beta: [pb.tensor(p) for p in start] for beta in (0.0, 1.0, None)}
    opts = {b: optim.NormalizedGD(params[b], lr=0.02, beta=b) for b in (0.0, 1.0)}
    opts[None] = optim.SGD(params[None], lr=0.02)
    for _ in range(20):
        grads = [pb.tensor(rng.normal(size=p.shape)) for p in start]
        before = np.concatenate([np.array(p.numpy()).ravel() for p in params[1.0]])
        for opt in opts.values():
            opt.step(grads=grads)
        after = np.concatenate([p.numpy().ravel() for p in params[1.0]])
        assert abs(np.linalg.norm(after - before) - 0.02) <= 1e-12
        for p, q in zip(params[0.0], params[None], strict=True):
            assert np.max(np.abs(p.numpy() - q.numpy())) <= 1e-15 * max(1, np.max(np.abs(q.numpy())))


def test_spider_with_full_batches_is_exact():
    rng = np.random.default_rng(1)
    data, target = rng.normal(size=(40, 6)), rng.normal(size=40)
    td, tt = pb.tensor(data), pb.tensor(target)
    w = tensor(np.ones(6))
    opt = optim.SPIDER([w], lr=0.01, period=5)
    for _ in range(50):
        before = np.array(w.detach().numpy())
        t = np.tanh(data @ before)
        full = ((t - target) * (1 - t * t)) @ data / 40
        opt.step(lambda: 0.5 * ((pb.tanh(td @ w) - tt) ** 2).mean())
        assert np.max(np.abs(opt.estimate[0].numpy() - full)) <= 1e-12
        assert abs(np.linalg.norm(w.detach().numpy() - before) - 0.01) <= 1e-12
