"""Row 158, "Doubly Adaptive Scaled Algorithm for Machine Learning Using Second-Order Information" (OASIS).

The whole check is run.
"""

import numpy as np

import pullback as pb
from pullback import _core as C
from pullback import optim

H = np.logspace(-3, 3, 50)


def tensor(x):
    t = pb.tensor(np.asarray(x, np.float64))
    t.requires_grad = True
    return t


def test_diagonal_quadratic_of_condition_a_million():
    x, h = tensor(np.ones(50)), pb.tensor(H)
    opt = optim.OASIS([x], lr0=1e-3, beta2=0.99, alpha=1e-3, warmup=1)
    norms = [np.linalg.norm(H)]
    for t in range(1, 61):
        opt.step(lambda: 0.5 * (h * x * x).sum())
        d = opt.state_dict()
        assert np.max(np.abs(d["oasis.diagonal.0"].numpy() / H - 1)) <= 1e-14
        assert abs(d["oasis.eta"] - (1e-3 if t == 1 else 0.5)) <= 1e-12
        norms.append(np.linalg.norm(H * x.detach().numpy()))
    ratios = np.array(norms[1:]) / np.array(norms[:-1])
    assert abs(ratios[0] - 0.999) <= 1e-12
    assert np.max(np.abs(ratios[1:] - 0.5)) <= 1e-12
    assert all(n < 1e-10 for n in norms[45:])


def full():
    a = np.random.default_rng(158).normal(size=(10, 10))
    return a @ a.T


def test_mean_of_the_probes():
    h = full()
    x, th = tensor(np.ones(10)), pb.tensor(h)
    pb.manual_seed(158)
    opt = optim.OASIS([x], warmup=10_000)
    opt.step(lambda: 0.5 * (x @ (th @ x)))
    mean = opt.state_dict()["oasis.diagonal.0"].numpy()
    off = h - np.diag(np.diag(h))
    error = np.sqrt((off**2).sum(axis=1) / 10_000)  # z_i (H z)_i = H_ii + sum of z_i H_ij z_j
    assert np.all(np.abs(mean - np.diag(h)) <= 4 * error)
    assert np.max(np.abs(mean - np.diag(h))) > 0


def test_fifty_steps_equal_the_transcription_with_the_same_probes():
    h = full()
    start = np.random.default_rng(1).normal(size=10)
    x, th = tensor(start), pb.tensor(h)
    pb.manual_seed(7)
    opt = optim.OASIS([x], lr0=1e-3, beta2=0.99, alpha=1e-3, warmup=2)
    path = []
    for _ in range(50):
        opt.step(lambda: 0.5 * (x @ (th @ x)))
        path.append(np.array(x.detach().numpy()))
    pb.manual_seed(7)

    def probe():
        z = C.sign(C.draw_uniform((10,), -1.0, 1.0, C.float64, None)).numpy()
        return z * (h @ z)

    w, before, d, eta, theta = start, None, None, 1e-3, np.inf
    for t in range(50):
        d = (probe() + probe()) / 2 if d is None else 0.99 * d + 0.01 * probe()
        hat = np.maximum(np.abs(d), 1e-3)
        if before is not None:
            dw, dg = w - before, h @ (w - before)
            new = min(np.sqrt(1 + theta) * eta, 0.5 * np.sqrt((hat * dw * dw).sum() / (dg * dg / hat).sum()))
            theta, eta = new / eta, new
        before, w = w, w - eta * (h @ w) / hat
        assert np.linalg.norm(path[t] - w) < 1e-10 * np.linalg.norm(w)
