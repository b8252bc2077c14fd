"""Row 90: AMSGrad equals torch.optim.Adam(amsgrad=True) on 50 tensors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pullback as pb  # noqa: E402
from pullback import optim  # noqa: E402


def test_a_hundred_steps_of_fifty_tensors():
    rng = np.random.default_rng(90)
    start = [rng.normal(size=rng.integers(1, 30, size=2)).astype(np.float32) for _ in range(50)]
    ours, theirs = [pb.tensor(p) for p in start], [torch.tensor(p, requires_grad=True) for p in start]
    a, b = optim.Adam(ours, lr=1e-3, amsgrad=True), torch.optim.Adam(theirs, lr=1e-3, amsgrad=True)
    for _ in range(100):
        grads = [rng.normal(size=p.shape).astype(np.float32) for p in start]
        for q, g in zip(theirs, grads, strict=True):
            q.grad = torch.tensor(g)
        a.step(grads=[pb.tensor(g) for g in grads])
        b.step()
    x = np.concatenate([p.numpy().ravel() for p in ours]).astype(np.float64)
    y = np.concatenate([q.detach().numpy().ravel() for q in theirs]).astype(np.float64)
    assert np.linalg.norm(x - y) <= 1e-6 * np.linalg.norm(y)
