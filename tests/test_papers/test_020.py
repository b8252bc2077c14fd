"""Row 20, "On the difficulty of training Recurrent Neural Networks": clipping by norm, and the regulariser Omega.

The comparison with torch stands in test_020_torch.py; all else of the check is run here.
"""

import numpy as np
import pytest

import pullback as pb
from pullback import optim


@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0, 1e4])
@pytest.mark.parametrize("limit", [0.1, 2.0, 50.0])
def test_norm_after_clipping(scale, limit):
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=s) for s in [(3, 4), (17,), ()]]
    norm = np.sqrt(sum((g * g).sum() for g in grads))
    grads = [np.asarray(g * scale / norm) for g in grads]
    params = [pb.tensor(np.zeros_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = pb.tensor(g)
    assert abs(optim.clip_grad_norm_(params, limit) / scale - 1) <= 1e-12
    after = np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in params))
    if scale >= 2:
        assert abs(after / min(scale, limit) - 1) <= 1e-6
    assert abs(after - scale * min(1.0, limit / (scale + 1e-6))) <= 1e-12 * scale


def test_fused_clipping_equals_clipping_before_adam():
    rng = np.random.default_rng(1)
    shapes = [(30, 7), (129,), (1,), (64, 64)]
    start = [rng.normal(size=s).astype(np.float32) for s in shapes]
    fused, apart = [pb.tensor(p) for p in start], [pb.tensor(p) for p in start]
    a, b = optim.Adam(fused, lr=1e-3), optim.Adam(apart, lr=1e-3)
    for _ in range(20):
        grads = [rng.normal(size=s).astype(np.float32) for s in shapes]
        a.step(grads=[pb.tensor(g) for g in grads], clip_norm=1.0)
        for p, g in zip(apart, grads, strict=True):
            p.grad = pb.tensor(g)
        norm = optim.clip_grad_norm_(apart, 1.0)
        assert abs(a.last_norm / norm - 1) <= 1e-6
        b.step()
    x, y = (np.concatenate([p.numpy().ravel() for p in ps]).astype(np.float64) for ps in (fused, apart))
    assert np.linalg.norm(x - y) <= 1e-6 * np.linalg.norm(y)


# ---- the regulariser of vanishing gradients, on x_{k+1} = W x_k + b_k

N, T = 20, 30


def states(w, b, x0):
    """x_1 .. x_T, each one a leaf of its own step, as the frozen cotangents need."""
    out = [x0]
    for k in range(T):
        out.append(w @ out[-1] + b[k])
    return out


def cotangents(w, b, x0, c):
    """v_k = dE/dx_{k+1} for E = c . x_T + |x_T|^2 / 2, detached."""
    last = states(w, b, x0)[-1]
    v = pb.grad(lambda x: pb.vecdot(c, x) + 0.5 * pb.vecdot(x, x))(last)
    found = [v]
    for _ in range(T - 1):
        found += pb.vjp(lambda x: w @ x, x0)[1](found[-1])
    return [pb.stop_gradient(v) for v in reversed(found)]


def omega(w, v, b, x):
    total = 0.0
    for k in range(T):
        _, pull = pb.vjp(lambda z, k=k: w @ z + b[k], x[k])
        (back,) = pull(v[k])
        total = total + (pb.sqrt((back * back).sum()) / pb.sqrt((v[k] * v[k]).sum()) - 1) ** 2
    return total


def setup(seed):
    rng = np.random.default_rng(seed)
    b, x0, c = (pb.tensor(rng.normal(size=s)) for s in ((T, N), (N,), (N,)))
    return rng, b, x0, c


def value_and_slope(w, b, x0, c):
    tw = pb.tensor(w)
    v, x = cotangents(tw, b, x0, c), states(tw, b, x0)
    value, slope = pb.value_and_grad(lambda m: omega(m, v, b, x))(tw)
    return value.item(), slope.numpy(), [np.array(r.numpy()) for r in v]


@pytest.mark.parametrize("s", [0.9, 1.1])
def test_omega_of_a_scaled_rotation(s):
    rng, b, x0, c = setup(2)
    q = np.linalg.qr(rng.normal(size=(N, N)))[0]
    value, slope, v = value_and_slope(s * q, b, x0, c)
    assert abs(value - T * (s - 1) ** 2) <= 1e-6
    compare(s * q, slope, v)


def test_slope_of_omega_at_a_random_matrix():
    rng, b, x0, c = setup(3)
    w = rng.normal(size=(N, N)) / np.sqrt(N)
    value, slope, v = value_and_slope(w, b, x0, c)
    assert abs(value - reference(w, v)) <= 1e-12 * value
    compare(w, slope, v)


def reference(w, v):
    return sum((np.linalg.norm(r @ w) / np.linalg.norm(r) - 1) ** 2 for r in v)


def compare(w, slope, v):
    h, want = 1e-6, np.zeros_like(w)
    for i in np.ndindex(*w.shape):
        up, down = w.copy(), w.copy()
        up[i] += h
        down[i] -= h
        want[i] = (reference(up, v) - reference(down, v)) / (2 * h)
    assert np.linalg.norm(slope - want) <= 1e-4 * np.linalg.norm(want)
