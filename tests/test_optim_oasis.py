"""OASIS on quadratics, where its diagonal and step size are known."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim

H = np.logspace(-2.9, 3, 50)  # above the floor of 1e-3


def quadratic(h=H):
    x = pb.tensor(np.ones(len(h)))
    x.requires_grad = True
    diagonal = pb.tensor(h)
    return x, lambda: 0.5 * (diagonal * x * x).sum()


def array(x):
    return np.array(x.detach().numpy())


def test_diagonal_quadratic_halves_its_gradient():
    x, closure = quadratic()
    opt = optim.OASIS([x], warmup=1)
    norms = []
    for t in range(50):
        before = array(x)
        norms.append(np.linalg.norm(H * before))
        opt.step(closure)
        diagonal = array(opt.state_dict()["oasis.diagonal.0"])
        assert np.max(np.abs(diagonal / H - 1)) <= 1e-13
        assert abs(opt.state_dict()["oasis.eta"] - (1e-3 if t == 0 else 0.5)) <= 1e-12
    ratios = np.array(norms[2:]) / np.array(norms[1:-1])
    assert np.max(np.abs(ratios - 0.5)) <= 1e-12
    assert norms[1] < norms[0]
    assert norms[48] < 1e-10


def test_numpy_transcription_of_a_full_hessian():
    """One parameter: the signs drop out, so that a transcription needs no random numbers."""
    x = pb.tensor(np.array([1.5]))
    x.requires_grad = True
    opt = optim.OASIS([x], lr0=0.3, beta2=0.5, warmup=3, weight_decay=0.2)

    def slope(v):
        return 4 * v**3 + 2 * v + 0.2 * v

    v, before, d, eta, ratio = 1.5, None, None, 0.3, np.inf
    for _ in range(20):
        opt.step(lambda: (x**4 + x * x).sum())
        c = 12 * v * v + 2 + 0.2
        d = c if d is None else 0.5 * d + 0.5 * c
        if before is not None:
            new = min(np.sqrt(1 + ratio) * eta, 0.5 * d * abs(v - before) / abs(slope(v) - slope(before)))
            ratio, eta = new / eta, new
        before, v = v, v - eta * slope(v) / d
        assert abs(x.item() - v) <= 1e-12
    assert abs(v) < 1e-3


def test_draws_are_unbiased():
    a = np.random.default_rng(0).normal(size=(6, 6))
    h = a @ a.T
    x = pb.tensor(np.ones(6))
    x.requires_grad = True
    opt = optim.OASIS([x], lr0=0.0, warmup=2000)
    matrix = pb.tensor(h)
    opt.step(lambda: 0.5 * (x @ (matrix @ x)))
    off = h - np.diag(np.diag(h))
    deviation = np.sqrt((off**2).sum(axis=1) / 2000)
    assert np.all(np.abs(array(opt.state_dict()["oasis.diagonal.0"]) - np.diag(h)) <= 4 * deviation)


def test_state_continues_bit_for_bit():
    x, closure = quadratic()
    opt = optim.OASIS([x])
    for _ in range(3):
        opt.step(closure)
    y, again = quadratic()
    y.detach()[...] = x.detach()
    other = optim.OASIS([y], lr0=0.7)
    other.load_state_dict(opt.state_dict())
    generator = pb.random.default_generator()
    state = generator.get_state()
    opt.step(closure)
    generator.set_state(state)
    other.step(again)
    assert x.detach().tobytes() == y.detach().tobytes()
    damaged = opt.state_dict()
    del damaged["oasis.before.0"]
    with pytest.raises(ValueError, match=r"load_state_dict: the state has no oasis.before.0"):
        other.load_state_dict(damaged)


def test_bad_arguments():
    x, closure = quadratic()
    for words, message in [
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"warmup": 0}, "warmup must be at least 1"),
        ({"decoupled": True}, "OASIS: weight decay cannot be decoupled"),
    ]:
        with pytest.raises(ValueError, match=message):
            optim.OASIS([x], **words)
    opt = optim.OASIS([x])
    with pytest.raises(ValueError, match="only one group"):
        opt.add_param_group({"params": [pb.ones(2)]})
    with pytest.raises(pb.GraphError, match="differentiates the loss itself"):
        opt.step()
    with pytest.raises(ValueError, match="takes no clipping and no scale"):
        opt.step(closure, clip_norm=1.0)
    with pytest.raises(pb.GraphError, match="init: OASIS needs a closure"):
        opt.init([x])
    with pytest.raises(pb.GraphError, match="update: OASIS needs a closure"):
        opt.update([x], [x], {})
