"""Row 20: clipping by norm equals that of torch on 50 tensors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pullback as pb  # noqa: E402
from pullback import optim  # noqa: E402


@pytest.mark.parametrize("limit", [0.5, 3.0, 1e6])
def test_clipping_equals_torch(limit):
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=rng.integers(1, 40, size=2)).astype(np.float32) for _ in range(50)]
    ours = [pb.tensor(np.zeros_like(g)) for g in grads]
    theirs = [torch.zeros(g.shape, requires_grad=True) for g in grads]
    for p, q, g in zip(ours, theirs, grads, strict=True):
        p.grad, q.grad = pb.tensor(g), torch.tensor(g)
    a, b = optim.clip_grad_norm_(ours, limit), torch.nn.utils.clip_grad_norm_(theirs, limit).item()
    assert abs(a / b - 1) <= 1e-6
    x = np.concatenate([p.grad.numpy().ravel() for p in ours]).astype(np.float64)
    y = np.concatenate([q.grad.numpy().ravel() for q in theirs]).astype(np.float64)
    assert np.linalg.norm(x - y) <= 1e-6 * np.linalg.norm(y)
